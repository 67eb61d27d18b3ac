"""Houses one can look into, and towers, castles, temples."""

import math

import numpy as np

from render.procedural import furniture, textures
from render.procedural.assembly import Assembly
from render.procedural.looks import Look, Palette
from render.procedural.piece import Piece, placed
from render.procedural.shapes import box, cylinder, ellipsoid, revolve, rod, slab, torus
from render.procedural.sheets import Opening, panel, quad_sheet, reveal


def house(rng: np.random.Generator, palette: Palette) -> Assembly:
    """Walls with thickness and real windows, floors with furniture, a gabled, hipped or flat roof with overhang."""
    w, d = rng.uniform(4, 9), rng.uniform(4, 7)
    storeys = int(rng.integers(1, 4))
    tall, wall = rng.uniform(2.3, 2.9), 0.2
    h = storeys * tall
    walls = palette.printed(textures.bricks(rng, *palette.pair()), 1.0) if rng.random() < 0.5 else palette.plain()
    inner, trim, floor = palette.plain(np.full(3, 0.85)), palette.plain(), palette.wood(1.0)
    out = Assembly()
    for k in range(4):
        span, depth = (w, d) if k % 2 == 0 else (d, w)
        openings = _windows(rng, span, storeys, tall, door=k == 0)
        frame = placed(yaw=k * math.pi / 2) @ placed(-span / 2, 0, depth / 2)
        out.add(walls, panel(span, h, openings, 2.0).transformed(frame))
        shifted = [(a - wall, b, c - wall, e) for a, b, c, e in openings]
        out.add(inner, panel(span - 2 * wall, h, shifted).inside_out().moved(wall, 0, -wall).transformed(frame))
        for x0, y0, x1, y1 in openings:
            out.add(trim, reveal((x0, y0, x1, y1), wall).transformed(frame))
            if y0 > 0.01:
                middle = (x0 + x1) / 2
                out.add(
                    trim,
                    slab((middle - 0.03, y0 + 0.002, -0.13), (middle + 0.03, y1 - 0.002, -0.07)).transformed(frame),
                )
                out.add(trim, slab((x0 - 0.1, y0 - 0.08, -0.05), (x1 + 0.1, y0 + 0.01, 0.1)).transformed(frame))
            elif rng.random() < 0.5:
                leaf = slab((0.01, 0.02, -0.03), (x1 - x0 - 0.01, y1 - 0.02, 0.02))
                out.add(palette.wood(1.0), leaf.transformed(frame @ placed(x0, 0, -0.12, yaw=rng.uniform(0, 1.6))))
    for k in range(storeys):
        y = k * tall
        out.add(
            floor,
            slab(
                (-w / 2 + 0.5 * wall, y - 0.12, -d / 2 + 0.5 * wall),
                (w / 2 - 0.5 * wall, y + 0.013, d / 2 - 0.5 * wall),
            ),
        )
        for name in rng.choice(["table", "sofa", "chair"], 2, replace=False):
            thing = (
                furniture.table(rng, palette, set_out=False)
                if name == "table"
                else furniture.FAMILIES[name](rng, palette)
            )
            out.include(
                thing, placed(rng.uniform(-0.25, 0.25) * w, y + 0.015, rng.uniform(-0.2, 0.2) * d, rng.uniform(0, 6))
            )
    _roof(rng, palette, out, walls, (w, d, h))
    if rng.random() < 0.6:
        flue = [rng.uniform(-0.25, 0.25) * w, rng.uniform(-0.2, 0.2) * d]
        out.add(
            palette.printed(textures.bricks(rng, *palette.pair()), 1.0),
            box(0.6, rng.uniform(1.6, 2.6), 0.5).moved(flue[0], h, flue[1]),
        )
    if rng.random() < 0.5:
        out.add(
            palette.plain(np.array([0.3, 0.5, 0.2]), 1.0),
            slab((-0.9 * w, -0.3, -0.9 * d), (0.9 * w, -0.05, 0.9 * d), 0.02),
        )
    return out


def _windows(rng: np.random.Generator, span: float, storeys: int, tall: float, door: bool) -> list[Opening]:
    count = max(1, int(span / rng.uniform(1.6, 2.8)))
    cell, wide = (span - 0.8) / count, rng.uniform(0.45, 0.75)
    low, high = rng.uniform(0.5, 1.0), tall - rng.uniform(0.35, 0.6)
    openings = []
    for j in range(storeys):
        for i in range(count):
            x = 0.4 + (i + 0.5) * cell
            half = 0.5 * wide * min(cell, 2.0)
            if door and j == 0 and i == count // 2:
                openings.append((x - min(0.5, 0.45 * cell), 0.0, x + min(0.5, 0.45 * cell), min(2.1, tall - 0.2)))
            elif rng.random() < 0.85:
                openings.append((x - half, j * tall + low, x + half, j * tall + high))
    return openings


