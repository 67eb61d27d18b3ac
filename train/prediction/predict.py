"""From a picture or a clip to layered points in the camera's frame (paper, section 3.1; sampler: App. B, "Inference").

`predict` and `predict_clip` are for notebooks and scripts; `answer` for whoever has a `Run` and knows what is asked.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from model import Solver, fit_intrinsics
from train.prediction.ask import Asked, ask, window_of
from train.prediction.batch import Stacks, compile_for, predict_batch
from train.prediction.prediction import HIDDEN_GREY, Prediction, point_cloud, typical
from train.prediction.reading import Picture
from train.run import Run, device_of, load_run

__all__ = [
    "HIDDEN_GREY",
    "Prediction",
    "Stacks",
    "answer",
    "compile_for",
    "point_cloud",
    "predict",
    "predict_batch",
    "predict_clip",
    "stacks_at_once",
    "typical",
]

TOKENS = {"cuda": 65_536, "cpu": 16_384}  # sampled together: 8 (2) stacks of six layers at 504 px
MOST_BYTES = 16 * 2**30  # of the points of one clip, all seeds


def predict(
    image: Picture,
    checkpoint: str | Path | Run,
    *,
    mask: Picture | None = None,
    seeds: int | Sequence[int] = 4,
    steps: int = 20,
    solver: Solver = "euler",
    kind: Literal["auto", "object", "scene"] = "auto",
    stretch: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    say: Callable[[str], None] = print,
) -> Prediction:
    """The layered points behind one picture.

    image: a file, a PIL image or an array (h,w,3) or (h,w,4), uint8 or float in [0, 1]; or "DATASET#KEY". checkpoint:
    whatever `load_run` reads, or the `Run` that it returned, which saves loading it again (then `device` does not
    count). mask: a picture, white where the object is, "auto", "rembg" or "flood"; None: the picture's alpha. seeds: a
    count, or the seeds themselves; the noise of a stack is a function of its seed and of the picture's name alone.
    steps, solver: of the sampler. kind, stretch: how it is framed, see `ask`. say: takes the lines that tell what was
    chosen, and the licence of released weights.

    ValueError, FileNotFoundError or OSError, in one sentence, for what cannot be read or predicted.
    """
    if kind not in ("auto", "object", "scene"):
        raise ValueError(f"kind {kind!r}: one picture is an 'object' or a 'scene', or 'auto'; clips: predict_clip")
    run = _run(checkpoint, device, say)
    asked = ask(image, run, mask, kind, frames=1, stretch=stretch)
    return _answered(run, asked, seeds, steps, solver, say)[0]


def predict_clip(
    frames: Picture | Sequence[Picture],
    checkpoint: str | Path | Run,
    *,
    masks: Picture | Sequence[Picture] | None = None,
    seeds: int | Sequence[int] = 4,
    steps: int = 20,
    solver: Solver = "euler",
    count: int | None = None,
    stride: int = 1,
    stretch: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    say: Callable[[str], None] = print,
) -> list[Prediction]:
    """One prediction per frame of a clip, sampled jointly and framed alike, so that a seed is one and the same world.

    frames: a list of pictures, an array (T,h,w,3) or (T,h,w,4), a folder, a video or an animated file; or
    "DATASET#KEY". Of them every `stride`-th is taken, at most `count` (default: as many as the model was trained on).
    masks: one for each frame, in a list, an array (T,h,w), a folder or a video; or one picture for all of them, or
    "auto"; None: the frames' alpha. All else is as in `predict`. A clip
    longer than those that the model was trained on is predicted in windows, see `answer`.
    """
    run = _run(checkpoint, device, say)
    frames = list(frames) if isinstance(frames, np.ndarray) and frames.ndim == 4 else frames
    masks = list(masks) if isinstance(masks, np.ndarray) and masks.ndim == 3 else masks
    asked = ask(frames, run, masks, "clip", count, stride, stretch)
    return _answered(run, asked, seeds, steps, solver, say)


def answer(
    run: Run,
    asked: Sequence[Asked],
    seeds: Sequence[int],
    steps: int = 20,
    solver: Solver = "euler",
    at_once: int | None = None,
) -> list[list[Prediction]]:
    """Of each that is asked about, a prediction per frame. Those that are answered together have one size.

    At most `at_once` stacks are sampled at a time (default: `stacks_at_once`). A stack's noise is a function of (seed,
    name) alone, so it is the same but for rounding whatever it is batched with. A regression has no noise, and one seed
    says all.

    Clips are predicted in windows of the frames that the model was trained on, one after the other, each by itself and
    from the same noise; the last one reaches back so that it is as long, and its frames that were predicted before are
    left out. So hidden surfaces may change from one window to the next: nothing is blended. A model of single frames
    predicts each by itself. Frames without a valid pixel have no points.

    ValueError without a valid pixel, or where more points are asked for than memory should hold.
    """
    if not len(seeds) or steps < 1:
        raise ValueError(f"{len(seeds)} seeds and {steps} steps: there must be at least one of each")
    seeds = tuple(int(seed) for seed in (seeds[:1] if run.config.objective.kind == "regression" else seeds))
    window = window_of(run)
    for each in asked:
        if not each.valid.any():
            raise ValueError(f"{each.name}: no valid pixel, so there is nothing to predict")
    with _within_memory():
        if len(asked) > 1 and all(each.frames == 1 for each in asked):
            at_once = at_once or stacks_at_once(run, asked[0])
            return _of_pictures(run, asked, seeds, steps, solver, at_once)
        return [
            _of_clip(run, each, seeds, steps, solver, min(window, each.frames), at_once or stacks_at_once(run, each))
            for each in asked
        ]


def stacks_at_once(run: Run, asked: Asked) -> int:
    """How many stacks of this size to sample together: what fills a GPU, and fits into its memory."""
    shape = run.model.config
    tokens = shape.layers * (asked.rgb.shape[1] // shape.patch) * (asked.rgb.shape[2] // shape.patch)
    device = next(run.model.parameters()).device.type
    return max(1, TOKENS.get(device, TOKENS["cpu"]) // tokens)


def _run(checkpoint: str | Path | Run, device: str, say: Callable[[str], None]) -> Run:
    return checkpoint if isinstance(checkpoint, Run) else load_run(checkpoint, device_of(device), say)


def _answered(
    run: Run, asked: Asked, seeds: int | Sequence[int], steps: int, solver: Solver, say: Callable[[str], None]
) -> list[Prediction]:
    for line in asked.says:
        say(line)
    return answer(run, [asked], range(seeds) if isinstance(seeds, int) else seeds, steps, solver)[0]


def _of_pictures(
    run: Run, asked: Sequence[Asked], seeds: tuple[int, ...], steps: int, solver: Solver, at_once: int
) -> list[list[Prediction]]:
    """Single pictures of one size: the stacks of several in one batch."""
    pairs = [(picture, seed) for picture in range(len(asked)) for seed in seeds]
    parts = []
    for start in range(0, len(pairs), at_once):
        part = pairs[start : start + at_once]
        rgb, valid = (np.concatenate([getattr(asked[i], name) for i, _ in part]) for name in ("rgb", "valid"))
        parts.append(predict_batch(run, rgb, valid, [(seed, asked[i].name) for i, seed in part], steps, 1, solver))
    xyz, exists = (np.concatenate(arrays) for arrays in zip(*parts))
    each = len(seeds)
    stacks = [Stacks(xyz[i * each : (i + 1) * each], exists[i * each : (i + 1) * each]) for i in range(len(asked))]
    return [[_prediction(a, 0, s, seeds)] for a, s in zip(asked, stacks)]


def _of_clip(
    run: Run, asked: Asked, seeds: tuple[int, ...], steps: int, solver: Solver, window: int, at_once: int
) -> list[Prediction]:
    """A picture (a clip of one frame) or a clip, window by window."""
    count, height, width = asked.valid.shape
    shape = (len(seeds), count, run.model.config.layers, height, width)
    if (size := 13 * int(np.prod(shape))) > MOST_BYTES:
        raise ValueError(
            f"{asked.name}: {len(seeds)} seeds of {count} frames are {size / 2**30:.0f} GiB of points, and "
            f"{MOST_BYTES / 2**30:.0f} GiB are held at most; take fewer --frames or --seeds"
        )
    xyz, exists = np.zeros((*shape, 3), np.float32), np.zeros(shape, bool)
    draws = [(seed, asked.name) for seed in seeds]
    for new in range(0, count, window):
        start = min(new, count - window)
        frames = slice(start, start + window)
        if not asked.valid[frames].any():
            continue
        for first in range(0, len(draws), max(1, at_once // window)):
            part = slice(first, first + max(1, at_once // window))
            got = predict_batch(run, asked.rgb[frames], asked.valid[frames], draws[part], steps, window, solver)
            for whole, some in ((xyz, got.xyz), (exists, got.exists)):
                whole[part, new : start + window] = some.reshape(-1, window, *some.shape[1:])[:, new - start :]
    return [_prediction(asked, t, Stacks(xyz[:, t], exists[:, t]), seeds) for t in range(count)]


def _prediction(asked: Asked, frame: int, stacks: Stacks, seeds: tuple[int, ...]) -> Prediction:
    return Prediction(
        asked.rgb[frame],
        asked.valid[frame],
        stacks.xyz,
        _cameras(stacks, asked.valid[frame]),
        seeds,
        stacks.exists,
        asked.names[frame],
        asked.framed_from_image,
        asked.image_size,
    )


def _cameras(stacks: Stacks, valid: np.ndarray) -> np.ndarray | None:
    """(S,3,3), nan for a seed whose points no camera fits: fewer than ten, or all on one line of sight; None where that
    is so of all."""
    usable = torch.from_numpy(valid[None])
    found = np.full((len(stacks.xyz), 3, 3), np.nan)
    for K, xyz in zip(found, stacks.xyz):
        try:
            K[:] = fit_intrinsics(torch.from_numpy(xyz[:1]), usable)[0].numpy()
        except ValueError:
            continue
    return None if np.isnan(found).all() else found


@contextmanager
def _within_memory() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f"too little GPU memory ({str(error).split('.')[0]}); sample fewer stacks at a time (--batch)"
        ) from None
