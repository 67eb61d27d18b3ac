"""Forms without a use: nested and perforated boxes, cages, knots, superquadrics, stacks, sheets in the wind."""

import math

import numpy as np

from render.procedural import textures
from render.procedural.assembly import Assembly
from render.procedural.looks import Palette
from render.procedural.piece import Piece, along, join, placed, turn
from render.procedural.shapes import (
    box,
    capsule,
    cylinder,
    ellipsoid,
    grid,
    revolve,
    rod,
    superquadric,
    torus,
    tube,
)  # fmt: skip
from render.procedural.sheets import Opening, cage, lattice, panel, perforated, reveal, rolled, thick
from render.procedural.vessels import curve, shell


def nested(rng: np.random.Generator, palette: Palette) -> Assembly:
    """Boxes within boxes, with openings through which the inner ones show; something in the innermost."""
    out = Assembly()
    size = rng.uniform(0.6, 1.4, 3)
    levels = int(rng.integers(2, 5))
    turned = rng.random() < 0.5
    y, matrix = 0.0, np.eye(4)
    for k in range(levels):
        hollow = _hollow_box(rng, size, 0.03 * float(size.min()), lid=k > 0 or rng.random() < 0.5)
        out.include(Assembly().add(palette.any(), hollow), matrix)
        shrink = rng.uniform(0.45, 0.72)
        y = float(size[1]) * (0.05 + rng.uniform(0, 0.2) * (1 - shrink))
        size = size * shrink * rng.uniform(0.85, 1.0, 3)
        matrix = matrix @ placed(y=y, yaw=rng.uniform(-0.5, 0.5) if turned else 0.0)
    x, y, z = (0.33 * size).tolist()
    core = superquadric(x, y, z, rng.uniform(0.2, 1.8), rng.uniform(0.2, 1.8)).moved(y=1.4 * y)
    return out.include(Assembly().add(palette.any(), core), matrix)


def _hollow_box(rng: np.random.Generator, size: np.ndarray, wall: float, lid: bool) -> Piece:
    """A box of `wall` thickness with windows in its sides; without a lid its top is open."""
    x, y, z = (float(s) for s in size)
    pieces = []
    for k in range(4):
        w, d = (x, z) if k % 2 == 0 else (z, x)
        openings: list[Opening] = []
        # The front and one side always have windows, so that the inside can be seen.
        count = int(rng.integers(1 if k < 2 else 0, 4))
        for j in range(count):
            cell = (w - 4 * wall) / count
            a = rng.uniform(0.08, 0.35)
            b = rng.uniform(0.6, 0.92)
            left = 2 * wall + j * cell
            if k < 2 or rng.random() < 0.6:
                openings.append(
                    (left + a * cell, y * rng.uniform(0.15, 0.4), left + b * cell, y * rng.uniform(0.6, 0.88))
                )
        # The inner face at local z = 0; the outer one `wall` behind it, wider by a wall on both sides.
        frame = turn("y", -k * math.pi / 2)
        inner = panel(
            w - 2 * wall, y - 2 * wall, [(a - wall, b - wall, c - wall, e - wall) for a, b, c, e in openings], w
        )
        back = panel(w, y, openings, w).inside_out().moved(z=-wall)
        sides = [inner.moved(wall, wall), back, *(reveal(o, wall, w) for o in openings)]
        pieces += [p.moved(-w / 2, 0, -d / 2 + wall).transformed(frame) for p in sides]
    flat = panel(x, z, uv_unit=x)
    inner_flat = panel(x - 2 * wall, z - 2 * wall, uv_unit=x)
    up, down = -math.pi / 2, math.pi / 2
    pieces.append(flat.turned("x", down).moved(-x / 2, 0, -z / 2))
    pieces.append(inner_flat.turned("x", up).moved(-x / 2 + wall, wall, z / 2 - wall))
    if lid:
        pieces.append(flat.turned("x", up).moved(-x / 2, y, z / 2))
        pieces.append(inner_flat.turned("x", down).moved(-x / 2 + wall, y - wall, -z / 2 + wall))
        return join(pieces)
    hole = panel(x, z, [(wall, wall, x - wall, z - wall)], x)
    lip = reveal((wall, wall, x - wall, z - wall), wall, x)
    pieces += [p.turned("x", up).moved(-x / 2, y, z / 2) for p in (hole, lip)]
    return join(pieces)


