"""The one type that the two halves of worldtrace share: an image and the ordered surfaces behind each of its pixels.

Conventions (DESIGN; they are written into every dataset's `dataset.json`):

- camera frame as in OpenCV: +x right, +y down, +z forward; `world_from_camera` is 4x4, a rigid motion;
- pixel centres at (u + 0.5, v + 0.5); `K` is 3x3 in pixels;
- depth is z along the optical axis, float32, in units of the normalised scene, ordered front to back;
- `hits[v, u]` counts the true intersections (0..L); at l >= hits depth repeats the last true hit (paper, Eq. 2), and
  is 0 where hits = 0;
- RGBA is straight (not premultiplied) sRGB; its alpha is soft, while hard validity A = hits > 0 is sampled at the
  pixel centre.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from .unproject import unproject

Regime = Literal["object", "scene", "dynamic", "rgbd"]
REGIMES: tuple[Regime, ...] = get_args(Regime)


@dataclass(frozen=True)
class Origin:
    """The asset that a sample shows. `sha256` is of its bytes (procedural: of its recipe); it decides the split."""

    uid: str
    source: str
    sha256: str
    licence: str = "unknown"


@dataclass(frozen=True, eq=False)
class LayeredView:
    """One rendered (or captured) image with the L first surfaces behind every pixel.

    rgba (H,W,4) uint8 | hits (H,W) uint8 | depth (L,H,W) float32, forward-filled | K (3,3) | world_from_camera (4,4).
    `single_layer` says that only layer 0 is known (paper, Eq. 4). `info` is JSON: camera and light parameters, view
    index, seed, `normalisation` {"scale": s, "offset": [3]} with x_normalised = (x_asset - offset) * s, verdict `flags`
    (list of str), `overflow` (pixels whose surfaces exceeded what was peeled), and whatever else the renderer records.
    `planes` may hold normals, facing and material of the true hits (shards/layers/planes.py); most views have none.
    """

    key: str
    rgba: np.ndarray
    hits: np.ndarray
    depth: np.ndarray
    K: np.ndarray
    world_from_camera: np.ndarray
    regime: Regime
    origin: Origin
    single_layer: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)
    planes: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        layers, height, width = self.depth.shape
        _expect(self.key, "rgba", self.rgba, (height, width, 4), np.uint8)
        _expect(self.key, "hits", self.hits, (height, width), np.uint8)
        _expect(self.key, "depth", self.depth, (layers, height, width), np.float32)
        _expect(self.key, "K", self.K, (3, 3), None)
        _expect(self.key, "world_from_camera", self.world_from_camera, (4, 4), None)
        if self.regime not in REGIMES:
            raise ValueError(f"{self.key}: regime {self.regime!r} is none of {', '.join(REGIMES)}")
        if self.hits.size and int(self.hits.max()) > layers:
            raise ValueError(
                f"{self.key}: hits counts up to {int(self.hits.max())} surfaces, but there are {layers} layers"
            )

    @property
    def layers(self) -> int:
        return self.depth.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.depth.shape[1], self.depth.shape[2]

    @property
    def valid(self) -> np.ndarray:
        """Hard validity A (H,W) bool: the ray through the pixel centre meets a surface."""
        return self.hits > 0

    @property
    def hit(self) -> np.ndarray:
        """(L,H,W) bool: true where the layer is a true intersection and not a forward-filled copy."""
        return np.arange(self.layers)[:, None, None] < self.hits[None]

    def xyz(self) -> np.ndarray:
        """Camera-space points (L,H,W,3) float32 through the pixel centres; zero where A = 0."""
        return unproject(self.depth, self.hits, self.K)


@dataclass(frozen=True, eq=False)
class Clip:
    """T frames with a camera each and one normalisation: an animated asset, or a still one under a moving camera. They
    have one size, regime, origin and `single_layer`.
    """

    key: str
    frames: tuple[LayeredView, ...]

    def __post_init__(self) -> None:
        if not self.frames:
            raise ValueError(f"{self.key}: a clip needs at least one frame")
        for t, frame in enumerate(self.frames):
            if _common(frame) != _common(self.frames[0]):
                raise ValueError(f"{self.key}: frame {t} differs from frame 0 in size, regime, origin or single_layer")

    @property
    def regime(self) -> Regime:
        return self.frames[0].regime

    @property
    def origin(self) -> Origin:
        return self.frames[0].origin


Sample = LayeredView | Clip


def rays(K: np.ndarray, height: int, width: int) -> np.ndarray:
    """Directions (H,W,3) float64 through the pixel centres with z = 1: K^-1 (u + 0.5, v + 0.5, 1)."""
    v, u = np.mgrid[0:height, 0:width].astype(np.float64) + 0.5
    directions = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(np.asarray(K, np.float64)).T
    return directions / directions[..., 2:]


def forward_fill(depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Peeled depth (L,H,W) float32, inf where there is no hit -> (forward-filled depth, hits (H,W) uint8): Eq. 2.

    Hits are contiguous from layer 0: the first missing layer ends the ray.
    """
    found = np.logical_and.accumulate(np.isfinite(depth), axis=0)
    hits = found.sum(axis=0).astype(np.uint8)
    last = np.maximum(hits.astype(np.int64) - 1, 0)
    source = np.minimum(np.arange(depth.shape[0])[:, None, None], last[None])
    filled = np.take_along_axis(depth, source, axis=0).astype(np.float32, copy=False)
    return np.where(hits[None] > 0, filled, np.float32(0)), hits


def _common(frame: LayeredView) -> tuple[Any, ...]:
    """What the frames of a clip have in common: the manifest says it once."""
    return frame.depth.shape, frame.regime, frame.origin, frame.single_layer


def _expect(key: str, name: str, array: np.ndarray, shape: tuple[int, ...], dtype: type | None) -> None:
    if array.shape != shape or (dtype is not None and array.dtype != dtype):
        wanted = f"{shape}" + (f" {np.dtype(dtype).name}" if dtype is not None else "")
        raise ValueError(f"{key}: {name} is {array.shape} {array.dtype}, expected {wanted}")
