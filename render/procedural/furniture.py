"""Furniture in metres, standing on y = 0, front towards +z: seats, tables, shelves and cabinets with things in them."""

import math

import numpy as np

from render.procedural import textures, vessels
from render.procedural.assembly import Assembly
from render.procedural.looks import Look, Palette
from render.procedural.piece import placed
from render.procedural.shapes import box, cylinder, ellipsoid, revolve, rod, slab, superquadric, torus, tube


def legs(
    rng: np.random.Generator, look: Look, w: float, d: float, h: float, splay: float | None = None
) -> tuple[Assembly, float]:
    """Four legs under a w x d board at height h, round, square or turned; returns them and their half thickness."""
    out = Assembly()
    t = rng.uniform(0.015, 0.035)
    lean = rng.choice([0.0, 0.0, rng.uniform(0.02, 0.1)]) if splay is None else splay
    style = rng.integers(3)
    for x in (-1.0, 1.0):
        for z in (-1.0, 1.0):
            top = np.array([x * (w / 2 - 1.6 * t), h, z * (d / 2 - 1.6 * t)])
            foot = top + np.array([x * lean, -h, z * lean])
            if style == 0:
                out.add(look, rod(foot, top, t * float(rng.choice([0.5, 0.8, 1.0])), 12, 1.0))
            elif style == 1 and lean == 0:
                out.add(look, box(2 * t, h, 2 * t, 0.15 * t).moved(top[0], 0, top[2]))
            else:
                out.add(look, rod(foot, top, 0.5 * t, 10, 1.9))
    if rng.random() < 0.3 and lean == 0:
        y, r = h * rng.uniform(0.2, 0.45), 0.45 * t
        x, z = w / 2 - 1.6 * t, d / 2 - 1.6 * t
        for s in (-1, 1):
            out.add(look, rod([s * x, y, -z], [s * x, y, z], r), rod([-x, y + 3 * r, s * z], [x, y + 3 * r, s * z], r))
    return out, t


def chair(rng: np.random.Generator, palette: Palette) -> Assembly:
    """Legs, seat, a back of slats, bars, board or arch, sometimes arms and a cushion."""
    w, d, h = rng.uniform(0.38, 0.52), rng.uniform(0.38, 0.5), rng.uniform(0.4, 0.5)
    back = rng.uniform(0.35, 0.65)
    look = palette.solid()
    out, t = legs(rng, look, w, d, h)
    seat = 0.02 + 0.02 * rng.random()
    top = h - 0.002 + seat
    seat_look = look if rng.random() < 0.5 else palette.any()
    out.add(seat_look, box(w, seat, d, 0.3 * seat).moved(y=h - 0.002))
    lean = rng.uniform(0.0, 0.12)
    z = -d / 2 + 1.3 * t
    style = rng.integers(4)
    for x in (-1, 1):
        out.add(
            look,
            rod(
                [x * (w / 2 - 1.4 * t), top - 0.5 * seat, z], [x * (w / 2 - 1.4 * t), top + back, z - lean], t * 0.8, 10
            ),
        )
    inner = w - 2.8 * t
    if style == 0:
        for k in range(int(rng.integers(2, 6))):
            y = back * (0.3 + 0.62 * k / 5)
            out.add(look, box(inner, 0.05, 0.014, 0.004).moved(0, top + y, z - lean * y / back))
    elif style == 1:
        count = int(rng.integers(3, 9))
        for k in range(count):
            across = inner * ((k + 1) / (count + 1) - 0.5)
            out.add(look, rod([across, top - 0.01, z], [across, top + 0.93 * back, z - 0.93 * lean], 0.007, 8))
        out.add(look, box(inner, 0.05, 0.02, 0.006).moved(0, top + 0.9 * back, z - 0.93 * lean))
    elif style == 2:
        out.add(
            seat_look,
            box(inner, 0.72 * back, 0.025, 0.01).turned("x", -lean / back).moved(0, top + 0.25 * back, z - 0.25 * lean),
        )
    else:
        angle = np.linspace(0, math.pi, 16)
        arch = np.stack(
            [inner / 2 * np.cos(angle), top + 0.75 * back + 0.35 * back * np.sin(angle), 0 * angle + z - lean], 1
        )
        out.add(look, tube(arch, 0.8 * t, 10))
        out.add(look, box(inner * 0.4, 0.85 * back, 0.015, 0.005).turned("x", -lean / back).moved(0, top, z))
    if rng.random() < 0.3:
        for x in (-1, 1):
            at = x * (w / 2 - 0.7 * t)
            out.add(look, rod([at, top, d / 2 - 2 * t], [at, top + 0.2, d / 2 - 2 * t], 0.6 * t, 10))
            out.add(look, box(2.2 * t, 0.025, d * 0.95, 0.008).moved(at, top + 0.19, 0))
    if rng.random() < 0.3:
        out.add(palette.cloth(), superquadric(0.44 * w, 0.035, 0.44 * d, 0.4, 0.6, 28, 10).moved(y=top + 0.028))
    return out


