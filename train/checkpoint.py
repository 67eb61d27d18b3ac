"""Checkpoints: folders that are either whole or not there, and the run that continues from the newest whole one.

    out/checkpoints/step-000100/model.safetensors  ema.safetensors  optimizer.safetensors  state.json

A checkpoint is written under a temporary name, synced, and renamed; `state.json` holds the SHA-256 of the other files,
so a damaged one is recognised and the one before it is used. No pickle.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Parameter

TENSORS = ("model", "ema", "optimizer")
_NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True)
class Checkpoint:
    """`tensors` has "model", "ema" and "optimizer"; `state` is JSON: step, updates, config, hashes, statistics, ..."""

    path: Path
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.state["step"])


def save(
    out: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep: int
) -> Path:
    """Write out/checkpoints/step-NNNNNN and drop all but the `keep` newest. OSError leaves the older ones untouched."""
    folder = out / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    final, temporary = folder / f"step-{step:06d}", folder / f".step-{step:06d}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        hashes = {}
        for name, values in tensors.items():
            path = temporary / f"{name}.safetensors"
            save_file({k: v.detach().cpu().contiguous() for k, v in values.items()}, path)
            _sync(path)
            hashes[name] = _sha256(path)
        text = json.dumps({**state, "step": step, "sha256": hashes}, indent=1)
        (temporary / "state.json").write_text(text)
        _sync(temporary / "state.json")
        _sync(temporary)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(f"{final} cannot be written: {error}") from error
    _sync(folder)
    for old in steps(out)[:-keep]:
        shutil.rmtree(old)
    return final


def steps(out: Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first."""
    found = [p for p in (out / "checkpoints").glob("step-*") if _NAME.fullmatch(p.name)]
    return sorted(found, key=lambda p: int(p.name.removeprefix("step-")))


def read(path: Path, names: tuple[str, ...] = TENSORS) -> Checkpoint:
    """One checkpoint folder, checked against its hashes. ValueError says what is damaged."""
    try:
        state = json.loads((path / "state.json").read_text())
        tensors = {}
        for name in names:
            file = path / f"{name}.safetensors"
            if _sha256(file) != state["sha256"][name]:
                raise ValueError(f"{file}: its bytes are not those that were written")
            tensors[name] = load_file(file)
    except (OSError, KeyError, json.JSONDecodeError, SafetensorError) as error:
        raise ValueError(f"{path}: {error}") from None
    return Checkpoint(path, tensors, state)


def latest(out: Path, names: tuple[str, ...] = TENSORS, say: Callable[[str], None] = print) -> Checkpoint | None:
    """The newest whole checkpoint, or None where there is none; says which damaged ones it passed over.

    A run whose checkpoints are all damaged raises ValueError: starting over in its folder would hide the loss.
    """
    folders = steps(out)
    for path in reversed(folders):
        try:
            return read(path, names)
        except ValueError as error:
            say(f"damaged checkpoint passed over: {error}")
    if folders:
        raise ValueError(f"{out}: all {len(folders)} checkpoints are damaged; move the folder away to start over")
    return None


def find(path: str | Path, names: tuple[str, ...] = TENSORS, say: Callable[[str], None] = print) -> Checkpoint:
    """A run folder or its `checkpoints` -> its newest whole checkpoint, as `latest`; one checkpoint folder -> that one.

    FileNotFoundError where there is none, ValueError where all, or the one that was named, are damaged.
    """
    path = Path(path)
    if (path / "state.json").is_file():
        return read(path, names)
    run = path.parent if path.name == "checkpoints" else path
    found = latest(run, names, say) if run.is_dir() else None
    if found is None:
        raise FileNotFoundError(f"{path}: no checkpoint there; give the `out` folder of a training run")
    return found


def moments(optimizer: torch.optim.Optimizer, names: Mapping[Parameter, str]) -> dict[str, Tensor]:
    """Adam's moments by parameter name; empty before the first update."""
    return {
        f"{key}.{name}": optimizer.state[parameter][key]
        for parameter, name in names.items()
        if parameter in optimizer.state
        for key in ("exp_avg", "exp_avg_sq", "step")
    }


def restore_moments(
    optimizer: torch.optim.Optimizer, names: Mapping[Parameter, str], saved: Mapping[str, Tensor]
) -> None:
    for parameter, name in names.items():
        if f"step.{name}" in saved:
            optimizer.state[parameter] = {
                "step": saved[f"step.{name}"].to(parameter.device),
                "exp_avg": saved[f"exp_avg.{name}"].to(parameter.device),
                "exp_avg_sq": saved[f"exp_avg_sq.{name}"].to(parameter.device),
            }


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
