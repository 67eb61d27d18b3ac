"""Walking figures: people and animals of varied build, of rigid parts and smoothly skinned limbs over a skeleton."""

import colorsys
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from render.mesh import Mesh
from render.procedural import textures
from render.procedural.assembly import Assembly
from render.procedural.looks import Look, Palette
from render.procedural.piece import Piece
from render.procedural.shapes import box, capsule, cylinder, ellipsoid, revolve, superquadric, torus, tube
from render.procedural.skeleton import Skeleton, Skin, Swing, Walk, chain_weights
from render.procedural.vessels import curve
from shards.randomness import generator


class Body:
    """Pieces at rest, each bound to one joint or along a chain of joints."""

    def __init__(self, skeleton: Skeleton) -> None:
        self.skeleton = skeleton
        self.assembly = Assembly()
        self.weights: list[np.ndarray] = []

    def at(self, joint: str) -> np.ndarray:
        return self.skeleton.rest[self.skeleton.index(joint)]

    def rigid(self, joint: str, look: Look, *pieces: Piece) -> None:
        """Pieces, in the body's frame, that move with `joint`."""
        for piece in pieces:
            weights = np.zeros((len(piece.vertices), len(self.skeleton.names)))
            weights[:, self.skeleton.index(joint)] = 1.0
            self._bind(look, piece, weights)

    def skinned(self, chain: Sequence[str], look: Look, piece: Piece, blend: float) -> None:
        indices = [self.skeleton.index(name) for name in chain]
        self._bind(look, piece, chain_weights(piece.vertices, self.skeleton.rest, indices, blend))

    def _bind(self, look: Look, piece: Piece, weights: np.ndarray) -> None:
        self.assembly.add(look, piece)
        self.weights.append(weights)

    def walking(self, swings: Sequence[Swing], duration: float, soles: Sequence[tuple[str, np.ndarray]]) -> Mesh:
        """The mesh with its walk; `vertices` and `normals` are those of time 0."""
        contacts = tuple((self.skeleton.index(joint), point) for joint, points in soles for point in points)
        mesh, used = self.assembly.mesh_and_used()
        assert mesh.normals is not None
        walk = Walk(self.skeleton, tuple(swings), duration, contacts)
        skin = Skin(walk, mesh.vertices, mesh.normals.astype(np.float64), np.concatenate(self.weights)[used])
        normals = skin.posed_normals(0.0).astype(np.float32)
        return replace(mesh, vertices=skin.pose(0.0), normals=normals, pose=skin.pose, duration=duration)


def limb(points: np.ndarray, radii: Sequence[float], segments: int = 14, per_bone: int = 7) -> Piece:
    """A tube through joint positions with rounded ends; `radii` one per point."""
    count = per_bone * (len(points) - 1) + 1
    at = np.linspace(0, len(points) - 1, count)
    path = np.stack([np.interp(at, np.arange(len(points)), points[:, k]) for k in range(3)], 1)
    r = curve(np.asarray(radii, float)[:, None], count)[:, 0]
    angle = np.array([0.15, 0.5, 0.9, 1.25])
    first, last = path[0] - path[1], path[-1] - path[-2]
    first, last = first / np.linalg.norm(first), last / np.linalg.norm(last)
    start = path[0] + first * (r[0] * np.cos(angle))[:, None]
    end = path[-1] + last * (r[-1] * np.cos(angle[::-1]))[:, None]
    path = np.concatenate([start, path, end])
    return tube(path, np.concatenate([r[0] * np.sin(angle), r, r[-1] * np.sin(angle[::-1])]), segments)