def stool(rng: np.random.Generator, palette: Palette) -> Assembly:
    """Round seat on three or four splayed legs with a ring, or on a column."""
    r, h = rng.uniform(0.14, 0.22), rng.uniform(0.35, 0.75)
    look = palette.solid()
    out = Assembly().add(palette.any(), cylinder(r, rng.uniform(0.03, 0.09), 32, bevel=0.012).moved(y=h))
    if rng.random() < 0.3:
        out.add(look, cylinder(0.025, h - 0.01, 16).moved(y=0.012), cylinder(0.9 * r, 0.02, 32, bevel=0.006))
        out.add(
            look,
            torus(0.6 * r, 0.009, 32, 8).moved(y=0.4 * h),
            rod([-0.6 * r, 0.4 * h, 0], [0.6 * r, 0.4 * h, 0], 0.007),
        )
        return out
    count, lean = int(rng.integers(3, 5)), rng.uniform(0.0, 0.5)
    for k in range(count):
        a = 2 * math.pi * k / count + 0.3
        inner, outer = 0.75 * r, 0.75 * r + lean * r
        out.add(
            look,
            rod(
                [outer * math.cos(a), 0, outer * math.sin(a)],
                [inner * math.cos(a), h + 0.01, inner * math.sin(a)],
                0.014,
                10,
                1.3,
            ),
        )
    if rng.random() < 0.8:
        t = rng.uniform(0.2, 0.5)
        out.add(look, torus(0.75 * r + lean * r * (1 - t), 0.008, 36, 8).moved(y=h * t))
    return out


def table(rng: np.random.Generator, palette: Palette, set_out: bool = True) -> Assembly:
    """Rectangular or round; with an apron, a shelf below, things on top."""
    low = rng.random() < 0.35
    w, d = rng.uniform(0.6, 1.8), rng.uniform(0.5, 0.95)
    h = rng.uniform(0.32, 0.5) if low else rng.uniform(0.68, 0.78)
    look, t = palette.solid(), rng.uniform(0.02, 0.05)
    round_top = rng.random() < 0.3
    out = Assembly()
    if round_top:
        w = d = rng.uniform(0.5, 1.2)
        out.add(look, cylinder(w / 2, t, 48, bevel=0.2 * t).moved(y=h - t))
        if rng.random() < 0.5:
            profile = vessels.curve(
                np.array([[0.3 * w, 0], [0.05 * w, 0.12 * h], [0.03 * w, 0.6 * h], [0.09 * w, h - 0.9 * t]]), 16
            )
            profile[:, 0] = profile[:, 0].clip(0.02 * w)
            out.add(look, revolve(np.concatenate([[[0, 0]], profile]), 28))
        else:
            out.include(legs(rng, look, 0.66 * w, 0.66 * w, h - 0.6 * t)[0])
    else:
        out.add(look, box(w, t, d, 0.2 * t).moved(y=h - t))
        four, half = legs(rng, look, w, d, h - 0.7 * t)
        out.include(four)
        if rng.random() < 0.6:
            tall = rng.uniform(0.05, 0.1)
            for s in (-1, 1):
                out.add(
                    look, box(w - 4 * half, tall, 0.018, 0.003).moved(0, h - 0.8 * t - tall, s * (d / 2 - 1.5 * half))
                )
                out.add(
                    look, box(0.018, tall, d - 4 * half, 0.003).moved(s * (w / 2 - 1.5 * half), h - 0.81 * t - tall, 0)
                )
        if rng.random() < 0.35:
            out.add(look, box(w - 2 * half, 0.02, d - 2 * half, 0.004).moved(y=h * rng.uniform(0.15, 0.4)))
    if set_out:
        things(rng, palette, out, (-0.35 * w, 0.35 * w), (-0.3 * d, 0.3 * d), h, 0.4, int(rng.integers(0, 6)))
    return out


