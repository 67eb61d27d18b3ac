"""For all tests."""

import os

# Before torch is imported: its threads must sleep, not spin, while they wait, or tests that share two cores crawl.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
