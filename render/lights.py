"""What a view is lit by: an ambient environment of spherical harmonics and a few directional or point lights.

No image is involved, so the light of a view is a few dozen numbers, which are recorded with it. Units are radiance and
intensity on an arbitrary scale: exposure, chosen per view from the rendered irradiance, brings them to the display.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from render.cameras import Camera, direction, inside_any_box

DIRECTIONAL, POINT = 0, 1

# Ramamoorthi and Hanrahan (2001): irradiance from the nine coefficients of an environment.
_BAND = np.array([np.pi, *[2 * np.pi / 3] * 3, *[np.pi / 4] * 5])


@dataclass(frozen=True, eq=False)
class Lights:
    """sh (9,3) float32: irradiance coefficients of the environment, already convolved with the cosine lobe.

    kind (N,) int32 DIRECTIONAL or POINT | vector (N,3) float32: unit direction towards the light, or its position |
    color (N,3) float32: irradiance on a facing surface, or that at distance 1. World frame.
    """

    sh: np.ndarray
    kind: np.ndarray
    vector: np.ndarray
    color: np.ndarray

    def info(self) -> dict[str, Any]:
        names = ("directional", "point")
        return {
            "sh": _digits(self.sh),
            "lights": [
                {
                    "kind": names[k],
                    "vector": _digits(v),
                    "color": _digits(c),
                }
                for k, v, c in zip(self.kind, self.vector, self.color)
            ],
        }


def sh_basis(n: np.ndarray) -> np.ndarray:
    """The nine real spherical harmonics of bands 0 to 2 at unit vectors n (...,3) -> (...,9)."""
    x, y, z = n[..., 0], n[..., 1], n[..., 2]
    return np.stack(
        [
            np.full_like(x, 0.282095),
            0.488603 * y,
            0.488603 * z,
            0.488603 * x,
            1.092548 * x * y,
            1.092548 * y * z,
            0.315392 * (3 * z * z - 1),
            1.092548 * x * z,
            0.546274 * (x * x - y * y),
        ],
        axis=-1,
    )


def irradiance(sh: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Irradiance (...,3) of the environment at unit normals n (...,3); the ringing below zero is cut."""
    return np.maximum(sh_basis(n) @ sh, 0.0)


def environment(lobes: list[tuple[np.ndarray, np.ndarray]], constant: np.ndarray) -> np.ndarray:
    """Irradiance coefficients (9,3) of a uniform radiance plus cosine-shaped lobes (direction, colour)."""
    sh = np.zeros((9, 3))
    sh[0] += constant * np.sqrt(4 * np.pi)
    # A clamped cosine lobe of unit peak has zonal coefficients _BAND / normalisation, that is, the basis times _BAND.
    for towards, color in lobes:
        sh += (_BAND * sh_basis(np.asarray(towards, np.float64)))[:, None] * color[None]
    return (sh * _BAND[:, None]).astype(np.float32)


def _tint(generator: np.random.Generator, strength: float) -> np.ndarray:
    """A random whitish colour of mean 1, from warm to cool with a little green or magenta."""
    warm, green = generator.normal(0.0, strength), generator.normal(0.0, strength / 3)
    color = np.exp(np.array([warm, green, -warm]))
    return color / color.mean()


def object_lights(generator: np.random.Generator, camera: Camera, centre: np.ndarray, size: float) -> Lights:
    """Sky, ground and two soft lobes; a key light within reach of the camera's side; perhaps a fill and a rim."""
    ambient = float(generator.uniform(0.25, 0.7))
    sky, ground = _tint(generator, 0.1), _tint(generator, 0.1)
    lobes = [(direction(0, 90), 0.6 * sky), (direction(0, -90), 0.2 * ground)]
    for _ in range(2):
        towards = direction(float(generator.uniform(0, 360)), float(generator.uniform(-20, 60)))
        lobes.append((towards, float(generator.uniform(0.1, 0.8)) * _tint(generator, 0.15)))
    sh = environment([(d, ambient * c) for d, c in lobes], ambient * 0.35 * sky)

    facing = camera.eye - centre
    azimuth = float(np.degrees(np.arctan2(facing[0], facing[2])))
    count = 1 + int(generator.integers(0, 3))
    kinds, vectors, colors = [], [], []
    for k in range(count):
        # key within 100 degrees of the camera's azimuth, fill anywhere, rim from behind
        side = (generator.uniform(-100, 100), generator.uniform(-180, 180), 180 + generator.uniform(-50, 50))[k]
        height = generator.uniform(15, 75) if k == 0 else generator.uniform(-10, 60)
        towards = direction(azimuth + float(side), float(height))
        power = (generator.uniform(0.8, 2.2), generator.uniform(0.2, 0.7), generator.uniform(0.3, 1.0))[k]
        color = np.pi * float(power) * _tint(generator, 0.12)
        if generator.random() < 0.7:
            kinds.append(DIRECTIONAL)
            vectors.append(towards)
            colors.append(color)
        else:
            reach = size * float(generator.uniform(1.5, 3.0))
            kinds.append(POINT)
            vectors.append(centre + reach * towards)
            colors.append(color * reach * reach)
    return _lights(sh, kinds, vectors, colors)


