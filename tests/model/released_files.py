"""Released checkpoints of a few small tensors: the release's names and shapes, at reduced widths and depths."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model import WTConfig, WTDiT, preset, to_released

KINDS = {"object": "wt_o", "scene": "wt_s", "dynamic": "wt_d"}


def reduced(kind: str, **changes: Any) -> WTConfig:
    """The shape of a model of that kind with every number reduced, and each to another one."""
    sizes = {"width": 48, "heads": 3, "decoder_blocks": 6, "head_blocks": 2, "layers": 5, "patch": 7}
    encoder = {"width": 128, "heads": 2, "depth": 4, "taps": 3, "grid": 5}
    return preset(KINDS[kind], **{**sizes, "encoder": encoder, **changes})


def drawn(shape: WTConfig, seed: int = 0) -> dict[str, Tensor]:
    """All weights of such a model, in our names, none of them 0."""
    with torch.device("meta"):
        state = WTDiT(shape).state_dict()
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(x.shape, generator=generator) / 10 for name, x in state.items()}


def write(path: Path, state: dict[str, Tensor], *keys: str, prefix: str = "", **more: Any) -> Path:
    """As the authors save it: under `keys`, or bare without any."""
    theirs = {prefix + name: x for name, x in to_released(state).items()}
    torch.save({**dict.fromkeys(keys, theirs), **more} if keys else theirs, path)
    return path


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    """Bit for bit, of the same names and types."""
    return one.keys() == two.keys() and all(
        one[n].dtype == two[n].dtype and one[n].shape == two[n].shape and torch.equal(one[n], two[n]) for n in one
    )
