"""The `train` room: shards in, a trained run out, and what is done with a run (predict, evaluate).

`load` reads a typed config, `train` runs it, `load_run` opens the result, or a released checkpoint, as a `Run`.
`predict` and `predict_clip` answer pictures and clips with a `Prediction`; `train.evaluation.evaluate` judges a run on
a dataset. The room knows the model and the shards, and nothing of rendering.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.config import load
    from train.loop import train
    from train.prediction.predict import predict, predict_clip
    from train.prediction.prediction import Prediction
    from train.run import Run, load_run

__all__ = ["Prediction", "Run", "load", "load_run", "predict", "predict_clip", "train"]

_FROM = {
    "load": "train.config",
    "train": "train.loop",
    "load_run": "train.run",
    "Run": "train.run",
    "predict": "train.prediction.predict",
    "predict_clip": "train.prediction.predict",
    "Prediction": "train.prediction.prediction",
}


def __getattr__(name: str) -> Any:
    """Imports what is behind a name when it is first used: `worldtrace train --help` must not wait for torch."""
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_FROM[name]), name)
