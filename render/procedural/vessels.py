"""Things that hold things: cups, pots, stacked bowls, bottles, vases. All have inner walls; most have content.

`detail` scales the number of segments: small things in a large scene need fewer.
"""

import math
from collections.abc import Callable

import numpy as np

from render.procedural import textures
from render.procedural.assembly import Assembly
from render.procedural.looks import Palette
from render.procedural.piece import Piece, along, placed
from render.procedural.shapes import box, capsule, cylinder, ellipsoid, revolve, torus, tube


def curve(knots: np.ndarray, count: int) -> np.ndarray:
    """Catmull-Rom curve through `knots` (N,D) -> (count,D), ends included."""
    knots = np.asarray(knots, float)
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    at = np.linspace(0, len(knots) - 1, count)
    k = np.minimum(at.astype(int), len(knots) - 2)
    t = (at - k)[:, None]
    a, b, c, d = (padded[k + i] for i in range(4))
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)


def shell(outer: np.ndarray, wall: float, base: float) -> np.ndarray:
    """Closed profile of a vessel: `outer` (N,2) from the foot to the rim, `wall` thick, with a floor at y = `base`."""
    inner = outer[::-1] - np.array([wall, 0])
    inner = inner[inner[:, 1] > base + 0.3 * wall]
    inner[:, 0] = np.maximum(inner[:, 0], 0.15 * outer[:, 0].min())
    rim = [outer[-1] + np.array([-wall / 2, 0.35 * wall])]
    floor = np.array([[max(inner[-1, 0] - 0.3 * wall, 0.1 * wall), base], [0, base]])
    return np.concatenate([[[0, outer[0, 1]]], outer, rim, inner, floor])


def radius_at(outer: np.ndarray, y: float) -> float:
    return float(np.interp(y, outer[:, 1], outer[:, 0]))


def handle(rng: np.random.Generator, outer: np.ndarray, low: float, high: float, thickness: float) -> Piece:
    """An ear on the +x side of a vessel, from height `low` to `high`, its ends inside the wall."""
    reach = (high - low) * rng.uniform(0.45, 0.8)
    r0, r1 = radius_at(outer, low), radius_at(outer, high)
    lift = rng.uniform(-0.1, 0.15) * (high - low)
    knots = [
        [r1 - 0.3 * thickness, high],
        [r1 + 0.7 * reach, high + lift],
        [max(r0, r1) + reach, (low + high) / 2 + lift],
        [r0 + 0.6 * reach, low + 0.1 * (high - low)],
        [r0 - 0.3 * thickness, low],
    ]
    path = np.c_[curve(np.array(knots), 20), np.zeros(20)]
    return tube(path, thickness, 10).scaled(1, 1, rng.uniform(0.9, 1.8))


def cup(rng: np.random.Generator, palette: Palette, detail: float = 1.0) -> Assembly:
    """Cup or mug with a handle; perhaps a drink, a saucer, a spoon."""
    h, r = rng.uniform(0.06, 0.13), rng.uniform(0.03, 0.055)
    foot, belly = r * rng.uniform(0.5, 1.05), r * rng.uniform(0.9, 1.25)
    outer = curve(np.array([[foot, 0], [belly, h * rng.uniform(0.3, 0.6)], [r, h]]), round(14 * detail))
    wall = r * rng.uniform(0.05, 0.12)
    sides = int(rng.choice([32, 40, 8, 6], p=[0.5, 0.3, 0.1, 0.1]))
    sides = max(6, round(sides * detail))
    body = revolve(shell(outer, wall, wall * 1.5), sides)
    look = palette.any()
    out = Assembly().add(look, body.faceted() if sides < 9 else body)
    if rng.random() < 0.85:
        ear = handle(rng, outer, h * rng.uniform(0.15, 0.3), h * rng.uniform(0.7, 0.9), r * rng.uniform(0.08, 0.16))
        out.add(look if rng.random() < 0.7 else palette.any(), ear)
    if rng.random() < 0.7:
        level = h * rng.uniform(0.4, 0.9)
        disc = revolve(np.array([[radius_at(outer, level) - 0.7 * wall, level], [0, level]]), sides)
        out.add(palette.plain(roughness=0.05), disc)
    if rng.random() < 0.4:
        plate = r * rng.uniform(1.6, 2.3)
        dish = curve(np.array([[0.5 * plate, 0], [0.7 * plate, 0.05 * plate], [plate, 0.2 * plate]]), 10)
        saucer = revolve(shell(dish, 0.04 * plate, 0.05 * plate), round(36 * detail)).moved(y=-0.045 * plate)
        out.add(palette.any(), saucer)
    if rng.random() < 0.3:
        out.add(palette.metal(), *spoon(h * 1.5, rng.uniform(-0.5, 0.5), r))
    return out