def caged(rng: np.random.Generator, palette: Palette) -> Assembly:
    """A cage, a lattice globe or a wire column around other forms."""
    out = Assembly()
    style = rng.integers(3)
    if style == 0:
        x, y, z = rng.uniform(0.5, 1.2, 3)
        out.add(palette.any(), cage(x, y, z, tuple(rng.integers(3, 8, 3).tolist()), rng.uniform(0.008, 0.02)))
        if rng.random() < 0.6:
            out.add(palette.any(), box(1.1 * x, 0.05, 1.1 * z, 0.01).moved(y=-0.055))
    else:
        x = z = rng.uniform(0.5, 1.0)
        y = rng.uniform(0.6, 1.4)
        rows, columns = int(rng.integers(4, 10)), int(rng.integers(8, 20))
        t = np.linspace(0.06, 0.94, rows)
        radius = (
            0.5 * x * (np.sin(math.pi * t) ** 0.6 if style == 1 else curve(rng.uniform(0.4, 1.1, (4, 1)), rows)[:, 0])
        )
        angle = 2 * math.pi * np.arange(columns) / columns
        shift = (np.arange(rows) % 2) * math.pi / columns
        a = angle[None] + shift[:, None]
        points = np.stack(
            [radius[:, None] * np.cos(a), np.broadcast_to((t * y)[:, None], a.shape), radius[:, None] * np.sin(a)], -1
        )
        i = np.arange(rows * columns).reshape(rows, columns)
        odd = (np.arange(rows - 1) % 2 == 1)[:, None]
        other = np.where(odd, np.roll(i[1:], -1, 1), np.roll(i[1:], 1, 1))
        pairs = [np.stack([i[:-1], i[1:]], -1), np.stack([i[:-1], other], -1)]
        if rng.random() < 0.7:
            pairs.append(np.stack([i, np.roll(i, -1, 1)], -1))
        bar = rng.uniform(0.006, 0.02) * x
        look = palette.any()
        out.add(look, lattice(points.reshape(-1, 3), np.concatenate([p.reshape(-1, 2) for p in pairs]), bar))
        out.add(
            look,
            *(torus(float(r), 1.5 * bar, 32, 8).moved(y=float(h)) for r, h in zip(radius[[0, -1]], (t * y)[[0, -1]])),
        )
    for _ in range(int(rng.integers(1, 5))):
        s = rng.uniform(0.12, 0.25) * min(x, y, z)
        at = rng.uniform(-0.5, 0.5, 3) * (np.array([x, y, z]) * 0.6 - s)
        out.add(palette.any(), _primitive(rng, s).moved(at[0], at[1] + y / 2, at[2]))
    return out


def _primitive(rng: np.random.Generator, s: float) -> Piece:
    """A convex or ring-like form of about radius s around the origin, turned at random."""
    kind = rng.integers(7)
    if kind == 0:
        piece = ellipsoid(s, s * rng.uniform(0.5, 1), s * rng.uniform(0.5, 1), 22, 14)
    elif kind == 1:
        a, b, c = s * rng.uniform(0.6, 1.5, 3)
        piece = box(a, b, c, 0.06 * s).moved(y=-b / 2)
    elif kind == 2:
        h = s * rng.uniform(0.8, 2)
        piece = cylinder(0.7 * s, h, 26, bevel=0.05 * s).moved(y=-h / 2)
    elif kind == 3:
        piece = cylinder(0.8 * s, 1.5 * s, int(rng.choice([4, 5, 28])), top=rng.choice([0.0, 0.3]) * s).moved(
            y=-0.7 * s
        )
        piece = piece.faceted() if len(piece.faces) < 40 else piece
    elif kind == 4:
        piece = torus(0.8 * s, rng.uniform(0.15, 0.3) * s, 30, 12)
    elif kind == 5:
        piece = superquadric(s, s * rng.uniform(0.6, 1), s, rng.uniform(0.2, 2.0), rng.uniform(0.2, 2.0), 30, 18)
    else:
        profile = shell(np.array([[0.4, 0.0], [0.75, 0.35], [0.9, 1.0]]) * s, 0.08 * s, 0.1 * s)
        piece = revolve(profile, 26).moved(y=-0.5 * s)
    return piece.turned("x", rng.uniform(-0.6, 0.6)).turned("y", rng.uniform(0, 6.28))


