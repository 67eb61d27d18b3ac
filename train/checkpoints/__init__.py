"""Checkpoints of a run: folders that are either whole or not there (docs/checkpoints.md).

`Checkpoints` saves while training goes on; `latest` and `find` choose one that is whole; `load` fills the tensors of a
run of any number of ranks from it; `read` and `weights` give whole tensors to one process.
"""

from train.checkpoints.layout import GROUPS, Found, check, find, latest, steps
from train.checkpoints.reading import load, read, read_export, stored, weights
from train.checkpoints.saving import Checkpoints, Saved

__all__ = [
    "GROUPS",
    "Checkpoints",
    "Found",
    "Saved",
    "check",
    "find",
    "latest",
    "load",
    "read",
    "read_export",
    "steps",
    "stored",
    "weights",
]
