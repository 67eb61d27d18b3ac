"""One optimizer step: its loss, what all ranks came to, how the weights change, and how all of it is computed."""
