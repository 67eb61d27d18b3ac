"""What every loader and generator produces and the renderer consumes: one triangle mesh with materials.

Node transforms are applied, units and axes are the asset's own (glTF: +y up, metres). Colours in `Material` factors and
in `Mesh.colors` are linear; textures hold the bytes of their file (sRGB for base colour and emissive).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Wrap = Literal["repeat", "clamp", "mirror"]
AlphaMode = Literal["OPAQUE", "MASK", "BLEND"]


@dataclass(frozen=True, eq=False)
class Texture:
    """An image (h,w,4) uint8, row 0 on top; v = 0 is the top row, as in glTF (loaders of other formats flip v)."""

    pixels: np.ndarray
    wrap_s: Wrap = "repeat"
    wrap_t: Wrap = "repeat"
    uv_set: int = 0
    transform: np.ndarray | None = None  # (3,3) applied to (u, v, 1): KHR_texture_transform


@dataclass(frozen=True, eq=False)
class Material:
    """glTF metallic-roughness; factors multiply textures.

    Every face has two sides, whatever glTF's `doubleSided` says: what is seen from behind is a surface too.
    """

    name: str = ""
    base_color: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    base_color_texture: Texture | None = None
    metallic: float = 0.0
    roughness: float = 1.0
    metallic_roughness_texture: Texture | None = None
    emissive: tuple[float, float, float] = (0.0, 0.0, 0.0)
    emissive_texture: Texture | None = None
    normal_texture: Texture | None = None
    normal_scale: float = 1.0
    occlusion_texture: Texture | None = None
    alpha_mode: AlphaMode = "OPAQUE"
    alpha_cutoff: float = 0.5


@dataclass(frozen=True, eq=False)
class Mesh:
    """V vertices, F triangles.

    vertices (V,3) float64 | faces (F,3) int32 | normals (V,3) float32 or None (then the face normal is used) |
    uv (V,2) float32 or None | uv1 (V,2) second set or None | colors (V,4) float32 linear RGBA or None |
    material (F,) int32 into `materials`. `flags` are typed remarks of the loader, such as "missing_texture".
    An animated mesh has `pose(t) -> vertices (V,3) float64` for t in [0, duration) seconds; `vertices` is pose(0).
    `room` describes an interior, for placing cameras and lights (scenes made by this project, or 3D-FRONT).
    """

    vertices: np.ndarray
    faces: np.ndarray
    material: np.ndarray
    materials: tuple[Material, ...]
    normals: np.ndarray | None = None
    uv: np.ndarray | None = None
    uv1: np.ndarray | None = None
    colors: np.ndarray | None = None
    flags: frozenset[str] = frozenset()
    pose: Callable[[float], np.ndarray] | None = None
    duration: float = 0.0
    room: "Room | None" = None


@dataclass(frozen=True, eq=False)
class Room:
    """An interior: its axis-aligned inside (min, max corners, metres, +y up) and the boxes of its furniture.

    A room whose floor is no rectangle has `inside` (K,2,3): the boxes of air over the cells of its floor.
    furniture (N,2,3) float64: min and max corners; `openings` (M,2,3): min and max corners of window and door openings.
    """

    inside: np.ndarray
    furniture: np.ndarray = field(default_factory=lambda: np.zeros((0, 2, 3)))
    openings: np.ndarray = field(default_factory=lambda: np.zeros((0, 2, 3)))


class Rejected(Exception):
    """An asset (or a view) that cannot become ground truth: a typed reason for the ledger and a sentence for people."""

    def __init__(self, reason: str, message: str) -> None:
        if len(message) > 400:  # it may quote the asset, and goes to a ledger
            message = message[:397] + "..."
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type["Rejected"], tuple[str, str]]:
        return type(self), (self.reason, self.message)  # survives the trip between Ray workers