def knot(rng: np.random.Generator, palette: Palette) -> Assembly:
    """A torus knot, a chain of links, a spring, or a random closed curve."""
    out, look = Assembly(), palette.any()
    style = rng.integers(4)
    if style == 0:
        p, q = ((2, 3), (3, 2), (2, 5), (3, 4), (5, 2), (3, 5))[rng.integers(6)]
        n = 60 * max(p, q)
        t = np.arange(n) * 2 * math.pi / n
        away = 1 + rng.uniform(0.3, 0.5) * np.cos(q * t)
        path = np.stack([away * np.cos(p * t), rng.uniform(0.35, 0.6) * np.sin(q * t), away * np.sin(p * t)], 1)
        out.add(look, tube(path, rng.uniform(0.06, 0.2), 14, closed=True).tiled(1, 12))
    elif style == 1:
        a, b, r = rng.uniform(0.3, 0.5), rng.uniform(0.18, 0.28), rng.uniform(0.05, 0.08)
        t = np.arange(32) * 2 * math.pi / 32
        link = tube(np.stack([b * np.cos(t), a * np.sin(t), 0 * t], 1), r, 12, closed=True)
        looks = [look, palette.any()]
        for k in range(int(rng.integers(2, 7))):
            out.add(
                looks[k % 2], link.turned("y", k * math.pi / 2 + rng.uniform(-0.3, 0.3)).moved(y=k * 2 * (a - 1.4 * r))
            )
    elif style == 2:
        turns, n = int(rng.integers(3, 9)), 200
        t = np.linspace(0, 1, n)
        away = curve(rng.uniform(0.4, 1.0, (3, 1)), n)[:, 0]
        path = np.stack([away * np.cos(2 * math.pi * turns * t), 2 * t, away * np.sin(2 * math.pi * turns * t)], 1)
        out.add(look, tube(path, rng.uniform(0.04, 0.09), 10).tiled(1, 10))
        out.add(palette.any(), capsule(np.array([0, 0.2, 0.0]), np.array([0, 1.8, 0.0]), 0.15, 0.15, 18))
    else:
        t = np.arange(220) * 2 * math.pi / 220
        # A random curve of low harmonics.
        waves = [np.cos(k * t[:, None] + rng.uniform(0, 6.28, 3)) * rng.normal(0, 1 / k, 3) for k in (1, 2, 3)]
        path = np.sum(waves, axis=0)
        out.add(look, tube(path, rng.uniform(0.06, 0.15), 12, closed=True).tiled(1, 12))
        for _ in range(int(rng.integers(0, 4))):
            out.add(palette.any(), _primitive(rng, 0.35).moved(*path[rng.integers(220)]))
    return out


def blob(rng: np.random.Generator, palette: Palette) -> Assembly:
    """Superquadrics and lumps bent, twisted and grown together, some with a smaller one behind a bowl-like skin."""
    out = Assembly()
    for k in range(int(rng.integers(1, 4))):
        size = rng.uniform(0.3, 0.8, 3) * (1.0 if k == 0 else 0.6)
        x, y, z = size.tolist()
        piece = superquadric(x, y, z, rng.uniform(0.15, 2.2), rng.uniform(0.15, 2.2), 48, 32)
        twist, waves, amount = rng.normal(0, 1.2), rng.normal(0, 6, (3, 3)), rng.uniform(0, 0.06)
        phase = rng.uniform(0, 6, 3)

        def warp(p: np.ndarray, twist=twist, waves=waves, amount=amount, phase=phase) -> np.ndarray:  # type: ignore[no-untyped-def]
            c, s = np.cos(twist * p[:, 1]), np.sin(twist * p[:, 1])
            q = np.stack([c * p[:, 0] + s * p[:, 2], p[:, 1], c * p[:, 2] - s * p[:, 0]], 1)
            return q * (1 + amount * np.sin(q @ waves + phase).sum(axis=1))[:, None]

        piece = piece.bent(warp).turned("x", rng.uniform(-1, 1)).turned("y", rng.uniform(0, 6))
        out.add(palette.any(), piece.moved(*(rng.normal(0, 0.35, 3) * (k > 0))))
    if rng.random() < 0.5:
        out.add(
            palette.any(),
            torus(rng.uniform(0.6, 1.0), rng.uniform(0.03, 0.1), 48, 12).turned("x", rng.uniform(-0.7, 0.7)),
        )
    return out


