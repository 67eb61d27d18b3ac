"""A run that predicts in milliseconds: a micro model of random weights, for whatever kind is asked."""

from pathlib import Path

import numpy as np
import torch

from model import LogMedian, WTDiT, ZScore, preset
from train import config
from train.run import Run

SIZE = 28


def micro_run(scene: bool = False, frames: int = 1, size: int = SIZE, **objective: object) -> Run:
    """`frames` > 1: a model of clips, with temporal blocks."""
    torch.manual_seed(0)
    encoder = {"width": 32, "depth": 1, "heads": 2, "taps": 1, "grid": 2}
    shape = {"width": 32, "heads": 2, "decoder_blocks": 3, "head_blocks": 1, "layers": 3, "encoder": encoder}
    network = WTDiT(preset("tiny", temporal=frames > 1, **shape))
    torch.nn.init.normal_(network.head.projection.weight, std=0.1)  # it starts at zero, which would predict one thing
    settings = config.from_dict(
        {"data": {"path": "none", "size": size, "frames": frames}, "out": "none", "objective": objective}
    )
    normalisation = LogMedian() if scene else ZScore((0.0, 0.0, 1.9), (0.3, 0.3, 0.5))
    return Run(network.eval().requires_grad_(False), normalisation, settings, step=0, path=Path("none"))


def disc(
    height: int = 60, width: int = 80, centre: tuple[float, float] = (30.0, 40.0), radius: float = 15.0
) -> np.ndarray:
    """(h,w,4) uint8: a shaded red disc, anti-aliased, on transparent green. Centre (y, x)."""
    y, x = np.mgrid[:height, :width] + 0.5
    distance = np.hypot(y - centre[0], x - centre[1])
    alpha = np.clip(radius - distance + 0.5, 0, 1)
    rgba = np.zeros((height, width, 4), np.uint8)
    rgba[..., 1] = 255
    rgba[alpha > 0, :3] = (200, 0, 40)
    rgba[..., 0] -= np.uint8(60) * ((alpha > 0) & (x > centre[1]))
    rgba[..., 3] = np.round(alpha * 255)
    return rgba


def over(rgba: np.ndarray, background: np.ndarray) -> np.ndarray:
    """(h,w,3) uint8: a picture over a background (h,w,3) or (3,) in [0, 255]."""
    alpha = rgba[..., 3:] / 255
    return np.round(rgba[..., :3] * alpha + background * (1 - alpha)).astype(np.uint8)
