"""Walking quadrupeds of varied build."""

import numpy as np

from render.mesh import Mesh
from render.procedural import textures
from render.procedural.body import Body, limb, skeleton, sole_points
from render.procedural.looks import Look, Palette
from render.procedural.shapes import capsule, cylinder, ellipsoid
from render.procedural.skeleton import Swing


def animal(rng: np.random.Generator, palette: Palette) -> Mesh:
    """A quadruped: dog, horse, cow, sheep or anything between; four-beat walk or trot."""
    h = rng.uniform(0.35, 1.4)
    long, girth = h * rng.uniform(0.75, 1.5), h * rng.uniform(0.13, 0.27)
    neck_up, neck_out = h * rng.uniform(0.05, 0.6), h * rng.uniform(0.15, 0.4)
    hip_x = 0.5 * girth
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
    body = Body(skeleton(joints))
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
    slim, hoof, trot = rng.uniform(0.8, 1.4), rng.uniform(0.8, 1.4), rng.random() < 0.4
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
            [max(1.9 * r, 0.5 * girth), 1.05 * r, 0.7 * r, 0.75 * r],
            12,
            6,
        )
        body.skinned(chain, coat, leg, 0.06 * h)
        body.rigid(
            f"{name} ankle",
            dark,
            cylinder(1.05 * hoof * r, 0.05 * h, 16, top=0.8 * r, bevel=0.1 * r).scaled(1, 1, 1.3).moved(*foot),
        )
        soles.append((f"{name} ankle", sole_points(foot, 0.8 * hoof * r, 1.2 * hoof * r)))
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