def stack(rng: np.random.Generator, palette: Palette) -> Assembly:
    """Primitives piled, bridged and stuck through each other."""
    out, top = Assembly(), 0.0
    for k in range(int(rng.integers(3, 8))):
        s = rng.uniform(0.25, 0.6) * 0.92**k
        piece = _primitive(rng, s)
        low, high = float(piece.vertices[:, 1].min()), float(piece.vertices[:, 1].max())
        out.add(palette.any(), piece.moved(rng.normal(0, 0.15), top - low, rng.normal(0, 0.15)))
        top += (high - low) * rng.uniform(0.6, 0.97)
    for _ in range(int(rng.integers(0, 4))):
        through = np.array([rng.normal(0, 0.08), rng.uniform(0.1, 0.9) * top, rng.normal(0, 0.08)])
        way = rng.normal(0, 0.6, 3) * [1, 0.5, 1]
        start, end = through - way * rng.uniform(0.3, 1), through + way
        out.add(palette.any(), rod(start, end, rng.uniform(0.02, 0.07), 14))
    if rng.random() < 0.5:
        out.add(palette.any(), cylinder(rng.uniform(0.5, 0.9), 0.06, 40, bevel=0.02).moved(y=-0.05))
    return out


def basket(rng: np.random.Generator, palette: Palette) -> Assembly:
    """A perforated drum, bin or box of plates with holes, with things inside; some with a MASK grille instead."""
    r, h = rng.uniform(0.15, 0.4), rng.uniform(0.2, 0.7)
    out, look = Assembly(), palette.any()
    columns = int(rng.integers(12, 26))
    cell = 2 * math.pi * r / columns * 0.996  # a slit remains, so that the two ends do not coincide
    rows = max(2, round(h / cell))
    h = rows * cell
    flare, belly = rng.uniform(0.0, 0.5), rng.uniform(-0.25, 0.25)

    def shape(p: np.ndarray) -> np.ndarray:
        t = p[:, 1] / h
        factor = 1 + flare * t + belly * np.sin(math.pi * t)
        return p * np.stack([factor, np.ones_like(factor), factor], 1)

    style = rng.integers(3)
    if style < 2:
        sides = 4 if rng.random() < 0.3 else 8
        plate = perforated(columns, rows, cell, rng.uniform(0.4, 0.85), rng.uniform(0.02, 0.06) * r, sides)
        out.add(look, plate.tiled(3, 1).bent(rolled(r)).bent(shape))
    else:
        sheet = revolve(np.linspace([r, 0], [r, h], 8), 40).bent(shape)
        out.add(palette.cutout(textures.grille, int(rng.integers(3, 7))), sheet)
    top = r * (1 + flare)
    out.add(look, torus(r * 1.01, 0.05 * r, 40, 8), torus(top, 0.06 * r, 40, 8).moved(y=h))
    out.add(look, cylinder(0.99 * r, 0.03 * r, 32).moved(y=0.004))
    if rng.random() < 0.4:
        angle = np.linspace(0, math.pi, 24)
        arch = np.stack([top * np.cos(angle), h + rng.uniform(0.5, 1.1) * r * np.sin(angle), 0 * angle], 1)
        out.add(look, tube(arch, 0.045 * r, 8))
    for _ in range(int(rng.integers(0, 6))):
        s, a, away = rng.uniform(0.2, 0.4) * r, rng.uniform(0, 6.28), rng.uniform(0, 0.5) * r
        place = (away * math.cos(a), rng.uniform(0.15, 0.8) * h + 0.3 * r, away * math.sin(a))
        out.add(palette.any(), _primitive(rng, s).moved(*place))
    return out


