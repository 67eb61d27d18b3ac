"""A dataset made of datasets, as the commands make it, and what a folder then holds."""

from pathlib import Path

import numpy as np

import shards
from shards.rewrite import choice, rewrite
from shards.rewrite.inputs import Input
from shards.rewrite.plan import Cut
from shards.rewrite.rewrite import Made, Output
from shards.store import open_store


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def samples(path: Path | str) -> dict[str, str]:
    table = shards.open(path).manifest
    return dict(zip(table["key"].to_pylist(), table["sha256"].to_pylist()))


def made(
    command: str,
    inputs: list[Input],
    to: list[np.ndarray],
    *outs: Path,
    cut: Cut | None = None,
    skip_damaged: bool = False,
    workers: int = 2,
    **options: object,
) -> list[Made]:
    cut = cut or Cut(samples=5, bytes=None)
    header = choice.header(command, inputs, cut, **options)
    outputs = [Output(open_store(out), {**header, "part": number}) for number, out in enumerate(outs)]
    return rewrite.rewrite(inputs, to, outputs, cut, skip_damaged=skip_damaged, workers=workers)


class Killed(BaseException):
    """As the kernel does it: nothing is cleaned up by who is killed, beyond what the store does."""
