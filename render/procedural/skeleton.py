"""A skeleton and its walk: joint transforms as a pure, periodic function of time, and skinning by linear blending."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from render.normals import unit
from render.procedural.piece import turn


@dataclass(frozen=True, eq=False)
class Skeleton:
    """Joints with rest positions (J,3) in the body's frame (+y up, facing +z); a parent comes before its children."""

    names: tuple[str, ...]
    parents: tuple[int, ...]
    rest: np.ndarray

    def index(self, name: str) -> int:
        return self.names.index(name)

    def posed(self, rotations: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """World transforms (J,4,4) of the joints for local `rotations` (J,3,3) and a `shift` (3,) of the root."""
        out = np.zeros((len(self.names), 4, 4))
        out[:, 3, 3] = 1.0
        for j, parent in enumerate(self.parents):
            if parent < 0:
                out[j, :3, :3], out[j, :3, 3] = rotations[j], self.rest[j] + shift
            else:
                above = out[parent]
                out[j, :3, :3] = above[:3, :3] @ rotations[j]
                out[j, :3, 3] = above[:3, :3] @ (self.rest[j] - self.rest[parent]) + above[:3, 3]
        return out


@dataclass(frozen=True)
class Swing:
    """A joint's angle about one of its axes: mean + amplitude sin(2 pi (harmonic t / duration + phase)), radians."""

    joint: str
    axis: str
    mean: float
    amplitude: float = 0.0
    phase: float = 0.0
    harmonic: int = 1


@dataclass(frozen=True, eq=False)
class Walk:
    """A cyclic walk on the spot. `contacts` are (joint index, rest point) of the soles: the lowest is at y = 0."""

    skeleton: Skeleton
    swings: tuple[Swing, ...]
    duration: float
    contacts: tuple[tuple[int, np.ndarray], ...]

    def transforms(self, t: float) -> np.ndarray:
        """World transforms (J,4,4) of the joints at `t` seconds; periodic with `duration`."""
        rotations = np.tile(np.eye(3), (len(self.skeleton.names), 1, 1))
        phase = (t / self.duration) % 1.0
        for s in self.swings:
            angle = s.mean + s.amplitude * math.sin(2 * math.pi * (s.harmonic * phase + s.phase))
            j = self.skeleton.index(s.joint)
            rotations[j] = rotations[j] @ turn(s.axis, angle)
        joints = self.skeleton.posed(rotations, np.zeros(3))
        lowest = min(float((joints[j] @ np.append(p - self.skeleton.rest[j], 1.0))[1]) for j, p in self.contacts)
        joints[:, 1, 3] -= lowest
        return joints


@dataclass(frozen=True, eq=False)
class Skin:
    """Vertices (V,3) and normals (V,3) at rest, bound to joints by `weights` (V,J) whose rows sum to one."""

    walk: Walk
    vertices: np.ndarray
    normals: np.ndarray
    weights: np.ndarray

    def pose(self, t: float) -> np.ndarray:
        """Vertices (V,3) float64 at `t` seconds: linear blend skinning."""
        blended = self._blended(t)
        return np.einsum("vab,vb->va", blended[:, :, :3], self.vertices) + blended[:, :, 3]

    def posed_normals(self, t: float) -> np.ndarray:
        return unit(np.einsum("vab,vb->va", self._blended(t)[:, :, :3], self.normals))

    def _blended(self, t: float) -> np.ndarray:
        """Matrices (V,3,4) from rest to pose."""
        matrices = self.walk.transforms(t)[:, :3]
        matrices[:, :, 3] -= np.einsum("jab,jb->ja", matrices[:, :, :3], self.walk.skeleton.rest)
        return (self.weights @ matrices.reshape(len(matrices), 12)).reshape(-1, 3, 4)


def chain_weights(vertices: np.ndarray, rest: np.ndarray, chain: Sequence[int], blend: float) -> np.ndarray:
    """Weights (V,J) of a limb along the joints `chain` (from its root outwards).

    A vertex belongs to the last joint whose bend plane it has passed; over `blend` before and after the plane the
    weights change smoothly. The plane halves the angle between the bones that meet in the joint.
    """
    weights = np.zeros((len(vertices), len(rest)))
    weights[:, chain[0]] = 1.0
    for k in range(1, len(chain)):
        here, before = rest[chain[k]], rest[chain[k - 1]]
        onward = rest[chain[k + 1]] - here if k + 1 < len(chain) else here - before
        normal = unit(unit(here - before) + unit(onward))
        t = np.clip(((vertices - here) @ normal) / (2 * blend) + 0.5, 0, 1)
        passed = (t * t * (3 - 2 * t))[:, None]
        weights *= 1 - passed
        weights[:, chain[k]] += passed[:, 0]
    return weights
