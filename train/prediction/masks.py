"""Where the object is: the picture's own alpha, a mask that is given, or one that is found.

What is found is found in one of two ways. `rembg`, a salient-object network, where it is installed. Else `flood`: a
background of one colour is filled from the border of the picture inwards. It says when a picture has no such
background, and never guesses.
"""

import math
from functools import cache
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from train.prediction.reading import Picture, rgba_of, wxh

FOUND = ("auto", "rembg", "flood")  # masks that are not given

# Of 255, in the channel that differs most: beside what the background itself differs by, rings of a JPEG around the
# object, which the border does not know of; and three deviations of sensor noise.
LEAST_TOLERANCE, TOLERANCE = 11, 16
LEAST_BORDER = 0.6  # of the pixels along the border; an object may cover the rest
HOLE = 2.0  # of 255: by so much more than the background's own median may that of a hole differ from its colour
SMALLEST_HOLE = 4  # pixels
FLOOD_PIXELS = 4_000_000  # larger pictures are filled at a smaller size, to save time and memory
SPECK = 0.001  # of the largest piece: smaller pieces are noise
LEAST, MOST = 0.0002, 0.98  # of the picture


def masked(rgba: np.ndarray, mask: Picture | None, name: str, mask_name: str = "the mask") -> tuple[np.ndarray, str]:
    """(rgba with the mask for alpha, how it came about: "" where nothing says where the object is).

    `mask` is a picture of the same size, white = object (or, of one with transparency, its alpha); `auto`, `rembg` or
    `flood`, to find it; or None for the alpha that the picture has. ValueError where sizes differ or none is found.
    """
    if mask is None:
        return rgba, "its own alpha" if bool((rgba[..., 3] < 255).any()) else ""
    if isinstance(mask, str) and mask in FOUND:
        return found(rgba, mask, name)
    alpha = alpha_of(mask, mask_name)
    if alpha.shape != rgba.shape[:2]:
        raise ValueError(f"{mask_name}: mask is {wxh(alpha)}, the image {name} is {wxh(rgba)}; they must agree")
    return np.dstack([rgba[..., :3], alpha]), "the mask given"


def alpha_of(mask: Picture, name: str) -> np.ndarray:
    """(h,w) uint8 of a picture that is a mask: its alpha where it has one, else its brightness."""
    rgba = rgba_of(mask, name)
    if bool((rgba[..., 3] < 255).any()):
        return rgba[..., 3]
    return np.asarray(Image.fromarray(rgba).convert("L"))


def found(rgba: np.ndarray, how: str, name: str) -> tuple[np.ndarray, str]:
    """(rgba with a mask that was found for alpha, how). ValueError where it cannot be, with what to do."""
    if how == "rembg" or (how == "auto" and _has_rembg()):
        return np.dstack([rgba[..., :3], _by_rembg(rgba[..., :3], name)]), "rembg"
    try:
        return _flooded(rgba[..., :3]), "a fill of its even background"
    except ValueError as error:
        remedy = "give --mask MASK.png or a picture with transparency"
        if how == "auto":
            remedy += ", or install rembg[cpu], which finds objects before any background"
        raise ValueError(f"{name}: no mask found: {error}; {remedy}") from None


def _flooded(rgb: np.ndarray) -> np.ndarray:
    """`flood`, of a large picture at a smaller size: masks are framed to some hundred pixels."""
    factor = math.ceil(math.sqrt(rgb.shape[0] * rgb.shape[1] / FLOOD_PIXELS))
    if factor == 1:
        return flood(rgb)
    alpha = Image.fromarray(flood(np.asarray(Image.fromarray(rgb).reduce(factor)))[..., 3])
    size = alpha.width * factor, alpha.height * factor  # the last blocks reach beyond the picture
    grown = np.asarray(alpha.resize(size, Image.Resampling.BILINEAR))
    return np.dstack([rgb, grown[: rgb.shape[0], : rgb.shape[1]]])


