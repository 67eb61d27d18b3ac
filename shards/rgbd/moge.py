"""Benchmarks of monocular geometry in the layout that MoGe evaluates on: NYUv2, ETH3D, DIODE, KITTI, iBims-1, GSO, ...

Source of the format: docs/eval.md, moge/test/dataloader.py and read_depth of moge/utils/io.py of microsoft/MoGe; the
data are public on the Hugging Face hub (datasets/Ruicheng/monocular-geometry-evaluation), one archive a benchmark.

    FOLDER/.index.txt               a line for each instance: its folder, relative
    FOLDER/INSTANCE/image.jpg
    FOLDER/INSTANCE/depth.png       16 bits, logarithmic: 0 unknown, 65535 infinite, between them near^(1-t) far^t with
                                    t = (value - 1) / 65533; texts `near`, `far` and perhaps `unit` in the PNG
    FOLDER/INSTANCE/meta.json       {"intrinsics": [[fx/W, 0, cx/W], [0, fy/H, cy/H], [0, 0, 1]]}: of a picture of 1x1

Depth is z. FOLDER is one benchmark. Instances within one folder of it are one scene. MoGe's own loader turns each
picture so that its axis goes through the middle; here they stay as they are, with the K that they have.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .base import Frame, Scene, Unreadable
from .files import _opened, inside, read_bytes, read_image, read_json
from .geometry import rescaled

INDEX = ".index.txt"
INSTANCES = 1 << 20
INFINITE = 65535
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class MoGe:
    """`relative`: depth has no metric scale (the benchmark's depth_unit is not given). `licence`: of the benchmark."""

    folder: Path
    relative: bool = False
    licence: str = "unknown"

    name: ClassVar[str] = "moge"
    title: ClassVar[str] = "MoGe's evaluation layout"
    synthetic: ClassVar[bool] = False
    layout: ClassVar[str] = f"{INDEX} and INSTANCE/{{image.jpg,depth.png,meta.json}}"

    def scenes(self) -> Iterable[Scene]:
        if not (self.folder / INDEX).exists():
            return
        try:
            yield from map(Scene, sorted(self._listed()))
        except Unreadable as error:
            raise ValueError(f"{error.message}: it must be a plain file of the folder") from None

    def frames(self, scene: Scene) -> Sequence[str]:
        return self._listed().get(scene.name, ())

    def read(self, scene: Scene, frame: str) -> Frame:
        image = read_image(inside(self.folder, frame, "image.jpg"))
        depth = read_log_depth(inside(self.folder, frame, "depth.png"))
        if image.shape[:2] != depth.shape:
            raise Unreadable("size_mismatch", f"the image of {frame} is {image.shape[:2]}, its depth {depth.shape}")
        meta = read_json(inside(self.folder, frame, "meta.json"))
        K = rescaled(_of_unit_square(meta), depth.shape[1], depth.shape[0])
        return Frame(image, depth, K, flags=("relative_scale",) if self.relative else ())

    def _listed(self) -> dict[str, tuple[str, ...]]:
        """Scene -> its instances, relative to the folder."""
        path = inside(self.folder, INDEX)
        return _listed(path, self.folder.name, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _listed(path: Path, benchmark: str, changed: int) -> dict[str, tuple[str, ...]]:
    lines = read_bytes(path, 64 << 20).decode(errors="replace").splitlines()
    if len(lines) > INSTANCES:
        raise ValueError(f"{path} lists {len(lines)} instances: at most {INSTANCES} are read")
    found: dict[str, list[str]] = {}
    for line in filter(None, map(str.strip, lines)):
        if "\0" not in line:
            parent = str(Path(line).parent)
            found.setdefault(benchmark if parent in (".", "/") else parent, []).append(line)
    return {name: tuple(instances) for name, instances in found.items()}


def read_log_depth(path: Path) -> np.ndarray:
    """(H,W) float32, 0 where unknown or infinite."""
    with _opened(path, "unreadable_depth", path.name, ("PNG",)) as image:
        if image.mode not in ("I;16", "I;16B", "I"):
            raise Unreadable("unreadable_depth", f"{path.name} is a PNG of mode {image.mode}, not 16-bit grey")
        values = np.asarray(image).astype(np.int64)
        image.load()
        near, far, unit = (_number(image.info.get(name, default)) for name, default in _TEXTS)
    if not 0 < near <= far or unit <= 0 or unit * far > _LARGEST:
        raise Unreadable("unreadable_depth", f"{path.name} says near {near:g}, far {far:g}, unit {unit:g}")
    share = (values - 1) / (INFINITE - 2)
    depth = unit * np.exp((1 - share) * math.log(near) + share * math.log(far))
    return np.where((values > 0) & (values < INFINITE), depth, 0).astype(np.float32)


_TEXTS = (("near", None), ("far", None), ("unit", "1"))


def _number(text: Any) -> float:
    if not isinstance(text, str) or not re.fullmatch(r"[-+0-9.eE]{1,40}", text.strip()):
        raise Unreadable("unreadable_depth", "the depth map does not say its near and far")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Unreadable("unreadable_depth", f"the depth map says {text[:40]!r}, not a number")
    return value


def _of_unit_square(meta: Any) -> np.ndarray:
    """K (3,3) of a picture of 1 x 1."""
    try:
        K = np.array(meta["intrinsics"], np.float64)
    except (KeyError, OverflowError, TypeError, ValueError):
        K = np.zeros(())
    if K.shape != (3, 3) or not np.isfinite(K).all():
        raise Unreadable("unreadable_camera", "meta.json holds no intrinsics of 3x3 numbers")
    return K