def plates(rng: np.random.Generator, palette: Palette) -> Assembly:
    """Plates with holes one behind the other, flat or bent, held by rods."""
    out = Assembly()
    cell = rng.uniform(0.06, 0.2)
    columns, rows = int(rng.integers(4, 10)), int(rng.integers(4, 10))
    gap = rng.uniform(0.1, 0.35)
    count = int(rng.integers(2, 5))
    radius = rng.uniform(0.6, 2.0)
    bend = rolled(radius) if rng.random() < 0.4 else None
    for k in range(count):
        hole = rng.uniform(0.35, 0.88)
        plate = perforated(columns, rows, cell, hole, 0.15 * cell, 4 if rng.random() < 0.25 else 12)
        plate = plate.moved(rng.normal(0, 0.1) * cell, 0, -k * gap)
        out.add(palette.any(), plate if bend is None else plate.bent(bend).moved(z=-radius))
    if bend is None:
        for x in (-1, 1):
            for y in (0.02, 0.98):
                at = [x * 0.49 * columns * cell, y * rows * cell]
                out.add(palette.metal(), rod([*at, 0.1], [*at, -(count - 1) * gap - 0.1], 0.1 * cell, 10))
    out.add(palette.any(), _primitive(rng, 0.25 * rows * cell).moved(0, 0.5 * rows * cell, -0.5 * gap))
    return out


def sheets(rng: np.random.Generator, palette: Palette) -> Assembly:
    """Thin open surfaces: draped cloth, scrolls, sails, fans, thick bent bands."""
    out = Assembly()
    style = rng.integers(4)
    n = 34
    u, v = np.meshgrid(np.linspace(-1, 1, n), np.linspace(-1, 1, n))
    if style == 0:
        waves = rng.normal(0, 2.2, (4, 2))
        y = sum(np.sin(u * a + v * b + rng.uniform(0, 6)) * rng.uniform(0.05, 0.2) for a, b in waves)
        r = np.hypot(u, v)
        y = np.asarray(y) - 0.5 * r**2 * rng.uniform(0, 1)
        out.add(palette.patterned(), grid(np.stack([u, y, v], -1)).inside_out())
        for _ in range(int(rng.integers(0, 4))):
            out.add(
                palette.any(),
                _primitive(rng, 0.25).moved(rng.uniform(-0.6, 0.6), rng.uniform(-0.7, 0.2), rng.uniform(-0.6, 0.6)),
            )
    elif style == 1:
        turns, start = rng.uniform(0.8, 3.0), rng.uniform(0.15, 0.4)
        t = np.linspace(0, 1, 90)
        r = start + 0.7 * t * rng.uniform(0.5, 1)
        spiral = np.stack([r * np.cos(2 * math.pi * turns * t), 0 * t, r * np.sin(2 * math.pi * turns * t)], 1)
        tall = np.linspace(0, rng.uniform(0.5, 1.6), 8)
        points = spiral[None] + tall[:, None, None] * np.array([0, 1.0, 0])
        out.add(palette.patterned(), grid(points) if rng.random() < 0.5 else thick(points, 0.03))
        out.add(palette.any(), _primitive(rng, 0.2).moved(0, rng.uniform(0.2, 0.8), 0))
    elif style == 2:
        mast = rng.uniform(1.4, 2.2)
        out.add(palette.wood(2), cylinder(0.035, mast, 12, top=0.02))
        hull = np.array([[0.0, -0.12], [0.1, -0.1], [0.2, 0.0], [0.22, 0.06]])
        boat = revolve(shell(hull + [0, 0.0], 0.02, -0.09), 40).scaled(1, 1.4, 3.2)
        out.add(palette.any(), boat.moved(y=0.02))
        for side, foot, bulge in ((1, 0.25, rng.uniform(0.1, 0.4)), (-1, 0.3, rng.uniform(0.1, 0.4))):
            s, t = np.meshgrid(np.linspace(0, 1, 16), np.linspace(0, 1, 20))
            wide = rng.uniform(0.45, 0.75) * (1 - t) * s
            belly = bulge * np.sin(math.pi * s) * np.sin(math.pi * (0.15 + 0.7 * t))
            points = np.stack([belly, foot + t * (mast - foot - 0.05), side * (0.04 + wide)], -1)
            out.add(palette.patterned(), grid(points))
    else:
        blades, twist = int(rng.integers(3, 9)), rng.uniform(0.3, 1.2)
        s, t = np.meshgrid(np.linspace(-1, 1, 7), np.linspace(0.12, 1, 14))
        width = 0.28 * np.sin(math.pi * np.clip(t, 0, 0.97)) ** 0.5
        angle = twist * (1 - 0.6 * t)
        blade = np.stack([width * s * np.cos(angle), width * s * np.sin(angle) + 0.06 * s**2, t], -1)
        piece, look = grid(blade), palette.any()
        out.add(look, *(piece.turned("y", 2 * math.pi * k / blades) for k in range(blades)))
        out.add(palette.metal(), ellipsoid(0.16, 0.12, 0.16, 20, 12), torus(1.05, 0.03, 48, 8))
        out.add(
            palette.metal(), rod([0, -1.0, 0], [0, 0, 0], 0.04, 14), cylinder(0.4, 0.05, 32, bevel=0.01).moved(y=-1.04)
        )
    return out