def spoon(length: float, tilt: float, radius: float) -> list[Piece]:
    lean = along(np.array([-0.5 * radius, 0.15 * length, 0]), np.array([0.6 * radius, length, tilt * radius]))
    stem = capsule(np.zeros(3), np.array([0, length, 0]), 0.015 * length, 0.025 * length, 8, 2)
    bowl = ellipsoid(0.1 * length, 0.15 * length, 0.02 * length, 12, 8)
    return [stem.transformed(lean), bowl.transformed(lean)]


def pot(rng: np.random.Generator, palette: Palette) -> Assembly:
    """Cooking pot or teapot: two handles or spout and ear, a lid on, ajar or beside, food inside."""
    r, h = rng.uniform(0.09, 0.16), rng.uniform(0.07, 0.2)
    teapot = rng.random() < 0.4
    bulge = rng.uniform(1.15, 1.5) if teapot else rng.uniform(0.97, 1.08)
    outer = curve(np.array([[r * rng.uniform(0.7, 1), 0], [r * bulge, 0.45 * h], [r * 0.95, h]]), 16)
    wall = rng.uniform(0.02, 0.06) * r
    look, trim = palette.any(), palette.any()
    out = Assembly().add(look, revolve(shell(outer, wall, 1.5 * wall), 44))
    if teapot:
        out.add(trim, handle(rng, outer, 0.2 * h, 0.85 * h, 0.07 * r))
        start, end = r * bulge * 0.92, r * rng.uniform(1.7, 2.1)
        path = curve(np.array([[-start, 0.3 * h, 0], [-1.5 * r, 0.5 * h, 0], [-end, h * rng.uniform(0.8, 1.1), 0]]), 14)
        out.add(look, tube(path, np.linspace(0.2 * r, 0.09 * r, 14), 14))
    elif rng.random() < 0.3:
        out.add(trim, capsule(np.array([0.95 * r, 0.8 * h, 0]), np.array([2.6 * r, 0.9 * h, 0]), 0.08 * r, 0.1 * r, 10))
    else:
        ear = handle(rng, outer, 0.6 * h, 0.85 * h, 0.06 * r).scaled(1, 1, 2.5)
        out.add(trim, ear, ear.turned("y", math.pi))
    for _ in range(int(rng.integers(0, 7))):
        size, angle = r * rng.uniform(0.15, 0.3), rng.uniform(0, 2 * math.pi)
        away = rng.uniform(0, 0.55) * r
        place = (away * math.cos(angle), wall + size, away * math.sin(angle))
        out.add(palette.any(), ellipsoid(size, size * rng.uniform(0.6, 1), size, 14, 9).moved(*place))
    place = rng.choice(["on", "ajar", "beside", "none"], p=[0.3, 0.4, 0.15, 0.15])
    if place != "none":
        rise = rng.uniform(0.12, 0.45) * r
        profile = curve(np.array([[r * 0.99, 0], [0.7 * r, 0.7 * rise], [0.12 * r, rise]]), 10)
        dome = np.concatenate([profile, [[0, rise]], [[0, rise - wall]], profile[::-1] * [0.97, 1] - [0, 0.9 * wall]])
        dome = np.concatenate([dome, dome[:1]])
        lid = Assembly().add(look, revolve(dome, 40))
        lid.add(trim, ellipsoid(0.12 * r, 0.1 * r, 0.12 * r, 14, 8).moved(y=rise + 0.06 * r))
        matrix = placed(y=h + 0.6 * wall)
        if place == "ajar":
            matrix = placed(r * rng.uniform(0.2, 0.9), h + wall, yaw=rng.uniform(0, 6)) @ _tilt(rng.uniform(0.1, 0.5))
        elif place == "beside":
            matrix = placed(z=2.3 * r, y=wall)
        out.include(lid, matrix)
    return out


def _tilt(angle: float) -> np.ndarray:
    matrix = np.eye(4)
    c, s = math.cos(angle), math.sin(angle)
    matrix[:2, :2] = [[c, s], [-s, c]]
    return matrix


