"""Furnished rooms in metres: walls with window and door openings, furniture against them and free."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from render.mesh import Mesh, Room
from render.procedural import furniture, lamps, plants, textures, vessels
from render.procedural.assembly import Assembly
from render.procedural.looks import Look, Palette
from render.procedural.piece import placed
from render.procedural.shapes import box, cylinder, grid, rod, slab
from render.procedural.sheets import Opening, panel, reveal
from shards.randomness import generator

STANDS = 0.002  # metres between a thing and the floor, so that no foot lies in the floor's plane
KINDS = ("living", "bedroom", "dining", "office", "library", "store")


@dataclass(frozen=True, eq=False)
class Wall:
    """A wall's inner face: `frame` (4,4) takes (x along, y up, z into the room) to the room's coordinates."""

    width: float
    frame: np.ndarray
    openings: tuple[Opening, ...]


def room(rng: np.random.Generator, palette: Palette) -> Mesh:
    """A furnished room; `Mesh.room` tells its inside, the furniture's boxes and the openings."""
    kind = KINDS[rng.integers(len(KINDS))]
    w, d, h = rng.uniform(3.0, 7.0), rng.uniform(3.0, 6.0), rng.uniform(2.35, 3.2)
    walls = _walls(rng, w, d, h)
    thickness = float(rng.uniform(0.08, 0.3)) if rng.random() < 0.65 else 0.0
    scene = Assembly()
    _shell(rng, palette, scene, walls, (w, d, h), thickness)
    plan = _Plan(w, d, h, walls)
    _furnish(rng, palette, kind, plan)
    scene.include(plan.scene)
    openings = [_box_of(wall.frame, opening, thickness) for wall in walls for opening in wall.openings]
    inside = np.array([[-w / 2, 0, -d / 2], [w / 2, h, d / 2]])
    about = Room(inside, np.array(plan.boxes).reshape(-1, 2, 3), np.array(openings).reshape(-1, 2, 3))
    return replace(scene.mesh(), room=about)


def _walls(rng: np.random.Generator, w: float, d: float, h: float) -> list[Wall]:
    """Back, right, front, left; one has the door, one to three have windows."""
    door = int(rng.integers(4))
    windows = rng.permutation(4)[: rng.integers(1, 4)]
    walls = []
    for k in range(4):
        width, depth = (w, d) if k % 2 == 0 else (d, w)
        frame = placed(yaw=-k * np.pi / 2) @ placed(-width / 2, 0, -depth / 2)
        openings: list[Opening] = []
        at = 0.35
        if k == door:
            x = rng.uniform(0.15, width - 1.2)
            openings.append((x, 0.0, x + rng.uniform(0.8, 1.0), min(rng.uniform(1.95, 2.15), h - 0.15)))
            at = openings[0][2] + 0.3
        if k in windows:
            sill, head = rng.choice([0.08, 0.5, 0.9]) + rng.uniform(0, 0.15), h - rng.uniform(0.2, 0.5)
            while width - at > 0.9 and len(openings) < 4:
                wide = min(rng.uniform(0.6, 2.2), width - at - 0.3)
                openings.append((at, sill, at + wide, head))
                at += wide + rng.uniform(0.25, 1.5)
        walls.append(Wall(width, frame, tuple(openings)))
    return walls