def _roof(
    rng: np.random.Generator, palette: Palette, out: Assembly, walls: Look, size: tuple[float, float, float]
) -> None:
    w, d, h = size
    tiles = palette.printed(textures.bricks(rng, *palette.pair()), 1.0)
    style = rng.choice(["gable", "hip", "flat"], p=[0.5, 0.3, 0.2])
    if style == "flat":
        out.add(tiles, slab((-w / 2 - 0.3, h - 0.03, -d / 2 - 0.3), (w / 2 + 0.3, h + 0.22, d / 2 + 0.3), 0.02))
        return
    rise, over = rng.uniform(0.35, 0.8) * d / 2, rng.uniform(0.2, 0.6)
    drop = rise * over / (d / 2)
    inset = 0.0 if style == "gable" else rng.uniform(0.15, 0.4) * w
    a, b, ridge = w / 2 + over, d / 2 + over, w / 2 + (over if style == "gable" else 0) - inset
    for lift in (0.0, 0.12):  # underside and top of the roof, two sheets
        y0, y1 = h - drop + lift, h + rise + lift
        quads = [
            [[-a, y0, b], [a, y0, b], [ridge, y1, 0], [-ridge, y1, 0]],
            [[a, y0, -b], [-a, y0, -b], [-ridge, y1, 0], [ridge, y1, 0]],
        ]
        piece = quad_sheet(np.array(quads), 2.0)
        if style == "hip":
            ends = [[[a, y0, b], [a, y0, -b], [ridge, y1, 0]], [[-a, y0, -b], [-a, y0, b], [-ridge, y1, 0]]]
            for end in ends:
                out.add(tiles, _triangle(np.array(end)) if lift else _triangle(np.array(end)).inside_out())
        out.add(tiles, piece if lift else piece.inside_out())
    if style == "gable":
        for s in (1, -1):
            corners = np.array([[s * w / 2, h, s * d / 2], [s * w / 2, h, -s * d / 2], [s * w / 2, h + rise, 0]])
            out.add(walls, _triangle(corners))


def _triangle(corners: np.ndarray) -> Piece:
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    across = np.linalg.norm(corners[1] - corners[0])
    uv = np.array([[0, 0], [across, 0], [across / 2, -np.linalg.norm(normal) / across]]) / 2.0
    return Piece(corners, np.array([[0, 1, 2]]), np.tile(normal / np.linalg.norm(normal), (3, 1)), uv)


