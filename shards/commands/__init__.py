"""`worldtrace shards ...`: one command per file."""