def _shell(
    rng: np.random.Generator, palette: Palette, scene: Assembly, walls: list[Wall],
    size: tuple[float, float, float], thickness: float,
) -> None:  # fmt: skip
    """Floor, ceiling and walls as inward sheets; with a `thickness` also the outer faces and the reveals."""
    w, d, h = size
    floors = (
        textures.planks,
        textures.planks,
        textures.tiles,
        textures.checker,
        textures.wood,
        textures.marble,
        textures.noise,
    )
    floor = (
        palette.wood(1.0) if rng.random() < 0.2 else palette.patterned(floors[rng.integers(len(floors))], tiling=1.0)
    )
    if rng.random() < 0.4:
        brown = np.array([0.62, 0.45, 0.3]) * rng.uniform(0.5, 1.2)
        floor = palette.printed(textures.planks(rng, brown, brown * 0.65), 1.0, "planks")
    wall_look = _wall_look(rng, palette)
    feature = _wall_look(rng, palette) if rng.random() < 0.4 else wall_look
    ceiling = palette.plain(np.full(3, rng.uniform(0.8, 0.97)), 0.95)
    facing_up = panel(w, d, uv_unit=rng.uniform(0.8, 1.6)).turned("x", -np.pi / 2).moved(-w / 2, 0, d / 2)
    facing_down = panel(w, d).turned("x", np.pi / 2).moved(-w / 2, h, -d / 2)
    scene.add(floor, facing_up).add(ceiling, facing_down)
    unit = rng.uniform(0.8, 1.5)
    outside, trim = palette.plain(), palette.plain(np.full(3, rng.uniform(0.5, 0.95)))
    if thickness > 0:
        w2, d2 = w + 2 * thickness, d + 2 * thickness
        scene.add(outside, panel(w2, d2).turned("x", -np.pi / 2).moved(-w2 / 2, h + thickness, d2 / 2))
        scene.add(outside, panel(w2, d2).turned("x", np.pi / 2).moved(-w2 / 2, -thickness, -d2 / 2))
    for k, wall in enumerate(walls):
        scene.add(feature if k == 0 else wall_look, panel(wall.width, h, wall.openings, unit).transformed(wall.frame))
        if thickness > 0:
            outer_openings = [
                (a + thickness, b + thickness, c + thickness, e + thickness) for a, b, c, e in wall.openings
            ]
            outer = panel(wall.width + 2 * thickness, h + 2 * thickness, outer_openings)
            scene.add(outside, outer.inside_out().moved(-thickness, -thickness, -thickness).transformed(wall.frame))
            for opening in wall.openings:
                scene.add(trim, reveal(opening, thickness).transformed(wall.frame))
        _trim(rng, palette, scene, wall, h, max(thickness, 0.02), trim)


def _wall_look(rng: np.random.Generator, palette: Palette) -> Look:
    kind = rng.integers(5)
    if kind < 2:
        return palette.plain(0.35 * palette.colour() + 0.6 * rng.uniform(0.7, 1.0), 0.95)
    pale = palette.colour() * 0.3 + 0.6
    pattern = (textures.stripes, textures.bricks, textures.noise, textures.dots, textures.tiles)[rng.integers(5)]
    return palette.printed(pattern(rng, pale, pale * rng.uniform(0.7, 0.95)), 1.0, "wall")


def _trim(
    rng: np.random.Generator, palette: Palette, scene: Assembly, wall: Wall, h: float, depth: float, look: Look
) -> None:
    """Frames, mullions, sometimes panes and curtains at windows; skirting boards; pictures."""
    out = Assembly()
    for x0, y0, x1, y1 in wall.openings:
        z, t = -0.4 * depth, 0.04
        if y0 == 0.0:
            if rng.random() < 0.6:
                leaf = slab((0.005, 0.012, -0.02), (x1 - x0 - 0.005, y1 - 0.01, 0.02), 0.004)
                door = (
                    Assembly()
                    .add(palette.wood(1.0), leaf)
                    .add(palette.metal(), rod([x1 - x0 - 0.1, 1, -0.07], [x1 - x0 - 0.1, 1, 0.07], 0.015))
                )
                out.include(door, placed(x0, 0, z, yaw=rng.choice([0.0, rng.uniform(0.2, 1.9)])))
            continue
        if rng.random() < 0.85:
            for a, b in (
                ((x0, y0), (x1, y0 + t)),
                ((x0, y1 - t), (x1, y1)),
                ((x0, y0), (x0 + t, y1)),
                ((x1 - t, y0), (x1, y1)),
            ):
                grow = 0.001 if a[0] == x0 and b[0] == x1 else 0.003
                out.add(
                    look, slab((a[0] + grow, a[1] + grow, z - 0.02 - grow), (b[0] - grow, b[1] - grow, z + 0.02 + grow))
                )
            for k in range(1, max(1, round((x1 - x0) / 0.7))):
                x = x0 + (x1 - x0) * k / round((x1 - x0) / 0.7)
                out.add(look, slab((x - 0.018, y0 + 0.01, z - 0.018), (x + 0.018, y1 - 0.01, z + 0.018)))
            if rng.random() < 0.6:
                y = y0 + (y1 - y0) * rng.choice([0.35, 0.5, 0.65])
                out.add(look, slab((x0 + 0.01, y - 0.015, z - 0.015), (x1 - 0.01, y + 0.015, z + 0.015)))
        if rng.random() < 0.2:
            pane = panel(x1 - x0 - 0.02, y1 - y0 - 0.02).moved(x0 + 0.01, y0 + 0.01, z + 0.004)
            out.add(palette.glass(), pane)
        if rng.random() < 0.35:
            _curtains(rng, palette, out, (x0, y0, x1, y1), h)
    if rng.random() < 0.7:
        edge = 0.0
        doors = sorted((o[0], o[2]) for o in wall.openings if o[1] == 0.0)
        for left, right in [*doors, (wall.width, wall.width)]:
            if left - edge > 0.1:
                out.add(look, slab((edge + 0.02, 0.001, -0.004), (left - 0.02, 0.08, 0.015)))
            edge = right
    free = [
        x for x in np.arange(0.5, wall.width - 0.5, 0.35) if not any(o[0] - 0.5 < x < o[2] + 0.5 for o in wall.openings)
    ]
    if free and rng.random() < 0.6:
        x, pw, ph = float(free[rng.integers(len(free))]), rng.uniform(0.25, 0.8), rng.uniform(0.25, 0.6)
        y = rng.uniform(1.35, 1.6)
        out.add(palette.solid(), slab((x - pw / 2, y - ph / 2, -0.003), (x + pw / 2, y + ph / 2, 0.025), 0.006))
        picture = box(0.85 * pw, 0.85 * ph, 0.006).moved(x, y - 0.425 * ph, 0.027)
        out.add(palette.printed(textures.painting(rng, *palette.pair()), 1.0, "painting"), picture)
    scene.include(out, wall.frame)


