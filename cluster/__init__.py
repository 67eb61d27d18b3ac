"""The `cluster` room."""