def flood(rgb: np.ndarray) -> np.ndarray:
    """(h,w,3) uint8 before a background of one colour -> (h,w,4) uint8, the background transparent.

    Background is what differs from the median colour of the border by little (twice what the border itself does, but
    at least and at most the TOLERANCES) and is joined to the border, or is a hole through which it is seen. A pixel on
    the rim is as opaque as its difference is large beside the largest next to it, and the background is taken out of
    its colour. ValueError, without a remedy, where less than LEAST_BORDER of the border has that colour, or where
    nothing or all stands out.
    """
    border = np.concatenate([rgb[0], rgb[-1], rgb[1:-1, 0], rgb[1:-1, -1]])
    colour = np.median(border, axis=0)
    difference = np.abs(rgb - colour.astype(np.float32)).max(axis=2)
    of_border = np.abs(border - colour).max(axis=1)
    share = float((of_border <= TOLERANCE).mean())
    if share < LEAST_BORDER:
        raise ValueError(
            f"only {share:.0%} of its border has one colour, {LEAST_BORDER:.0%} must for its background to be filled"
        )
    # A clean background is told from the object by less than a noisy one.
    spread = float(np.percentile(of_border[of_border <= TOLERANCE], 95))
    pieces, _ = ndimage.label(difference <= min(TOLERANCE, max(LEAST_TOLERANCE, 2 * spread)))
    edge = np.unique(np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]]))
    outside = np.isin(pieces, edge[edge > 0])
    outside |= _holes(pieces, outside, difference)
    inside = _without_specks(~outside)
    part = float(inside.mean())
    if not LEAST <= part <= MOST:
        raise ValueError(f"{part:.2%} of it stands out from the colour of its border")
    rim = inside & ~ndimage.binary_erosion(inside, np.ones((3, 3)), border_value=1)
    largest = ndimage.maximum_filter(np.where(inside, difference, 0.0), size=3)
    alpha = np.where(rim, difference / np.maximum(largest, 1.0), inside.astype(np.float32))
    colours = np.where(rim[..., None], colour + (rgb - colour) / np.maximum(alpha, 1 / 255)[..., None], rgb)
    return np.dstack([np.clip(np.round(colours), 0, 255), np.round(alpha * 255)]).astype(np.uint8)


def _holes(pieces: np.ndarray, outside: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """(h,w) bool: the enclosed pieces through which the background is seen: as even as it is, and of its very colour.

    A part of the object that happens to have that colour is shaded, and differs more.
    """
    level = float(np.median(difference[outside])) + HOLE
    enclosed = (pieces > 0) & ~outside
    names, counts = np.unique(pieces[enclosed], return_counts=True)
    near = np.bincount(pieces[enclosed & (difference <= level)], minlength=pieces.max() + 1)
    seen = names[(counts >= SMALLEST_HOLE) & (near[names] > 0.5 * counts)]
    return np.isin(pieces, seen)


def _without_specks(inside: np.ndarray) -> np.ndarray:
    """The pieces of at least SPECK of the largest, and of more than one pixel where that one has more."""
    pieces, count = ndimage.label(inside, np.ones((3, 3)))
    if count == 0:
        return inside
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    kept = sizes >= max(min(4, sizes.max()), SPECK * sizes.max())
    return np.asarray(kept[pieces])


def _has_rembg() -> bool:
    from importlib.util import find_spec

    return find_spec("rembg") is not None and find_spec("onnxruntime") is not None


def _by_rembg(rgb: np.ndarray, name: str) -> np.ndarray:
    """(h,w) uint8. The first use downloads the network (u2net, 176 MB) to ~/.u2net, which `U2NET_HOME` moves."""
    if not _has_rembg():
        raise ValueError(f"{name}: --mask rembg needs rembg and onnxruntime: pip install 'rembg[cpu]'")
    try:
        import rembg

        mask = rembg.remove(Image.fromarray(rgb), session=_session(), only_mask=True)
    except (Exception, SystemExit) as error:  # it leaves the process where its runtime is missing
        text = " ".join(str(error).split())[:200]
        raise ValueError(f"{name}: rembg failed ({type(error).__name__}: {text}); give --mask MASK.png") from None
    return np.asarray(mask.convert("L"))


@cache
def _session() -> Any:
    """One network for all pictures: to load it takes longer than to use it."""
    import rembg

    return rembg.new_session()
