"""Tensors out of a checkpoint: into the shards of any number of ranks, or whole in one process.

Which saved pieces meet which piece of a tensor is torch.distributed.checkpoint's own reckoning; from each file only the
bytes of those overlaps are read.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.checkpoint.default_planner import create_default_local_save_plan
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from train.checkpoints.layout import Found, workers
from train.checkpoints.pieces import DTYPES, Tensors, local

_DTYPES = {text: dtype for dtype, text in DTYPES.items()}
Box = tuple[tuple[int, int], ...]  # (begin, length) along each axis


@dataclass(frozen=True)
class Stored:
    """A tensor as a checkpoint holds it: its pieces, and the file of each by its first corner."""

    metadata: TensorStorageMetadata
    files: dict[tuple[int, ...], Path]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.metadata.size)

    @property
    def dtype(self) -> torch.dtype:
        return self.metadata.properties.dtype


def stored(found: Found, group: str) -> dict[str, Stored]:
    """Name -> what a checkpoint holds of that group, from the headers of its files. ValueError where they contradict
    one another, or leave a part of a tensor out."""
    tensors: dict[str, Stored] = {}
    for file in found.files(group):
        try:
            with safe_open(file, framework="pt") as opened:
                corners = json.loads((opened.metadata() or {}).get("DCP_SHARDING_INFO", "{}"))
                for name in opened.keys():  # noqa: SIM118 - no mapping
                    piece = opened.get_slice(name)
                    _add(tensors, name, piece.get_shape(), _DTYPES[piece.get_dtype()], corners.get(name), file)
        except (SafetensorError, OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(f"{file}: holds no pieces of tensors: {' '.join(str(error).split())}") from None
    for name, each in tensors.items():
        held = sum(math.prod(chunk.sizes) for chunk in each.metadata.chunks)
        if held != math.prod(each.shape):
            raise ValueError(
                f"{found.path}: {group} has {held} numbers of {name}, which is {_text(each.shape)}; a part is missing"
            )
        if _overlap(each.metadata.chunks):  # with as many numbers as there should be, they would leave a hole
            raise ValueError(f"{found.path}: {group} has a part of {name} twice, and another one not at all")
    return tensors


def load(found: Found, tensors: Tensors) -> None:
    """Fill tensors in place, group by group; each rank reads what it holds of its DTensors, and tells nobody.

    `tensors` are those that were given to save, of any mesh and on any device. ValueError where the checkpoint has
    others (names, shapes and dtypes must be the same), or is of the time before training was sharded.
    """
    if found.old:
        raise ValueError(
            f"{found.path}: was written by an earlier version, whose optimizer this one does not continue; it is still "
            "good for predict and eval, and for model.start of a new run in another out="
        )
    for group, wanted in tensors.items():
        held = stored(found, group)
        _check_same(found, group, held, wanted)
        _fill(held, wanted)


def read(
    found: Found, names: Iterable[str] = ("model", "ema"), only: Mapping[str, Iterable[str]] | None = None
) -> dict[str, dict[str, Tensor]]:
    """Group -> name -> whole tensor on the CPU, in one process, of any world. `only`: of these groups these names.

    ValueError where a group is not there.
    """
    groups = {}
    for group in names:
        if not found.files(group):
            raise ValueError(f"{found.path}: has no {group}")
        held = stored(found, group)
        asked = held.keys() if only is None or group not in only else only[group]
        groups[group] = {name: torch.empty(held[name].shape, dtype=held[name].dtype) for name in asked}
        _fill(held, groups[group])
    return groups


def weights(found: Found) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint, and as they are those of which there is no average (what is frozen)."""
    averaged = stored(found, "ema").keys()
    rest = [name for name in stored(found, "model") if name not in averaged]
    groups = read(found, ("model", "ema"), {"model": rest})
    return {**groups["model"], **groups["ema"]}


