"""Walking people, and robots of boxes and balls, of varied build and clothes."""

import colorsys
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from render.mesh import Mesh
from render.procedural.body import Body, limb, skeleton, sole_points
from render.procedural.looks import Look, Palette
from render.procedural.piece import Piece
from render.procedural.shapes import box, capsule, cylinder, ellipsoid, revolve, superquadric, torus
from render.procedural.skeleton import Swing
from render.procedural.vessels import curve


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
    body = Body(skeleton(joints))
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
        soles.append((f"{side} ankle", sole_points(sole, 0.02 * tall, 0.06 * tall)))
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
        soles.append((f"{side} ankle", sole_points(foot, 0.03 * tall, 0.066 * tall)))
        for s in (-1, 1):
            finger = capsule(wrist, wrist + [0, -0.07 * tall, s * 0.02 * tall], 0.012 * tall, 0.008 * tall, 8, 2)
            body.rigid(f"{side} wrist", joint, finger)
    return soles