def bowls(rng: np.random.Generator, palette: Palette, detail: float = 1.0) -> Assembly:
    """A stack of bowls or plates, or one with fruit."""
    r = rng.uniform(0.07, 0.16)
    h = r * rng.uniform(0.15, 0.9)
    outer = curve(np.array([[0.4 * r, 0], [r * rng.uniform(0.7, 0.95), 0.4 * h], [r, h]]), round(12 * detail))
    wall = 0.045 * r
    profile = shell(outer, wall, 1.3 * wall)
    count = int(rng.integers(1, 8))
    looks = [palette.any() for _ in range(int(rng.integers(1, 4)))]
    out, y = Assembly(), 0.0
    body = revolve(profile, round(40 * detail))
    for k in range(count):
        matrix = placed(rng.normal(0, 0.012) * r, y, rng.normal(0, 0.012) * r, yaw=rng.uniform(0, 6))
        out.add(looks[k % len(looks)], body.transformed(matrix))
        y += wall * rng.uniform(1.6, 2.6) + 0.12 * h
    if rng.random() < 0.6:
        for k in range(int(rng.integers(3, 9))):
            size, angle = r * rng.uniform(0.16, 0.3), rng.uniform(0, 6.28)
            away = rng.uniform(0.1, 0.6) * r
            centre = (away * math.cos(angle), y + size + 0.05 * k * r, away * math.sin(angle))
            out.add(
                palette.any(),
                ellipsoid(size, size * rng.uniform(0.8, 1.4), size, round(16 * detail), round(10 * detail)).moved(
                    *centre
                ),
            )
    return out


def bottle(rng: np.random.Generator, palette: Palette, detail: float = 1.0) -> Assembly:
    """Bottle, jar or can, with liquid, label, cap; seldom of glass one can see through."""
    r, h = rng.uniform(0.025, 0.06), rng.uniform(0.12, 0.34)
    neck, shoulder = r * rng.uniform(0.25, 0.95), h * rng.uniform(0.5, 0.8)
    side = [[0.93 * r, 0], [r, 0.04 * h], [r * rng.uniform(0.8, 1.05), 0.5 * shoulder], [r, shoulder]]
    outer = curve(np.array([*side, [neck, shoulder + 0.4 * (h - shoulder)], [neck, h]]), round(26 * detail))
    outer[:, 0] = np.clip(outer[:, 0], 0.9 * neck, 1.1 * r)
    wall = 0.06 * r
    square = rng.random() < 0.2
    body = revolve(shell(outer, wall, 2 * wall), round(36 * detail), sharp=50)
    if square:
        body = body.bent(_squared(r))
    glassy = rng.random() < 0.2
    out = Assembly().add(palette.glass() if glassy else palette.any(), body)
    inside = outer[(outer[:, 1] > 2.5 * wall) & (outer[:, 1] < h * rng.uniform(0.3, 0.75))] * [1, 1]
    if len(inside) > 2 and rng.random() < 0.8 and not square:
        inside = inside - [1.6 * wall, 0]
        liquid = np.concatenate([[[0, inside[0, 1]]], inside, [[0, inside[-1, 1]]]])
        out.add(palette.plain(roughness=0.1), revolve(liquid, round(28 * detail)))
    if rng.random() < 0.7 and not square:
        low, high = 0.25 * shoulder, shoulder * rng.uniform(0.6, 0.95)
        y = np.linspace(low, high, 8)
        band = np.stack([np.interp(y, outer[:, 1], outer[:, 0]) + 0.25 * wall, y], 1)
        out.add(palette.printed(textures.label(rng, *palette.pair()), 1.0, "label"), revolve(band, round(36 * detail)))
    if rng.random() < 0.7:
        cap = cylinder(neck * 1.12, 0.1 * h, round(24 * detail), bevel=0.1 * neck).moved(y=0.955 * h)
        out.add(palette.any(), cap)
    if rng.random() < 0.3:
        out.add(palette.any(), torus(neck * 1.05, 0.12 * neck, round(28 * detail), 8).moved(y=0.9 * h))
    return out


def _squared(r: float) -> Callable[[np.ndarray], np.ndarray]:
    def warp(p: np.ndarray) -> np.ndarray:
        reach = np.hypot(p[:, 0], p[:, 2]).clip(1e-9)
        most = np.abs(p[:, [0, 2]]).max(axis=1).clip(1e-9)
        blend = 0.8 * np.clip(reach / r, 0, 1) ** 2
        factor = 1 + blend * (reach / most - 1) * 0.8
        return np.stack([p[:, 0] * factor, p[:, 1], p[:, 2] * factor], axis=1)

    return warp