def room_lights(
    generator: np.random.Generator,
    inside: np.ndarray,
    openings: np.ndarray,
    furniture: np.ndarray | None = None,
    air: np.ndarray | None = None,
) -> Lights:
    """One or two lamps under the ceiling and daylight at up to one opening, over a soft interreflection ambient.

    inside (2,3), openings (M,2,3) and furniture (N,2,3) are boxes in metres. Lamps hang 0.12 m under the ceiling, over
    the middle half of the floor and in no piece of furniture, whose faces would shut them in. Daylight shines from a
    point 0.15 m inwards of the middle of the opening. `air` (A,2,3): where `inside` is only the box around a flat of
    another shape, the boxes of air that it is made of; lamps hang in one of those, under its own ceiling.
    """
    low, high = inside
    boxes = np.zeros((0, 2, 3)) if furniture is None else furniture
    air = inside[None] if air is None else air
    sh = environment(
        [(direction(0, 90), 0.35 * _tint(generator, 0.08)), (direction(0, -90), 0.15 * _tint(generator, 0.08))],
        float(generator.uniform(0.25, 0.5)) * _tint(generator, 0.06),
    )
    lamps = 1 + int(generator.integers(0, 2))
    kinds, vectors, colors = [], [], []
    for _ in range(lamps):
        places = generator.uniform(low + 0.25 * (high - low), high - 0.25 * (high - low), (64, 3))
        hung = _hung(places, air)
        position = next((place for place in hung if not inside_any_box(place, boxes)), hung[0])
        power = np.pi * float(generator.uniform(1.2, 3.0)) / lamps * (high - low)[1] ** 2
        kinds.append(POINT)
        vectors.append(position)
        colors.append(power * _tint(generator, 0.15))
    if len(openings):
        box = openings[int(generator.integers(0, len(openings)))]
        power = np.pi * float(generator.uniform(0.5, 3.0)) * 4.0
        kinds.append(POINT)
        vectors.append(box.mean(axis=0) + 0.15 * inwards(box, inside))
        colors.append(power * np.array([0.92, 1.0, 1.1]))
    return _lights(sh, kinds, vectors, colors)


def _hung(places: np.ndarray, air: np.ndarray) -> np.ndarray:
    """Those of places (N,3) that are over the floor of a box of air (A,2,3), each under the ceiling of the first such
    box; where there is none, under the ceiling of the box that is nearest to the first place."""
    across = [0, 2]
    plan, start, end = places[:, None, across], air[:, 0, across], air[:, 1, across]
    over = np.all((plan >= start) & (plan <= end), axis=2)
    rows, box = np.flatnonzero(over.any(axis=1)), over.argmax(axis=1)
    if not len(rows):
        middle = air.mean(axis=1)
        nearest = int(np.linalg.norm((middle - places[0])[:, across], axis=1).argmin())
        places, rows, box = middle[[nearest]], np.zeros(1, np.int64), np.array([nearest])
    hung = places[rows]
    low, high = air[box[rows], 0, 1], air[box[rows], 1, 1]
    hung[:, 1] = high - 0.12 * np.minimum(1.0, high - low)
    return np.asarray(hung)


def inwards(opening: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Unit vector (3,) from an opening (2,3) into the room (2,3), at right angles to the wall that it is in.

    Towards the room's centre would follow the wall where a window is in the corner of a long room. A wall is thinner
    than its windows are wide, so its normal is the shorter horizontal side of the opening's box.
    """
    width = opening[1] - opening[0]
    axis = 0 if width[0] < width[2] else 2
    normal = np.zeros(3)
    normal[axis] = 1.0 if opening.mean(axis=0)[axis] < inside.mean(axis=0)[axis] else -1.0
    return normal


def _digits(values: np.ndarray) -> list[Any]:
    digits: list[Any] = values.astype(float).round(6).tolist()
    return digits


def _lights(sh: np.ndarray, kinds: list[int], vectors: list[np.ndarray], colors: list[np.ndarray]) -> Lights:
    return Lights(
        sh.astype(np.float32),
        np.array(kinds, np.int32),
        np.array(vectors, np.float32).reshape(-1, 3),
        np.array(colors, np.float32).reshape(-1, 3),
    )
