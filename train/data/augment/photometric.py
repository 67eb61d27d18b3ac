"""Photometric augmentation (paper, App. C): jitter of exposure and colour, then the defects of lenses, sensors and
files, in the order in which they happen.

What is done to an image is a `Look`: numbers that are drawn where samples are read. `finished` applies them to tensors
on any device, one image at a time and in operations whose result does not depend on how many there are: a sample is
the same in every batch. Only the box around what is not transparent is computed; the background is put back afterwards,
as where a photograph is cut out. tests/train/test_augment_photometric.py has the operations one by one, in NumPy.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from shards.unproject import Box
from train.config import Photometric
from train.data.augment.jpeg import BLOCK, jpeg
from train.data.augment.noise import sensor_noise

_FIXED = 1 << 20  # steps between 0 and 1 of numbers that are summed as integers


class Look(NamedTuple):
    """What happens to one image. Exposure in stops, gains of white balance, the turn of the hue in turns; of blur the
    sigma in pixels, of sharpening the amount, of noise the deviation, of compression the quality, and 0 where there is
    none; the key of the noise; the background's colour, and the box (rows from `top` to `bottom` - 1) of what shows.
    """

    exposure: float
    gain_r: float
    gain_g: float
    gain_b: float
    gamma: float
    brightness: float
    contrast: float
    turn: float
    saturation: float
    blur: float
    sharpen: float
    noise: float
    quality: float
    key_low: float
    key_high: float
    red: float
    green: float
    blue: float
    top: float
    bottom: float
    left: float
    right: float

    def within(self, colour: np.ndarray, box: Box | None) -> "Look":
        """Over a background of a colour (3,), in a box."""
        red, green, blue = colour.tolist()
        rows, columns = box or (slice(0, 0), slice(0, 0))
        return self._replace(
            red=red,
            green=green,
            blue=blue,
            top=rows.start,
            bottom=rows.stop,
            left=columns.start,
            right=columns.stop,
        )


def draw(config: Photometric, frames: int, rng: np.random.Generator) -> list[Look]:
    """The looks of the frames of a clip (of a view: one).

    What they share is drawn as for a view. About that the values drift along a sine of 8 to 32 frames, by `drift` of
    their range (App. C: "photometric noise can vary mildly over time"); the noise of the sensor is each frame's own.
    """
    ranges = np.array(
        [
            config.exposure,
            *[config.white_balance] * 3,
            config.gamma,
            config.brightness,
            config.contrast,
            config.hue,
            config.saturation,
        ]
    )
    values = rng.uniform(-1, 1, len(ranges))
    happens = rng.random(4) < (config.blur, config.sharpen, config.noise, config.jpeg)
    strengths = [*rng.uniform((0.3, 0.2, 0.005), (1.0, 0.8, 0.03)), int(rng.integers(40, 95))]
    defects = [float(strength) if does else 0.0 for does, strength in zip(happens, strengths)]
    rate, phase = rng.uniform(1 / 32, 1 / 8), rng.random(len(ranges))
    key = rng.integers(0, 1 << 32, 2).tolist()
    looks = []
    for t in range(frames):
        drift = config.drift * (np.sin(2 * math.pi * (rate * t + phase)) - np.sin(2 * math.pi * phase))
        exposure, *gains, gamma, brightness, contrast, hue, saturation = ranges * (values + drift).clip(-1, 1)
        colour = [exposure, *(1 + gain for gain in gains), math.exp(gamma), 1 + brightness, 1 + contrast, hue]
        looks.append(
            Look._make([*map(float, colour), float(1 + saturation), *defects, key[0], (key[1] + t) % 2**32, *[0.0] * 7])
        )
    return looks


def finished(rgb: Tensor, shown: Tensor, look: Look) -> Tensor:
    """rgb (3,H,W) float32 in [0,1], composited | shown (H,W) bool -> rgb, in place: changed as `look` says where it is
    shown, the background elsewhere. Outside the box of the look it is the background already.
    """
    top, bottom, left, right = (int(side) for side in look[-4:])
    if top == bottom:
        return rgb
    rows, columns = _around(top, bottom, rgb.shape[1]), _around(left, right, rgb.shape[2])
    part = (slice(None), slice(rows.start, rows.stop), slice(columns.start, columns.stop))
    changed = photographed(rgb[part].contiguous(), look, rows, columns, rgb.shape[1], rgb.shape[2]).clamp_(0, 1)
    mask = shown[part[1:]]
    for plane, new, tint in zip(rgb[part], changed, look[-7:-4]):
        plane.copy_(new.masked_fill_(~mask, tint))
    return rgb


def photographed(rgb: Tensor, look: Look, rows: range, columns: range, height: int, width: int) -> Tensor:
    """rgb (3,h,w) float32 in [0,1], the part `rows` x `columns` of an image of height x width that is the background
    elsewhere -> the same, not yet within [0,1]. Takes the memory of `rgb`.
    """
    rgb = _colours(rgb, look, height * width)
    if look.blur:
        rgb = blur(rgb, look.blur)
    if look.sharpen:
        rgb = rgb.lerp_(blur(rgb, 1.0), -look.sharpen)
    if look.noise:
        key = int(look.key_low) | int(look.key_high) << 32
        rgb = rgb.add_(sensor_noise(key, height, width, rows, columns, rgb.device).mul_(look.noise))
    if look.quality:
        rgb = jpeg(rgb, int(look.quality))
    return rgb


def blur(rgb: Tensor, sigma: float) -> Tensor:
    """Gaussian, cut off at four deviations, the image mirrored at its borders."""
    reach = int(4 * sigma + 0.5)
    taps = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(reach + 1)]
    total = taps[0] + 2 * sum(taps[1:])
    for axis in (1, 2):
        length = rgb.shape[axis]
        index = torch.arange(-reach, length + reach, device=rgb.device).remainder_(2 * length)
        wide = rgb.index_select(axis, torch.minimum(index, 2 * length - 1 - index))
        rgb = wide.narrow(axis, reach, length) * (taps[0] / total)
        for k, tap in enumerate(taps[1:], start=1):
            for begin in (reach - k, reach + k):
                rgb.add_(wide.narrow(axis, begin, length), alpha=tap / total)
    return rgb


def _colours(rgb: Tensor, look: Look, pixels: int) -> Tensor:
    """Exposure (of linear light, sRGB taken as the power 2.2), white balance, gamma; then brightness, contrast about
    the mean of the whole image, hue and saturation, which are one affine map of the colour.
    """
    light = 2 ** (look.exposure / 2.2)
    beside = []
    for plane, gain, tint in zip(rgb, look[1:4], look[-7:-4]):
        plane.mul_(light).clamp_(0, 1).mul_(gain).clamp_(0, 1)
        beside.append(min(min(tint * light, 1) * gain, 1) ** look.gamma)
    rgb.pow_(look.gamma)
    contrast = look.brightness * look.contrast
    matrix = (contrast * colour_matrix(look.turn, look.saturation)).tolist()
    out = torch.empty_like(rgb)
    for row, plane in zip(matrix, out):
        torch.mul(rgb[0], row[0], out=plane).add_(rgb[1], alpha=row[1]).add_(rgb[2], alpha=row[2])
    if look.contrast != 1:
        # as integers: the same sum in any order, so on any device and with any number of threads
        inside = rgb.mul_(_FIXED).round_().to(torch.int64).sum().to(torch.float64) / _FIXED
        mean = (inside + sum(beside) * (pixels - rgb[0].numel())) / (3 * pixels)
        out.add_((mean * (look.brightness - contrast)).to(torch.float32))
    return out


def colour_matrix(turn: float, factor: float) -> np.ndarray:
    """(3,3) float64: rotates colours about the grey axis by `turn` of the wheel, and scales their distance from it."""
    c, s = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    grey = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    return np.asarray(grey + factor * (c * (np.eye(3) - grey) + s * cross))


def _around(begin: int, end: int, length: int) -> range:
    """What pixels from `begin` to `end` depend on: the blocks that their colours are coded in, and the blocks beside
    those. Filters reach less far, 4 pixels each; beyond lies the background, of which they make the background.
    """
    return range(max(0, begin // BLOCK * BLOCK - BLOCK), min(length, -(-end // BLOCK) * BLOCK + BLOCK))


def packed(looks: Sequence[Look]) -> Tensor:
    """(N,P) float64, as they travel."""
    return torch.tensor([list(look) for look in looks], dtype=torch.float64)


def unpacked(looks: Tensor) -> list[Look]:
    return [Look._make(row) for row in looks.tolist()]