def vase(rng: np.random.Generator, palette: Palette, detail: float = 1.0) -> Assembly:
    """A vase of any outline, perhaps fluted and twisted, perhaps with flowers."""
    h = rng.uniform(0.15, 0.45)
    count = int(rng.integers(4, 7))
    knots = np.stack([h * rng.uniform(0.1, 0.45, count), np.linspace(0, h, count)], 1)
    outer = curve(knots, round(30 * detail))
    outer[:, 0] = np.maximum(outer[:, 0], 0.06 * h)
    wall = 0.3 * float(outer[:, 0].min()) * rng.uniform(0.3, 0.8)
    body = revolve(shell(outer, wall, 2 * wall), round(48 * detail), sharp=60)
    if rng.random() < 0.4:
        flutes, depth, twist = int(rng.integers(3, 14)), rng.uniform(0.02, 0.12), rng.uniform(-4, 4) / h

        def warp(p: np.ndarray) -> np.ndarray:
            angle = np.arctan2(p[:, 2], p[:, 0]) * flutes + twist * p[:, 1] * 2
            factor = 1 + depth * np.cos(angle)
            return p * np.stack([factor, np.ones_like(factor), factor], 1)

        body = body.bent(warp)
    out = Assembly().add(palette.glass() if rng.random() < 0.08 else palette.any(), body)
    if rng.random() < 0.5:
        stem_look, mouth = palette.plain(np.array([0.25, 0.5, 0.2])), float(outer[-1, 0])
        for _ in range(int(rng.integers(2, 8))):
            angle, spread = rng.uniform(0, 6.28), rng.uniform(0.2, 1.0)
            top = np.array([math.cos(angle) * spread, 1.6 + 0.7 * rng.random(), math.sin(angle) * spread]) * h * 0.7
            lean = np.array([math.cos(angle), 0, math.sin(angle)]) * 0.5 * mouth
            path = curve(np.array([[0, 3 * wall, 0], [lean[0], h, lean[2]], top]), 9)
            out.add(stem_look, tube(path, 0.008 * h + 0.001, 6))
            out.include(flower(rng, palette, h * rng.uniform(0.06, 0.14)), along(path[-1], 2 * path[-1] - path[-2]))
    return out


def flower(rng: np.random.Generator, palette: Palette, size: float) -> Assembly:
    """A blossom around +y at the origin: a heart and single-sheet petals."""
    out = Assembly().add(palette.plain(), ellipsoid(0.3 * size, 0.2 * size, 0.3 * size, 10, 6))
    petal = ellipsoid(0.5 * size, 0.06 * size, 0.26 * size, 10, 6).moved(0.6 * size).turned("z", rng.uniform(0, 0.9))
    look, count = palette.plain(), int(rng.integers(4, 9))
    for k in range(count):
        out.add(look, petal.turned("y", 2 * math.pi * k / count))
    return out


def crate(rng: np.random.Generator, palette: Palette) -> Assembly:
    """An open box of boards with balls, bottles and blocks in it."""
    w, h, d = rng.uniform(0.3, 0.6), rng.uniform(0.15, 0.35), rng.uniform(0.25, 0.45)
    look, t = palette.solid(), 0.012
    out = Assembly().add(look, box(w, t, d, 0.002))
    boards, gap = int(rng.integers(1, 5)), rng.uniform(0.05, 0.4)
    tall = (h - t) / boards
    for k in range(boards):
        y = t + 0.001 + k * tall
        high = tall * (1 - gap if boards > 1 else 1) - 0.001
        for side in (-1, 1):
            out.add(look, box(w - 0.001, high, t, 0.002).moved(0, y, side * (d - t) / 2))
            out.add(look, box(t, high, d - 2 * t - 0.002, 0.002).moved(side * (w - t) / 2, y))
    for x in (-1, 1):
        for z in (-1, 1):
            post = box(1.6 * t, h * 1.01, 1.6 * t, 0.002)
            out.add(look, post.moved(x * (w / 2 - 1.9 * t), 1.001 * t, z * (d / 2 - 1.9 * t)))
    for _ in range(int(rng.integers(2, 10))):
        s = rng.uniform(0.03, 0.07)
        at = (
            rng.uniform(-0.5, 0.5) * (w - 4 * s),
            t + s + rng.uniform(0, 0.5) * h,
            rng.uniform(-0.5, 0.5) * (d - 4 * s),
        )
        round_one = rng.random() < 0.6
        thing = ellipsoid(s, s, s, 18, 12) if round_one else box(2 * s, 1.6 * s, 1.4 * s, 0.1 * s).moved(y=-s)
        out.add(palette.any(), thing.turned("y", rng.uniform(0, 6)).turned("x", rng.uniform(0, 0.4)).moved(*at))
    return out


FAMILIES = {"cup": cup, "pot": pot, "bowls": bowls, "bottle": bottle, "vase": vase, "crate": crate}
