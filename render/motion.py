"""The frames of a clip: at which times an animation is sampled, its poses, and their shading normals."""

from dataclasses import dataclass

import numpy as np

from render.mesh import Mesh, Rejected
from render.normals import corner_sums
from render.settings import RenderSettings


def clip_times(generator: np.random.Generator, duration: float, settings: RenderSettings) -> np.ndarray:
    """T times (T,) in seconds, evenly spaced: a window of T / frames_per_second drawn at random from the animation, or
    all of it where it is shorter. The last frame is one step before the window's end, so that a loop closes."""
    length = min(duration, settings.frames / settings.frames_per_second)
    first = float(generator.uniform(0.0, duration - length)) if duration > length else 0.0
    return first + length * np.arange(settings.frames) / settings.frames


def posed(mesh: Mesh, times: np.ndarray) -> np.ndarray:
    """Vertices (T,V,3) float64 of an animated mesh. Raises Rejected where a pose is not finite or has lost vertices."""
    assert mesh.pose is not None
    frames = [np.asarray(mesh.pose(float(t)), np.float64) for t in times]
    for t, vertices in zip(times, frames):
        if vertices.shape != mesh.vertices.shape or not np.isfinite(vertices).all():
            raise Rejected("bad_animation", f"the pose at {t:.3f} s is not {len(mesh.vertices)} finite vertices")
    return np.stack(frames)


@dataclass(frozen=True, eq=False)
class Creases:
    """Which corners share a normal: those at one place with one normal in the mesh's own pose. `group` (V,) int64."""

    group: np.ndarray
    faces: np.ndarray

    @classmethod
    def of(cls, mesh: Mesh) -> "Creases | None":
        """None for a mesh without normals: it is shaded flat in every pose."""
        if mesh.normals is None:
            return None
        rounded = np.round(mesh.normals.astype(np.float64), 3) + 0.0
        _, group = np.unique(np.concatenate([mesh.vertices, rounded], axis=1), axis=0, return_inverse=True)
        return cls(group.reshape(-1), mesh.faces)

    def normals(self, vertices: np.ndarray) -> np.ndarray:
        """Area-weighted normals (V,3) float32 of a pose: creases stay sharp, seams of the UV map stay invisible."""
        total = corner_sums(vertices, self.faces, self.group[self.faces], int(self.group.max()) + 1)
        # Where all cancels the normal stays zero, and the shader takes that of the face.
        total /= np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-30)
        return total[self.group].astype(np.float32)