def umbrella(rng: np.random.Generator, palette: Palette) -> Assembly:
    """An open canopy of a single sheet over ribs and a stick, upright, leaning or lying; or a parasol over a table."""
    ribs, r, rise = int(rng.integers(6, 13)), rng.uniform(0.5, 1.1), rng.uniform(0.25, 0.6)
    per = 6
    angle = np.arange(ribs * per) * 2 * math.pi / (ribs * per)
    t = np.linspace(0, 1, 12)
    sag = 1 - rng.uniform(0.05, 0.18) * (0.5 - 0.5 * np.cos(ribs * angle))
    radius = r * np.sin(t * math.pi / 2)[:, None] * (1 + (sag - 1) * t[:, None] ** 2)
    y = rise * np.cos(t * math.pi / 2)[:, None] ** 1.2 + 0 * angle
    canopy = grid(np.stack([radius * np.cos(angle), y, -radius * np.sin(angle)], -1), close_columns=True)
    out = Assembly().add(palette.patterned() if rng.random() < 0.6 else palette.any(), canopy)
    metal = palette.metal()
    rib = np.stack([0.985 * r * np.sin(t) / math.sin(1), rise * np.cos(t * math.pi / 2) ** 1.2 - 0.012, 0 * t], 1)
    frame = [tube(rib[1:], 0.006 * r, 5), rod([0.02, -0.1 * rise, 0], [0.5 * r, rise * 0.72, 0], 0.005 * r, 5)]
    for k in range(ribs):
        out.add(metal, *(piece.turned("y", 2 * math.pi * k / ribs) for piece in frame))
    long = rng.uniform(0.9, 1.6)
    out.add(palette.wood(2), rod([0, -long, 0], [0, rise + 0.06, 0], 0.016, 10))
    if rng.random() < 0.6:
        s = np.linspace(0, math.pi, 14)
        hook = np.stack([0.06 - 0.06 * np.cos(s), -long - 0.06 * np.sin(s), 0 * s], 1)
        out.add(palette.any(), tube(hook, 0.018, 10))
        lean = rng.choice([0.0, rng.uniform(0.2, 2.2)])
        return out.transformed(along(np.zeros(3), np.array([math.sin(lean), math.cos(lean), 0.01])))
    out.add(palette.any(), cylinder(0.25 * r, 0.06, 28, bevel=0.015).moved(y=-long - 0.03))
    return out.add(palette.solid(), cylinder(0.5 * r, 0.03, 36, bevel=0.008).moved(y=-0.35 * long))


FAMILIES = {
    "nested": nested, "cage": caged, "knot": knot, "blob": blob, "stack": stack, "basket": basket, "plates": plates,
    "sheets": sheets, "umbrella": umbrella,
}  # fmt: skip
