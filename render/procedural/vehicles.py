"""Cars with a cabin one can see into, carts with a load, aeroplanes, rockets."""

import math

import numpy as np

from render.procedural.assembly import Assembly
from render.procedural.looks import Look, Palette
from render.procedural.piece import Piece, placed
from render.procedural.shapes import box, capsule, cylinder, ellipsoid, grid, revolve, rod, superquadric, torus


def wheel(look: Look, hub: Look, r: float, width: float, spokes: int) -> Assembly:
    """A tyre around x with a spoked hub, centred on the origin."""
    out = Assembly().add(
        look, torus(0.78 * r, 0.22 * r, 32, 12).scaled(1, width / (0.44 * r), 1).turned("z", math.pi / 2)
    )
    out.add(hub, cylinder(0.2 * r, 0.8 * width, 16, bevel=0.02 * r).moved(y=-0.4 * width).turned("z", math.pi / 2))
    for k in range(spokes):
        c, s = math.cos(2 * math.pi * k / spokes), math.sin(2 * math.pi * k / spokes)
        out.add(hub, rod([0, 0.1 * r * c, 0.1 * r * s], [0, 0.62 * r * c, 0.62 * r * s], 0.07 * r, 6))
    return out


def vehicle(rng: np.random.Generator, palette: Palette) -> Assembly:
    """A car or van with a cabin one can see into, a cart with a load, an aeroplane, or a rocket."""
    style = rng.choice(["car", "cart", "plane", "rocket"], p=[0.45, 0.2, 0.2, 0.15])
    return {"car": _car, "cart": _cart, "plane": _plane, "rocket": _rocket}[str(style)](rng, palette)


def _car(rng: np.random.Generator, palette: Palette) -> Assembly:
    """The body is a loft of cross sections; the cabin's pillars and roof stand around seats."""
    long, wide, r = rng.uniform(3.0, 5.0), rng.uniform(1.4, 1.9), rng.uniform(0.28, 0.45)
    low, waist = r * rng.uniform(0.6, 1.0), r + rng.uniform(0.35, 0.6)
    paint, dark, metal = palette.any(), palette.plain(np.full(3, 0.05)), palette.metal()
    body = superquadric(wide / 2, (waist - low) / 2, long / 2, 0.22, 0.4, 44, 16).moved(y=(waist + low) / 2)
    out = Assembly().add(paint, body)
    roof, front, rear = waist + rng.uniform(0.4, 0.9), long * rng.uniform(0.08, 0.25), -long * rng.uniform(0.15, 0.47)
    slope = rng.uniform(0.1, 0.6)
    x = 0.42 * wide
    top_front, top_rear = front - slope, rear + rng.uniform(0.02, 0.4)
    for s in (-1, 1):
        out.add(paint, rod([s * x, waist - 0.1, front], [s * x * 0.88, roof, top_front], 0.045, 8))
        out.add(paint, rod([s * x, waist - 0.1, rear], [s * x * 0.88, roof, top_rear], 0.06, 8))
        middle = (front + rear) / 2
        out.add(paint, rod([s * x, waist - 0.1, middle], [s * x * 0.88, roof, middle], 0.035, 8))
        out.add(palette.glow(), ellipsoid(0.13, 0.09, 0.06, 14, 8).moved(s * 0.36 * wide, waist - 0.22, 0.475 * long))
        out.add(dark, ellipsoid(0.08, 0.06, 0.04, 12, 8).moved(s * (x + 0.14), waist + 0.08, front - 0.1))
    deep = top_front - top_rear
    out.add(
        paint,
        superquadric(x * 0.95, 0.07, deep / 2 + 0.05, 0.25, 0.5, 32, 10).moved(
            0, roof + 0.02, (top_front + top_rear) / 2
        ),
    )
    for z in ((front + rear) / 2 + 0.1, rear + 0.35):
        for s in (-1, 1):
            out.add(
                dark, box(0.36 * wide, 0.55, 0.14, 0.05).turned("x", -0.15).moved(s * 0.2 * wide, waist - 0.25, z - 0.1)
            )
    out.add(dark, torus(0.17, 0.02, 24, 8).turned("x", 1.1).moved(0.2 * wide, waist + 0.12, front - 0.42))
    if rng.random() < 0.3:
        xs, ys = np.array([-0.88 * x, 0.88 * x]), np.array([waist, roof])
        points = [[[a, y, front + 0.03 + (top_front - front) * (y - waist) / (roof - waist)] for a in xs] for y in ys]
        out.add(palette.glass(), grid(np.array(points)).inside_out())
    for z in (0.32 * long, -0.31 * long):
        for s in (-1, 1):
            out.include(
                wheel(dark, metal, r, rng.uniform(0.18, 0.28), int(rng.integers(4, 8))), placed(s * 0.49 * wide, r, z)
            )
    if rng.random() < 0.4:
        for k in range(int(rng.integers(1, 4))):
            load = box(rng.uniform(0.3, 0.5) * wide, rng.uniform(0.15, 0.35), 0.4, 0.03)
            out.add(palette.any(), load.moved(rng.uniform(-0.1, 0.1), roof + 0.095, top_rear + 0.25 + 0.45 * k))
    return out


