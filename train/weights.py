"""Weights from anywhere: a run, one of its checkpoints, an exported file, a released model by name, file or hf://.

What the commands take as `--checkpoint` and training as `model.start` is read here, and nowhere else.
"""

import difflib
import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from model import LICENCE, RELEASED, ReleasedWeights, WTConfig, presets, read_released, release_named, release_of
from model import normalisation as maps
from model.hub import HUB, fetched
from model.released import FILE
from train import checkpoints, config

Say = Callable[[str], None]
SOURCES = (
    "a run's folder, one of its checkpoints, an exported .safetensors, a released model.pt, hf://OWNER/REPO or one of "
    f"{', '.join(RELEASED)}"
)
LONGEST_LICENCE = 500  # characters; the release's has 190
_STARTS = 8  # trainings, each of which began with the weights of the one before, that are followed back
_PRESETS = {"object": "wt_o", "scene": "wt_s", "dynamic": "wt_d"}


@dataclass(frozen=True, eq=False)
class Weights:
    """What a source holds, before a model is made of it.

    `about` has `model`, `normalisation` and `config` as a checkpoint's state.json has them, and `described` is the file
    that says so; `count` tensors come by `read`, averaged where there is an average; `licence` of what others released.
    """

    about: Mapping[str, Any]
    step: int
    path: Path
    described: Path
    count: int
    read: Callable[[], dict[str, Tensor]]
    licence: str | None = None


def find(source: str | Path, say: Say = print) -> Weights:
    """What `source` names; a released model is fetched if need be, and the licence of its weights said once a machine.

    A name such as r75b is the released model, whatever lies in the working directory; ./r75b is a folder.
    FileNotFoundError where there is nothing, ValueError where it is something else or damaged, OSError where it cannot
    be fetched; one sentence each.
    """
    text = str(source)
    if text in RELEASED and not (isinstance(source, Path) and source.exists()):
        return _file(Path(fetched(RELEASED[text].source, say=say)), text, say)
    if isinstance(source, str) and text.startswith(HUB):
        return _file(Path(fetched(text, FILE, say)), text, say)
    path = Path(source).expanduser()
    if path.is_file() and path.name != "state.json":
        return _file(path, str(path), say)
    if path.exists():
        return _folder(path.parent if path.name == "state.json" else path, say)
    near = difflib.get_close_matches(text.lower(), RELEASED, n=1, cutoff=0.5) if len(path.parts) == 1 else []
    hint = f"did you mean {near[0]}?" if near else f"give {SOURCES}"
    raise FileNotFoundError(f"{source} does not exist; {hint}")


def licence_of(found: Weights) -> str | None:
    """Of the weights, or of released ones that they were trained from; None where no such start is known.

    A start that was a run is asked what it started from, as long as its folder is there. Nothing is fetched for that:
    a stranger's file may name any start.
    """
    for _ in range(_STARTS):
        if found.licence is not None:
            return found.licence
        start = _start_of(found.about)
        if start is None:
            return None
        if start in RELEASED or start.startswith(tuple(f"{HUB}{each.repository}" for each in RELEASED.values())):
            return LICENCE
        if "://" in start:
            return None
        try:
            found = find(start, say=lambda text: None)
        except (ValueError, OSError):
            return None
    return None


def absolute(source: str) -> str:
    """`source` as another process, in another folder, can find it: a path becomes absolute, a name or URL stays."""
    return source if source in RELEASED or "://" in source else str(Path(source).expanduser().absolute())


