"""The `render` room."""
