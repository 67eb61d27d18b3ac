"""A prediction as a picture: the input and its layers; the truth below them where it is known; how far seeds differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shards import committed
from train.prediction.prediction import new_points
from train.reports.sheets import fitted

BACKDROP = (22, 22, 29)
TEXT = (225, 225, 225)
DIM = 0.3  # brightness of a point that repeats the one before it: what was copied is not mistaken for what is there
LABEL, GAP = 18, 4  # pixels
SMALLEST, LARGEST = 160, 252  # pixels of a tile's longer side


@dataclass(frozen=True, eq=False)
class Shown:
    """One image, or a frame of a clip: rgb (H,W,3) float in [0,1], valid (H,W) bool, a stack xyz (L,H,W,3) with exists
    (L,H,W) bool; true_xyz (K,H,W,3), K <= L, where it is known; spread (L,H,W), where there are several seeds.
    """

    rgb: np.ndarray
    valid: np.ndarray
    xyz: np.ndarray
    exists: np.ndarray
    true_xyz: np.ndarray | None = None
    spread: np.ndarray | None = None


def spread(xyz: np.ndarray, exists: np.ndarray) -> np.ndarray | None:
    """xyz (S,L,H,W,3), exists (S,L,H,W) -> (L,H,W): standard deviation of the depth over the seeds, 0 where not all of
    them have a point; None of a single seed."""
    if len(xyz) < 2:
        return None
    return np.where(exists.all(axis=0), xyz[..., 2].std(axis=0, dtype=np.float64), 0)


def prediction_sheet(path: Path, frames: Sequence[Shown], title: str = "") -> Path:
    """Write a PNG of all frames below each other.

    Depth in magma, near bright, one range for the whole sheet: that of the truth where there is one, so that a wrong
    depth shows as a wrong colour. What repeats the layer before it is dimmed, what does not exist is dark.
    """
    low, high = _range(frames)
    layers = len(frames[0].xyz)
    rows = [row for frame in frames for row in _rows(frame, low, high)]
    height, width = frames[0].valid.shape
    scale = min(max(max(height, width), SMALLEST), LARGEST) / max(height, width)
    tile = max(1, round(width * scale)), max(1, round(height * scale))
    page = Image.new(
        "RGB",
        (GAP + (layers + 1) * (tile[0] + GAP), LABEL + GAP + len(rows) * (tile[1] + LABEL + GAP)),
        BACKDROP,
    )
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    draw.text((GAP + 2, 4), fitted(draw, title, font, page.width - 2 * GAP - 4), fill=TEXT, font=font)
    for number, row in enumerate(rows):
        y = LABEL + GAP + number * (tile[1] + LABEL + GAP)
        for column, (label, picture) in enumerate(row):
            x = GAP + column * (tile[0] + GAP)
            draw.text((x + 2, y + 3), fitted(draw, label, font, tile[0] - 4), fill=TEXT, font=font)
            how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
            page.paste(Image.fromarray(picture).resize(tile, how), (x, y + LABEL))
    with committed(path) as file:
        page.save(file, "PNG")
    return path


def _rows(frame: Shown, low: float, high: float) -> list[list[tuple[str, np.ndarray]]]:
    """Of one frame a row of the predicted layers, one of the true and one of the spread: labels and pictures."""
    image = np.rint(np.clip(np.nan_to_num(frame.rgb), 0, 1) * 255).astype(np.uint8)
    rows = [[("input", image), *_layers("layer", frame.xyz, frame.exists & frame.valid, frame.valid, low, high)]]
    masked = np.where(frame.valid[..., None], image, np.array(BACKDROP, np.uint8))
    if frame.true_xyz is not None:
        there = np.broadcast_to(frame.valid, frame.true_xyz.shape[:-1])
        rows.append([("what is valid", masked), *_layers("true", frame.true_xyz, there, frame.valid, low, high)])
    if frame.spread is not None:
        there = frame.exists & frame.valid
        most = float(np.percentile(frame.spread[there], 99)) if there.any() else 0.0
        pictures = [coloured(each / max(most, 1e-12), here) for each, here in zip(frame.spread, there)]
        named = [(f"deviation {l}", picture) for l, picture in enumerate(pictures)]
        rows.append([(f"deviation up to {most:.2g}", masked), *named])
    return rows


def _layers(
    name: str, xyz: np.ndarray, there: np.ndarray, valid: np.ndarray, low: float, high: float
) -> list[tuple[str, np.ndarray]]:
    """Label and picture of each layer; behind the first the label has the part of the valid pixels with a new point."""
    new = new_points(xyz, there)
    named = []
    for l, depth in enumerate(xyz[..., 2]):
        picture = coloured((high - depth) / (high - low), there[l])
        picture = np.where((new[l] | ~there[l])[..., None], picture, (picture * DIM).astype(np.uint8))
        share = f"  {new[l].sum() / max(1, valid.sum()):.0%} new" if l else ""
        named.append((f"{name} {l}{share}", picture))
    return named


def coloured(brightness: np.ndarray, there: np.ndarray) -> np.ndarray:
    """(H,W) in [0, 1], clipped -> (H,W,3) uint8 magma, the backdrop where nothing is there."""
    from matplotlib import colormaps  # a second's import, for who draws

    picture = np.empty((*brightness.shape, 3), np.uint8)
    picture[:] = BACKDROP
    value = np.clip(np.nan_to_num(brightness[there]), 0, 1)
    picture[there] = colormaps["magma"](0.12 + 0.88 * value, bytes=True)[..., :3]
    return picture


def _range(frames: Sequence[Shown]) -> tuple[float, float]:
    """Of the depth of all frames, but for the outermost hundredths, and a little more; (0, 1) where there is none."""
    known = [frame.xyz[..., 2][frame.exists & frame.valid] for frame in frames]
    known = [z if each.true_xyz is None else each.true_xyz[..., 2][:, each.valid] for z, each in zip(known, frames)]
    z = np.concatenate([each.ravel() for each in known])
    z = z[np.isfinite(z)]
    if not z.size:
        return 0.0, 1.0
    low, high = np.percentile(z, [1, 99])
    margin = 0.05 * max(high - low, 1e-6)
    return float(low - margin), float(high + margin)
