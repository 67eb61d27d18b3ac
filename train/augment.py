"""Online augmentation (paper, App. C): image, layers, camera and validity mask change together, seeded per sample.

Geometry is exact in its camera model. A geometric augmentation is a pair (A, S): an affine map A of the pixel plane
and a motion S of the camera frame that keeps z (a rotation about the optical axis, or the mirror x -> -x). A view
with intrinsics K becomes one with K' = A K S^-1, and a point x that was seen at pixel u is the point S x seen at A u.
Depth along the optical axis is unchanged by every such pair, so the layers are moved by looking up the nearest source
pixel (never averaged: a mean of two surfaces is a point on neither) and XYZ is recomputed along the exact rays of K'.
Crop, zoom, translation, aspect and shear have S = 1; a flip and a rotation about the principal point leave K centred.
What is not exact: the nearest pixel is up to half a source pixel away, so on a slanted surface z is off by at most
that times its slope, as it is for any resampling of rendered layers. Under shear or unequal scale K' gains skew and
fx != fy; XYZ stays a right-angled camera frame.

Order: geometry (one resampling for all of it), photometry on the composited image, then the mask, whose outline also
cuts the image, as a matting tool's would.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from shards import LayeredView
from shards.unproject import unproject
from train.config import Augment, Geometric, MaskJitter, Photometric


@dataclass(frozen=True, eq=False)
class View:
    """What augmentation works on: rgba (H,W,4) uint8 straight | depth (L,H,W) float32 | valid (H,W) bool | K (3,3)."""

    rgba: np.ndarray
    depth: np.ndarray
    valid: np.ndarray
    K: np.ndarray


@dataclass(frozen=True, eq=False)
class Target:
    """rgb (3,H,W) float32 in [0,1] | depth (L,H,W) float32, 0 where not valid | valid (H,W) bool |
    weight (H,W) float32 in [0,1], 0 where not valid | K (3,3) float64. Arrays may be those of the view: read only.
    """

    rgb: np.ndarray
    depth: np.ndarray
    valid: np.ndarray
    weight: np.ndarray
    K: np.ndarray

    @property
    def xyz(self) -> np.ndarray:
        """(L,H,W,3) float32, camera frame, 0 where not valid."""
        return unproject(self.depth, self.valid * np.uint8(len(self.depth)), self.K)


def prepare(view: LayeredView, layers: int, size: int, config: Augment, rng: np.random.Generator | None) -> Target:
    """One training (rng given) or evaluation (rng None: resized only, black or white background) target.

    A view with fewer than `layers` layers repeats its last one, which is what forward filling says; one with more is
    cut. Raises nothing: a view without a valid pixel gives a target without one.
    """
    v = View(view.rgba, _with_layers(view.depth, layers), view.valid, np.asarray(view.K, np.float64))
    if rng is None or not config.enabled:
        if view.size != (size, size):
            v = warp(v, resize(v, size), np.eye(3), size)
        rgb = composite_planes(v.rgba, background(config.background, rng))
        return Target(rgb, v.depth, v.valid, v.valid.astype(np.float32), v.K)
    geometric, mask = config.geometric, config.mask
    if "sparse" in view.info.get("flags", ()):
        geometric = geometric.model_copy(update={"rotate": 0.0})  # a turned camera is not one of a car (App. C)
    if view.regime == "rgbd":
        # Where depth is unknown the photograph goes on: there is no outline that a tool could draw.
        mask = mask.model_copy(update={"probability": 0.0})
    v = warp(v, *draw_geometry(v, size, geometric, rng), size)
    colour = background(config.background, rng)
    rgb = photometric(composite(v.rgba, colour), config.photometric, rng)
    valid, weight, source = jitter_mask(v.valid, mask, rng)
    # What left the mask leaves the image, its soft rim included; what never was in it (glass, haze) stays. The
    # background is exact elsewhere: noise and JPEG blocks are cut away with it, as where a photo is cut out.
    cut = ndimage.binary_dilation(v.valid & ~valid) & ~valid
    shown = (v.rgba[..., 3:] > 0) & ~cut[..., None]
    rgb = np.clip(np.where(shown, rgb, colour), 0, 1).transpose(2, 0, 1)
    depth = np.where(valid, v.depth[:, source[0], source[1]], np.float32(0))
    return Target(np.ascontiguousarray(rgb, np.float32), depth, valid, weight, v.K)


def draw_geometry(view: View, size: int, config: Geometric, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw (A, S) to a `size` x `size` image. A draw that cuts too much of the object away is drawn again."""
    for _ in range(4):
        A, S, K = np.eye(3), np.eye(3), view.K
        steps: list[Step] = [fit(view.valid.shape, size)]
        if rng.random() < config.flip:
            steps.append(flip(size))
        steps += [
            rotate(math.radians(rng.uniform(-config.rotate, config.rotate))),
            shear(rng.uniform(-config.shear, config.shear), size),
            scale(_aspect(rng, config.aspect), size),
            scale((_log_uniform(rng, *config.zoom),) * 2, size),
            translate(rng.uniform(-config.shift, config.shift, 2) * size),
        ]
        for step in steps:
            step_A, step_S = step(K)
            A, S, K = step_A @ A, step_S @ S, moved(K, step_A, step_S)
        if kept(view.valid, A, size) >= config.keep:
            return A, S
    return resize(view, size), np.eye(3)