def _cart(rng: np.random.Generator, palette: Palette) -> Assembly:
    w, d, h, r = rng.uniform(0.9, 1.4), rng.uniform(1.2, 2.4), rng.uniform(0.3, 0.7), rng.uniform(0.35, 0.6)
    wood, t = palette.solid(), 0.04
    out = Assembly().add(wood, box(w, t, d, 0.006).moved(y=r))
    planks = int(rng.integers(2, 5))
    for k in range(planks):
        y, tall = r + t + 0.01 + k * h / planks, h / planks * 0.75
        for s in (-1, 1):
            out.add(wood, box(t, tall, d, 0.006).moved(s * (w / 2 - t / 2), y))
            out.add(wood, box(w - 2.1 * t, tall, t, 0.006).moved(0, y, s * (d / 2 - t / 2)))
    pairs = (0.0,) if rng.random() < 0.5 else (-0.32 * d, 0.32 * d)
    for z in pairs:
        out.add(wood, rod([-w / 2 - 0.1, r, z], [w / 2 + 0.1, r, z], 0.04, 10))
        for s in (-1, 1):
            out.include(
                wheel(palette.wood(2), wood, r, 0.09, int(rng.integers(6, 13))), placed(s * (w / 2 + 0.1), r, z)
            )
    for s in (-1, 1):
        out.add(wood, rod([s * 0.35 * w, r, d / 2], [s * 0.3 * w, r + 0.25, d / 2 + 1.2], 0.035, 10))
    for _ in range(int(rng.integers(3, 10))):
        size = rng.uniform(0.12, 0.25)
        at = (rng.uniform(-0.3, 0.3) * w, r + t + size + rng.uniform(0, 0.6) * h, rng.uniform(-0.35, 0.35) * d)
        if rng.random() < 0.5:
            out.add(palette.any(), ellipsoid(size, size * rng.uniform(0.8, 1.2), size, 18, 12).moved(*at))
        else:
            out.add(
                palette.any(),
                box(1.6 * size, 1.3 * size, 2 * size, 0.1 * size)
                .turned("y", rng.uniform(0, 3))
                .moved(at[0], at[1] - size, at[2]),
            )
    return out


