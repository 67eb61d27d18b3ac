"""What a run of a test says and leaves behind."""

import io
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from train import checkpoints
from train.reports import log


def quiet() -> Console:
    return Console(file=io.StringIO())


def losses(out: str) -> list[float]:
    return [line["loss"] for line in log.read(Path(out))]


def final(out: str) -> checkpoints.Found:
    found = checkpoints.latest(Path(out))
    assert found is not None
    return found


def same_weights(a: str, b: str) -> bool:
    return final(a).step == final(b).step and same_tensors(final(a), final(b))


def same_tensors(one: checkpoints.Found, two: checkpoints.Found, but: Sequence[str] = ()) -> bool:
    """Weights, averages and the optimizer's state, bit for bit."""
    a, b = (checkpoints.read(found, checkpoints.GROUPS) for found in (one, two))
    return all(
        torch.equal(value, b[name][key])
        for name, part in a.items()
        for key, value in part.items()
        if not key.startswith(tuple(but))
    )


def under_way(process: subprocess.Popen[str], out: str, seconds: float = 60) -> None:
    """Returns once the run in `out` has reported three steps. AssertionError with what its `process` said if that ends
    before, or takes longer.
    """
    until = time.monotonic() + seconds
    while len(log.read(Path(out))) < 3:
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < until
        time.sleep(0.05)