def released_config(read: ReleasedWeights, source: str) -> config.Config:
    """A config for a released model, which brings none: what prediction, evaluation and fine-tuning need to know.

    Size, frames and precision are the release's; `model` describes the very shape of the weights.
    """
    release, preset = release_of(source, read.kind), _PRESETS[read.kind]
    return config.from_dict(
        {
            "data": {
                "path": release.source if source in RELEASED else source if "://" in source else f"file://{source}",
                "size": max(read.shape.patch, release.size // read.shape.patch * read.shape.patch),
                "frames": release.frames,
            },
            "model": {"preset": preset, "start": source, **_overrides(read.shape, presets[preset])},
            "augment": {"background": "black"},
            "precision": "bf16",
            "out": source,
        }
    )


def _folder(path: Path, say: Say) -> Weights:
    found = checkpoints.find(path, ("model", "ema"), say)
    return Weights(
        found.state,
        found.step,
        found.path,
        found.path / "state.json",
        len(checkpoints.stored(found, "model")),
        lambda: checkpoints.weights(found),  # a run's own, sealed by hashes: as they are
    )


def _file(path: Path, source: str, say: Say) -> Weights:
    """Of one file: exported by us, or in the release's names."""
    if path.suffix == ".safetensors" and (export := checkpoints.read_export(path)) is not None:
        tensors, about = _floats(export[0], path), export[1]
        step, licence = about.pop("step", 0), about.pop("licence", None)
    else:
        read = read_released(path)
        tensors, note = read.tensors, read.note
        about = note or {
            "model": read.shape.to_dict(),
            "normalisation": maps.to_dict(read.normalisation),
            "config": config.to_dict(released_config(read, source)),
        }
        step, licence = about.get("step", 0), about.get("licence") if note else LICENCE
        if note is None:
            _look(read, source, say)
    if licence is not None:
        licence = _plain(licence)
        _say_licence(licence, source, say)
    return Weights(about, step if type(step) is int else 0, path, path, len(tensors), lambda: tensors, licence)


def _floats(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The same as float32; those that are so already stay where they are. ValueError for what is no weights."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{path}: {name[:100]} has numbers of {tensor.dtype}; weights are floats")
        if not (single := tensor.float()).sum().isfinite() and not single.isfinite().all():
            raise ValueError(
                f"{path}: {name[:100]} has numbers that are not finite; the file is damaged, or its training diverged"
            )
    return {name: tensor.float() for name, tensor in tensors.items()}


def _plain(licence: Any) -> str:
    """What a stranger's file says of its licence, as a terminal may show it."""
    words = " ".join(str(licence)[:LONGEST_LICENCE].split())
    return "".join(c if c.isprintable() else "?" for c in words)


def _look(read: ReleasedWeights, source: str, say: Say) -> None:
    """Whether the weights are those that were asked for. ValueError; what cannot be told is said."""
    named, release = release_named(source, read.kind), release_of(source, read.kind)
    if release.kind != read.kind:
        raise ValueError(
            f"{source}: is to be a model of kind {release.kind}, and these weights are of kind {read.kind}"
        )
    if read.kind == "scene" and named is None:
        say(
            f"{source}: taken for {release.name}, at {release.size} pixels; weights do not tell r69e and r69g (504) "
            "from r69l (840), so name the file or its folder after the model"
        )


def _say_licence(licence: str, source: str, say: Say) -> None:
    """Once on a machine, by a mark in the user's cache; where none can be made, every time."""
    mark = marks() / hashlib.sha256(licence.encode()).hexdigest()[:16]
    if mark.exists():
        return
    say(f"{source}: its weights are under {licence}")
    with suppress(OSError):
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(f"{licence}\n")


def marks() -> Path:
    """The folder of marks of what this user has been told."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "worldtrace" / "licences"


def _start_of(about: Mapping[str, Any]) -> str | None:
    """model.start of the training that made the weights."""
    settings: Any = about.get("config")
    for name in ("model", "start"):
        settings = settings.get(name) if isinstance(settings, Mapping) else None
    return settings if isinstance(settings, str) else None


def _overrides(shape: WTConfig, preset: WTConfig) -> dict[str, Any]:
    """The fields of a shape that are not the preset's, nested like them."""

    def differing(mine: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: differing(value, other[name]) if isinstance(value, Mapping) else value
            for name, value in mine.items()
            if value != other[name]
        }

    return differing(shape.to_dict(), preset.to_dict())
