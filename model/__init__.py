"""The `model` room."""