def _curtains(rng: np.random.Generator, palette: Palette, out: Assembly, opening: Opening, h: float) -> None:
    """A rail and two wavy single sheets, drawn aside."""
    x0, y0, x1, y1 = opening
    look, low = palette.cloth(), 0.03 if rng.random() < 0.6 else y0 - 0.1
    top, z = min(y1 + 0.12, h - 0.03), 0.07
    out.add(palette.metal(), rod([x0 - 0.2, top, z], [x1 + 0.2, top, z], 0.012))
    drawn = (x1 - x0) * rng.uniform(0.12, 0.4) + 0.15
    for a, b in ((x0 - 0.18, x0 - 0.18 + drawn), (x1 + 0.18 - drawn, x1 + 0.18)):
        u = np.linspace(0, 1, 33)
        wave = 0.035 * np.sin(2 * np.pi * u * max(2, round(drawn / 0.12)) + rng.uniform(0, 6))
        rows = [
            np.stack([a + (b - a) * u, np.full(33, y), z + wave * s], 1)
            for y, s in ((low, 1.3), (1.0 * (low + top) / 2, 1.0), (top, 0.6))
        ]
        out.add(look, grid(np.stack(rows)).inside_out())


def _box_of(frame: np.ndarray, opening: Opening, thickness: float) -> np.ndarray:
    x0, y0, x1, y1 = opening
    corners = np.array([[x0, y0, -thickness, 1], [x1, y1, 0, 1]]) @ frame.T
    return np.stack([corners[:, :3].min(axis=0), corners[:, :3].max(axis=0)])