# ---------------------------------------------------------------- geometry: K (3,3) -> (A, S)

Step = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def fit(shape: tuple[int, ...], size: int) -> Step:
    """Scale (H, W) so that its shorter side is `size`, and crop the longer one about its centre."""
    height, width = shape
    s = size / min(height, width)
    A = np.array([[s, 0, (size - s * width) / 2], [0, s, (size - s * height) / 2], [0, 0, 1.0]])
    return lambda K: (A, np.eye(3))


def flip(size: int) -> Step:
    """Mirror left and right: u -> W - u, x -> -x."""
    A = np.array([[-1.0, 0, size], [0, 1, 0], [0, 0, 1]])
    return lambda K: (A, np.diag([-1.0, 1, 1]))


def rotate(angle: float) -> Step:
    """Turn the camera about its optical axis by `angle` radians: the image turns about the principal point, K stays."""
    c, s = math.cos(angle), math.sin(angle)
    S = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return lambda K: (K @ S @ np.linalg.inv(K), S)


def shear(tangent: float, size: int) -> Step:
    return _about_centre(np.array([[1, tangent], [0, 1]]), size)


def scale(factors: tuple[float, float], size: int) -> Step:
    """Magnify about the image centre by (x, y) factors; above 1 it crops."""
    return _about_centre(np.diag(factors), size)


def translate(shift: np.ndarray) -> Step:
    A = np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1.0]])
    return lambda K: (A, np.eye(3))


def moved(K: np.ndarray, A: np.ndarray, S: np.ndarray) -> np.ndarray:
    """Intrinsics after (A, S): K' = A K S^-1, so that K' (S x) = A (K x)."""
    K = A @ K @ np.linalg.inv(S)
    return K / K[2, 2]


def resize(view: View, size: int) -> np.ndarray:
    return fit(view.valid.shape, size)(view.K)[0]


def kept(valid: np.ndarray, A: np.ndarray, size: int) -> float:
    """Part of the valid pixels whose centres A leaves inside the image (1 where there are none)."""
    v, u = np.nonzero(valid)
    if not len(v):
        return 1.0
    x, y = (A @ np.stack([u + 0.5, v + 0.5, np.ones(len(u))]))[:2]
    return float(np.mean((x >= 0) & (x < size) & (y >= 0) & (y < size)))


def warp(view: View, A: np.ndarray, S: np.ndarray, size: int) -> View:
    """Resample to `size` x `size` under (A, S): colour filtered (premultiplied), layers from the nearest pixel."""
    height, width = view.valid.shape
    v, u = np.mgrid[0:size, 0:size] + 0.5
    inverse = np.linalg.inv(A)
    source_u, source_v = (
        np.floor(inverse[i, 0] * u + inverse[i, 1] * v + inverse[i, 2] + 1e-9).astype(np.int64) for i in (0, 1)
    )
    inside = (source_u >= 0) & (source_u < width) & (source_v >= 0) & (source_v < height)
    source_u, source_v = source_u.clip(0, width - 1), source_v.clip(0, height - 1)
    valid = view.valid[source_v, source_u] & inside
    return View(
        _warp_colour(view.rgba, inverse, size),
        np.where(valid, view.depth[:, source_v, source_u], np.float32(0)),
        valid,
        moved(view.K, A, S),
    )


