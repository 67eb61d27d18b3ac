"""Depth maps seen from the lights, made by the same peel as everything else: masked leaves cast leafy shadows."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from render.cameras import look_at
from render.extent import Extent
from render.lights import POINT, Lights
from render.rays import Shadows, Shots

SIZE = 512  # of a map, pixels
CUBE_SIZE = 256  # of each of the six maps around a lamp inside a room
FAR = 8.0  # a directional light is a camera this many radii away: parallel enough, and the peel knows only pinholes

# First surface of whole images: shots -> depth (M,h,w) float32, inf where there is none, wherever the shader wants it.
FirstDepth = Callable[[Shots], Any]


def cast(lights: Sequence[Lights], first_depth: FirstDepth, extent: Extent, indoors: bool) -> Shadows:
    """Maps for every light of every view of a mesh of `extent`: one, or six around a lamp indoors."""
    # An animation may shrink a mesh to a point: then nothing casts, but a light still needs a frustum.
    centre, radius = extent.centre, max(extent.radius, 1e-9)
    K: list[np.ndarray] = []
    world_from_light: list[np.ndarray] = []
    size = CUBE_SIZE if indoors else SIZE
    first = [0]
    for kind, vector in ((k, v) for light in lights for k, v in zip(light.kind, light.vector.astype(np.float64))):
        if indoors and kind == POINT:
            f = size / 2 - 2  # two pixels of overlap, for the filter of the shader looks around
            axes = np.vstack([np.eye(3), -np.eye(3)])  # in the order of light_kernels.face_of
            poses = [look_at(vector, vector + towards) for towards in axes]
        else:
            eye = vector if kind == POINT else centre + FAR * radius * vector
            distance = max(float(np.linalg.norm(eye - centre)), 1.05 * radius)
            f = (size / 2 - 2) / np.tan(np.arcsin(radius / distance))
            poses = [look_at(eye, centre)]
        K += [np.array([[f, 0, size / 2], [0, f, size / 2], [0, 0, 1.0]])] * len(poses)
        world_from_light += poses
        first.append(len(K))
    if not K:
        return Shadows.none(0)
    shots = Shots.whole(np.stack(K), np.stack(world_from_light), (size, size))
    matrix = (shots.K @ shots.camera_from_world[:, :3]).astype(np.float32)
    return Shadows(first_depth(shots), matrix, np.array(first, np.int32), (1.0 / shots.K[:, 0, 0]).astype(np.float32))