def books(rng: np.random.Generator, palette: Palette, width: float, height: float, depth: float) -> Assembly:
    """A row of upright books from x = 0 to at most `width`, backs towards +z, the last ones perhaps leaning."""
    out, x = Assembly(), 0.0
    looks = [palette.plain() for _ in range(3)]
    looks.append(palette.printed(textures.label(rng, *palette.pair()), 1.0, "label"))
    while True:
        t, h, d = rng.uniform(0.012, 0.05), height * rng.uniform(0.6, 0.95), depth * rng.uniform(0.6, 0.9)
        if x + t > width:
            return out
        book = box(t, h, d, 0.001 + 0.05 * t).moved(t / 2, 0.0015, (depth - d) / 2 * rng.uniform(0.6, 1))
        if rng.random() < 0.08 and x + t + 0.25 * h < width:
            angle = rng.uniform(0.1, 0.24)
            book = book.turned("z", angle).moved(h * math.sin(angle), 0.001)
            out.add(looks[rng.integers(4)], book.moved(x))
            x += h * math.sin(angle)
        else:
            out.add(looks[rng.integers(4)], book.moved(x))
        x += t + 0.001


def trinket(rng: np.random.Generator, palette: Palette, width: float, height: float) -> Assembly:
    """A small thing of any kind that fits `width` x `height`, standing on y = 0."""
    kind = rng.integers(7)
    if kind == 0:
        thing = vessels.cup(rng, palette, detail=0.5)
    elif kind == 1:
        thing = vessels.vase(rng, palette, detail=0.5)
    elif kind == 2:
        thing = vessels.bottle(rng, palette, detail=0.5)
    elif kind == 3:
        thing = vessels.bowls(rng, palette, detail=0.5)
    elif kind == 4:
        thing = Assembly()
        y = 0.0
        for _ in range(int(rng.integers(1, 5))):
            t = rng.uniform(0.02, 0.05)
            thing.add(
                palette.plain(),
                box(rng.uniform(0.15, 0.2), t, rng.uniform(0.2, 0.26), 0.003)
                .turned("y", rng.normal(0, 0.2))
                .moved(y=y),
            )
            y += t + 0.001
    elif kind == 5:
        r = rng.uniform(0.05, 0.1)
        thing = Assembly().add(palette.any(), ellipsoid(r, r, r, 14, 9).moved(y=1.08 * r))
        thing.add(palette.solid(), torus(0.6 * r, 0.15 * r, 16, 6).moved(y=0.15 * r))
    else:
        w, h = rng.uniform(0.1, 0.2), rng.uniform(0.12, 0.25)
        thing = Assembly().add(palette.solid(), box(w, h, 0.02, 0.004).turned("x", -0.2).moved(y=0.006))
        picture = palette.printed(textures.painting(rng, *palette.pair()), 1.0, "painting")
        thing.add(picture, box(0.8 * w, 0.8 * h, 0.004).moved(0, 0.1 * h, 0.0105).turned("x", -0.2).moved(y=0.006))
    low, high = thing.bounds()
    size = high - low
    scale = min(1.0, width / max(size[0], size[2]), height / size[1])
    middle = (low + high) / 2
    return thing.transformed(placed(-middle[0] * scale, -low[1] * scale + 0.0015, -middle[2] * scale, scale=scale))