def human(rng: np.random.Generator, palette: Palette) -> Mesh:
    """A person (or a robot of boxes and balls): legs 45-53 % of the height, any build, clothes of shells."""
    tall = rng.uniform(1.0, 2.0)
    child = max(0.0, (1.45 - tall) / 0.45)
    girth = rng.uniform(0.75, 1.45)
    leg = tall * (rng.uniform(0.46, 0.53) - 0.03 * child)
    knee, ankle = leg * rng.uniform(0.52, 0.56), 0.045 * tall
    hip_x, shoulder_x = 0.052 * tall * girth**0.5, tall * rng.uniform(0.1, 0.125) * girth**0.3
    chest_y, neck_y = tall * 0.66, tall * (0.83 - 0.02 * child)
    arm_y, upper, lower = tall * (0.8 - 0.02 * child), tall * rng.uniform(0.16, 0.19), tall * rng.uniform(0.14, 0.16)
    head_r = tall * (rng.uniform(0.058, 0.07) + 0.025 * child)
    joints: list[tuple[str, str, tuple[float, float, float]]] = [
        ("pelvis", "", (0, leg, 0)),
        ("spine", "pelvis", (0, leg + 0.07 * tall, 0)),
        ("chest", "spine", (0, chest_y, 0)),
        ("neck", "chest", (0, neck_y, 0)),
        ("head", "neck", (0, neck_y + 0.04 * tall, 0.005 * tall)),
    ]
    for side, s in (("left", 1), ("right", -1)):
        joints += [
            (f"{side} hip", "pelvis", (s * hip_x, leg - 0.01 * tall, 0)),
            (f"{side} knee", f"{side} hip", (s * hip_x, knee, 0.004 * tall)),
            (f"{side} ankle", f"{side} knee", (s * hip_x, ankle, 0)),
            (f"{side} shoulder", "chest", (s * shoulder_x, arm_y, 0)),
            (f"{side} elbow", f"{side} shoulder", (s * shoulder_x, arm_y - upper, -0.004 * tall)),
            (f"{side} wrist", f"{side} elbow", (s * shoulder_x, arm_y - upper - lower, 0)),
        ]
    body = Body(_skeleton(joints))
    robot = rng.random() < 0.25
    build = _robot if robot else _person
    soles = build(rng, palette, body, tall, girth, head_r)
    _accessories(rng, palette, body, tall, girth, head_r)
    stride, duration = rng.uniform(0.3, 0.65), float(rng.uniform(1.0, 2.0))
    arms, bend = rng.uniform(0.15, 0.7), rng.uniform(0.2, 0.9)
    away = 0.06 + 0.14 * (girth - 0.75) + (0.1 if robot else 0.0)
    swings = [
        Swing("pelvis", "y", 0, 0.12 * stride, 0.0),
        Swing("pelvis", "z", 0, 0.04, 0.25),
        Swing("spine", "x", rng.uniform(-0.02, 0.12), 0.03, 0.1, 2),
        Swing("chest", "y", 0, -0.25 * arms, 0.0),
        Swing("head", "x", rng.uniform(-0.1, 0.15), 0.03, 0.3, 2),
        Swing("head", "y", 0, rng.uniform(0, 0.3), rng.random()),
    ]
    for side, s, phase in (("left", 1, 0.0), ("right", -1, 0.5)):
        swings += [
            Swing(f"{side} hip", "x", -0.12, stride, phase),
            Swing(f"{side} knee", "x", 0.75 * stride + 0.08, 0.75 * stride, phase + 0.13),
            Swing(f"{side} ankle", "x", -0.05, 0.3 * stride, phase + 0.3),
            Swing(f"{side} shoulder", "z", s * away),
            Swing(f"{side} shoulder", "x", 0.05, -arms, phase),
            Swing(f"{side} elbow", "x", -bend - 0.25 * arms, 0.25 * arms, phase),
        ]
    return body.walking(swings, duration, soles)


def _skin_tone(rng: np.random.Generator) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(rng.uniform(0.03, 0.09), rng.uniform(0.25, 0.65), rng.uniform(0.3, 0.97)))


def _skeleton(joints: Sequence[tuple[str, str, tuple[float, float, float]]]) -> Skeleton:
    names = tuple(name for name, _, _ in joints)
    parents = tuple(names.index(parent) if parent else -1 for _, parent, _ in joints)
    return Skeleton(names, parents, np.array([at for _, _, at in joints], float))


