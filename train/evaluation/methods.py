"""What is judged: a run that is asked now, or predictions that lie in a folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from model import Solver
from shards import Sample
from train.evaluation.truth import truths_of
from train.prediction.archive import read_npz
from train.prediction.batch import predict_batch
from train.prediction.predict import TOKENS
from train.prediction.prediction import Prediction
from train.run import Run


class Drawn(NamedTuple):
    """xyz (K,T,L,H,W,3), exists (K,T,L,H,W) bool: K seeds of a stack for each of T frames."""

    xyz: np.ndarray
    exists: np.ndarray


class Method(Protocol):
    """`name` is its column; `shape` is (layers, size) of what it predicts; `frames`: how many it sees at once."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def frames(self) -> int | None: ...

    def about(self) -> dict[str, Any]:
        """JSON that says what it is: two methods of equal `about` predict the same."""
        ...


@dataclass(frozen=True, eq=False)
class Sampled:
    """A trained run. A regression answers once, whatever the number of seeds."""

    name: str
    run: Run
    seeds: int = 8
    steps: int = 20
    solver: Solver = "euler"

    @property
    def shape(self) -> tuple[int, int]:
        return self.run.model.config.layers, self.run.config.data.size

    @property
    def frames(self) -> int | None:
        """Of a model with attention along time as many as it was trained with; others see each frame by itself."""
        return self.run.config.data.frames if self.run.model.config.temporal else None

    @property
    def deterministic(self) -> bool:
        return self.run.config.objective.kind == "regression"

    def about(self) -> dict[str, Any]:
        how = {} if self.deterministic else {"steps": self.steps, "solver": self.solver}
        seeds = 1 if self.deterministic else self.seeds
        weights = {"run": str(self.run.path), "training_step": self.run.step, "changed": _changed(self.run.path)}
        return {**weights, "seeds": seeds, **how}

    def draw(self, sample: Sample, size: int, frames: int) -> Drawn:
        """Stacks for the first `frames` frames of a sample; where no pixel is valid there are no points.

        The noise of a seed is a function of the seed and of the key. ValueError where a GPU has too little memory.
        """
        try:
            return self._drawn(sample, size, frames)
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"{self.name}: too little GPU memory ({str(error).split('.')[0]}); free some, or give --device cpu"
            ) from None

    def _drawn(self, sample: Sample, size: int, frames: int) -> Drawn:
        background = self.run.config.augment.background
        truths = truths_of(sample, self.shape[0], size, background, frames)
        draws = [(seed, sample.key) for seed in range(1 if self.deterministic else self.seeds)]
        rgb, valid = np.stack([t.rgb for t in truths]), np.stack([t.valid for t in truths])
        if self.frames is not None and len(truths) > 1 and valid.any():
            each = [
                predict_batch(self.run, rgb, valid, [draw], self.steps, len(truths), self.solver) for draw in draws
            ]  # one clip at a time: all seeds of 16 frames are more than a GPU holds
            return Drawn(np.stack([s.xyz for s in each]), np.stack([s.exists for s in each]))
        shape = (len(draws), len(truths), *truths[0].xyz.shape)
        drawn = Drawn(np.zeros(shape, np.float32), np.zeros(shape[:-1], bool))
        at_once = self._stacks_at_once(size)
        for t in range(len(truths)):
            for first in range(0, len(draws) if valid[t].any() else 0, at_once):
                some = slice(first, first + at_once)
                drawn.xyz[some, t], drawn.exists[some, t] = predict_batch(
                    self.run, rgb[t : t + 1], valid[t : t + 1], draws[some], self.steps, 1, self.solver
                )
        return drawn

    def _stacks_at_once(self, size: int) -> int:
        """As many as prediction samples together, for the same reason: memory."""
        shape, device = self.run.model.config, next(self.run.model.parameters()).device.type
        return max(1, TOKENS.get(device, TOKENS["cpu"]) // (shape.layers * (size // shape.patch) ** 2))


@dataclass(frozen=True, eq=False)
class Precomputed:
    """A folder with a KEY.npz per sample (train/prediction/archive.py), by whatever made them."""

    name: str
    folder: Path

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise FileNotFoundError(f"--predictions {self.folder} is not a folder; it holds a KEY.npz per sample")

    @property
    def shape(self) -> tuple[int, int]:
        """(layers, size) of the first file; ValueError where there is none."""
        first = min(self.folder.glob("*.npz"), default=None)
        if first is None:
            raise ValueError(f"--predictions {self.folder}: no .npz is in it; a prediction of sample KEY is KEY.npz")
        xyz = read_npz(first)[0].xyz
        return xyz.shape[1], xyz.shape[2]

    @property
    def frames(self) -> int | None:
        return None

    def about(self) -> dict[str, Any]:
        files = [entry.stat() for entry in self.folder.glob("*.npz")]
        newest = max((entry.st_mtime_ns for entry in files), default=0)
        size = sum(entry.st_size for entry in files)
        return {"predictions": str(self.folder.resolve()), "files": len(files), "bytes": size, "newest": newest}

    def path(self, key: str) -> Path:
        """ValueError for a key that would lead out of the folder."""
        if key != Path(key).name or key in ("", ".", ".."):
            raise ValueError(f"{key!r} is the key of a sample, but not the plain name of a file")
        return self.folder / f"{key}.npz"

    def missing(self, keys: Sequence[str]) -> list[str]:
        return [key for key in keys if not self.path(key).is_file()]

    def read(self, key: str, frames: int) -> Drawn:
        """ValueError where the file is damaged, has fewer frames, or is of other pixels than the sample's."""
        found: list[Prediction] = read_npz(self.path(key))
        if len(found) < frames:
            raise ValueError(f"{self.path(key)} has {len(found)} frames, and {frames} are judged; set --frames")
        chosen = found[:frames]
        for prediction in chosen:
            if not _whole_view(prediction):
                raise ValueError(
                    f"{self.path(key)}: framed_from_image says that a crop of its own was predicted, so its pixels are "
                    f"not those of the sample; predict the sample, or its picture cropped about its centre to a square"
                )
            front = prediction.xyz[:, 0, ..., 2][prediction.exists[:, 0]]
            if front.size and np.median(front) <= 0:
                raise ValueError(
                    f"{self.path(key)}: its visible points lie behind the camera; points are to have +x right, +y down "
                    "and +z forward"
                )
        return Drawn(np.stack([p.xyz for p in chosen], 1), np.stack([p.exists for p in chosen], 1))


def _whole_view(prediction: Prediction) -> bool:
    """Whether its pixels are those of a sample: of the picture's centred square, to half a pixel."""
    framed, size = prediction.framed_from_image, prediction.image_size
    if framed is None:
        return True
    frame = np.array(prediction.valid.shape[::-1], float)
    if size is None:  # of a picture of unknown size: a square one without its border has no offset
        wanted = np.diag([framed[0, 0], framed[0, 0], 1.0])
        corner = frame / max(framed[0, 0], 1e-12)
    else:
        scale, picture = frame[0] / min(size), np.array(size[::-1], float)
        wanted = np.diag([scale, scale, 1.0])
        wanted[:2, 2] = (frame - scale * picture) / 2
        corner = picture
    ends = np.array([[0, 0, 1], [*corner, 1]])
    return bool(np.abs(ends @ (framed - wanted).T).max() <= 0.5)


def _changed(path: Path) -> int:
    """When the newest file of a checkpoint was written, in nanoseconds: another training may have come to its place."""
    files = path.iterdir() if path.is_dir() else [path]
    return max((file.stat().st_mtime_ns for file in files if file.is_file()), default=0)
