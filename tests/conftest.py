"""For all tests."""

import os

# Before torch is imported, as in train/cli.py: threads that spin while they wait slow each other down.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
