"""Where the files of a dataset lie: a folder, or a prefix in an object store; read, written, claimed.

`open_store(path_or_url)` is the one door: a `Store`, whose `claim` keeps a second writer away.
"""

from . import naming
from .base import Claim, Store, open_store, under

__all__ = ["Claim", "Store", "naming", "open_store", "under"]