def tower(rng: np.random.Generator, palette: Palette) -> Assembly:
    """A high-rise of stacked blocks, a castle keep with battlements, a lighthouse or a temple of columns."""
    style = rng.integers(4)
    out = Assembly()
    if style == 0:
        w, d, y = rng.uniform(8, 16), rng.uniform(8, 16), 0.0
        for _ in range(int(rng.integers(2, 6))):
            h = rng.uniform(5, 20)
            look = palette.printed(textures.facade(rng, *palette.pair()), float(rng.integers(2, 6)))
            out.add(look, box(w, h, d).moved(rng.normal(0, 0.3), y, rng.normal(0, 0.3)))
            out.add(palette.plain(), box(1.04 * w, 0.4, 1.04 * d, 0.05).moved(y=y + h - 0.2))
            y += h + 0.1
            w, d = w * rng.uniform(0.6, 0.95), d * rng.uniform(0.6, 0.95)
        for _ in range(int(rng.integers(1, 5))):
            s = rng.uniform(0.1, 0.25) * w
            out.add(
                palette.any(),
                box(s, s, s, 0.05 * s).moved(rng.uniform(-0.35, 0.35) * w, y - 0.15, rng.uniform(-0.35, 0.35) * d),
            )
        return out.add(palette.metal(), cylinder(0.25, rng.uniform(3, 9), 10, top=0.05).moved(y=y - 0.2))
    if style == 1:
        r, h = rng.uniform(2, 4), rng.uniform(6, 14)
        stone = palette.printed(textures.bricks(rng, *palette.pair()), 5.0)
        spots = [(0.0, 0.0)] if rng.random() < 0.4 else [(x * 2.6 * r, z * 2.6 * r) for x in (-1, 1) for z in (-1, 1)]
        for x, z in spots:
            out.add(
                stone,
                revolve(
                    np.array(
                        [
                            [1.1 * r, 0],
                            [r, 0.2 * h],
                            [r, h],
                            [1.2 * r, 1.05 * h],
                            [1.2 * r, 1.15 * h],
                            [r, 1.15 * h],
                            [r, 1.02 * h],
                            [0, 1.02 * h],
                        ]
                    ),
                    28,
                ).moved(x, 0, z),
            )
            for k in range(10):
                a = 2 * math.pi * k / 10
                out.add(
                    stone,
                    box(0.35 * r, 0.1 * h, 0.25 * r)
                    .turned("y", -a)
                    .moved(x + 1.1 * r * math.sin(a), 1.14 * h, z + 1.1 * r * math.cos(a)),
                )
            if rng.random() < 0.5:
                out.add(palette.any(), cylinder(1.1 * r, 0.6 * h, 24, top=0).moved(x, 1.2 * h, z))
        if len(spots) > 1:
            for k in range(4):
                gate: list[Opening] = [(1.9 * r, 0.0, 3.3 * r, 0.45 * h)] if k == 0 else []
                side = panel(5.2 * r, 0.75 * h, gate, 20.0).moved(-2.6 * r, 0, 2.6 * r)
                inner = side.inside_out().moved(z=-0.5 * r)
                out.add(stone, *(p.turned("y", k * math.pi / 2) for p in (side, inner)))
            out.add(palette.any(), box(2.2 * r, 1.1 * h, 2.2 * r, 0.05 * r).moved(y=0.003))
        return out
    if style == 2:
        h = rng.uniform(8, 14)
        r0, r1 = 0.16 * h, 0.09 * h
        out.add(palette.printed(textures.stripes(rng, *palette.pair()), 1.0), cylinder(r0, h, 36, top=r1))
        out.add(palette.plain(), cylinder(1.5 * r1, 0.03 * h, 32, bevel=0.05).moved(y=0.99 * h))
        for k in range(12):
            a = 2 * math.pi * k / 12
            out.add(
                palette.metal() if k == 0 else out.parts[-1][1],
                rod(
                    [1.4 * r1 * math.cos(a), 1.01 * h, 1.4 * r1 * math.sin(a)],
                    [1.4 * r1 * math.cos(a), 1.09 * h, 1.4 * r1 * math.sin(a)],
                    0.006 * h,
                    6,
                ),
            )
        out.add(out.parts[-1][1], torus(1.4 * r1, 0.006 * h, 36, 6).moved(y=1.09 * h))
        out.add(palette.glow(), ellipsoid(0.4 * r1, 0.5 * r1, 0.4 * r1, 16, 10).moved(y=1.09 * h))
        out.add(palette.glass(), revolve(np.array([[0.8 * r1, 1.02 * h], [0.8 * r1, 1.16 * h]]), 20))
        return out.add(palette.any(), cylinder(1.1 * r1, 0.12 * h, 28, top=0).moved(y=1.16 * h))
    w, d, h = rng.uniform(6, 12), rng.uniform(5, 9), rng.uniform(3.5, 6)
    stone = palette.patterned(textures.marble, 2.0)
    for k in range(3):
        out.add(stone, box(w + 1.5 - 0.5 * k, 0.25, d + 1.5 - 0.5 * k, 0.02).moved(y=0.251 * k))
    nx, nz = int(rng.integers(3, 7)), int(rng.integers(3, 6))
    column = revolve(
        np.array([[0, 0], [0.4, 0], [0.4, 0.15], [0.28, 0.3], [0.26, h - 0.3], [0.42, h - 0.1], [0.42, h], [0, h]]), 16
    )
    for i in range(nx):
        for j in range(nz):
            if i in (0, nx - 1) or j in (0, nz - 1):
                out.add(stone, column.moved((i / (nx - 1) - 0.5) * (w - 1), 0.74, (j / (nz - 1) - 0.5) * (d - 1)))
    out.add(palette.any(), box(0.45 * w, 0.8 * h, 0.4 * d, 0.05).moved(y=0.74))
    out.add(stone, box(w, 0.5, d, 0.03).moved(y=h + 0.73))
    roof_look = palette.any()
    _roof(rng, Palette(rng), out, roof_look, (w, d, h + 1.23))
    return out


FAMILIES = {"house": house, "tower": tower}