def _person(
    rng: np.random.Generator, palette: Palette, body: Body, tall: float, girth: float, head_r: float
) -> list[tuple[str, np.ndarray]]:
    skin = palette.plain(_skin_tone(rng), 0.6)
    shirt = palette.cloth() if rng.random() < 0.6 else palette.plain()
    trousers = palette.cloth() if rng.random() < 0.4 else palette.plain()
    shoes = palette.plain()
    thick = 0.045 * tall * girth
    leg_y = body.at("pelvis")[1]
    heights = np.array([leg_y - 0.04 * tall, leg_y, leg_y + 0.09 * tall, 0.7 * tall, body.at("neck")[1] - 0.02 * tall])
    waist = rng.uniform(0.8, 1.15)
    widths = np.array([0.085, 0.1, 0.085 * waist, 0.115, 0.05]) * tall * girth**0.8
    torso = limb(np.stack([0 * heights, heights, 0 * heights], 1), widths.tolist(), 24, 6)
    depth = rng.uniform(0.6, 0.75)
    body.skinned(("pelvis", "spine", "chest"), shirt, torso.scaled(1, 1, depth), 0.05 * tall)
    short_sleeve, shorts = rng.random() < 0.4, rng.random() < 0.25
    soles = []
    for side in ("left", "right"):
        hip, knee, ankle = (body.at(f"{side} {name}") for name in ("hip", "knee", "ankle"))
        chain = (f"{side} hip", f"{side} knee", f"{side} ankle")
        radii = [1.55 * thick, 0.95 * thick, 0.62 * thick]
        leg = limb(np.stack([hip, knee, ankle]), radii)
        body.skinned(chain, skin if shorts else trousers, leg, 0.05 * tall)
        cuff = knee if shorts else ankle
        reach = hip + (cuff - hip) * np.array([0.0, 0.5, 0.9])[:, None]
        flare = rng.uniform(1.08, 1.35)
        wide = [1.65 * thick, 1.35 * thick * flare, (1.2 if shorts else 0.9) * thick * flare]
        body.skinned(chain, trousers, _open_tube(reach, wide), 0.05 * tall)
        sole = ankle + [0, -ankle[1], 0.045 * tall]
        shoe = superquadric(0.032 * tall, 0.022 * tall, 0.075 * tall, 0.7, 0.6, 20, 10).moved(
            *(sole + [0, 0.022 * tall, 0])
        )
        body.rigid(f"{side} ankle", shoes, shoe)
        soles.append((f"{side} ankle", _sole_points(sole, 0.02 * tall, 0.06 * tall)))
        shoulder, elbow, wrist = (body.at(f"{side} {name}") for name in ("shoulder", "elbow", "wrist"))
        arms = (f"{side} shoulder", f"{side} elbow", f"{side} wrist")
        arm = limb(np.stack([shoulder, elbow, wrist]), [0.95 * thick, 0.68 * thick, 0.5 * thick])
        body.skinned(arms, skin, arm, 0.04 * tall)
        end = elbow if short_sleeve else wrist
        reach = shoulder + (end - shoulder) * np.array([-0.02, 0.45, 0.88])[:, None]
        body.skinned(arms, shirt, _open_tube(reach, [1.2 * thick, thick, rng.uniform(0.75, 1.1) * thick]), 0.04 * tall)
        hand = wrist - [0, 0.04 * tall, 0]
        body.rigid(f"{side} wrist", skin, ellipsoid(0.014 * tall, 0.045 * tall, 0.026 * tall, 12, 8).moved(*hand))
        thumb = capsule(
            hand + [0, 0.02 * tall, 0.015 * tall],
            hand + [0, -0.005 * tall, 0.035 * tall],
            0.008 * tall,
            0.007 * tall,
            8,
            2,
        )
        body.rigid(f"{side} wrist", skin, thumb)
    _head(rng, palette, body, skin, tall, head_r)
    return soles


def _open_tube(points: np.ndarray, radii: Sequence[float]) -> Piece:
    """A sleeve through three points: a single sheet, round at the start and open at the end."""
    piece = limb(points, radii, 16, 8)
    # Its 25 rings of 17 vertices come before the caps; the last 4 rings are the round end.
    return replace(piece, faces=piece.faces[(piece.faces < 21 * 17).all(axis=1)])


def _sole_points(centre: np.ndarray, half_width: float, half_length: float) -> np.ndarray:
    return np.array([centre + [x * half_width, 0, z * half_length] for x in (-1, 1) for z in (-1, 0, 1)])


