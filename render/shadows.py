"""Depth maps seen from the lights, made by the same peel as everything else: masked leaves cast leafy shadows."""

from collections.abc import Callable

import numpy as np

from render.cameras import look_at
from render.lights import POINT, Lights
from render.rays import Rays, Shadows

SIZE = 512  # of a map, pixels
CUBE_SIZE = 256  # of each of the six maps around a lamp inside a room
FAR = 8.0  # a directional light is a camera this many radii away: parallel enough, and the peel knows only pinholes

# First surface of a view: (K, size, camera_from_world, rays) -> depth (size,size) float32, inf where there is none.
FirstDepth = Callable[[np.ndarray, int, np.ndarray, Rays], np.ndarray]


def cast(lights: Lights, first_depth: FirstDepth, centre: np.ndarray, radius: float, indoors: bool) -> Shadows:
    """Maps for every light of a scene within `radius` of `centre`: one map each, or six around a lamp indoors."""
    poses: list[tuple[np.ndarray, np.ndarray]] = []
    size = CUBE_SIZE if indoors else SIZE
    first = [0]
    for kind, vector in zip(lights.kind, lights.vector.astype(np.float64)):
        if indoors and kind == POINT:
            K = np.array([[size / 2 - 1, 0, size / 2], [0, size / 2 - 1, size / 2], [0, 0, 1.0]])  # a pixel of overlap
            poses += [(K, look_at(vector, vector + towards)) for towards in np.vstack([np.eye(3), -np.eye(3)])]
        else:
            eye = vector if kind == POINT else centre + FAR * radius * vector
            distance = max(float(np.linalg.norm(eye - centre)), 1.05 * radius)
            f = (size / 2 - 2) / np.tan(np.arcsin(radius / distance))
            poses.append((np.array([[f, 0, size / 2], [0, f, size / 2], [0, 0, 1.0]]), look_at(eye, centre)))
        first.append(len(poses))
    depth = np.empty((len(poses), size, size), np.float32)
    matrix = np.empty((len(poses), 3, 4), np.float32)
    texel = np.empty(len(poses), np.float32)
    for m, (K, world_from_light) in enumerate(poses):
        light_from_world = np.linalg.inv(world_from_light)
        light_from_world[3] = 0.0, 0.0, 0.0, 1.0
        rays = Rays(world_from_light[:3, 3], world_from_light[:3, :3], K)
        depth[m] = first_depth(K, size, light_from_world, rays)
        matrix[m] = (K @ light_from_world[:3]).astype(np.float32)
        texel[m] = 1.0 / K[0, 0]
    return Shadows(depth, matrix, np.array(first, np.int32), texel)
