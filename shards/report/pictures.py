"""A sample as one small picture for the page: the image, its layers and how many surfaces lie behind each pixel."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..contract import LayeredView, Sample
from ..sheet import BACKDROP, layer_pictures
from .readings import frames_of

TILE = 140  # pixels of a tile's longer side
ACROSS = 4
GAP, LABEL = 3, 18
QUALITY = 82
INK = (225, 225, 225)
FRAME = (229, 80, 57)
MARGIN = 0.06  # of the longer side, around what is there
SMALLEST = 0.25  # of the image: more than four times as large nothing is shown

Window = tuple[slice, slice]


def picture_of(sample: Sample) -> Image.Image:
    """A view: its image, layers and hits, four in a row. A clip: image, layer 0 and hits of up to four frames.

    Images are whole. A frame on them marks the window that the layers are cut to: most objects are small in theirs.
    """
    frames = frames_of(sample)
    window = window_of(frames)
    if len(frames) == 1:
        return _mosaic(_tiles(frames[0], window), ACROSS)
    chosen = np.unique(np.linspace(0, len(frames) - 1, ACROSS).round().astype(int))
    shown = [(f"t{t}", frames[t], layer_pictures(frames[t])) for t in chosen]
    tiles = [(f"{name} image", marked(pictures[0], window)) for name, _, pictures in shown]
    tiles += [(f"{name} {_share(frame, 0)}", pictures[1][window]) for name, frame, pictures in shown]
    tiles += [(f"{name} {_most(frame)}", surfaces(frame)[window]) for name, frame, _ in shown]
    return _mosaic(tiles, len(chosen))


def address_of(picture: Image.Image) -> str:
    """The picture as a `data:` address (WebP)."""
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def window_of(frames: Sequence[LayeredView]) -> Window:
    """Rows and columns around all that rays meet or the image shows, in the proportions of the image."""
    there = np.any([frame.valid | (frame.rgba[..., 3] > 0) for frame in frames], axis=0)
    height, width = there.shape
    if not there.any():
        return slice(0, height), slice(0, width)
    ends = [np.flatnonzero(there.any(axis=axis))[[0, -1]] + (0, 1) for axis in (1, 0)]
    part = max((high - low) / size for (low, high), size in zip(ends, there.shape))
    part = min(max(part + 2 * MARGIN, SMALLEST), 1.0)
    return tuple(_centred(low, high, part, size) for (low, high), size in zip(ends, there.shape))  # type: ignore[return-value]


def marked(image: np.ndarray, window: Window) -> np.ndarray:
    """The image with the edge of the window drawn on it, unless that is the edge of the image."""
    if (window[0].stop - window[0].start, window[1].stop - window[1].start) == image.shape[:2]:
        return image
    out = image.copy()
    thick = max(1, round(max(image.shape[:2]) / TILE))
    box = out[window]
    for edge in (box[:thick], box[-thick:], box[:, :thick], box[:, -thick:]):
        edge[:] = FRAME
    return out


def surfaces(view: LayeredView) -> np.ndarray:
    """Hits as grey: none is the backdrop, as many as there are layers is white. (H,W,3) uint8."""
    share = (view.hits.astype(np.float32) / view.layers)[..., None]
    dark = np.array(BACKDROP, np.float32)
    return np.rint(np.where(share > 0, dark + (255 - dark) * (0.15 + 0.85 * share), dark)).astype(np.uint8)


def _centred(low: int, high: int, part: float, size: int) -> slice:
    """`part` of `size` about the middle of low..high, moved into 0..size."""
    length = max(1, min(size, round(part * size)))
    start = int(min(max((low + high - length) // 2, 0), size - length))
    return slice(start, start + length)


def _tiles(view: LayeredView, window: Window) -> list[tuple[str, np.ndarray]]:
    image, *layers = layer_pictures(view)
    known = 1 if view.single_layer else len(layers)
    tiles = [("image", marked(image, window)), *[(_share(view, l), layers[l][window]) for l in range(known)]]
    return tiles if view.single_layer else [*tiles, (_most(view), surfaces(view)[window])]


def _share(view: LayeredView, l: int) -> str:
    return f"L{l}  {100 * float((view.hits > l).mean()):.1f} %"


def _most(view: LayeredView) -> str:
    return f"hits, up to {int(view.hits.max(initial=0))}"


def _mosaic(tiles: list[tuple[str, np.ndarray]], across: int) -> Image.Image:
    height, width = tiles[0][1].shape[:2]
    across = min(across, len(tiles))
    scale = TILE * ACROSS / across / max(height, width)  # all pictures are about as wide as each other
    size = max(1, round(width * scale)), max(1, round(height * scale))
    down = -(-len(tiles) // across)
    # the colours of `shards show`
    page = Image.new("RGB", (GAP + across * (size[0] + GAP), GAP + down * (size[1] + LABEL + GAP)), BACKDROP)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for number, (words, pixels) in enumerate(tiles):
        x = GAP + number % across * (size[0] + GAP)
        y = GAP + number // across * (size[1] + LABEL + GAP)
        image = Image.fromarray(np.ascontiguousarray(pixels))
        enlarged = image.width < size[0]
        image = image.resize(size, Image.Resampling.NEAREST if enlarged else Image.Resampling.BOX)
        draw.text((x + 2, y + 1), words, fill=INK, font=font)
        page.paste(image, (x, y + LABEL))
    return page
