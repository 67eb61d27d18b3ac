"""Procedural images: patterns over two or three sRGB colours. All tile, except labels, leaves and the like."""

import math
from collections.abc import Callable

import numpy as np

from render.mesh import Texture

Colour = np.ndarray  # (3,) sRGB in 0..1


def checker(rng: np.random.Generator, a: Colour, b: Colour) -> Texture:
    size, count = 64, int(rng.choice([2, 4, 8]))
    v, u = np.mgrid[0:size, 0:size] * count // size
    return _two(rng, (u + v) % 2, a, b)


def stripes(rng: np.random.Generator, a: Colour, b: Colour) -> Texture:
    size, count = 96, int(rng.integers(2, 8))
    v, u = np.mgrid[0:size, 0:size] / size
    slope = int(rng.integers(-1, 2))
    phase = (u * count + v * slope * count) % 1.0
    if rng.random() < 0.4:
        phase = (v * count) % 1.0
    return _two(rng, phase < rng.uniform(0.2, 0.7), a, b)


def plaid(rng: np.random.Generator, a: Colour, b: Colour) -> Texture:
    size = 96
    v, u = np.mgrid[0:size, 0:size] / size
    count, width = int(rng.integers(2, 5)), rng.uniform(0.25, 0.6)
    return _two(rng, 0.5 * ((u * count) % 1 < width) + 0.5 * ((v * count) % 1 < width), a, b)


def dots(rng: np.random.Generator, a: Colour, b: Colour) -> Texture:
    size, count, radius = 96, int(rng.integers(2, 6)), rng.uniform(0.2, 0.42)
    v, u = np.mgrid[0:size, 0:size] / size * count
    u = u + 0.5 * (np.floor(v) % 2) * (count % 2 == 0)
    distance = np.hypot(u % 1 - 0.5, v % 1 - 0.5)
    return _two(rng, np.clip((radius - distance) * size / count / 2 + 0.5, 0, 1), a, b)


def noise(rng: np.random.Generator, a: Colour, b: Colour) -> Texture:
    return _two(rng, _fractal(rng, 96, int(rng.choice([3, 4, 6])), 3), a, b)


def marble(rng: np.random.Generator, a: Colour, b: Colour) -> Texture:
    size = 128
    v, u = np.mgrid[0:size, 0:size] / size
    wave = np.sin(2 * math.pi * (u * rng.integers(1, 4) + v * rng.integers(1, 3)) + 9 * _fractal(rng, size, 4, 3))
    return _two(rng, 1 - np.abs(wave) ** rng.uniform(0.3, 1.0), a, b)


def wood(rng: np.random.Generator, a: Colour, b: Colour) -> Texture:
    size = 128
    v = np.arange(size)[:, None] / size
    bend = _fractal(rng, size, 3, 2)
    ring = np.sin(2 * math.pi * (int(rng.integers(2, 6)) * v + rng.uniform(0.8, 2.0) * bend))
    grain = rng.random((size, 1)) * 0.3
    return _two(rng, np.clip(0.5 + 0.35 * ring + grain - 0.15, 0, 1), a, b)


def planks(rng: np.random.Generator, a: Colour, b: Colour) -> Texture:
    size, rows = 128, int(rng.integers(3, 7))
    v, u = np.mgrid[0:size, 0:size] / size
    row = np.floor(v * rows).astype(int)
    shift = rng.random(rows)
    seam = ((v * rows) % 1 < 0.05) | (((u + shift[row]) % 1) < 0.012)
    tone = rng.random((rows,))[row] * 0.6 + 0.3 * rng.random((size, 1)) + 0.2 * _fractal(rng, size, 4, 2)
    pixels = _mix(np.clip(tone, 0, 1), a, b)
    return _texture(pixels * np.where(seam, 0.45, 1.0)[..., None])