def _head(rng: np.random.Generator, palette: Palette, body: Body, skin: Look, tall: float, r: float) -> None:
    neck, head = body.at("neck"), body.at("head")
    centre = head + [0, 0.95 * r, 0.1 * r]
    long = rng.uniform(1.1, 1.4)
    body.rigid("neck", skin, capsule(neck - [0, 0.03 * tall, 0], head + [0, 0.3 * r, 0], 0.42 * r, 0.4 * r, 14, 3))
    body.rigid("head", skin, ellipsoid(0.82 * r, long * r, r, 24, 16).moved(*centre))
    body.rigid("head", skin, ellipsoid(0.12 * r, 0.2 * r, 0.2 * r, 10, 6).moved(*(centre + [0, -0.1 * r, r])))
    for s in (-1, 1):
        body.rigid("head", skin, ellipsoid(0.08 * r, 0.22 * r, 0.15 * r, 10, 6).moved(*(centre + [s * 0.83 * r, 0, 0])))
        eye = centre + [s * 0.32 * r, 0.18 * r, 0.83 * r]
        body.rigid(
            "head", palette.plain(np.full(3, 0.05), 0.2), ellipsoid(0.09 * r, 0.1 * r, 0.09 * r, 10, 6).moved(*eye)
        )


def _accessories(rng: np.random.Generator, palette: Palette, body: Body, tall: float, girth: float, r: float) -> None:
    centre = body.at("head") + [0, 0.95 * r, 0.1 * r]
    style = rng.integers(5)
    if style == 0:
        brim = revolve(np.array([[0.8, 0.55], [1.7, 0.45], [1.72, 0.5], [0.95, 0.68], [0.85, 1.5], [0, 1.6]]) * r, 28)
        body.rigid("head", palette.any(), brim.moved(*centre))
    elif style in (1, 2):
        locks = palette.plain(
            np.array(colorsys.hsv_to_rgb(rng.uniform(0.04, 0.12), rng.uniform(0.2, 0.8), rng.uniform(0.05, 0.7)))
        )
        angle = np.linspace(rng.uniform(-0.3, 0.5), math.pi / 2, 10)
        cap = revolve(np.stack([1.02 * np.cos(angle), np.sin(angle)], 1) * [[1, 1]], 26)
        cap = cap.scaled(0.95 * r, 1.45 * r, 1.1 * r).turned("x", -0.35).moved(*(centre + [0, 0.02 * r, -0.06 * r]))
        body.rigid("head", locks, cap)
        if style == 2:
            tail = [centre + [0, 0.4 * r, -1.0 * r], centre + [0, 0, -1.6 * r], centre + [0, -1.3 * r, -1.4 * r]]
            body.rigid("head", locks, limb(np.stack(tail), [0.25 * r, 0.4 * r, 0.12 * r], 10))
    elif style == 3:
        body.rigid(
            "head", palette.any(), cylinder(1.05 * r, 0.7 * r, 24, top=0.2 * r).moved(*(centre + [0, 0.8 * r, 0]))
        )
    if rng.random() < 0.3:
        pack = superquadric(0.09 * tall, 0.12 * tall, 0.05 * tall, 0.4, 0.4, 28, 16)
        place = [0, 0.7 * tall, -0.1 * tall * girth**0.8 - 0.015 * tall]
        body.rigid("chest", palette.cloth(), pack.moved(*place))
    if rng.random() < 0.3:
        y, wide = body.at("pelvis")[1] + 0.02 * tall, 0.115 * tall * girth**0.8
        drop = rng.uniform(0.14, 0.3) * tall
        profile = np.array([[wide * 0.96, 0], [wide * 1.1, -0.35 * drop], [wide * rng.uniform(1.3, 1.8), -drop]])[::-1]
        skirt = revolve(curve(profile, 12), 36).scaled(1, 1, 0.9).moved(y=y)
        body.rigid("pelvis", palette.cloth(), skirt)
    if rng.random() < 0.25:
        hand = body.at("right wrist") - [0, 0.05 * tall, 0]
        if rng.random() < 0.5:
            body.rigid(
                "right wrist",
                palette.wood(),
                capsule(hand + [0, 0, -0.1 * tall], hand + [0, 0, 0.45 * tall], 0.012 * tall, 0.012 * tall, 10),
            )
        else:
            bag = box(0.06 * tall, 0.14 * tall, 0.2 * tall, 0.012 * tall).moved(*(hand - [0, 0.2 * tall, 0]))
            grip = torus(0.05 * tall, 0.007 * tall, 20, 8).turned("z", math.pi / 2).moved(*(hand - [0, 0.04 * tall, 0]))
            body.rigid("right wrist", palette.any(), bag, grip)
    if rng.random() < 0.2:
        body.rigid("neck", palette.cloth(), torus(0.55 * r, 0.24 * r, 24, 10).moved(*body.at("neck")))


