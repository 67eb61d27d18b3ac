"""New datasets of old ones without decoding them, and what two datasets differ in."""