def bricks(rng: np.random.Generator, a: Colour, b: Colour) -> Texture:
    size, rows = 128, 2 * int(rng.integers(2, 5))
    columns = max(1, rows // 2)
    v, u = np.mgrid[0:size, 0:size] / size
    row = np.floor(v * rows).astype(int)
    across = u * columns + 0.5 * (row % 2)
    tone = rng.random((rows, columns))[row, np.floor(across).astype(int) % columns]
    joint = ((v * rows) % 1 < 0.1) | (across % 1 < 0.05)
    mortar = np.full(3, rng.uniform(0.45, 0.85))
    pixels = _mix(np.clip(0.2 + 0.6 * tone + 0.2 * rng.random((size, size)), 0, 1), a, b)
    return _texture(np.where(joint[..., None], mortar, pixels))


def tiles(rng: np.random.Generator, a: Colour, b: Colour) -> Texture:
    size, count = 96, int(rng.integers(2, 5))
    v, u = np.mgrid[0:size, 0:size] / size * count
    tone = rng.random((count, count))[np.floor(v).astype(int), np.floor(u).astype(int)]
    joint = (u % 1 < 0.05) | (v % 1 < 0.05)
    return _texture(_mix(0.25 * tone, a, b) * np.where(joint, 0.55, 1.0)[..., None])


def gradient(rng: np.random.Generator, a: Colour, b: Colour) -> Texture:
    size = 64
    v = np.linspace(0, 1, size)[:, None] ** rng.uniform(0.6, 1.6)
    return _two(rng, np.broadcast_to(v, (size, size)), a, b)


def weave(rng: np.random.Generator, a: Colour, b: Colour) -> Texture:
    size, count = 64, int(rng.choice([4, 8]))
    v, u = np.mgrid[0:size, 0:size] / size * count
    over = (np.floor(u) + np.floor(v)) % 2 == 0
    bulge = np.where(over, np.sin(math.pi * (v % 1)), np.sin(math.pi * (u % 1)))
    return _texture(_mix(np.where(over, 0.15, 0.75), a, b) * (0.6 + 0.4 * bulge)[..., None])


def label(rng: np.random.Generator, a: Colour, b: Colour) -> Texture:
    """A printed band: frame, emblem and rows of letter-like marks."""
    h, w = 96, 128
    pixels = np.broadcast_to(a, (h, w, 3)).copy()
    low, high = sorted(rng.integers(6, h - 6, 2).tolist())
    high = min(h - 4, max(high, low + 30))
    ground = np.clip(b * 0.35 + 0.62, 0, 1) if rng.random() < 0.5 else b
    pixels[low:high] = ground
    ink = np.clip(a * rng.uniform(0.2, 0.7), 0, 1)
    pixels[low + 2 : low + 4] = pixels[high - 4 : high - 2] = ink
    for half in (0, w // 2):
        y = low + 8
        while y < high - 7:
            tall = int(rng.integers(2, 7))
            marks = np.repeat(rng.random(w // 8) < 0.7, 2)[: w // 2 - 14]
            pixels[y : min(y + tall, high - 5), half + 7 : half + 7 + len(marks)][:, marks] = ink
            y += tall + 3
    v, u = np.mgrid[0:h, 0:w]
    emblem = np.hypot(u - rng.integers(20, w - 20), v - (low + high) / 2) < rng.uniform(0.15, 0.4) * (high - low)
    pixels[emblem] = rng.random(3)
    return _texture(pixels)


def facade(rng: np.random.Generator, a: Colour, b: Colour) -> Texture:
    """Rows of windows."""
    size, count = 96, int(rng.integers(2, 6))
    v, u = np.mgrid[0:size, 0:size] / size * count
    lit = rng.random((count, count))[np.floor(v).astype(int), np.floor(u).astype(int)]
    pane = (np.abs(u % 1 - 0.5) < rng.uniform(0.2, 0.38)) & (np.abs(v % 1 - 0.5) < rng.uniform(0.22, 0.4))
    glass = _mix(lit, np.array([0.15, 0.2, 0.3]), np.clip(b + 0.2, 0, 1))
    return _texture(np.where(pane[..., None], glass, a))


def painting(rng: np.random.Generator, a: Colour, b: Colour) -> Texture:
    """A picture for a wall or a screen: sky, hills and a disc."""
    size = 96
    v, u = np.mgrid[0:size, 0:size] / size
    pixels = _mix(v, a, b)
    for depth in range(int(rng.integers(2, 5))):
        line = 0.35 + 0.15 * depth + 0.12 * np.sin(u[:1] * rng.uniform(3, 14) + rng.uniform(0, 6))
        pixels = np.where((v > line)[..., None], rng.random(3) * (0.9 - 0.15 * depth), pixels)
    disc = np.hypot(u - rng.random(), v - rng.uniform(0.1, 0.4)) < rng.uniform(0.05, 0.15)
    return _texture(np.where(disc[..., None], np.array([1.0, 0.9, 0.6]), pixels))


def leaf(rng: np.random.Generator, a: Colour, b: Colour) -> Texture:
    """One leaf with veins on a transparent ground, stem at the bottom."""
    size = 64
    v, u = np.mgrid[0:size, 0:size] / (size - 1)
    along, across = 1 - v, np.abs(u - 0.5) * 2
    shape = np.sin(math.pi * along ** rng.uniform(0.7, 1.3)) ** rng.uniform(0.5, 1.0) * rng.uniform(0.6, 0.95)
    if rng.random() < 0.4:
        shape = shape * (0.8 + 0.2 * np.cos(along * math.pi * 2 * int(rng.integers(4, 9))))
    inside = (across < shape) | ((across < 0.06) & (along < 0.2))
    vein = (across < 0.05) | (((along - 0.5 * across) * int(rng.integers(5, 9))) % 1 < 0.15)
    return _texture(_mix(np.where(vein, 0.9, 0.25 * across), a, b), inside)


def foliage(rng: np.random.Generator, a: Colour, b: Colour) -> Texture:
    """Many small leaves on a transparent ground."""
    size = 64
    v, u = np.mgrid[0:size, 0:size] / size
    alpha, tone = np.zeros((size, size), bool), np.zeros((size, size))
    for _ in range(14):
        x, y, angle = rng.uniform(0.15, 0.85), rng.uniform(0.15, 0.85), rng.uniform(0, math.pi)
        p, q = (
            (u - x) * math.cos(angle) + (v - y) * math.sin(angle),
            (v - y) * math.cos(angle) - (u - x) * math.sin(angle),
        )
        blob = (p / 0.16) ** 2 + (q / 0.07) ** 2 < 1
        alpha |= blob
        tone[blob] = rng.random()
    return _texture(_mix(tone, a, b), alpha)


def grille(rng: np.random.Generator, a: Colour, b: Colour) -> Texture:
    """A mesh of wires or slots on a transparent ground; tiles."""
    size, count = 64, int(rng.choice([2, 4, 8]))
    v, u = np.mgrid[0:size, 0:size] / size * count
    width = rng.uniform(0.2, 0.45)
    if rng.random() < 0.5:
        solid = (u % 1 < width) | (v % 1 < width)
    else:
        solid = np.hypot(u % 1 - 0.5, v % 1 - 0.5) > rng.uniform(0.3, 0.45)
    return _texture(_mix(_fractal(rng, size, 4, 2), a, b), solid)


PATTERNS: tuple[Callable[[np.random.Generator, Colour, Colour], Texture], ...] = (
    checker, stripes, plaid, dots, noise, marble, wood, bricks, tiles, gradient, weave,
)  # fmt: skip


def _fractal(rng: np.random.Generator, size: int, cells: int, octaves: int) -> np.ndarray:
    """Periodic value noise (size, size) stretched to 0..1."""
    total = np.zeros((size, size))
    for octave in range(octaves):
        n = cells * 2**octave
        knots = rng.random((n, n))
        at = np.arange(size) * (n / size)
        low = at.astype(int)
        t = at - low
        t = t * t * (3 - 2 * t)
        rows = knots[low] * (1 - t)[:, None] + knots[(low + 1) % n] * t[:, None]
        total += (rows[:, low] * (1 - t) + rows[:, (low + 1) % n] * t) / 2**octave
    return (total - total.min()) / np.ptp(total)


def _mix(t: np.ndarray, a: Colour, b: Colour) -> np.ndarray:
    return a + np.asarray(t, float)[..., None] * (b - a)


def _two(rng: np.random.Generator, t: np.ndarray, a: Colour, b: Colour) -> Texture:
    """A pattern with a little grain."""
    pixels = _mix(t, a, b)
    return _texture(pixels + rng.normal(0, 0.015, pixels.shape[:2])[..., None])


def _texture(pixels: np.ndarray, alpha: np.ndarray | None = None) -> Texture:
    out = np.full((*pixels.shape[:2], 4), 255, np.uint8)
    out[..., :3] = np.round(np.clip(pixels, 0, 1) * 255)
    if alpha is not None:
        out[..., 3] = np.where(alpha, 255, 0)
    return Texture(out)
