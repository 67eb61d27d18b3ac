"""The `shards` room."""
