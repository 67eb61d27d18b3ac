"""A contact sheet: a row per view, its RGBA and its depth layers in a perceptual colour map, to be looked at."""

from collections.abc import Iterable
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .commit import committed
from .contract import Clip, LayeredView, Sample

BACKDROP = (24, 24, 28)  # the sheet, and pixels without a surface
CLIP_FRAMES = 4  # of a clip, evenly spaced
_DIM = 0.25  # brightness of forward-filled copies: what was copied is not mistaken for what is there


def colorize(depth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Depth (...,H,W) where `valid` (...,H,W) bool -> (...,H,W,3) uint8: near bright, far dark, invalid the backdrop.

    The ends of the scale are the nearest and the farthest of all valid pixels.
    """
    from matplotlib import colormaps  # a second's import, which reading a dataset need not wait for

    out = np.empty((*depth.shape, 3), np.uint8)
    out[:] = BACKDROP
    z = depth[valid]
    if z.size:
        near, far = float(z.min()), float(z.max())
        closeness = np.clip((far - z) / max(far - near, 1e-9), 0, 1)
        out[valid] = colormaps["magma"](0.15 + 0.85 * closeness, bytes=True)[..., :3]
    return out


def layer_pictures(view: LayeredView) -> list[np.ndarray]:
    """RGBA over a checkerboard, then the L layers on one depth scale, each (H,W,3) uint8.

    True hits are in full colour, forward-filled copies dimmed, pixels without a surface dark.
    """
    filled = np.broadcast_to(view.valid, view.depth.shape)
    colors = colorize(view.depth, filled)
    colors = np.where((view.hit | ~filled)[..., None], colors, (colors * _DIM).astype(np.uint8))
    return [over_checkerboard(view.rgba), *colors]


def over_checkerboard(rgba: np.ndarray) -> np.ndarray:
    """Straight RGBA (H,W,4) uint8 over light grey squares, about 24 across -> (H,W,3) uint8."""
    v, u = np.indices(rgba.shape[:2]) // max(1, round(max(rgba.shape[:2]) / 24))
    board = np.where((u + v) % 2 == 0, 200, 180)[..., None]
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.rint(rgba[..., :3] * alpha + board * (1 - alpha)).astype(np.uint8)


def sheet(samples: Iterable[Sample], out: str | PathLike[str] | None = None, tile: int = 168) -> Image.Image:
    """Rows of [RGBA, layer 0, ..., layer L-1] with key and coverage, saved as PNG to `out`. A clip has up to four rows;
    of a `single_layer` sample layer 0 alone is drawn.

    `tile` is the height and width in pixels that each picture is fitted into. ValueError if there is no sample.
    """
    views = [view for sample in samples for view in views_of(sample)]
    if not views:
        raise ValueError("a sheet needs at least one sample: the selection is empty")
    font = ImageFont.load_default(12)
    gap, label = 4, 18
    columns = max(len(_drawn(view)) for view in views)
    page = Image.new("RGB", (gap + columns * (tile + gap), gap + len(views) * (tile + label + gap)), BACKDROP)
    draw = ImageDraw.Draw(page)
    for row, view in enumerate(views):
        y = gap + row * (tile + label + gap)
        for column, picture in enumerate(_drawn(view)):
            x = gap + column * (tile + gap)
            image = _tile(picture, tile)
            page.paste(image, (x + (tile - image.width) // 2, y + label + (tile - image.height) // 2))
            text = view.key if column == 0 else f"L{column - 1}  {100 * float((view.hits >= column).mean()):.1f} %"
            draw.text((x + 2, y + 2), _fitted(draw, text, font, tile - 4), fill=(225, 225, 225), font=font)
    if out is not None:
        with committed(Path(out)) as file:
            page.save(file, "PNG")
    return page


def strip(view: LayeredView, tile: int, columns: int) -> Image.Image:
    """RGBA and the layers of one view without any text, `columns` of them in a row, each fitted into `tile` pixels."""
    pictures = _drawn(view)
    columns = min(columns, len(pictures))
    page = Image.new("RGB", (columns * tile, -(-len(pictures) // columns) * tile), BACKDROP)
    for place, picture in enumerate(pictures):
        row, column = divmod(place, columns)
        image = _tile(picture, tile)
        page.paste(image, (column * tile + (tile - image.width) // 2, row * tile + (tile - image.height) // 2))
    return page


def _drawn(view: LayeredView) -> list[np.ndarray]:
    """All pictures of a view; of a capture that knows layer 0 alone, none of the copies."""
    return layer_pictures(view)[: 2 if view.single_layer else None]


def _tile(picture: np.ndarray, tile: int) -> Image.Image:
    image = Image.fromarray(picture)
    scale = tile / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)


def views_of(sample: Sample) -> list[LayeredView]:
    """The view itself, or a few frames of a clip, evenly spaced."""
    if not isinstance(sample, Clip):
        return [sample]
    chosen = np.unique(np.linspace(0, len(sample.frames) - 1, CLIP_FRAMES).round().astype(int))
    return [sample.frames[t] for t in chosen]


def _fitted(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> str:
    """`text`, shortened in its middle to at most `width` pixels: a key ends with the number of the view."""
    kept = len(text)
    short = text
    while draw.textlength(short, font=font) > width and kept > 4:
        kept -= 1
        short = f"{text[: kept // 2]}…{text[-(kept - kept // 2) :]}"
    return short