def _warp_colour(rgba: np.ndarray, inverse: np.ndarray, size: int) -> np.ndarray:
    """Bilinear, after box-averaging whole source pixels where the image shrinks, so that it does not alias."""
    image = Image.fromarray(rgba)
    box = _pixels(inverse[:2, 0]), _pixels(inverse[:2, 1])
    if max(box) > 1:
        image = image.reduce(box)
        inverse = np.diag([1 / box[0], 1 / box[1], 1]) @ inverse
    coefficients = tuple(float(c) for c in inverse[:2].ravel())
    return np.asarray(image.transform((size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR))


# ---------------------------------------------------------------- photometry: rgb (H,W,3) float32 in [0,1] -> the same


def photometric(rgb: np.ndarray, config: Photometric, rng: np.random.Generator) -> np.ndarray:
    """Colour jitter, then the defects of lenses, sensors and files, in the order in which they happen."""
    rgb = exposure(rgb, rng.uniform(-config.exposure, config.exposure))
    rgb = white_balance(rgb, 1 + rng.uniform(-config.white_balance, config.white_balance, 3))
    rgb = gamma(rgb, math.exp(rng.uniform(-config.gamma, config.gamma)))
    rgb = brightness(rgb, rng.uniform(-config.brightness, config.brightness))
    rgb = contrast(rgb, 1 + rng.uniform(-config.contrast, config.contrast))
    rgb = hue_saturation(
        rgb, rng.uniform(-config.hue, config.hue), 1 + rng.uniform(-config.saturation, config.saturation)
    )
    if rng.random() < config.blur:
        rgb = blur(rgb, rng.uniform(0.3, 1.0))
    if rng.random() < config.sharpen:
        rgb = sharpen(rgb, rng.uniform(0.2, 0.8))
    if rng.random() < config.noise:
        rgb = rgb + rng.normal(0, rng.uniform(0.005, 0.03), rgb.shape).astype(np.float32)
    if rng.random() < config.jpeg:
        rgb = jpeg(rgb, int(rng.integers(40, 95)))
    return np.clip(rgb, 0, 1).astype(np.float32)


def exposure(rgb: np.ndarray, stops: float) -> np.ndarray:
    """Scale linear light by 2^stops (sRGB approximated by the power 2.2)."""
    return np.clip(rgb * np.float32(2 ** (stops / 2.2)), 0, 1)


def white_balance(rgb: np.ndarray, gains: np.ndarray) -> np.ndarray:
    return np.clip(rgb * gains.astype(np.float32), 0, 1)


def gamma(rgb: np.ndarray, power: float) -> np.ndarray:
    return np.clip(rgb, 0, 1) ** np.float32(power)


def brightness(rgb: np.ndarray, offset: float) -> np.ndarray:
    return rgb * np.float32(1 + offset)


def contrast(rgb: np.ndarray, factor: float) -> np.ndarray:
    mean = rgb.mean(dtype=np.float32)
    return mean + (rgb - mean) * np.float32(factor)


def hue_saturation(rgb: np.ndarray, turn: float, factor: float) -> np.ndarray:
    """Rotate the colour about the grey axis by `turn` of the wheel and scale its distance from that axis."""
    c, s = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    grey = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    matrix = grey + factor * (c * (np.eye(3) - grey) + s * cross)
    return rgb @ matrix.T.astype(np.float32)


def blur(rgb: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(rgb, (sigma, sigma, 0))


def sharpen(rgb: np.ndarray, amount: float) -> np.ndarray:
    return rgb + np.float32(amount) * (rgb - blur(rgb, 1.0))


def jpeg(rgb: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray((np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file), np.float32) / 255


def background(kind: str, rng: np.random.Generator | None) -> np.ndarray:
    """(3,) float32. The random background is one colour; without a generator it is black."""
    if kind == "random" and rng is not None:
        return rng.random(3, dtype=np.float32)
    return np.full(3, 1 if kind == "white" else 0, np.float32)


def composite(rgba: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Straight RGBA (H,W,4) uint8 over a colour (3,) -> (H,W,3) float32 in [0,1]."""
    image = rgba.astype(np.float32) / 255
    return colour + (image[..., :3] - colour) * image[..., 3:]


def composite_planes(rgba: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """`composite` as (3,H,W), within [0,1]: by planes, and only in the box of what is not transparent."""
    rgb = np.empty((3, *rgba.shape[:2]), np.float32)
    rgb[:] = colour[:, None, None]
    pixels = np.ascontiguousarray(rgba).view("<u4")[..., 0]  # alpha is the highest byte
    rows, columns = (np.flatnonzero(pixels.max(axis=axis, initial=0) >= 1 << 24) for axis in (1, 0))
    if rows.size:
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        red, green, blue, alpha = np.divide(rgba[box].transpose(2, 0, 1), np.float32(255), dtype=np.float32, order="C")
        for plane, tint, out in zip((red, green, blue), colour, rgb):
            plane -= tint
            plane *= alpha
            plane += tint
            np.clip(plane, 0, 1, out=out[box])
    return rgb


# ---------------------------------------------------------------- mask


def jitter_mask(
    valid: np.ndarray, config: MaskJitter, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A silhouette as another tool might have drawn it -> (valid (H,W) bool, weight (H,W), source (2,H,W) row, column).

    Pixels that lose support leave the mask. Pixels that gain it take the layers of the nearest valid pixel (`source`
    names it; elsewhere it is the pixel itself) and weigh `config.weight`. A mask that would vanish is left as it was.
    """
    size = valid.shape[0]
    own = np.indices(valid.shape)
    if rng.random() >= config.probability or not valid.any() or valid.all():
        return valid, valid.astype(np.float32), own
    outside, nearest = ndimage.distance_transform_edt(~valid, return_indices=True)
    signed = ndimage.distance_transform_edt(valid) - outside  # > 0 inside, in pixels
    signed = np.where(valid, signed - 0.5, signed + 0.5)
    wobble = ndimage.gaussian_filter(rng.standard_normal(valid.shape), max(1.0, 0.02 * size))
    wobble *= config.boundary * size / max(float(wobble.std()), 1e-9)
    jittered = signed + rng.uniform(-config.radius, config.radius) * size + wobble > 0
    radius = max(1, round(config.radius * size))
    if rng.random() < config.thin:
        jittered &= ndimage.binary_opening(valid, iterations=radius)
    if rng.random() < config.holes:
        jittered |= ndimage.binary_closing(valid, iterations=radius) & ~valid
    if jittered.sum() < 0.5 * valid.sum():
        return valid, valid.astype(np.float32), own
    weight = np.where(valid, 1.0, config.weight) * jittered
    return jittered, weight.astype(np.float32), np.where(jittered & ~valid, nearest, own)


def _with_layers(depth: np.ndarray, layers: int) -> np.ndarray:
    if layers <= len(depth):
        return depth[:layers]
    return np.concatenate([depth, depth[-1:].repeat(layers - len(depth), axis=0)])


def _about_centre(matrix: np.ndarray, size: int) -> Step:
    A = np.eye(3)
    A[:2, :2] = matrix
    A[:2, 2] = size / 2 - matrix @ np.full(2, size / 2)
    return lambda K: (A, np.eye(3))


def _pixels(step: np.ndarray) -> int:
    """Source pixels that one output pixel spans along `step` (2,), at least 1."""
    return max(1, round(float(np.linalg.norm(step))))


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _aspect(rng: np.random.Generator, limit: float) -> tuple[float, float]:
    """Factors (x, y) of product 1, whose ratio is within 1 +- limit."""
    root = math.sqrt(_log_uniform(rng, 1 - limit, 1 + limit))
    return root, 1 / root