def _robot(
    rng: np.random.Generator, palette: Palette, body: Body, tall: float, girth: float, head_r: float
) -> list[tuple[str, np.ndarray]]:
    """Rigid parts only: every bone a box, capsule or barrel, every joint a ball."""
    shell, joint, trim = palette.any(), palette.metal(), palette.any()
    thick = 0.045 * tall * girth
    boxy = rng.random() < 0.5

    def bone(start: np.ndarray, end: np.ndarray, r: float) -> Piece:
        a, b = start + 0.12 * (end - start), end - 0.12 * (end - start)
        length = float(np.linalg.norm(b - a))
        if boxy:
            return box(1.7 * r, length, 1.7 * r, 0.3 * r).moved(float(b[0]), float(b[1]), float((a + b)[2] / 2))
        return capsule(a, b, r, 0.8 * r, 14)

    pelvis, chest, neck, head = (body.at(name) for name in ("pelvis", "chest", "neck", "head"))
    width = 2 * body.at("left shoulder")[0] - 1.6 * thick
    body.rigid(
        "pelvis", shell, box(0.85 * width, 0.09 * tall, 0.12 * tall, 0.02 * tall).moved(y=pelvis[1] - 0.03 * tall)
    )
    body.rigid("spine", joint, cylinder(0.05 * tall, 0.1 * tall, 20).moved(y=pelvis[1] + 0.04 * tall))
    body.rigid(
        "chest",
        shell,
        box(width, neck[1] - chest[1] + 0.05 * tall, 0.16 * tall * girth**0.5, 0.03 * tall).moved(
            y=chest[1] - 0.06 * tall
        ),
    )
    body.rigid(
        "chest",
        trim,
        cylinder(0.035 * tall, 0.02 * tall, 20)
        .turned("x", math.pi / 2)
        .moved(0, chest[1] + 0.05 * tall, 0.079 * tall * girth**0.5),
    )
    body.rigid(
        "neck", joint, cylinder(0.4 * head_r, head[1] - neck[1] + 0.6 * head_r, 14).moved(y=neck[1] - 0.02 * tall)
    )
    skull = (
        box(1.7 * head_r, 1.8 * head_r, 1.7 * head_r, 0.3 * head_r)
        if boxy
        else cylinder(head_r, 1.9 * head_r, 24, bevel=0.4 * head_r)
    )
    body.rigid("head", shell, skull.moved(0, head[1] + 0.05 * head_r, 0.1 * head_r))
    for s in (-1, 1):
        body.rigid(
            "head",
            palette.glow(),
            ellipsoid(0.2 * head_r, 0.2 * head_r, 0.2 * head_r, 12, 8).moved(
                s * 0.4 * head_r, head[1] + 1.1 * head_r, 0.95 * head_r
            ),
        )
    soles = []
    for side in ("left", "right"):
        hip, knee, ankle = (body.at(f"{side} {name}") for name in ("hip", "knee", "ankle"))
        shoulder, elbow, wrist = (body.at(f"{side} {name}") for name in ("shoulder", "elbow", "wrist"))
        for name, at, r in (
            ("hip", hip, 1.1),
            ("knee", knee, 0.9),
            ("shoulder", shoulder, 1.0),
            ("elbow", elbow, 0.75),
        ):
            body.rigid(f"{side} {name}", joint, ellipsoid(r * thick, r * thick, r * thick, 16, 10).moved(*at))
        bones = (("hip", hip, knee, 1.1), ("knee", knee, ankle, 0.9))
        for name, a, b, r in (*bones, ("shoulder", shoulder, elbow, 0.8), ("elbow", elbow, wrist, 0.65)):
            body.rigid(f"{side} {name}", shell, bone(a, b, r * thick))
        foot = ankle + [0, -ankle[1], 0.03 * tall]
        body.rigid(f"{side} ankle", trim, box(0.075 * tall, 0.05 * tall, 0.15 * tall, 0.012 * tall).moved(*foot))
        soles.append((f"{side} ankle", _sole_points(foot, 0.03 * tall, 0.066 * tall)))
        for s in (-1, 1):
            finger = capsule(wrist, wrist + [0, -0.07 * tall, s * 0.02 * tall], 0.012 * tall, 0.008 * tall, 8, 2)
            body.rigid(f"{side} wrist", joint, finger)
    return soles


