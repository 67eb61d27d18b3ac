"""Checkpoints of a few small tensors of several dtypes."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from train.checkpoints import GROUPS, Checkpoints
from train.ranks.parallel import Ranks

ALONE = Ranks(0, 1, torch.device("cpu"))
STATE = {"config": {"seed": 0}, "data": "abc"}
OLD = Path(__file__).parent / "old" / "step-000003"  # written by the code before training was sharded


def tensors(value: float) -> dict[str, dict[str, Tensor]]:
    return {
        name: {
            "count": torch.tensor(int(value) + at),
            "w": torch.full((3, 4), float(value + at)),
            "half": torch.full((5,), float(value + at), dtype=torch.bfloat16),
            "mask": torch.tensor([True, False, True]),
        }
        for at, name in enumerate(GROUPS)
    }


def write(out: Path, *steps: int, keep: int = 3) -> None:
    with Checkpoints(out, keep, ALONE) as saver:
        for step in steps:
            saver.save(step, tensors(float(step)), STATE, wait=True)


def names(out: Path) -> list[str]:
    return sorted(p.name for p in (out / "checkpoints").iterdir())


def same(one: dict[str, dict[str, Tensor]], two: dict[str, dict[str, Tensor]]) -> bool:
    return all(
        one[g].keys() == two[g].keys() and all(torch.equal(one[g][n], two[g][n]) for n in one[g])
        for g in one.keys() | two.keys()
    )


def reseal(step: Path, change: Callable[[dict], object]) -> None:
    """Let the state say something else, as one would who can compute a hash."""
    state = json.loads((step / "state.json").read_text())
    del state["sha256"]
    change(state)
    body = json.dumps(state).removeprefix("{").encode()
    (step / "state.json").write_bytes(b'{"sha256": "%s",' % hashlib.sha256(body).hexdigest().encode() + body)