def _plane(rng: np.random.Generator, palette: Palette) -> Assembly:
    long, r = rng.uniform(5, 12), rng.uniform(0.5, 0.9)
    paint, trim = palette.any(), palette.any()
    t = np.linspace(0, 1, 26)
    radius = r * np.minimum(1, (t / 0.16).clip(0, 1) ** 0.5) * (1 - 0.85 * ((t - 0.55) / 0.45).clip(0, 1) ** 1.5)
    hull = revolve(np.stack([radius, long * (t - 0.4)], 1), 28, sharp=180).turned("x", -math.pi / 2)
    out = Assembly().add(paint, hull)
    span, chord, sweep = rng.uniform(0.4, 0.65) * long, rng.uniform(0.12, 0.2) * long, rng.uniform(0, 0.5)
    for y in (-0.4 * r, 1.9 * r) if rng.random() < 0.3 else (float(rng.choice([-0.4, 0.5])) * r,):
        for s in (-1, 1):
            out.add(trim, _wing(span * s, chord, sweep * span, rng.uniform(0, 0.1) * span).moved(0, y, 0.05 * long))
            if y > r:
                out.add(
                    palette.metal(),
                    *(
                        rod([s * f * span, -0.35 * r, -0.1], [s * f * span, 1.9 * r, 0.0], 0.03 * r, 6)
                        for f in (0.3, 0.7)
                    ),
                )
    tail = -0.52 * long
    for s in (-1, 1):
        out.add(trim, _wing(0.35 * span * s, 0.6 * chord, 0.3 * chord, 0.0).moved(0, 0.1 * r, tail))
    out.add(trim, _wing(0.32 * span, 0.6 * chord, 0.5 * chord, 0.0).turned("z", math.pi / 2).moved(0, 0.1 * r, tail))
    nose = 0.4 * long
    for k in range(int(rng.integers(2, 5))):
        a = 2.1 * k
        blade = ellipsoid(0.08 * r, 0.75 * r, 0.03 * r, 10, 8).moved(y=0.75 * r).turned("z", a)
        out.add(palette.metal(), blade.moved(z=nose + 0.1))
    out.add(palette.any(), ellipsoid(0.2 * r, 0.2 * r, 0.35 * r, 14, 8).moved(z=nose + 0.1))
    out.add(
        palette.glass() if rng.random() < 0.4 else palette.plain(np.full(3, 0.1), 0.1),
        ellipsoid(0.5 * r, 0.55 * r, 1.1 * r, 20, 12).moved(0, 0.75 * r, 0.12 * long),
    )
    for x, z in ((-0.8 * r, 0.1 * long), (0.8 * r, 0.1 * long), (0.0, -0.3 * long)):
        out.add(palette.metal(), rod([0.5 * x, -0.3 * r, z], [x, -1.5 * r, z], 0.06 * r, 8))
        out.include(
            wheel(palette.plain(np.full(3, 0.05)), palette.metal(), 0.35 * r, 0.2 * r, 4), placed(x, -1.6 * r, z)
        )
    return out


def _wing(span: float, chord: float, sweep: float, rise: float) -> Piece:
    """A tapered wing from the origin along +x (or -x), leading edge towards +z."""
    angle = np.arange(20) * 2 * math.pi / 20
    section = np.stack([0 * angle, 0.07 * np.sin(angle) * (0.6 + 0.4 * np.cos(angle)), 0.5 * np.cos(angle)], 1)
    rows = []
    for t, size in ((0.0, 1.0), (0.4, 0.82), (0.8, 0.62), (0.97, 0.45), (1.0, 0.02)):
        rows.append(section * chord * size + np.array([span * t, rise * t, -sweep * t]))
    piece = grid(np.stack(rows), close_columns=True)
    return piece if span < 0 else piece.inside_out()


def _rocket(rng: np.random.Generator, palette: Palette) -> Assembly:
    h, r = rng.uniform(4, 9), rng.uniform(0.4, 0.9)
    t = np.linspace(0, 1, 24)
    radius = (
        r
        * (0.55 + 0.45 * np.sin(math.pi * (0.15 + 0.6 * t)))
        * (1 - ((t - 0.6) / 0.4).clip(0, 1) ** rng.uniform(1.5, 3))
    )
    out = Assembly().add(palette.any(), revolve(np.stack([radius, 0.8 + h * t], 1), 32, sharp=180))
    bell = np.array([[0.3 * r, 0.85], [0.4 * r, 0.6], [0.6 * r, 0.2]])[::-1]
    out.add(palette.metal(), revolve(bell, 28))
    fins = int(rng.integers(3, 6))
    fin, look = _wing(1.6 * r, 0.3 * h, 0.25 * h, 0.0), palette.any()
    for k in range(fins):
        out.add(look, fin.turned("x", -math.pi / 2).moved(0.3 * r, 0.8 + 0.15 * h).turned("y", 2 * math.pi * k / fins))
    for k in range(int(rng.integers(1, 4))):
        y = 0.8 + h * (0.35 + 0.16 * k)
        out.add(
            palette.metal(),
            torus(0.28 * r, 0.06 * r, 24, 8)
            .turned("x", math.pi / 2)
            .moved(0, y, float(np.interp(y - 0.8, h * t, radius))),
        )
    boosters = int(rng.choice([0, 0, 2, 3, 4]))
    body = capsule(np.array([0, 0.8, 0.0]), np.array([0, 0.8 + 0.45 * h, 0]), 0.35 * r, 0.3 * r, 18)
    for k in range(boosters):
        a = 2 * math.pi * (k + 0.5) / boosters
        out.add(look, body.moved(1.3 * r * math.cos(a), 0, 1.3 * r * math.sin(a)))
    return out


FAMILIES = {"vehicle": vehicle}
