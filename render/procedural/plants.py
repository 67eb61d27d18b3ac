"""Plants: trees of branching tubes with leaf cards, potted plants with bent leaves, mushrooms, flowers."""

import math
from collections.abc import Callable

import numpy as np

from render.normals import unit
from render.procedural import textures, vessels
from render.procedural.assembly import Assembly
from render.procedural.looks import Look, Palette
from render.procedural.piece import Piece
from render.procedural.shapes import ellipsoid, grid, revolve, tube
from render.procedural.vessels import curve


def greens(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two leaf colours: mostly green, some autumn."""
    base = np.array([0.2, 0.45, 0.12]) if rng.random() < 0.75 else np.array([0.7, 0.4, 0.1])
    a = np.clip(base * rng.uniform(0.6, 1.2) + rng.normal(0, 0.04, 3), 0, 1)
    return a, np.clip(a * rng.uniform(1.2, 1.8), 0, 1)


def cards(centres: np.ndarray, directions: np.ndarray, ups: np.ndarray, length: np.ndarray, width: float) -> Piece:
    """Single-sheet leaves (N of 4 vertices): each from a centre along a direction, `width` relative to its length."""
    forward = unit(directions)
    side = unit(np.cross(forward, ups + 1e-3))
    normal = np.cross(side, forward)
    half = side * (length * width / 2)[:, None]
    end = centres + forward * length[:, None]
    vertices = np.stack([centres - half, centres + half, end + half, end - half], axis=1)
    faces = (np.arange(len(centres))[:, None, None] * 4 + np.array([[0, 1, 2], [0, 2, 3]])).reshape(-1, 3)
    uv = np.tile(np.array([[0.0, 1], [1, 1], [1, 0], [0, 0]]), (len(centres), 1))
    return Piece(vertices.reshape(-1, 3), faces, np.repeat(normal, 4, axis=0), uv)


def tree(rng: np.random.Generator, palette: Palette) -> Assembly:
    """A trunk that forks, with leaf cards (alpha masked), blobs of foliage, or cones."""
    h = rng.uniform(1.5, 6.0)
    bark = palette.wood(3.0) if rng.random() < 0.7 else palette.shaded()
    out = Assembly()
    if rng.random() < 0.25:
        return _conifer(rng, palette, bark, h)
    tips: list[np.ndarray] = []
    stack = [(np.zeros(3), np.array([0.0, 1.0, 0.0]), h * 0.4, 0.035 * h, 0)]
    deepest = int(rng.integers(2, 4))
    spread = rng.uniform(0.35, 0.9)
    while stack:
        start, heading, length, r, depth = stack.pop()
        bend = heading + rng.normal(0, 0.15, 3)
        end = start + unit(bend) * length
        path = curve(np.stack([start, (start + end) / 2 + rng.normal(0, 0.05 * length, 3), end]), 7)
        out.add(bark, tube(path, np.linspace(r, 0.6 * r, 7), 8 if depth < 2 else 5))
        tips += [path[4], end]
        if depth < deepest:
            for k in range(int(rng.integers(2, 4))):
                a = rng.uniform(0, 6.28) + 2.1 * k
                side = np.array([math.cos(a), rng.uniform(0.2, 0.6), math.sin(a)])
                way = unit(heading + spread * side)
                stack.append(
                    (path[-1] - 0.02 * (path[-1] - path[-2]), way, length * rng.uniform(0.55, 0.8), 0.58 * r, depth + 1)
                )
    ends = np.array(tips[2:]) if len(tips) > 4 else np.array(tips)
    style = rng.integers(3)
    if style == 0:
        looks = [palette.shaded(), palette.plain(greens(rng)[0], 0.9)]
        for at in ends[rng.permutation(len(ends))[:14]]:
            r = h * rng.uniform(0.07, 0.14)
            blob = ellipsoid(r, 0.8 * r, r, 14, 9).bent(_lumpy(rng, r))
            out.add(looks[int(rng.random() < 0.7)], blob.moved(*at))
        return out
    if style == 1:
        look, count, size, width = palette.cutout(textures.leaf, 1, greens(rng)), 500, 0.06 * h, 0.5
    else:
        look, count, size, width = palette.cutout(textures.foliage, 1, greens(rng)), 120, 0.16 * h, 1.0
    at = ends[rng.integers(len(ends), size=count)] + rng.normal(0, 0.045 * h, (count, 3))
    heading = rng.normal(0, 1, (count, 3)) + [0, -0.3, 0]
    out.add(look, cards(at, heading, rng.normal(0, 1, (count, 3)), size * rng.uniform(0.6, 1.3, count), width))
    return out


def _lumpy(rng: np.random.Generator, r: float) -> Callable[[np.ndarray], np.ndarray]:
    waves, phase = rng.normal(0, 2.5 / r, (3, 3)), rng.uniform(0, 6, 3)

    def warp(p: np.ndarray) -> np.ndarray:
        return p * (1 + 0.08 * np.sin(p @ waves + phase).sum(axis=1))[:, None]

    return warp


def _conifer(rng: np.random.Generator, palette: Palette, bark: Look, h: float) -> Assembly:
    out = Assembly().add(
        bark, tube(np.array([[0, 0, 0], [0, 0.5 * h, 0], [0, h, 0]]), np.array([0.03, 0.02, 0.004]) * h, 10)
    )
    look, tiers, wide = palette.plain(greens(rng)[0], 0.9), int(rng.integers(3, 7)), rng.uniform(0.15, 0.3) * h
    points = int(rng.integers(7, 13))
    for k in range(tiers):
        t = k / tiers
        r, y, tall = wide * (1 - 0.8 * t), h * (0.18 + 0.72 * t), h * 0.9 / tiers * 1.3
        angle = np.arange(2 * points) * math.pi / points
        reach = np.where(np.arange(2 * points) % 2, 0.72, 1.0)
        rows = []
        for s, lift in ((1.0, 0.0), (0.55, 0.4), (0.04, 1.0)):
            ring = 1 + (reach - 1) * s
            rows.append(
                np.stack([s * r * ring * np.cos(angle), 0 * angle + y + lift * tall, -s * r * ring * np.sin(angle)], 1)
            )
        out.add(look, grid(np.stack(rows), close_columns=True).inside_out().turned("y", 0.4 * k))
    return out


def potted(rng: np.random.Generator, palette: Palette) -> Assembly:
    """A pot with soil and long bent leaves (single sheets), or a bush of leaf cards."""
    r, h = rng.uniform(0.1, 0.2), rng.uniform(0.15, 0.35)
    outer = curve(np.array([[r * rng.uniform(0.6, 0.9), 0], [r * rng.uniform(0.85, 1.15), 0.5 * h], [r, h]]), 12)
    out = Assembly().add(palette.any(), revolve(vessels.shell(outer, 0.08 * r, 0.1 * r), 32))
    soil = revolve(np.array([[0.91 * r, 0.86 * h], [0.5 * r, 0.9 * h], [0, 0.92 * h]]), 24)
    out.add(palette.plain(np.array([0.2, 0.13, 0.08]), 1.0), soil)
    a, b = greens(rng)
    size = rng.uniform(0.3, 0.9)
    if rng.random() < 0.6:
        looks = [palette.plain(a, 0.5), palette.plain(b, 0.5), palette.printed(textures.stripes(rng, a, b), 1.0)]
        look = looks[rng.integers(3)]
        width = rng.uniform(0.04, 0.2)
        for k in range(int(rng.integers(7, 22))):
            droop, long = rng.uniform(0.1, 1.3), size * rng.uniform(0.6, 1.1)
            leaf = (
                bent_leaf(long, width * long, droop)
                .turned("z", rng.uniform(-0.1, 0.25))
                .moved(rng.uniform(0.05, 0.3) * r)
            )
            out.add(look, leaf.turned("y", 2.4 * k + rng.uniform(-0.3, 0.3)).moved(y=0.88 * h))
        return out
    count = int(rng.integers(50, 180))
    look = palette.cutout(textures.leaf, 1.0, (a, b))
    heading = rng.normal(0, 1, (count, 3)) + [0, 0.4, 0]
    at = (
        unit(rng.normal(0, 1, (count, 3))) * (rng.random(count) ** 0.4)[:, None] * [0.4 * size, 0.45 * size, 0.4 * size]
    )
    out.add(
        look,
        cards(
            at + [0, h + 0.5 * size, 0],
            heading,
            rng.normal(0, 1, (count, 3)),
            size * rng.uniform(0.12, 0.3, count),
            0.6,
        ),
    )
    for k in range(int(rng.integers(3, 7))):
        top = np.array([math.cos(2.4 * k), 0, math.sin(2.4 * k)]) * 0.25 * size + [0, h + 0.7 * size, 0]
        out.add(
            palette.plain(a * 0.6),
            tube(curve(np.stack([[0, 0.8 * h, 0], [0.3 * top[0], h, 0.3 * top[2]], top]), 8), 0.008, 6),
        )
    return out


def bent_leaf(length: float, width: float, droop: float) -> Piece:
    """A single sheet from the origin up and out along +x, folded along its middle, bending down by `droop` radians."""
    t = np.linspace(0, 1, 10)
    angle = 1.35 - droop * 1.8 * t
    step = length / 9
    x = np.concatenate([[0], np.cumsum(np.cos(angle[:-1]) * step)])
    y = np.concatenate([[0], np.cumsum(np.sin(angle[:-1]) * step)])
    half = width / 2 * np.sin(math.pi * np.clip(t * 0.94 + 0.05, 0, 1)) ** 0.7
    rows = [np.stack([x, y + 0.25 * half * abs(s), s * half], 1) for s in (-1, -0.5, 0, 0.5, 1)]
    return grid(np.stack(rows))


def mushrooms(rng: np.random.Generator, palette: Palette) -> Assembly:
    """A group with hollow caps over stems, on a mound."""
    out, cap_look, stem_look = Assembly(), palette.any(), palette.plain(np.array([0.85, 0.8, 0.7]))
    mound = ellipsoid(0.5, 0.08, 0.5, 24, 10).bent(_lumpy(rng, 0.5))
    out.add(palette.shaded(), mound)
    for k in range(int(rng.integers(1, 6))):
        h, r = rng.uniform(0.25, 0.8), rng.uniform(0.12, 0.3)
        a, away = 2.4 * k, 0.0 if k == 0 else rng.uniform(0.15, 0.4)
        lean = rng.normal(0, 0.08, 2)
        foot = np.array([away * math.cos(a), 0.01, away * math.sin(a)])
        top = foot + [lean[0], h, lean[1]]
        stem = tube(
            curve(np.stack([foot, (foot + top) / 2 + [lean[1], 0, 0], top]), 9), r * np.linspace(0.3, 0.2, 9), 14
        )
        rise, lip = rng.uniform(0.4, 1.3) * r, rng.uniform(0.1, 0.4) * r
        outer = curve(np.array([[r, -lip], [0.9 * r, 0.45 * rise], [0.5 * r, 0.85 * rise], [0, rise]]), 14)
        under = curve(np.array([[0, 0.3 * rise], [0.4 * r, 0.3 * rise], [0.8 * r, 0.05 * rise], [r, -lip]]), 10)
        outer[-1, 0] = under[0, 0] = 0
        gills = revolve(under, 32, sharp=70)
        out.add(stem_look, stem, gills.moved(*(top - [0, 0.25 * rise, 0])))
        out.add(cap_look, revolve(outer, 32, sharp=70).moved(*(top - [0, 0.25 * rise, 0])))
        if rng.random() < 0.4:
            for _ in range(8):
                p = outer[rng.integers(4, 12)]
                b = rng.uniform(0, 6.28)
                spot = ellipsoid(0.08 * r, 0.03 * r, 0.08 * r, 8, 4)
                out.add(stem_look, spot.moved(*(top + [p[0] * math.cos(b), p[1] - 0.25 * rise, p[0] * math.sin(b)])))
    return out


FAMILIES = {"tree": tree, "plant": potted, "mushrooms": mushrooms}
