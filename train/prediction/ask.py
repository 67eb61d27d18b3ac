"""What is asked about: a picture, a clip or a rendered sample, as the model is to see it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

import shards
from model import ZScore
from shards import Clip
from train.data import augment
from train.evaluation.truth import Truth, truth_of
from train.prediction import clips
from train.prediction.framing import frame_objects, frame_scenes
from train.prediction.masks import FOUND, masked
from train.prediction.reading import Picture, name_of, rgba_of
from train.run import Run

Kind = Literal["auto", "object", "scene", "clip"]
HELD_OUT = "heldout"
CLIP_FRAMES = 16  # of a clip, where the model knows of no number (paper: 16)


@dataclass(frozen=True, eq=False)
class Asked:
    """T frames of one picture (T = 1) or clip, framed alike, as the model sees them.

    rgb (T,H,W,3) float32 in [0, 1] | valid (T,H,W) bool | names of the frames | framed_from_image (3,3), from pixels of
    the picture to those of the frame, and image_size (height, width), both None for a sample | truths of a sample |
    says: lines for people, about what was chosen for them.
    """

    name: str
    rgb: np.ndarray
    valid: np.ndarray
    names: tuple[str, ...]
    framed_from_image: np.ndarray | None = None
    image_size: tuple[int, int] | None = None
    truths: tuple[Truth, ...] = ()
    says: tuple[str, ...] = ()

    @property
    def frames(self) -> int:
        return len(self.rgb)


def window_of(run: Run) -> int:
    """The frames that the model sees together: those of a clip it was trained on, else one."""
    return run.config.data.frames if run.model.config.temporal else 1


def ask(
    image: Picture | Sequence[Picture],
    run: Run,
    mask: Picture | Sequence[Picture] | None = None,
    kind: Kind = "auto",
    frames: int | None = None,
    stride: int = 1,
    stretch: bool = False,
) -> Asked:
    """Read, mask and frame what a model is asked about.

    `image` is a picture (a file, PIL image or array); a clip (a list of them, a folder, a video or an animated file);
    or DATASET#KEY, a rendered sample with its truth. KEY may be `heldout`: of the samples that a run is not trained on,
    the one with the median number of surface points. `mask`: see `masks.masked`; of a clip also one per frame, in
    whatever holds frames.

    An object is cropped to its mask and needs one; a scene is seen whole, and its mask says where there is no sky. Of
    several frames `clip` takes all, up to `frames` (default: as many as the model was trained on, of a sample all),
    every `stride`-th; the others the first. `auto` is what the model is for: objects by a z-score, scenes by a
    log-median, clips by temporal blocks.

    FileNotFoundError or ValueError says what is missing.
    """
    if isinstance(image, str) and "#" in image and not Path(image).exists():
        return _sample(image, run, kind, frames, stride)
    several = clips.is_clip(image)
    if kind == "clip" and not several:
        raise ValueError(f"{image if isinstance(image, str | Path) else 'the image'}: one picture is no clip")
    as_clip = several and (kind == "clip" or (kind == "auto" and run.model.config.temporal))
    if not as_clip and (stride > 1 or (frames or 1) > 1):
        raise ValueError("frames and stride are of clips; give --kind clip, and several frames")
    count = (frames or max(window_of(run), CLIP_FRAMES if window_of(run) == 1 else 1)) if as_clip else 1
    says: list[str] = []
    if several:
        name = Path(image).name if isinstance(image, str | Path) else "clip"
        taken = clips.frames_of(image, count, stride if as_clip else 1)
        pictures, names = taken.rgba, taken.names
        if taken.more:
            rest = "" if as_clip else "; --kind clip predicts several"
            first = "its first frame" if len(pictures) == 1 else f"the first {len(pictures)} of its frames"
            says.append(f"{name}: {first}{rest}")
    else:
        name = name_of(image)  # type: ignore[arg-type]  # no clip, so one picture
        pictures, names = [rgba_of(image, name)], [name]  # type: ignore[arg-type]
    an_object = kind == "object" or (kind != "scene" and isinstance(run.normalisation, ZScore))
    if not several and (isinstance(mask, list | tuple) or (isinstance(mask, str | Path) and Path(mask).is_dir())):
        raise ValueError(f"{name}: several masks for one picture; give the one that is its own")
    pictures, how = _masked(pictures, names, mask, stride if as_clip else 1, an_object)
    if how and how not in ("its own alpha", "the mask given"):
        says.append(f"{name}: masked by {how}")
    size, patch = run.config.data.size, run.model.config.patch
    try:
        framed = frame_objects(pictures, size) if an_object else frame_scenes(pictures, size, patch, stretch)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if not any(each.valid.any() for each in framed):
        raise ValueError(f"{name}: its mask leaves no pixel of the frame, so there is nothing to predict")
    colour = augment.background(run.config.augment.background, None)
    return Asked(
        name,
        np.stack([augment.composite(each.rgba, colour) for each in framed]),
        np.stack([each.valid for each in framed]),
        tuple(names),
        framed[0].framed_from_image,
        (pictures[0].shape[0], pictures[0].shape[1]),
        says=tuple(says),
    )


def _masked(
    pictures: list[np.ndarray],
    names: list[str],
    mask: Picture | Sequence[Picture] | None,
    stride: int,
    an_object: bool,
) -> tuple[list[np.ndarray], str]:
    """The pictures with their masks, and how they came about."""
    if isinstance(mask, str) and mask in FOUND and not an_object:
        raise ValueError(f"--mask {mask} finds objects; a scene needs none, or a picture that is white where no sky is")
    masks: list[Picture | None] = [mask] * len(pictures)  # type: ignore[list-item]
    if mask is not None and not (isinstance(mask, str) and mask in FOUND) and clips.is_clip(mask):
        found = clips.frames_of(mask, len(pictures), stride).rgba
        if len(found) < len(pictures):
            raise ValueError(f"--mask: {len(found)} masks for {len(pictures)} frames; give one, or one per frame")
        masks = list(found)
    label = f"the mask {mask}" if isinstance(mask, str | Path) else "the mask"
    done = [masked(rgba, each, name, label) for rgba, each, name in zip(pictures, masks, names)]
    ways = [how for _, how in done]
    if an_object and not all(ways):
        raise ValueError(
            f"{names[ways.index('')]}: nothing says where the object is; give a picture with transparency, or "
            "--mask MASK.png, or --mask auto to find it"
        )
    return [rgba for rgba, _ in done], next((how for how in ways if how), "")


def _sample(image: str, run: Run, kind: Kind, frames: int | None, stride: int) -> Asked:
    from train.evaluation.evaluate import held_out  # which predicts in turn

    folder, _, key = image.rpartition("#")
    dataset = shards.open(folder)
    if key == HELD_OUT:
        rows = held_out(dataset, ("val", "test"))
        surfaces = [sum(dataset.manifest["coverage"][row].as_py()) for row in rows]
        key = dataset.keys[rows[int(np.argsort(surfaces, kind="stable")[len(rows) // 2])]]
    if key not in dataset.keys:
        raise ValueError(f"{folder} has no sample {key!r}; `worldtrace shards ls {folder}` lists them")
    found = dataset[key]
    as_clip = isinstance(found, Clip) and (kind == "clip" or (kind == "auto" and run.model.config.temporal))
    if kind == "clip" and not as_clip:
        raise ValueError(f"{image}: one picture is no clip")
    if not as_clip and (stride > 1 or (frames or 1) > 1):
        raise ValueError("frames and stride are of clips; give --kind clip, and a sample that is one")
    views = found.frames if isinstance(found, Clip) else (found,)
    views = tuple(views[::stride][:frames]) if as_clip else tuple(views[:1])
    layers, size, background = run.model.config.layers, run.config.data.size, run.config.augment.background
    truths = tuple(truth_of(view, layers, size, background) for view in views)
    rgb, valid = np.stack([truth.rgb for truth in truths]), np.stack([truth.valid for truth in truths])
    if not valid.any():
        raise ValueError(f"{image}: no valid pixel, so there is nothing to predict")
    names = tuple(key if len(views) == 1 else f"{key} [{index}]" for index in range(len(views)))
    return Asked(key, rgb, valid, names, truths=truths)