class _Plan:
    """The floor plan while it fills: boxes taken, and how to place a thing without overlaps."""

    def __init__(self, w: float, d: float, h: float, walls: list[Wall]) -> None:
        self.w, self.d, self.h, self.walls = w, d, h, walls
        self.scene = Assembly()
        self.boxes: list[np.ndarray] = []
        self.kept_free = [self._doorway(wall, o) for wall in walls for o in wall.openings if o[1] == 0.0]

    def _doorway(self, wall: Wall, o: Opening) -> np.ndarray:
        """The door's swing and the way in, which stay empty."""
        corners = np.array([[o[0] - 0.1, 0, -0.1, 1], [o[2] + 0.1, o[3], 1.0, 1]]) @ wall.frame.T
        return np.stack([corners[:, :3].min(axis=0), corners[:, :3].max(axis=0)])

    def free(self, low: np.ndarray, high: np.ndarray, margin: float = 0.03) -> bool:
        inside = bool(
            np.all(low[[0, 2]] >= [-self.w / 2, -self.d / 2]) and np.all(high[[0, 2]] <= [self.w / 2, self.d / 2])
        )
        taken = [*self.boxes, *self.kept_free]
        return (
            inside
            and high[1] < self.h - 0.02
            and not any(np.all(low < b[1] + margin) and np.all(high > b[0] - margin) for b in taken)
        )

    def put(self, thing: Assembly, placement: np.ndarray, record: bool = True) -> bool:
        """Puts `thing` if its box is free; says whether it did."""
        low, high = thing.bounds()
        corners = np.array(
            [[x, y, z, 1.0] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])]
        )
        at = corners @ placement.T
        a, b = at[:, :3].min(axis=0), at[:, :3].max(axis=0)
        if not self.free(a, b):
            return False
        self.scene.include(thing, placement)
        if record:
            self.boxes.append(np.stack([a, b]))
        return True

    def against_wall(
        self, rng: np.random.Generator, thing: Assembly, tries: int = 24, gap: float = 0.025, height: float = 0.0
    ) -> np.ndarray | None:
        """Puts `thing` with its back to some wall, at a `height`, not before a window; returns the placement."""
        low, high = thing.bounds()
        for _ in range(tries):
            wall = self.walls[rng.integers(4)]
            span = wall.width - (high[0] - low[0]) - 2 * gap
            if span <= 0:
                continue
            x = gap - low[0] + span * rng.random()
            windows = [
                o for o in wall.openings if o[0] < x + high[0] and o[2] > x + low[0] and o[1] < height + high[1] - 0.1
            ]
            placement = wall.frame @ placed(x, STANDS + height - low[1], gap - low[2])
            if not windows and self.put(thing, placement):
                return placement
        return None

    def standing_free(
        self, rng: np.random.Generator, thing: Assembly, yaws: tuple[float, ...], tries: int = 20
    ) -> np.ndarray | None:
        """Puts `thing` somewhere in the middle part of the floor; returns the placement."""
        for _ in range(tries):
            x, z = rng.uniform(-0.3, 0.3) * self.w, rng.uniform(-0.3, 0.3) * self.d
            placement = placed(x, STANDS - thing.bounds()[0, 1], z, yaw=float(rng.choice(yaws)))
            if self.put(thing, placement):
                return placement
        return None

    def open_floor(self) -> float:
        """Fraction of the floor with nothing on it, up to 1.9 m."""
        covered = sum((b[1, 0] - b[0, 0]) * (b[1, 2] - b[0, 2]) for b in self.boxes if b[0, 1] < 1.9)
        return 1.0 - covered / (self.w * self.d)


QUARTERS = (0.0, np.pi / 2, np.pi, -np.pi / 2)


def _furnish(rng: np.random.Generator, palette: Palette, kind: str, plan: _Plan) -> None:
    """What belongs to a room of this kind, largest first, until about half of the floor is taken."""
    make: dict[str, Callable[[np.random.Generator, Palette], Assembly]] = {
        **furniture.FAMILIES,
        "bed": furniture.bed,
        "plant": plants.potted,
        "crate": vessels.crate,
        "standing lamp": lambda r, p: lamps.lamp(r, p, standing=True),
    }
    wishes = {
        "living": ["sofa", "shelf", "cabinet", "sofa", "plant", "standing lamp", "chair", "table", "plant"],
        "bedroom": ["bed", "cabinet", "cabinet", "chair", "shelf", "standing lamp", "plant", "stool"],
        "dining": ["cabinet", "shelf", "plant", "cabinet", "standing lamp", "stool"],
        "office": ["table", "shelf", "shelf", "cabinet", "chair", "plant", "standing lamp", "table"],
        "library": ["shelf", "shelf", "shelf", "shelf", "shelf", "sofa", "standing lamp", "table"],
        "store": ["shelf", "shelf", "crate", "crate", "cabinet", "crate", "stool", "crate", "table"],
    }[kind]
    if kind in ("dining", "living", "office"):
        _group(rng, palette, plan, lounge=kind == "living")
    # A large room gets the list again, until the floor is full enough.
    for name in wishes * (2 if plan.w * plan.d > 20 else 1):
        if plan.open_floor() < 0.6:
            break
        thing = make[name](rng, palette if rng.random() < 0.6 else Palette(rng, muted=0.6))
        if name in ("chair", "stool", "crate") and rng.random() < 0.6:
            plan.standing_free(rng, thing, QUARTERS)
        else:
            plan.against_wall(rng, thing)
    for _ in range(int(rng.integers(0, 4))):
        plan.against_wall(rng, _hung(rng, palette), height=float(rng.uniform(1.2, 1.7)))
    if rng.random() < 0.7:
        drop = plan.h - rng.uniform(2.05, 2.2)
        hanging = lamps.pendant(rng, palette, drop)
        plan.put(hanging, placed(rng.uniform(-0.2, 0.2) * plan.w, plan.h - 0.025, rng.uniform(-0.2, 0.2) * plan.d))
    if rng.random() < 0.6:
        rw, rd = rng.uniform(0.3, 0.6) * plan.w, rng.uniform(0.3, 0.6) * plan.d
        rug = box(rw, 0.012, rd, 0.004).moved(
            rng.uniform(-0.1, 0.1) * plan.w, STANDS / 2, rng.uniform(-0.1, 0.1) * plan.d
        )
        plan.scene.add(palette.cloth(), rug)


