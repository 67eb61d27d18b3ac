"""What a training run is: one typed, strict tree of numbers, read from YAML and overridden with `key=value`.

A key that does not exist is an error that names the nearest one that does; the tree a run used is written to its
folder as `config.yaml`. The paper's values are the defaults; the shipped files in `configs/` say the paper's line
beside each number they set.
"""

from train.config.compare import alike, differences, differing
from train.config.file import SHIPPED, from_dict, load, overridden, save, shipped, to_dict
from train.config.settings import (
    Augment,
    Cache,
    Checkpoint,
    Compute,
    Config,
    Data,
    Evaluation,
    Geometric,
    Log,
    MaskJitter,
    Model,
    Objective,
    Optimizer,
    Parallel,
    Photometric,
)

__all__ = [
    "SHIPPED",
    "Augment",
    "Cache",
    "Checkpoint",
    "Compute",
    "Config",
    "Data",
    "Evaluation",
    "Geometric",
    "Log",
    "MaskJitter",
    "Model",
    "Objective",
    "Optimizer",
    "Parallel",
    "Photometric",
    "alike",
    "differences",
    "differing",
    "from_dict",
    "load",
    "overridden",
    "save",
    "shipped",
    "to_dict",
]
