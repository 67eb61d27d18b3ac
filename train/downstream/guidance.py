"""Guidance for video models (paper, section 5.2): a prediction's layers seen along a camera path, as RGB and depth.

What a video model is given of a single image ends at the visible surface. The stack goes on behind it, so that what
comes into view as the camera moves has a depth already.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from shards import committed
from train.downstream.cameras import Cameras, write_cameras
from train.downstream.splat import NOTHING, Frame, Hidden, surfaces, view
from train.downstream.stack import Stack
from train.downstream.video import mp4

FADE = 1 / 8  # how far the depth video's range reaches beyond what the points span: nothing that is there looks empty


@dataclass(frozen=True)
class DepthRange:
    """The code of a depth video: value v of 1..255 is 1/z = 1/far + (v - 1)/254 * (1/near - 1/far); 0 is nothing.

    Inverse depth, near bright: what depth-guided video models are given. One range for the whole path, so that a
    surface keeps its value while only the camera moves past it.
    """

    near: float
    far: float

    def encode(self, depth: np.ndarray) -> np.ndarray:
        """(H,W) float32, 0 where nothing is -> uint8."""
        there = depth > 0
        inverse = 1 / np.where(there, depth, 1)
        part = (inverse - 1 / self.far) / (1 / self.near - 1 / self.far)
        return np.where(there, np.round(1 + 254 * np.clip(part, 0, 1)), 0).astype(np.uint8)

    def decode(self, value: np.ndarray) -> np.ndarray:
        """The depth of values 1..255; 0 for 0."""
        inverse = 1 / self.far + (value.astype(np.float32) - 1) / 254 * (1 / self.near - 1 / self.far)
        return np.where(value > 0, 1 / inverse, 0).astype(np.float32)

    @property
    def text(self) -> str:
        return f"inverse depth: 1/z = 1/{self.far:.6g} + (v-1)/254 * (1/{self.near:.6g} - 1/{self.far:.6g}), 0 = none"


def frames(
    stack: Stack, cameras: Cameras, hidden: Hidden = "grey", device: torch.device | str = "cpu"
) -> Iterator[Frame]:
    """What each camera of a path sees, one by one. On the CPU a frame of an object at 504 takes about 0.2 s."""
    scene = surfaces(stack, hidden, device)
    for pose in cameras.world_from_camera:
        yield view(scene, cameras.K, pose, cameras.height, cameras.width)


def depth_range(stack: Stack, cameras: Cameras) -> DepthRange:
    """The depths that the points span over all cameras, from the first to the last percent, and an eighth beyond."""
    points = stack.points[:: max(1, len(stack.points) // 20_000)].astype(np.float64)
    inverse = np.linalg.inv(cameras.world_from_camera)
    z = np.concatenate([points @ pose[2, :3] + pose[2, 3] for pose in inverse])
    z = z[z > 0]
    if not z.size:
        raise ValueError("no camera of the path has a point before it; the path leads away from what was predicted")
    near, far = np.percentile(z, [1, 99])
    return DepthRange(float(near / (1 + FADE)), float(far * (1 + FADE)))


def write_guidance(
    seen: Iterator[Frame],
    cameras: Cameras,
    span: DepthRange,
    rgb: Path | None = None,
    depth: Path | None = None,
    folder: Path | None = None,
    fps: int = 24,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Sequence[float]:
    """Write an RGB video, a depth video, and a folder of frames; returns the share of each frame's pixels that see
    something.

    The folder gets rgb_0000.png, depth_0000.exr (channel Z, float32, 0 where nothing is), layer_0000.png (of which
    layer a pixel is; 0: visible in the image; 255: nothing, which a video model has to invent) and cameras.json.
    """
    total = len(cameras.world_from_camera)
    shares = []
    with ExitStack() as open_files:
        size = cameras.height, cameras.width, fps
        rgb_video = open_files.enter_context(mp4(rgb, *size)) if rgb else None
        depth_video = open_files.enter_context(mp4(depth, *size, span.text)) if depth else None
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        for number, frame in enumerate(seen):
            colours = np.round(np.clip(frame.rgb, 0, 1) * 255).astype(np.uint8)
            if rgb_video:
                rgb_video(colours)
            if depth_video:
                depth_video(span.encode(frame.depth))
            if folder:
                _write_png(folder / f"rgb_{number:04d}.png", colours)
                _write_png(folder / f"layer_{number:04d}.png", frame.layer)
                _write_depth(folder / f"depth_{number:04d}.exr", frame.depth)
            shares.append(float((frame.layer != NOTHING).mean()))
            progress(number + 1, total)
        if folder:
            write_cameras(folder / "cameras.json", cameras, fps=fps, depth_video={"near": span.near, "far": span.far})
    return shares


def _write_png(path: Path, pixels: np.ndarray) -> None:
    with committed(path) as file:
        Image.fromarray(pixels).save(file, "PNG")


def _write_depth(path: Path, depth: np.ndarray) -> None:
    import OpenEXR  # a fifth of a second, for those who want frames

    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with committed(path) as file:
        OpenEXR.File(header, {"Z": np.ascontiguousarray(depth)}).write(file.name)
