"""ETH3D, high-resolution multi-view, training scenes: 454 photographs of a Nikon D3X with depth from laser scans.

Source of the format: eth3d.net/documentation ("Format of multi-view data", "Camera models"), and what made the files:
ground_truth_creator.cc and colmap_model.cc of ETH3D/dataset-pipeline.

    FOLDER/[training/]SCENE/images/dslr_images/DSC_NNNN.JPG                 as taken, 6048x4032     (SCENE_dslr_jpg.7z)
                            dslr_calibration_jpg/{cameras,images}.txt       COLMAP; THIN_PRISM_FISHEYE
                            ground_truth_depth/dslr_images/DSC_NNNN.JPG     no JPEG: float32 row by row (_dslr_depth.7z)
                            images/dslr_images_undistorted/DSC_NNNN.JPG     optional                (_dslr_undistorted)
                            dslr_calibration_undistorted/cameras.txt        optional; PINHOLE

Depth is z in metres on the pixels of the photograph as taken: at each pixel the nearest scan point that falls into it,
infinite (here: 0, unknown) where none does. COLMAP's centres lie at +0.5, as ours.

A frame is a pinhole picture of `side` pixels on its shorter side with the principal point in the middle, as wide as
the lens fills without an empty pixel: the picture is averaged by area and looked up where each ray falls, and depth is
that of the scan point nearest to where the ray falls, within half a pixel of the frame. One in 8x8 of the
photograph's pixels is enough, so a frame has few holes. `side` is to be at least the --size of the import: beyond it
nothing is resampled twice.

Scenes are named indoor/SCENE and outdoor/SCENE, so that `--scenes 'indoor/*'` imports and --where "asset like
'eth3d/indoor/%'" judges one of the two. Option `outdoor` names the outdoor ones. The default is that of the paper of
ETH3D (figure 6): 219 frames indoors, 235 outdoors. Table 6 of World Tracing counts 222 and 232, which 7 and 6 scenes
give if electro is taken for an indoor scene and terrains for an outdoor one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from . import colmap
from .base import Frame, Scene, Unreadable, intrinsics
from .files import inside, listing, read_bytes, read_image, read_size
from .geometry import area_resized, bilinear, rescaled

OUTDOOR = "courtyard,electro,facade,meadow,playground,terrace"
FINER = 2  # times as fine as the frame the picture is looked up, then averaged: no stair steps at edges
WIDEST = 1.4  # radians from the axis that the corner of a frame may see


@dataclass(frozen=True)
class ETH3D:
    """`images`: distorted (as taken), or undistorted (ETH3D's own), which need not be there. `outdoor`: scenes."""

    folder: Path
    side: int = 504
    images: str = "distorted"
    outdoor: str = OUTDOOR

    name: ClassVar[str] = "eth3d"
    title: ClassVar[str] = "ETH3D high-resolution multi-view"
    licence: ClassVar[str] = "CC-BY-NC-SA-4.0 (ETH3D)"
    synthetic: ClassVar[bool] = False
    layout: ClassVar[str] = "SCENE/{images,ground_truth_depth}/dslr_images and SCENE/dslr_calibration_jpg"

    def __post_init__(self) -> None:
        if self.images not in ("distorted", "undistorted"):
            raise ValueError(f"option images of corpus eth3d is {self.images!r}: give distorted or undistorted")
        if not 16 <= self.side <= 4096:
            raise ValueError(f"option side of corpus eth3d is {self.side}: give 16 to 4096 pixels")

    @property
    def _root(self) -> Path:
        """Where the scenes are, within the folder."""
        return Path("training" if (self.folder / "training").is_dir() else "")

    def scenes(self) -> Iterable[Scene]:
        outside = set(self.outdoor.split(","))
        found = [name for name in listing(self.folder / self._root) if self._depths(name).is_dir()]
        for name in sorted(found, key=lambda name: (name in outside, name)):
            yield Scene(f"{'outdoor' if name in outside else 'indoor'}/{name}", name)

    def frames(self, scene: Scene) -> Sequence[str]:
        return [name for name in listing(self._depths(scene.place)) if name.lower().endswith(".jpg")]

    def read(self, scene: Scene, frame: str) -> Frame:
        root = self._root / scene.place
        lens, pose = self._camera(root / "dslr_calibration_jpg", frame)
        seen, kind = lens, "dslr_images"
        if self.images == "undistorted":
            seen, _ = self._camera(root / "dslr_calibration_undistorted", frame)
            kind = "dslr_images_undistorted"
        photograph = read_image(inside(self.folder, str(root / "images" / kind / frame)))
        if photograph.shape[:2] != (seen.height, seen.width):
            size = f"{photograph.shape[1]}x{photograph.shape[0]}"
            raise Unreadable("size_mismatch", f"{frame} is {size}, its camera {seen.width}x{seen.height}")
        K, height, width = framing(min(self.side, lens.height, lens.width), lens, seen)
        image = looked_up(photograph, seen, K, height, width)
        depth = nearest_known(
            self._depth(root, frame, lens), *lens.project(*_rays(K, height, width)), lens.width / width
        )
        return Frame(image, depth, K, pose)

    def _depths(self, scene: str) -> Path:
        return self.folder / self._root / scene / "ground_truth_depth" / "dslr_images"

    def _camera(self, folder: Path, frame: str) -> tuple[colmap.Lens, np.ndarray]:
        """(lens, world_from_camera)."""
        lenses = colmap.lenses(inside(self.folder, str(folder / "cameras.txt")))
        images = colmap.images(inside(self.folder, str(folder / "images.txt")))
        if frame not in images:
            raise Unreadable("unreadable_camera", f"{folder.name}/images.txt does not know {frame}")
        camera, pose = images[frame]
        if camera not in lenses:
            raise Unreadable("unreadable_camera", f"{folder.name}/cameras.txt does not know camera {camera}")
        return lenses[camera], pose

    def _depth(self, root: Path, frame: str, lens: colmap.Lens) -> np.ndarray:
        """(H,W) float32, 0 where unknown, on the pixels of the photograph as taken."""
        path = inside(self.folder, str(root / "ground_truth_depth" / "dslr_images" / frame))
        size = read_size(path)
        if size != 4 * lens.height * lens.width:
            raise Unreadable(
                "truncated", f"the depth of {frame} has {size} bytes, not {lens.width}x{lens.height} floats"
            )
        depth = np.frombuffer(read_bytes(path), "<f4").reshape(lens.height, lens.width)
        with np.errstate(invalid="ignore"):
            return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def framing(side: int, *lenses: colmap.Lens) -> tuple[np.ndarray, int, int]:
    """K, height, width of the widest pinhole frame that all `lenses` fill: `side` pixels on the shorter side, the shape
    of the first, its principal point in the middle. Unreadable, where a lens folds over or sees no such frame.
    """
    first = lenses[0]
    scale = side / min(first.height, first.width)
    height, width = max(1, round(first.height * scale)), max(1, round(first.width * scale))
    focal = scale * (first.focal[0] + first.focal[1]) / 2

    def camera(zoom: float) -> np.ndarray:
        return intrinsics(zoom * focal, zoom * focal, width / 2, height / 2)

    def filled(zoom: float) -> bool:
        K = camera(zoom)
        # along the outline of the outermost pixels' centres, where a frame leaves its photograph first
        u = np.concatenate([np.arange(width), np.arange(width), np.zeros(height), np.full(height, width - 1)]) + 0.5
        v = np.concatenate([np.zeros(width), np.full(width, height - 1), np.arange(height), np.arange(height)]) + 0.5
        x, y = (u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]
        widest = float(np.arctan(np.hypot(x, y)).max())
        for lens in lenses:
            at, down = lens.project(x, y)
            inside_it = (at >= 0) & (at < lens.width) & (down >= 0) & (down < lens.height)
            if widest > WIDEST or lens.folds(widest) or not inside_it.all():
                return False
        return True

    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        wide, narrow = 0.25, 4.0
        if not (np.isfinite(focal) and focal > 0 and filled(narrow)):
            raise Unreadable("distorted_camera", f"no pinhole frame lies within what the {first.model} lens sees")
        for _ in range(24):
            middle = (wide + narrow) / 2
            wide, narrow = (wide, middle) if filled(middle) else (middle, narrow)
    return camera(narrow), height, width


def looked_up(photograph: np.ndarray, lens: colmap.Lens, K: np.ndarray, height: int, width: int) -> np.ndarray:
    """The picture (height, width, 3) that a pinhole camera with K takes, of a photograph (H,W,3) uint8 through `lens`:
    reduced by area to the detail of the frame, looked up FINER times as fine, averaged.
    """
    reduction = max(1, int(lens.width / (FINER * width)))
    rows, columns = photograph.shape[0] // reduction, photograph.shape[1] // reduction
    reduced = area_resized(photograph, rows, columns)
    fine = rescaled(K, FINER, FINER)
    u, v = lens.project(*_rays(fine, FINER * height, FINER * width))
    # half a reduced pixel beyond the outermost centre is still the photograph
    u, v = (u * (columns / lens.width)).clip(0, columns - 1e-6), (v * (rows / lens.height)).clip(0, rows - 1e-6)
    return area_resized(bilinear(reduced, u, v), height, width)


def nearest_known(depth: np.ndarray, u: np.ndarray, v: np.ndarray, footprint: float) -> np.ndarray:
    """Depth (H,W) with holes (0) at the points (u, v) in its pixels -> float32 of their shape: that of the known pixel
    nearest to the one the point lies in, at most half of `footprint` pixels away; 0 where there is none.
    """
    height, width = depth.shape
    reach = max(0, int(footprint / 2))
    steps = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).T
    distance = (steps**2).sum(axis=1)
    steps = steps[distance <= max(reach, 0.5) ** 2 + reach]
    steps = steps[np.argsort((steps**2).sum(axis=1), kind="stable")]
    within = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    at = np.flatnonzero(within.reshape(-1))
    column, row = u.reshape(-1)[at].astype(np.int64), v.reshape(-1)[at].astype(np.int64)
    found = np.zeros(u.size, np.float32)
    for down, right in steps:
        found[at] = depth[(row + down).clip(0, height - 1), (column + right).clip(0, width - 1)]
        left = found[at] == 0
        at, row, column = at[left], row[left], column[left]
        if not at.size:
            break
    return found.reshape(u.shape)


def _rays(K: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the rays (x, y, 1) through the pixel centres, (H,W) each."""
    v, u = np.mgrid[0:height, 0:width] + 0.5
    return (u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]
