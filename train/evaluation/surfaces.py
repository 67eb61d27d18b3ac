"""Points sampled from the assets' surfaces, brought in front of the camera of a sample: truth for a whole shape.

Layers end with the sixth; surfaces do not, and they are spread evenly where layers are as dense as the pixels see them.
The points are made beforehand, by the side that has the assets: `worldtrace cluster surfaces DATASET --out FOLDER`.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from shards import LayeredView, Origin
from shards.surface_file import SurfacePoints, read_index, read_surface

KEPT = 4  # assets in memory: the views of one come one after the other


class Surfaces:
    """A folder of surface points. FileNotFoundError or ValueError, in a sentence, where it is none."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.index = read_index(self.folder)
        self._read = lru_cache(KEPT)(self._of)

    def points(self, view: LayeredView, K: np.ndarray | None = None, size: tuple[int, int] | None = None) -> np.ndarray:
        """(N,3) float64 in the frame of the view's camera (a clip: of one of its frames), units as of its layers.

        Of an object all points, those that a cropped view cuts off too: the whole shape is asked for, as of those that
        generate meshes. Of a room, seen from inside, those within the picture (`within`): a house reaches far beyond.
        What is judged may be a part of the stored picture: its K, and its size (height, width), are given then.

        FileNotFoundError where the folder has none of the asset, ValueError where the view does not say how the asset
        was scaled, or at what time it shows it.
        """
        surface = self._read(view.origin.source, view.origin.uid, view.origin.sha256)
        time = view.info.get("time")
        try:
            points = surface.at(None if time is None else float(time))
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{self.folder}: {view.key}: {error}") from None
        scale, offset = _normalisation(view)
        pose = np.asarray(view.world_from_camera, np.float64)
        in_camera = ((points - offset) * scale - pose[:3, 3]) @ pose[:3, :3]
        if not _from_inside(view):
            return in_camera
        return within(in_camera, view.K if K is None else K, *(view.size if size is None else size))

    def _of(self, source: str, uid: str, sha256: str) -> SurfacePoints:
        return read_surface(self.folder, Origin(uid, source, sha256))


def within(points: np.ndarray, K: np.ndarray, height: int, width: int) -> np.ndarray:
    """Those of the points (N,3) in the camera's frame that a picture of height x width with K shows, however many
    surfaces stand before them: what lies beside the picture nobody can ask of a stack with a ray for each pixel.
    """
    ahead = points[points[:, 2] > 1e-9]
    u = (K[0, 0] * ahead[:, 0] + K[0, 1] * ahead[:, 1]) / ahead[:, 2] + K[0, 2]
    v = K[1, 1] * ahead[:, 1] / ahead[:, 2] + K[1, 2]
    return np.asarray(ahead[(u >= 0) & (u < width) & (v >= 0) & (v < height)])


def _from_inside(view: LayeredView) -> bool:
    """A scene, or a clip of one: the renderer records which kind of camera it placed."""
    camera = view.info.get("camera")
    return view.regime == "scene" or (isinstance(camera, Mapping) and camera.get("kind") == "room")


def _normalisation(view: LayeredView) -> tuple[float, np.ndarray]:
    stated = view.info.get("normalisation")
    try:
        if not isinstance(stated, Mapping):
            raise KeyError("normalisation")
        scale, offset = float(stated["scale"]), np.asarray(stated["offset"], np.float64)
    except (KeyError, TypeError, ValueError):
        scale, offset = 0.0, np.zeros(3)
    if not (np.isfinite(scale) and scale > 0 and offset.shape == (3,) and np.isfinite(offset).all()):
        raise ValueError(f"{view.key} does not say how its asset was scaled (info.normalisation): it has no surfaces")
    return scale, offset
