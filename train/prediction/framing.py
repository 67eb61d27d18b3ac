"""From a picture to what the model takes: a square (or patch-aligned) crop, a validity mask, a background.

Objects are framed as the public release frames them: a square around the mask whose longer side fills 2/3 of the image;
of a clip one square for all frames, around all of their masks. Scenes keep their view and are scaled to the model's
size. The release crops at whole pixels and resamples bilinearly; here boxes are exact and colours are averaged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from train.prediction.reading import wxh

OBJECT_FILL = 2 / 3
COARSE = 4  # pixels of the picture to one of the frame, and more than that are averaged by whole factors first: memory


@dataclass(frozen=True, eq=False)
class Framed:
    """rgba (H,W,4) uint8 straight sRGB | valid A (H,W) bool | framed_from_image (3,3): pixel coordinates, affine."""

    rgba: np.ndarray
    valid: np.ndarray
    framed_from_image: np.ndarray


def frame_object(rgba: np.ndarray, size: int) -> Framed:
    """Centre the masked object in a size x size image, its longer side at 2/3. ValueError where the mask is empty."""
    return frame_objects([rgba], size)[0]


def frame_objects(frames: Sequence[np.ndarray], size: int) -> list[Framed]:
    """Frames of one clip (h,w,4), framed alike: centred is what any of them shows, so that a pixel means the same in
    all. ValueError where no mask has a pixel, or frames differ in size."""
    _alike(frames)
    shown = np.any([frame[..., 3] > 127 for frame in frames], axis=0) if len(frames) > 1 else frames[0][..., 3] > 127
    rows, columns = (np.flatnonzero(shown.any(axis=axis)) for axis in (1, 0))
    if rows.size == 0:
        raise ValueError("the mask is empty: no pixel has alpha above one half, so there is no object to predict")
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    side = max(bottom - top, right - left) / OBJECT_FILL
    x, y = (left + right) / 2 - side / 2, (top + bottom) / 2 - side / 2
    return [_resample(frame, x, y, side, side, size, size) for frame in frames]


def frame_scene(rgba: np.ndarray, size: int, patch: int, stretch: bool = False) -> Framed:
    """Scale the longer side to `size`; the shorter one is cropped, about its centre, to a multiple of the patch.

    With `stretch` all of the picture becomes a square, as the public release frames scenes.
    """
    h, w = rgba.shape[:2]
    if stretch:
        return _resample(rgba, 0, 0, w, h, size, size)
    longest = max(h, w)
    height, width = (max(patch, side * size // longest // patch * patch) for side in (h, w))
    scale = size / longest
    return _resample(
        rgba, (w - width / scale) / 2, (h - height / scale) / 2, width / scale, height / scale, width, height
    )


def frame_scenes(frames: Sequence[np.ndarray], size: int, patch: int, stretch: bool = False) -> list[Framed]:
    """Frames of one clip. ValueError where they differ in size."""
    _alike(frames)
    return [frame_scene(frame, size, patch, stretch) for frame in frames]


def _alike(frames: Sequence[np.ndarray]) -> None:
    for index, frame in enumerate(frames):
        if frame.shape != frames[0].shape:
            raise ValueError(
                f"frame {index} is {wxh(frame)}, the first one {wxh(frames[0])}; the frames of a clip have one size"
            )


def _resample(rgba: np.ndarray, x: float, y: float, w: float, h: float, width: int, height: int) -> Framed:
    """Resample the box (x, y, w, h) of the image, which may reach beyond it, to width x height pixels.

    Colours are averaged over the area of a pixel, or interpolated where there are fewer than are to be.
    """
    transform = np.array([[width / w, 0, -x * width / w], [0, height / h, -y * height / h], [0, 0, 1.0]])
    left, top = max(0, int(np.floor(x)) - 1), max(0, int(np.floor(y)) - 1)
    right, bottom = (min(side, int(np.ceil(end)) + 1) for side, end in ((rgba.shape[1], x + w), (rgba.shape[0], y + h)))
    # Premultiplied ("RGBa") while averaging: the colour under a transparent pixel must not bleed into the object.
    image = Image.fromarray(rgba[top:bottom, left:right]).convert("RGBa")
    x, y = x - left, y - top
    factor = max(1, int(min(w / width, h / height) / COARSE))
    if factor > 1:
        image = image.reduce(factor)
        x, y, w, h = x / factor, y / factor, w / factor, h / factor
    # Nothing is added where the picture goes on: interpolation would mix it in.
    pad = [max(0, int(np.ceil(beyond - 1e-6))) for beyond in (-x, -y, x + w - image.width, y + h - image.height)]
    canvas = Image.new("RGBa", (image.width + pad[0] + pad[2], image.height + pad[1] + pad[3]))
    canvas.paste(image, (pad[0], pad[1]))
    x, y = max(0.0, x + pad[0]), max(0.0, y + pad[1])
    box = (x, y, min(x + w, canvas.width), min(y + h, canvas.height))
    resampling = Image.Resampling.BOX if w >= width else Image.Resampling.BILINEAR
    framed = np.asarray(canvas.resize((width, height), resampling, box=box).convert("RGBA"))
    return Framed(framed, framed[..., 3] > 127, transform)