def animal(rng: np.random.Generator, palette: Palette) -> Mesh:
    """A quadruped: dog, horse, cow, sheep or anything between; four-beat walk or trot."""
    h = rng.uniform(0.35, 1.4)
    long, girth = h * rng.uniform(0.75, 1.5), h * rng.uniform(0.13, 0.27)
    neck_up, neck_out = h * rng.uniform(0.05, 0.6), h * rng.uniform(0.15, 0.4)
    hip_x = 0.6 * girth
    front, rear = 0.5 * long, -0.5 * long
    joints: list[tuple[str, str, tuple[float, float, float]]] = [
        ("pelvis", "", (0, h, rear)),
        ("spine", "pelvis", (0, h * 1.0, 0)),
        ("chest", "spine", (0, h * 0.98, 0.85 * front)),
        ("neck", "chest", (0, h * 1.05, front + 0.3 * girth)),
        ("head", "neck", (0, h * 1.05 + neck_up, front + 0.3 * girth + neck_out)),
        ("tail", "pelvis", (0, h * 1.05, rear - 0.6 * girth)),
        ("tail tip", "tail", (0, h * rng.uniform(0.7, 1.2), rear - 0.6 * girth - 0.25 * h)),
    ]
    for side, s in (("left", 1), ("right", -1)):
        for end, parent, z, knee_z in (("hind", "pelvis", rear, 0.06 * h), ("fore", "chest", 0.8 * front, -0.03 * h)):
            joints += [
                (f"{side} {end} hip", parent, (s * hip_x, 0.85 * h, z)),
                (f"{side} {end} knee", f"{side} {end} hip", (s * hip_x, 0.48 * h, z + knee_z)),
                (f"{side} {end} ankle", f"{side} {end} knee", (s * hip_x, 0.14 * h, z - 0.5 * knee_z)),
            ]
    body = Body(_skeleton(joints))
    if rng.random() < 0.5:
        coat = palette.printed(textures.noise(rng, *palette.pair()), 2.0)
    else:
        coat = (palette.shaded, palette.plain, palette.patterned)[rng.integers(3)]()
    dark = palette.plain()
    belly = rng.uniform(0.85, 1.2)
    back = np.stack(
        [
            body.at("pelvis") - [0, 0.25 * girth, 0.3 * girth],
            body.at("spine") - [0, 0.35 * girth, 0],
            body.at("neck") - [0, 0.4 * girth, 0.3 * girth],
        ]
    )
    body.skinned(
        ("pelvis", "spine", "chest"), coat, limb(back, [0.95 * girth, belly * girth, 1.05 * girth], 22, 9), 0.2 * long
    )
    neck, head = body.at("neck"), body.at("head")
    body.skinned(
        ("chest", "neck", "head"),
        coat,
        limb(
            np.stack([neck - [0, 0.5 * girth, 0.5 * girth], neck, head]), [0.85 * girth, 0.62 * girth, 0.42 * girth], 16
        ),
        0.12 * h,
    )
    size, muzzle = rng.uniform(0.1, 0.15) * h + 0.02, rng.uniform(0.6, 2.0)
    body.rigid(
        "head", coat, ellipsoid(0.8 * size, 0.9 * size, 1.1 * size, 20, 14).moved(*(head + [0, 0.1 * size, 0.4 * size]))
    )
    snout = head + [0, -0.15 * size, 0.9 * size]
    body.rigid(
        "head", coat, capsule(snout, snout + [0, -0.25 * size, 0.8 * muzzle * size], 0.55 * size, 0.4 * size, 16)
    )
    tip = snout + [0, -0.15 * size, 0.8 * muzzle * size + 0.33 * size]
    body.rigid("head", dark, ellipsoid(0.2 * size, 0.15 * size, 0.12 * size, 10, 6).moved(*tip))
    _ears(rng, body, coat, dark, head, size)
    tail = np.stack([body.at("pelvis"), body.at("tail"), body.at("tail tip")])
    bush = rng.uniform(0.5, 2.5)
    body.skinned(
        ("pelvis", "tail", "tail tip"),
        coat,
        limb(tail, [0.25 * girth, 0.15 * girth, 0.13 * girth * bush], 10),
        0.04 * h,
    )
    soles, swings = [], []
    slim, hoof, trot = rng.uniform(0.7, 1.3), rng.uniform(0.8, 1.4), rng.random() < 0.4
    stride = rng.uniform(0.25, 0.5)
    phases = {
        "left hind": 0.0,
        "left fore": 0.5 if trot else 0.25,
        "right hind": 0.5,
        "right fore": 0.0 if trot else 0.75,
    }
    for name, phase in phases.items():
        hip, knee, ankle = (body.at(f"{name} {joint}") for joint in ("hip", "knee", "ankle"))
        chain = (f"{name} hip", f"{name} knee", f"{name} ankle")
        r = 0.055 * h * slim
        foot = ankle + [0, -ankle[1], 0.02 * h]
        leg = limb(
            np.stack([hip + [0, 0.03 * h, 0], knee, ankle, foot + [0, 0.03 * h, 0]]),
            [1.9 * r, 1.05 * r, 0.7 * r, 0.75 * r],
            12,
            6,
        )
        body.skinned(chain, coat, leg, 0.06 * h)
        body.rigid(
            f"{name} ankle",
            dark,
            cylinder(1.05 * hoof * r, 0.05 * h, 16, top=0.8 * r, bevel=0.1 * r).scaled(1, 1, 1.3).moved(*foot),
        )
        soles.append((f"{name} ankle", _sole_points(foot, 0.8 * hoof * r, 1.2 * hoof * r)))
        hind = name.endswith("hind")
        swings += [
            Swing(f"{name} hip", "x", -0.1 if hind else 0.0, stride, phase),
            Swing(f"{name} knee", "x", (0.5 if hind else 0.55) * stride + 0.05, 0.5 * stride, phase + 0.15),
            Swing(f"{name} ankle", "x", -0.1 if hind else 0.0, 0.4 * stride, phase + 0.35),
        ]
    swings += [
        Swing("spine", "y", 0, 0.06, 0.1),
        Swing("chest", "y", 0, 0.06, 0.35),
        Swing("pelvis", "z", 0, 0.03, 0.2),
        Swing("neck", "x", rng.uniform(-0.1, 0.2), 0.06, 0.1, 2),
        Swing("head", "x", rng.uniform(-0.1, 0.3), 0.06, 0.6, 2),
        Swing("tail", "y", 0, rng.uniform(0.1, 0.5), rng.random()),
        Swing("tail tip", "y", 0, rng.uniform(0.1, 0.5), rng.random()),
    ]
    return body.walking(swings, float(rng.uniform(1.0, 2.0)), soles)


