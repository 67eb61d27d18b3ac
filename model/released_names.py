"""The public checkpoints' names for our weights, both ways (facts: the state dict of the public release).

The release calls the same tensors by other names, and its head predicts -x0: its last projection changes sign here.
"""

import re
from collections.abc import Mapping

from torch import Tensor

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
_OUR_BLOCK = re.compile(r"^(decoder|temporal|head\.blocks)\.\d+\.")


def our_name(theirs: str) -> str:
    """The name in `WTDiT.state_dict()` of a released tensor; ValueError for a name that no released model has."""
    for prefix, ours in _PREFIXES:
        if theirs.startswith(prefix):
            name = ours + theirs.removeprefix(prefix).replace(".block.", ".", 1)
            return name.replace(".norm3.", ".norm2.") if _OUR_BLOCK.match(name) else name
    raise ValueError(f"released checkpoint: tensor {theirs[:100]!r} belongs to no known model")


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


def _signed(our: str, tensor: Tensor) -> Tensor:
    return -tensor if our.startswith("head.projection.") else tensor
