"""Truth and prediction, layer by layer: what an evaluation leaves for people to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shards.commit import committed

BACKDROP = (24, 24, 28)
TEXT = (225, 225, 225)
TILE, LABEL, GAP = 160, 18, 4  # pixels


@dataclass(frozen=True, eq=False)
class Row:
    """rgb (H,W,3) float in [0,1] | valid (H,W) bool | true (K,H,W) and predicted (L,H,W) depth; K <= L are known."""

    key: str
    rgb: np.ndarray
    valid: np.ndarray
    true: np.ndarray
    predicted: np.ndarray


def draw_rows(rows: Sequence[Row], tile: int = TILE) -> np.ndarray:
    """(h,w,3) uint8. Of each row the image and the true layers above, the mask and the predicted layers below.

    Depth in turbo, near red and far blue; its range is that of the true layers of the row, so that a wrong depth shows
    as a wrong colour. Below a true layer stands the mean error of the predicted one, in parts of the true depth. A row
    without a valid pixel (a frame of a clip before its object comes in) has its image and an empty mask.
    """
    layers = len(rows[0].predicted)
    columns, height = layers + 1, 2 * (tile + LABEL + GAP)
    page = Image.new("RGB", (GAP + columns * (tile + GAP), len(rows) * (height + GAP)), BACKDROP)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for i, row in enumerate(rows):
        low, high = _range(row)
        upper = [(row.key, _bytes(row.rgb))]
        upper += [(f"true {k}", turbo(depth, row.valid, low, high)) for k, depth in enumerate(row.true)]
        mask = np.repeat(np.where(row.valid, 200, BACKDROP[0])[..., None], 3, 2).astype(np.uint8)
        lower = [(f"depth {low:.3g} to {high:.3g}" if row.valid.any() else "nothing valid", mask)]
        for k, depth in enumerate(row.predicted):
            judged = k < len(row.true) and row.valid.any()
            error = f"  off by {_error(depth, row.true[k], row.valid):.1%}" if judged else ""
            lower.append((f"predicted {k}{error}", turbo(depth, row.valid, low, high)))
        for line, pictures in enumerate((upper, lower)):
            y = i * (height + GAP) + line * (tile + LABEL + GAP)
            for column, (label, picture) in enumerate(pictures):
                x = GAP + column * (tile + GAP)
                draw.text((x + 2, y + 3), fitted(draw, label, font, tile - 4), fill=TEXT, font=font)
                image = Image.fromarray(picture)
                how = Image.Resampling.NEAREST if max(image.size) < tile else Image.Resampling.BOX
                page.paste(image.resize((tile, tile), how), (x, y + LABEL))
    return np.asarray(page)


def write_sheet(path: Path, pictures: Sequence[np.ndarray]) -> Path:
    """A PNG of pictures (h,w,3) uint8 of one width below each other. OSError where it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with committed(path) as file:
        Image.fromarray(np.concatenate(list(pictures))).save(file, "PNG")
    return path


def turbo(depth: np.ndarray, valid: np.ndarray, low: float, high: float) -> np.ndarray:
    """Depth (H,W) -> (H,W,3) uint8: `low` and nearer red, `high` and farther blue, the backdrop where not valid."""
    from matplotlib import colormaps  # a second's import, for the rank that draws

    picture = np.empty((*depth.shape, 3), np.uint8)
    picture[:] = BACKDROP
    near = np.clip((high - depth[valid]) / max(high - low, 1e-9), 0, 1)
    picture[valid] = colormaps["turbo"](0.05 + 0.9 * np.nan_to_num(near), bytes=True)[..., :3]
    return picture


def fitted(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """`text`, shortened at its front to at most `width` pixels: a key ends with the number of the view."""
    short = text
    while draw.textlength(short, font=font) > width and len(short) > 2:
        short = f"…{short[2:]}"
    return short


def _range(row: Row) -> tuple[float, float]:
    """Depth of the true layers but for the outermost hundredths, a little more, so that nothing true is cut off;
    0 to 1 where nothing is valid."""
    if not row.valid.any():
        return 0.0, 1.0
    low, high = np.percentile(row.true[:, row.valid], [1, 99])
    margin = 0.05 * max(high - low, 1e-6)
    return float(low - margin), float(high + margin)


def _error(predicted: np.ndarray, true: np.ndarray, valid: np.ndarray) -> float:
    return float(np.mean(np.abs(predicted[valid] - true[valid]) / true[valid]))


def _bytes(rgb: np.ndarray) -> np.ndarray:
    return np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8)