def _ears(rng: np.random.Generator, body: Body, coat: Look, dark: Look, head: np.ndarray, size: float) -> None:
    long = rng.uniform(0.3, 1.3) * size
    horns = rng.random() < 0.25
    for s in (-1, 1):
        root = head + [s * 0.5 * size, 0.75 * size, 0.2 * size]
        ear = ellipsoid(0.28 * size, long, 0.08 * size, 12, 8).moved(y=0.7 * long)
        body.rigid("head", coat, ear.turned("z", -s * rng.uniform(0.1, 1.6)).moved(*root))
        eye = head + [s * 0.6 * size, 0.35 * size, 1.0 * size]
        body.rigid("head", dark, ellipsoid(0.14 * size, 0.16 * size, 0.14 * size, 10, 6).moved(*eye))
        if horns:
            knots = np.array([[0.25, 0.9, 0.1], [0.6, 1.5, 0.0], [0.9, 2.1, 0.3]]) * size * [s, 1, 1]
            body.rigid("head", dark, limb(head + knots, [0.15 * size, 0.12 * size, 0.03 * size], 10))


def make_actor(seed: int, index: int) -> Mesh:
    """Actor `index`: two people in three, the rest animals."""
    rng = generator(seed, "procedural", "actors", index)
    return (human if rng.random() < 0.66 else animal)(rng, Palette(rng))
