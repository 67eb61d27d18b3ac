"""The public checkpoints' names for our weights, both ways (facts: the state dict of the public release).

The release calls the same tensors by other names, and its head predicts -x0: its last projection changes sign here.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from model.files import read_tensors
from model.normalisation import LogMedian, Normalisation, ZScore

# (theirs, ours), tried in order; the rest of a name is the same on both sides, but for a block's second norm and for
# one more level in temporal blocks.
_PREFIXES = (
    ("net.encoder.", "encoder."),
    ("net.time_embedding.", "time.mlp."),
    ("net.time_projection.1.", "time.projection."),
    ("net.feature_projection.0.", "feature_projection."),
    ("net.geo_noise_projection.0.", "noise_projection."),
    ("net.decoder_blocks.", "decoder."),
    ("net.latents_projection.geo_blocks.", "head.blocks."),
    ("net.latents_projection.geo_proj.", "head.projection."),
    ("net.latents_projection.geo_layer_embed.", "head.layer.embed."),
    ("net.latents_projection.geo_film_proj.", "head.layer.film."),
    ("temporal_blocks.", "temporal."),
    ("layer_embed.", "layer.embed."),
    ("layer_film_proj.", "layer.film."),
    ("layer_adaln_proj.1.", "layer.adaln."),
)
# Of the released object and dynamic models, from 500K samples (facts, 18); scene models, which alone have an AdaLN term
# per layer, use the log-median.
_RELEASED_ZSCORE = ZScore((-0.002366, -0.004008, 1.904278), (0.280865, 0.315927, 0.706423))
_OUR_BLOCK = re.compile(r"^(decoder|temporal|head\.blocks)\.\d+\.")


def our_name(theirs: str) -> str:
    """The name in `WTDiT.state_dict()` of a released tensor; ValueError for a name that no released model has."""
    for prefix, ours in _PREFIXES:
        if theirs.startswith(prefix):
            name = ours + theirs.removeprefix(prefix).replace(".block.", ".", 1)
            return name.replace(".norm3.", ".norm2.") if _OUR_BLOCK.match(name) else name
    raise ValueError(f"released checkpoint: tensor {theirs!r} belongs to no known model")


def their_name(ours: str) -> str:
    """Inverse of `our_name`."""
    for theirs, prefix in _PREFIXES:
        if ours.startswith(prefix):
            name = ours.replace(".norm2.", ".norm3.") if _OUR_BLOCK.match(ours) else ours
            rest = name.removeprefix(prefix)
            return theirs + (rest.replace(".", ".block.", 1) if prefix == "temporal." else rest)
    raise ValueError(f"released checkpoint: tensor {ours!r} has no counterpart there")


def from_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released state dict -> ours, ready for `WTDiT.load_state_dict`."""
    named = ((our_name(name.removeprefix("_orig_mod.")), tensor) for name, tensor in state.items())
    return {name: _signed(name, tensor) for name, tensor in named}


def to_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of `from_released`."""
    return {their_name(name): _signed(name, tensor) for name, tensor in state.items()}


def read_released(path: str | Path) -> dict[str, Tensor]:
    """The state dict inside a released `model.pt`, in our names: EMA weights where there are any.

    FileNotFoundError where there is no such file, ValueError where it is something else. Read with `weights_only=True`:
    a checkpoint is data, not code.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"released checkpoint {path} does not exist; give the path of its model.pt")
    content: Any = None
    with suppress(ValueError):
        content = read_tensors(path)
    if isinstance(content, Mapping):
        content = content.get("ema_state_dict", content.get("model_state_dict", content))
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path}: holds no weights as torch saves them, or was cut; give a released model.pt")
    return from_released(content)


def released_normalisation(state: Mapping[str, Tensor]) -> Normalisation:
    """The map of points that the released model with these weights (in our names) was trained under."""
    return LogMedian() if any(name.startswith("layer.adaln.") for name in state) else _RELEASED_ZSCORE


def _signed(our: str, tensor: Tensor) -> Tensor:
    return -tensor if our.startswith("head.projection.") else tensor