def _hung(rng: np.random.Generator, palette: Palette) -> Assembly:
    """For a wall: a board with things on it, a flat screen, a mirror or a clock; back at z = 0."""
    out, kind = Assembly(), rng.integers(4)
    w = rng.uniform(0.5, 1.3)
    if kind < 2:
        d = rng.uniform(0.15, 0.25)
        out.add(palette.solid(), slab((-w / 2, 0, 0), (w / 2, 0.03, d), 0.004))
        out.add(palette.metal(), *(rod([x, 0.01, 0.9 * d], [x, -0.12, 0.01], 0.006, 6) for x in (-0.4 * w, 0.4 * w)))
        furniture.things(
            rng, palette, out, (-0.45 * w, 0.45 * w), (0.01, d - 0.01), 0.03, 0.35, int(rng.integers(1, 5))
        )
    elif kind == 2:
        h = w * rng.uniform(0.5, 0.65)
        out.add(palette.plain(np.full(3, 0.05), 0.2), slab((-w / 2, 0, 0.02), (w / 2, h, 0.06), 0.006))
        out.add(
            palette.printed(textures.painting(rng, *palette.pair()), 1.0),
            box(0.95 * w, 0.93 * h, 0.004).moved(0, 0.035 * h, 0.0605),
        )
    else:
        r = rng.uniform(0.12, 0.3)
        out.add(palette.any(), cylinder(r, 0.03, 36, bevel=0.005).turned("x", np.pi / 2).moved(0, r, 0.002))
        for length, angle in ((0.8 * r, rng.uniform(0, 6.28)), (0.5 * r, rng.uniform(0, 6.28))):
            tip = [length * np.cos(angle), r + length * np.sin(angle), 0.045]
            out.add(palette.plain(np.full(3, 0.05)), rod([0, r, 0.04], tip, 0.005, 6))
    return out


def _group(rng: np.random.Generator, palette: Palette, plan: _Plan, lounge: bool) -> None:
    """A free table with chairs around it that face it."""
    table = furniture.table(rng, palette)
    yaw = float(rng.choice(QUARTERS[:2]))
    placement = plan.standing_free(rng, table, (yaw,))
    if placement is None:
        return
    low, high = table.bounds()
    seat = furniture.chair(rng, palette)
    back = seat.bounds()
    for side in range(4):
        half = (high[2], high[0], -low[2], -low[0])[side]
        if lounge or rng.random() < 0.2:
            continue
        reach = half + 0.06 - back[0, 2] + rng.uniform(0, 0.25)
        turned = placed(yaw=side * np.pi / 2) @ placed(rng.uniform(-0.1, 0.1), 0, reach) @ placed(yaw=np.pi)
        at = placement @ turned
        at[1, 3] = STANDS - back[0, 1]
        plan.put(seat, at)


def make_room(seed: int, index: int) -> Mesh:
    """Room `index`."""
    rng = generator(seed, "procedural", "rooms", index)
    return room(rng, Palette(rng, muted=0.75))
