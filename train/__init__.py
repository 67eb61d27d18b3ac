"""The `train` room: shards in, a trained run out, and what is done with a run (evaluate, predict).

`load` reads a typed config, `train` runs it, `load_run` opens the result as a `Run`; `train.prediction.predict` and
`train.evaluation.evaluate` take it from there. The room knows the model and the shards, and nothing of rendering.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.config import load
    from train.loop import train
    from train.run import Run, load_run

__all__ = ["Run", "load", "load_run", "train"]

_FROM = {"load": "train.config", "train": "train.loop", "load_run": "train.run", "Run": "train.run"}


def __getattr__(name: str) -> Any:
    """Imports what is behind a name when it is first used: `worldtrace train --help` must not wait for torch."""
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_FROM[name]), name)
