"""The `model` room: WT-DiT, its objective and its sampler, in torch alone.

A network (`WTDiT`) that predicts the clean stack of points from an image and a noisy stack; the flow that trains it
(`draw_times`, `objective`) and runs it (`sample`); the maps between camera space and the network's space (`ZScore`,
`LogMedian`); the camera that a prediction implies (`fit_intrinsics`); the released checkpoints (`read_released`,
`write_released`) and weights for the image encoder alone (`read_encoder`); what a pass costs (`flops`).
It knows nothing of shards, of training runs or of parallelism.
"""

from model.config import EncoderConfig, WTConfig, preset, presets
from model.flops import Flops, flops, training_flops
from model.flow import Loss, correlated, noise_fill, objective
from model.intrinsics import fit_intrinsics
from model.normalisation import LogMedian, Normalisation, ZScore
from model.pretrained import read_encoder
from model.regression import regress
from model.released import (
    LICENCE,
    RELEASED,
    Release,
    ReleasedWeights,
    read_released,
    release_named,
    release_of,
    released_normalisation,
    write_released,
)
from model.released_names import from_released, to_released
from model.sampler import Solver, calls, sample
from model.times import LogitNormal, Mixture, PlateauedLogitNormal, draw_times
from model.wt_dit import WTDiT

__all__ = [
    "LICENCE",
    "RELEASED",
    "EncoderConfig",
    "Flops",
    "LogMedian",
    "LogitNormal",
    "Loss",
    "Mixture",
    "Normalisation",
    "PlateauedLogitNormal",
    "Release",
    "ReleasedWeights",
    "Solver",
    "WTConfig",
    "WTDiT",
    "ZScore",
    "calls",
    "correlated",
    "draw_times",
    "fit_intrinsics",
    "flops",
    "from_released",
    "noise_fill",
    "objective",
    "preset",
    "presets",
    "read_encoder",
    "read_released",
    "regress",
    "release_named",
    "release_of",
    "released_normalisation",
    "sample",
    "to_released",
    "training_flops",
    "write_released",
]
