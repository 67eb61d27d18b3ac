"""Lamps: a bulb under a thin open shade, on a foot, an arm, a stand or a cord."""

import math

import numpy as np

from render.procedural.assembly import Assembly
from render.procedural.looks import Palette
from render.procedural.piece import along, placed
from render.procedural.shapes import box, cylinder, ellipsoid, revolve, rod, torus, tube
from render.procedural.sheets import cage
from render.procedural.vessels import curve


def shade(rng: np.random.Generator, palette: Palette, r: float, h: float) -> Assembly:
    """A shade of any kind, open below and mostly above, over y = 0..h, with its bulb and fitting."""
    top = r * rng.uniform(0.25, 1.0)
    out = Assembly()
    look = palette.any()
    style = rng.choice(["cone", "pleated", "dome", "cage"], p=[0.4, 0.25, 0.25, 0.1])
    if style == "cone":
        out.add(look, revolve(curve(np.array([[r, 0], [(r + top) / 2, 0.5 * h], [top, h]]), 8), 36))
        out.add(look, torus(r, 0.012 * r, 36, 6), torus(top, 0.012 * r, 36, 6).moved(y=h))
    elif style == "pleated":
        folds = int(rng.integers(10, 22))
        depth = rng.uniform(0.03, 0.1)

        def warp(p: np.ndarray) -> np.ndarray:
            factor = 1 + depth * np.cos(folds * np.arctan2(p[:, 2], p[:, 0]))
            return p * np.stack([factor, np.ones_like(factor), factor], 1)

        out.add(look, revolve(np.linspace([r, 0], [top, h], 6), 4 * folds).bent(warp))
    elif style == "dome":
        angle = np.linspace(0, rng.uniform(1.0, 1.45), 12)
        outer = np.stack([r * np.cos(angle), h * np.sin(angle)], 1)
        profile = np.concatenate([outer, outer[::-1] * 0.96, outer[:1]])
        out.add(look, revolve(profile, 36, sharp=60))
        top = float(outer[-1, 0])
    else:
        out.add(palette.metal(), cage(1.5 * r, h, 1.5 * r, (4, 3, 4), 0.02 * r))
    spoke = 0.9 * top if style != "cage" else 0.7 * r
    for k in range(3):
        a = 2 * math.pi * k / 3
        out.add(look, rod([0, 0.9 * h, 0], [spoke * math.cos(a), 0.94 * h, spoke * math.sin(a)], 0.012 * r, 6))
    bulb = min(0.32 * r, 0.3 * h)
    drop = [[0, -bulb], [0.7 * bulb, -0.7 * bulb], [bulb, 0], [0.65 * bulb, 0.8 * bulb], [0.4 * bulb, 1.3 * bulb]]
    profile = np.concatenate([curve(np.array(drop), 14), [[0, 1.3 * bulb]]])
    profile[0, 0] = 0
    out.add(palette.glow(), revolve(profile, 20).moved(y=0.45 * h))
    out.add(
        palette.metal(),
        cylinder(0.45 * bulb, max(0.1 * h, 0.9 * h - 0.45 * h - 1.2 * bulb), 14).moved(y=0.45 * h + 1.2 * bulb),
    )
    return out


def lamp(rng: np.random.Generator, palette: Palette, standing: bool = False) -> Assembly:
    """A table lamp, a desk lamp with a jointed arm, or a standing lamp."""
    arm = rng.random() < 0.35
    h = rng.uniform(1.3, 1.7) if standing else rng.uniform(0.3, 0.6)
    r = h * (rng.uniform(0.11, 0.17) if standing else rng.uniform(0.25, 0.42))
    foot = r * rng.uniform(0.5, 0.85)
    look, metal = palette.any(), palette.metal()
    out = Assembly()
    if rng.random() < 0.7:
        out.add(look, cylinder(foot, rng.uniform(0.015, 0.04), 32, bevel=0.006))
    else:
        out.add(look, box(1.6 * foot, 0.03, 1.6 * foot, 0.006))
    if arm:
        a = np.array([0, 0.01, 0])
        b = np.array([-0.3 * r, 0.62 * h, 0])
        c = np.array([r * rng.uniform(1.2, 2.2), h * rng.uniform(0.85, 1.0), 0])
        out.add(metal, rod(a, b, 0.03 * r + 0.003, 10), rod(b, c, 0.03 * r + 0.002, 10))
        out.add(look, *(ellipsoid(0.1 * r, 0.1 * r, 0.07 * r, 12, 8).moved(*p) for p in (b, c)))
        aim = along(c, c + np.array([-0.5, 1.0, rng.uniform(-0.4, 0.4)]))
        head = shade(rng, palette, 0.75 * r, 0.8 * r)
        return out.include(head, aim @ placed(y=-0.75 * r))
    tall = rng.uniform(1.0, 1.6) * r
    if standing or rng.random() < 0.4:
        out.add(metal, cylinder(0.015 if standing else 0.012, h - 0.5 * tall, 12).moved(y=0.012))
    else:
        knots = np.stack([r * rng.uniform(0.06, 0.5, 6), np.linspace(0.02, h - 0.6 * tall, 6)], 1)
        body = curve(knots, 24)
        body[:, 0] = body[:, 0].clip(0.04 * r)
        out.add(palette.any(), revolve(np.concatenate([[[0, body[0, 1]]], body, [[0, body[-1, 1]]]]), 32))
        out.add(metal, cylinder(0.05 * r, 0.25 * tall, 10).moved(y=h - 0.62 * tall))
    out.include(shade(rng, palette, r, tall), placed(y=h - tall))
    if rng.random() < 0.4:
        cord = curve(
            np.array(
                [[0, 0.008, -0.9 * foot], [0.2 * r, 0.006, -foot * 1.5], [r * rng.uniform(0.5, 1.5), 0.006, -2 * foot]]
            ),
            14,
        )
        out.add(palette.plain(np.full(3, 0.1)), tube(cord, 0.004, 6))
    return out


def pendant(rng: np.random.Generator, palette: Palette, drop: float) -> Assembly:
    """A lamp that hangs from y = 0 down to y = -drop."""
    r = rng.uniform(0.12, 0.3)
    tall = min(rng.uniform(0.6, 1.1) * r, 0.7 * drop)
    out = Assembly().include(shade(rng, palette, r, tall), placed(y=-drop))
    out.add(palette.plain(np.full(3, 0.1)), rod([0, -drop + 0.8 * tall, 0], [0, -0.02, 0], 0.004, 6))
    return out.add(palette.metal(), cylinder(0.05, 0.03, 20, bevel=0.008).moved(y=-0.032))


FAMILIES = {"lamp": lamp}
