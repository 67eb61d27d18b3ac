"""What is said about a view: typed flags, and the few of them for which it is not kept.

| flag | says | kept |
|---|---|---|
| too_few_pixels | valid pixels are a smaller share of the image than `min_coverage` | no |
| camera_inside | the camera is inside a closed object: in its box, and most rays meet an odd number of surfaces | no |
| alpha_mismatch | at over 0.5 % of the valid pixels alpha had to be moved from 255 or 0 to the side of A | yes |
| holes | for over 1 % of the valid pixels there is a single missing one amid valid ones | yes |
| overflow | at more than 0.1 % of the valid pixels, surfaces beyond the peeled slots may be missing | yes |
| open_surface | fewer than half of the rays that hit go on to a second surface (closed surfaces come in pairs) | yes |
| thin | the median gap between front and back is under 1 % of the longest side | yes |
| flat | the asset's shortest side is under 1 % of its longest | yes |
| untextured | one material colour, no texture, no vertex colours | yes |
| dark | the mean brightness of the valid pixels, sRGB, is under 8 % | yes |

Interior geometry and open surfaces are kept: they are real. A room is not judged by camera_inside or open_surface.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from render.cameras import Camera
from render.extent import Extent
from render.frames import Layers
from render.mesh import Mesh
from render.settings import RenderSettings

REJECTING = ("too_few_pixels", "camera_inside")
MISMATCH_SHARE = 5e-3  # what is thinner than a pixel may miss its centre or all of its samples
HOLE_SHARE = 1e-2  # perforated shapes have some at any size; a leaky rasterizer has them everywhere
OVERFLOW_SHARE = 1e-3
THIN = 0.01
FLAT = 0.01
DARK = 0.08


def mesh_flags(mesh: Mesh) -> set[str]:
    """Flags of the asset itself: those of its loader, and flat, untextured."""
    flags = set(mesh.flags)
    used = np.unique(mesh.faces)
    extent = np.ptp(mesh.vertices[used], axis=0)
    if extent.min() < FLAT * extent.max():
        flags.add("flat")
    materials = [mesh.materials[m] for m in np.unique(mesh.material)]
    textured = any(m.base_color_texture is not None for m in materials)
    if not textured and mesh.colors is None and len({m.base_color[:3] for m in materials}) <= 1:
        flags.add("untextured")
    return flags


def measures(layers: Layers, moved: Sequence[int] | np.ndarray = (0, 0, 0)) -> dict[str, float]:
    """The numbers behind the flags, recorded in `info`: pixels, pairs_1_0 and pairs_3_2 (layer coverage ratios),
    alpha_iou (alpha > 0.5 against A before alpha was held at its side: in moved[0] pixels with A = 1 and moved[1] with
    A = 0), and as shares of the valid pixels contradictions (moved[2]: it had been 0 or 255), holes and overflow."""
    valid = layers.hits > 0
    pixels = int(valid.sum())
    at_least = [int((layers.hits >= k).sum()) for k in (1, 2, 3, 4)]
    return {
        "pixels": pixels,
        "pairs_1_0": round(at_least[1] / max(at_least[0], 1), 4),
        "pairs_3_2": round(at_least[3] / max(at_least[2], 1), 4),
        "alpha_iou": round((pixels - int(moved[0])) / max(pixels + int(moved[1]), 1), 5),
        "contradictions": round(int(moved[2]) / max(pixels, 1), 6),
        "holes": round(single_holes(valid) / max(pixels, 1), 6),
        "overflow": round(layers.overflow / max(pixels, 1), 6),
    }


def single_holes(valid: np.ndarray) -> int:
    """Invalid pixels of valid (H,W) whose four neighbours are all valid: what a leaky fill rule leaves behind."""
    inner = ~valid[1:-1, 1:-1]
    return int(np.count_nonzero(inner & valid[:-2, 1:-1] & valid[2:, 1:-1] & valid[1:-1, :-2] & valid[1:-1, 2:]))


def view_flags(
    layers: Layers,
    rgba: np.ndarray,
    numbers: dict[str, float],
    camera: Camera,
    extent: Extent,
    settings: RenderSettings,
    indoors: bool,
) -> set[str]:
    """Flags of one view, of which `layers` and `rgba` may be the window that holds all that is valid.

    `numbers` come from `measures`; `extent` is that of the mesh, in the world frame of the camera.
    """
    flags = set()
    valid = layers.hits > 0
    if numbers["pixels"] < settings.min_coverage * settings.height * settings.width:
        flags.add("too_few_pixels")
    if not valid.any():
        return flags
    if not indoors:
        odd = np.count_nonzero(layers.hits[valid & (layers.hits < settings.layers)] % 2)
        if extent.holds(camera.eye) and odd > 0.5 * np.count_nonzero(valid):
            flags.add("camera_inside")
        if settings.layers > 1 and numbers["pairs_1_0"] < 0.5:
            flags.add("open_surface")
    if settings.layers > 1:
        pair = (layers.hits >= 2) & (layers.facing[0] != layers.facing[1])
        if pair.any():
            gap = np.median(layers.depth[1][pair] - layers.depth[0][pair])
            if gap < THIN * extent.longest:
                flags.add("thin")
    if numbers["contradictions"] > MISMATCH_SHARE:
        flags.add("alpha_mismatch")
    if numbers["holes"] > HOLE_SHARE:
        flags.add("holes")
    if numbers["overflow"] > OVERFLOW_SHARE:
        flags.add("overflow")
    if rgba[valid][:, :3].mean() < DARK * 255:
        flags.add("dark")
    return flags


def rejection(flags: set[str], numbers: dict[str, Any], settings: RenderSettings) -> tuple[str, str] | None:
    """(reason, message) if a view with these flags is not kept."""
    if "too_few_pixels" in flags:
        least = settings.min_coverage * settings.height * settings.width
        return "too_few_pixels", f"{numbers['pixels']} valid pixels, at least {least:.0f} are asked for"
    if "camera_inside" in flags:
        return "camera_inside", "the camera is inside a closed object: most rays meet an odd number of surfaces"
    return None