def read_export(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The averaged weights that `worldtrace checkpoint export` wrote, and what it says of them: `model`,
    `normalisation`, `config`, `step`, and `licence` of what others released. None where it is another file; ValueError
    where it is damaged."""
    try:
        with safe_open(file, framework="pt") as opened:
            said = opened.metadata() or {}
            if not {"model", "normalisation"} <= said.keys():
                return None
            names = ("model", "normalisation", "config", "step", "licence")
            about = {name: json.loads(said[name]) for name in names if name in said}
            return {name: opened.get_tensor(name) for name in opened.keys()}, about  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: cannot be read: {' '.join(str(error).split())}") from None


def _add(tensors: dict[str, Stored], name: str, sizes: list[int], dtype: torch.dtype, info: Any, file: Path) -> None:
    corner = tuple(info["saved_offsets"]) if info is not None else (0,) * len(sizes)
    if len(corner) != len(sizes) or not all(type(at) is int and 0 <= at < 2**48 for at in corner):
        raise ValueError(f"{name} begins at {corner}")
    ends = [at + size for at, size in zip(corner, sizes)]
    known = tensors.get(name)
    if known is None:
        metadata = TensorStorageMetadata(TensorProperties(dtype=dtype), torch.Size(ends), [])
        known = tensors[name] = Stored(metadata, {})
    if len(known.shape) != len(sizes) or known.dtype != dtype or corner in known.files:
        raise ValueError(f"{name} is of another kind than in other files, or there twice")
    known.metadata.size = torch.Size(max(pair) for pair in zip(known.shape, ends))
    known.metadata.chunks.append(ChunkStorageMetadata(torch.Size(corner), torch.Size(sizes)))
    known.files[corner] = file


def _overlap(chunks: Sequence[ChunkStorageMetadata]) -> bool:
    """Whether two boxes have a number in common. Each is held against those that begin before it ends on axis 0."""
    boxes = [(tuple(chunk.offsets), tuple(chunk.sizes)) for chunk in chunks if math.prod(chunk.sizes)]
    if len(boxes) < 2:
        return False
    begins_BA, sizes_BA = (np.array(each, dtype=np.int64) for each in zip(*sorted(boxes)))
    ends_BA = begins_BA + sizes_BA
    after_B = np.searchsorted(begins_BA[:, 0], ends_BA[:, 0])  # the first box that begins where this one has ended
    for box, after in enumerate(after_B):
        others = slice(box + 1, after)
        if ((begins_BA[others] < ends_BA[box]) & (ends_BA[others] > begins_BA[box])).all(axis=1).any():
            return True
    return False


def _check_same(found: Found, group: str, held: Mapping[str, Stored], wanted: Mapping[str, Tensor]) -> None:
    there = {name: f"{_text(each.shape)} {each.dtype}" for name, each in held.items()}
    here = {name: f"{_text(each.shape)} {each.dtype}" for name, each in wanted.items()}
    wrong = [name for name in here | there if there.get(name) != here.get(name)]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"{found.path}: its {group} is that of another run: {name} is {there.get(name, 'absent')} there and "
            f"{here.get(name, 'absent')} here, and so on for {len(wrong)} of {len(here | there)} tensors"
        )


def _fill(held: Mapping[str, Stored], wanted: Mapping[str, Tensor]) -> None:
    """Copy into each tensor, or into what this rank holds of it, the pieces that meet it."""
    asked: dict[Path, list[tuple[str, Box, Tensor]]] = {}
    for item in create_default_local_save_plan(dict(wanted), True).items:
        name, chunk = item.index.fqn, item.tensor_data.chunk  # type: ignore[union-attr]
        if not chunk.sizes.numel():
            continue
        target = local(wanted[name])
        for each in create_read_items_for_chunk_list(name, held[name].metadata, [chunk]):
            corner = each.storage_index.offset
            assert corner is not None
            box = tuple(zip(each.storage_offsets, each.lengths))
            into = target
            for axis, (at, length) in enumerate(zip(each.dest_offsets, each.lengths)):
                into = into.narrow(axis, at, length)
            asked.setdefault(held[name].files[tuple(corner)], []).append((name, box, into))

    def copy(file: Path) -> None:
        with safe_open(file, framework="pt") as opened:
            for name, box, into in asked[file]:
                piece = opened.get_slice(name)
                # [...] of a slice object is all of it, which is also how a number without axes is read
                value = piece[tuple(slice(at, at + length) for at, length in box)] if box else piece[...]
                into.copy_(value)

    with ThreadPoolExecutor(workers()) as pool:
        for _ in pool.map(copy, asked):
            pass


def _text(shape: Iterable[int]) -> str:
    sizes = [*islice(shape, 16)]
    return "x".join(map(str, sizes)) if sizes else "a number"