def things(
    rng: np.random.Generator, palette: Palette, out: Assembly,
    x: tuple[float, float], z: tuple[float, float], y: float, height: float, count: int,
) -> None:  # fmt: skip
    """Puts up to `count` small things on the board at height `y`, in cells side by side so that none overlap."""
    columns = max(1, int((x[1] - x[0]) / 0.22))
    rows = max(1, int((z[1] - z[0]) / 0.22))
    cells = rng.permutation(columns * rows)[:count]
    cw, cd = (x[1] - x[0]) / columns, (z[1] - z[0]) / rows
    for cell in cells:
        at = x[0] + (cell % columns + 0.5) * cw, z[0] + (cell // columns + 0.5) * cd
        thing = trinket(rng, palette, 0.66 * min(cw, cd), height * rng.uniform(0.5, 0.9))
        out.include(thing, placed(at[0], y, at[1], yaw=rng.uniform(-0.4, 0.4)))


def shelf(rng: np.random.Generator, palette: Palette) -> Assembly:
    """A bookcase of boards with books and things; with or without a back, some bays divided."""
    w, h, d = rng.uniform(0.5, 1.3), rng.uniform(0.7, 2.0), rng.uniform(0.2, 0.36)
    t, look = rng.uniform(0.012, 0.03), palette.solid()
    levels = max(2, round(h / rng.uniform(0.28, 0.45)))
    out = Assembly()
    for s in (-1, 1):
        out.add(look, box(t, h, d, 0.1 * t).moved(s * (w - t) / 2))
    if rng.random() < 0.6:
        out.add(look, slab((-w / 2 + 0.9 * t, 0.01, -d / 2 + 0.002), (w / 2 - 0.9 * t, h - 0.004, -d / 2 + 0.009)))
    inner, step = w - 2 * t, (h - t - 0.05) / levels
    fullness = rng.uniform(0.35, 0.95)
    for k in range(levels + 1):
        y = 0.04 + k * step
        out.add(look, box(inner + 0.4 * t, t, d - 0.012, 0.1 * t).moved(0, y, 0.0035))
        if k == levels:
            break
        parts = [(-inner / 2, inner / 2)]
        if rng.random() < 0.35:
            x = inner * rng.uniform(-0.25, 0.25)
            out.add(look, box(t, step - 0.8 * t, d - 0.02, 0.1 * t).moved(x, y + 0.9 * t, 0.003))
            parts = [(-inner / 2, x - t / 2), (x + t / 2, inner / 2)]
        for a, b in parts:
            if rng.random() > fullness:
                continue
            room = step - t
            if rng.random() < 0.55:
                row = books(rng, palette, (b - a - 0.01) * rng.uniform(0.4, 1), room, d - 0.04)
                if row.parts:
                    out.include(row, placed(a + 0.005, y + t, 0))
            else:
                things(
                    rng, palette, out, (a + 0.01, b - 0.01), (-0.4 * d, 0.4 * d), y + t, room, int(rng.integers(1, 4))
                )
    return out


def cabinet(rng: np.random.Generator, palette: Palette) -> Assembly:
    """A carcass with doors ajar or drawers pulled out, and what is inside."""
    w, h, d = rng.uniform(0.45, 1.4), rng.uniform(0.5, 1.9), rng.uniform(0.35, 0.6)
    t, look, front = 0.018, palette.solid(), palette.solid()
    base = rng.uniform(0.02, 0.12)
    out, _ = legs(rng, look, w, d, base + 0.01, splay=0.0)
    out.add(look, slab((-w / 2, base, -d / 2), (w / 2, base + t, d / 2), 0.002))
    out.add(look, slab((-w / 2, h - t, -d / 2), (w / 2, h, d / 2), 0.002))
    for s in (-1, 1):
        out.add(look, box(t, h - base - 1.6 * t, d - 0.004, 0.002).moved(s * (w - t - 0.002) / 2, base + 0.8 * t))
    out.add(
        look, slab((-w / 2 + 0.5 * t, base + 0.5 * t, -d / 2 + 0.004), (w / 2 - 0.5 * t, h - 0.5 * t, -d / 2 + 0.012))
    )
    low, high, inner = base + t, h - t, w - 2 * t - 0.004
    if rng.random() < 0.5:
        rows, columns = max(2, round((high - low) / rng.uniform(0.16, 0.3))), 1 + (w > 0.8) * int(rng.integers(0, 2))
        rh, rw = (high - low) / rows, inner / columns
        for i in range(rows):
            for j in range(columns):
                pulled = 0.012 + (rng.random() < 0.35) * rng.uniform(0.2, 0.7) * d
                drawer = _drawer(rng, palette, front, rw - 0.006, rh - 0.006, d - 0.05)
                out.include(drawer, placed((j + 0.5) * rw - inner / 2, low + i * rh + 0.003, pulled))
    else:
        shelves = int(rng.integers(1, 5))
        gap = (high - low) / (shelves + 1)
        for k in range(shelves + 1):
            y = low + k * gap
            if k:
                out.add(look, slab((-inner / 2, y - t, -d / 2 + 0.015), (inner / 2, y, d / 2 - 0.04), 0.002))
            things(
                rng,
                palette,
                out,
                (-0.45 * inner, 0.45 * inner),
                (-0.35 * d, 0.3 * d),
                y,
                gap - 2 * t,
                int(rng.integers(0, 4)),
            )
        count = 1 if w < 0.6 else 2
        for k in range(count):
            side = (-1, 1)[k] if count == 2 else int(rng.choice([-1, 1]))
            angle = rng.choice([0.0, rng.uniform(0.2, 1.9)])
            dw = (w - 0.004) / count
            door = Assembly().add(front, slab((0.002, low - 0.5 * t, 0), (dw - 0.002, high + 0.4 * t, t), 0.003))
            door.add(
                palette.metal(),
                rod(
                    [0.9 * dw, (low + high) / 2 - 0.06, t + 0.02], [0.9 * dw, (low + high) / 2 + 0.06, t + 0.02], 0.006
                ),
            )
            if rng.random() < 0.4:
                door.add(
                    front, slab((0.15 * dw, low + 0.1 * h, t - 0.004), (0.85 * dw, high - 0.1 * h, t + 0.008), 0.006)
                )
            hinge = placed(-w / 2 + 0.002, 0, d / 2 + 0.003) @ placed(yaw=-angle)
            out.include(door, hinge if side < 0 else np.diag([-1.0, 1, 1, 1]) @ hinge)
    if rng.random() < 0.5:
        things(rng, palette, out, (-0.4 * w, 0.4 * w), (-0.35 * d, 0.35 * d), h, 0.35, int(rng.integers(1, 4)))
    return out


def _drawer(rng: np.random.Generator, palette: Palette, look: Look, w: float, h: float, d: float) -> Assembly:
    """An open box of thin boards with a front and a knob, centred in x, its front face near z = d / 2."""
    out, t, tall = Assembly(), 0.01, 0.75 * h
    out.add(look, slab((-w / 2, 0, d / 2), (w / 2, h, d / 2 + 0.018), 0.003))
    out.add(look, slab((-w / 2 + 0.006, 0.012, -d / 2), (w / 2 - 0.006, 0.012 + t, d / 2 + 0.002)))
    for s in (-1, 1):
        x = s * (w / 2 - 0.006 - t / 2)
        out.add(look, slab((x - t / 2 - 0.0005, 0.014, -d / 2 + 0.001), (x + t / 2 - 0.0005, tall, d / 2 + 0.003)))
    out.add(look, slab((-w / 2 + 0.01, 0.016, -d / 2 + 0.0015), (w / 2 - 0.01, 0.98 * tall, -d / 2 + t)))
    out.add(palette.metal(), ellipsoid(0.014, 0.014, 0.018, 10, 6).moved(0, h / 2, d / 2 + 0.03))
    things(rng, palette, out, (-0.4 * w, 0.4 * w), (-0.4 * d, 0.4 * d), 0.022, 0.9 * h - 0.03, int(rng.integers(0, 3)))
    return out


def sofa(rng: np.random.Generator, palette: Palette) -> Assembly:
    """Armchair to three-seater: base, back, arms, cushions."""
    seats = int(rng.integers(1, 4))
    d, h, arm = rng.uniform(0.75, 0.95), rng.uniform(0.36, 0.45), rng.uniform(0.1, 0.22)
    sw = rng.uniform(0.55, 0.75)
    w = seats * sw + 2 * arm
    cloth, other = palette.cloth(), palette.cloth()
    out, _ = legs(rng, palette.solid(), w, d, 0.11, splay=0.0)
    out.add(cloth, slab((-w / 2 + 0.02, 0.1, -d / 2 + 0.02), (w / 2 - 0.02, 0.27, d / 2 - 0.03), 0.03))
    rise = rng.uniform(0.35, 0.55)
    out.add(cloth, box(w - 2 * arm + 0.04, rise + h - 0.15, 0.2, 0.06).turned("x", -0.12).moved(0, 0.13, -d / 2 + 0.16))
    for s in (-1, 1):
        out.add(cloth, box(arm, h + rng.uniform(0.1, 0.2) - 0.12, d - 0.01, 0.04).moved(s * (w - arm) / 2, 0.115))
    for k in range(seats):
        x = (k - (seats - 1) / 2) * sw
        out.add(other, superquadric(0.495 * sw, 0.1, 0.33 * d, 0.25, 0.35, 32, 12).moved(x, h - 0.07, 0.1 * d))
        pillow = superquadric(0.47 * sw, 0.42 * rise, 0.09, 0.35, 0.5, 28, 12)
        out.add(cloth, pillow.turned("x", -0.22).moved(x, h + 0.42 * rise, -d / 2 + 0.31))
    for _ in range(int(rng.integers(0, 3))):
        pillow = superquadric(0.2, 0.2, 0.07, 0.7, 0.5, 24, 12).turned("z", rng.uniform(-0.5, 0.5)).turned("x", -0.4)
        out.add(palette.cloth(), pillow.moved(rng.uniform(-0.35, 0.35) * seats * sw, h + 0.22, rng.uniform(-0.05, 0.1)))
    return out


def bed(rng: np.random.Generator, palette: Palette) -> Assembly:
    """Frame, mattress, blanket and pillows; the head is at -z."""
    w, d, h = rng.choice([0.9, 1.2, 1.4, 1.6, 1.8]), rng.uniform(1.95, 2.15), rng.uniform(0.25, 0.4)
    look = palette.solid()
    out, _ = legs(rng, look, w, d, h, splay=0.0)
    out.add(look, slab((-w / 2, h - 0.1, -d / 2), (w / 2, h, d / 2), 0.015))
    out.add(
        look,
        slab((-w / 2 - 0.02, 0.05, -d / 2 - 0.05), (w / 2 + 0.02, h + rng.uniform(0.35, 0.8), -d / 2 + 0.01), 0.012),
    )
    mattress = rng.uniform(0.14, 0.25)
    out.add(
        palette.plain(np.full(3, 0.9)),
        slab((-w / 2 + 0.02, h + 0.002, -d / 2 + 0.02), (w / 2 - 0.02, h + mattress, d / 2 - 0.02), 0.05),
    )
    top = h + mattress
    out.add(
        palette.cloth(), superquadric(w / 2 + 0.015, 0.09, 0.34 * d, 0.2, 0.3, 40, 12).moved(0, top - 0.02, 0.16 * d)
    )
    count = 1 if w < 1.3 else 2
    cloth = palette.cloth()
    for k in range(count):
        pillow = superquadric(0.4 * w / count, 0.08, 0.2, 0.6, 0.5, 28, 10)
        out.add(cloth, pillow.turned("x", 0.2).moved((k - (count - 1) / 2) * w / count, top + 0.075, -d / 2 + 0.28))
    return out


FAMILIES = {"chair": chair, "stool": stool, "table": table, "shelf": shelf, "cabinet": cabinet, "sofa": sofa}
