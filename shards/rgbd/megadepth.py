"""MegaDepth v1: photographs of landmarks with depth from multi-view stereo.

Source of the format: the project's page (cs.cornell.edu/projects/megadepth) and its README; `depth` in HDF5 as read by
the published loaders; cameras from the release "MegaDepth_v1_SfM".

    FOLDER/0000/dense0/imgs/NAME.jpg       undistorted photographs (also FOLDER/phoenix/S6/zl548/MegaDepth_v1/0000/...)
    FOLDER/0000/dense0/depths/NAME.h5      dataset "depth", float32 (H,W): z in the units of the reconstruction
    FOLDER/0000/dense0/cameras.txt         COLMAP's text of the undistorted cameras, with images.txt beside it
      or FOLDER/Undistorted_SfM/0000/sparse-txt/{cameras,images}.txt    (as D2-Net's preprocessing leaves it)

Depth is 0 where unknown (sky and whatever stereo did not see). A map with negative values holds no distances but the
order of foreground and background of a segmented photograph: such frames are rejected. The scale of a scene is that of
its structure from motion, hence the flag `relative_scale`. COLMAP puts the first pixel's centre at (0.5, 0.5), as we
do. Only models without distortion are taken: the photographs are undistorted, so another model is not that of the file.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from . import colmap
from .base import Frame, Scene, Unreadable, intrinsics
from .files import inside, listing, read_h5, read_image
from .geometry import rescaled

PREFIX = "phoenix/S6/zl548/MegaDepth_v1"  # as the archive unpacks


@dataclass(frozen=True)
class MegaDepth:
    folder: Path

    name: ClassVar[str] = "megadepth"
    title: ClassVar[str] = "MegaDepth v1"
    licence: ClassVar[str] = "CC-BY-4.0 (MegaDepth; photographs under their own terms)"
    synthetic: ClassVar[bool] = False
    layout: ClassVar[str] = "SCENE/denseN/imgs and SCENE/denseN/depths with cameras.txt and images.txt of COLMAP"

    @property
    def _root(self) -> Path:
        return self.folder / PREFIX if (self.folder / PREFIX).is_dir() else self.folder

    def scenes(self) -> Iterable[Scene]:
        for place in listing(self._root):
            for model in listing(self._root / place):
                if (self._root / place / model / "depths").is_dir():
                    yield Scene(f"{place}/{model}", place)

    def frames(self, scene: Scene) -> Sequence[str]:
        names = {Path(name).stem: name for name in listing(self._root / scene.name / "imgs")}
        depths = (Path(name).stem for name in listing(self._root / scene.name / "depths") if name.endswith(".h5"))
        return [names[stem] for stem in depths if stem in names]

    def read(self, scene: Scene, frame: str) -> Frame:
        root = self._root / scene.name
        depth = read_h5(inside(self.folder, str(root / "depths" / f"{Path(frame).stem}.h5")), "depth")
        if depth.ndim != 2:
            raise Unreadable("unreadable_depth", f"depth has {depth.ndim} dimensions instead of 2")
        if depth.size and np.nanmin(depth) < 0:
            raise Unreadable("unreadable_depth", "negative values: an order of foreground and background, no depth")
        image = read_image(inside(self.folder, str(root / "imgs" / frame)))
        if image.shape[:2] != depth.shape:
            raise Unreadable("size_mismatch", f"the image is {image.shape[:2]}, its depth {depth.shape}")
        cameras, images = self._model(scene)
        if frame not in images:
            raise Unreadable("unreadable_camera", f"images.txt does not know {frame}")
        camera, pose = images[frame]
        if camera not in cameras:
            raise Unreadable("unreadable_camera", f"cameras.txt does not know camera {camera} of {frame}")
        lens = cameras[camera]
        if lens.model not in colmap.PINHOLES:
            raise Unreadable("distorted_camera", f"camera {camera} is of model {lens.model}: undistort it first")
        K = intrinsics(*lens.focal, *lens.centre)
        K = rescaled(K, depth.shape[1] / lens.width, depth.shape[0] / lens.height)
        return Frame(image, depth.astype(np.float32), K, pose, ("relative_scale",))

    def _model(self, scene: Scene) -> tuple[dict[str, colmap.Lens], dict[str, tuple[str, np.ndarray]]]:
        places = (self._root / scene.name, self.folder / "Undistorted_SfM" / scene.place / "sparse-txt")
        for place in places:
            if (place / "cameras.txt").is_file():
                paths = inside(self.folder, str(place / "cameras.txt")), inside(self.folder, str(place / "images.txt"))
                return colmap.lenses(paths[0]), colmap.images(paths[1])
        raise Unreadable("missing_file", f"{scene.name} has no cameras.txt: MegaDepth_v1_SfM is needed, undistorted")
