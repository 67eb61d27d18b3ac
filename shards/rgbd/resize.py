"""A frame at the size that training reads: image by area, depth by surface, K along."""

from dataclasses import replace

import numpy as np

from .base import Frame
from .geometry import area_resized, nearest_in_cell, rescaled, sample_depth


def resized(frame: Frame, size: int, upscale: bool = False) -> Frame:
    """The frame with its shorter side at `size` pixels; as it is where it is smaller, unless `upscale`.

    The image is averaged over the area of each new pixel. Dense depth is looked up at the new pixel's centre
    (geometry.sample_depth: between pixels of one surface alone). Sparse depth, whose points lie anywhere within their
    pixel, keeps the nearest point of each new pixel. The longer side is rounded to whole pixels and K follows exactly.
    """
    height, width = frame.depth.shape
    scale = size / min(height, width)
    if scale == 1 or (scale > 1 and not upscale):
        return frame
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    if "sparse" in frame.flags:
        depth = nearest_in_cell(frame.depth, new_height, new_width)
    else:
        v, u = np.ogrid[0:new_height, 0:new_width]
        depth = sample_depth(frame.depth, (u + 0.5) * (width / new_width), (v + 0.5) * (height / new_height))
    K = rescaled(frame.K, new_width / width, new_height / height)
    return replace(frame, image=area_resized(frame.image, new_height, new_width), depth=depth, K=K)
