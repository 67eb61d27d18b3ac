"""The names of what lies in the folder of a dataset; every room that reads or writes there takes them from here."""

DATASET_JSON = "dataset.json"
MANIFEST = "manifest.parquet"
LEDGER = "ledger.parquet"
SHARDS = "shards"
FINISHED = frozenset({DATASET_JSON, MANIFEST, LEDGER, SHARDS})

# what a render job keeps beside them while it runs
UNITS = "units"
LOCK = ".render.lock"
UNFINISHED = frozenset({UNITS, LOCK})

TEMPORARY = ".tmp"  # suffix of what an interrupted write leaves; `verify` reports it, nothing ever reads it
