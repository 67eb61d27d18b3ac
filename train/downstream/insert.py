"""A predicted object into a predicted scene, in closed form (paper, section 5.1): both look out of one photograph.

Every point of the object belongs to a pixel of its crop, the crop to the photograph, and the photograph's pixel is a
ray of the scene's camera. So of each point only the depth is left to find. Two things stand in the way: the object's
units are its own, and its model saw a crop, whose camera it took for one of its usual angle of view. If f_o and f_s are
the two focal lengths in pixels of the photograph and z_0 is the object's median depth, the object keeps its shape where

    z' = D q,    q = k z / z_0 + (1 - k),    k = f_o / f_s,

and one number is unknown, its distance D: seen from far away through a long lens, a thing is as deep as it is wide. It
follows from the scene, linearly (`seen`: the object is in the scene's picture too; `standing`: it is new, and stands on
what is below it). With A = K_s^-1 K_o, both in pixels of the photograph, a point p of the object's frame becomes
(scale + shift / z) A p.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy import ndimage

from train.downstream.cells import cells_of
from train.downstream.stack import Stack
from train.prediction.mesh import Hidden, Mesh, triangulate
from train.prediction.mesh_files import write_mesh
from train.prediction.prediction import HIDDEN_GREY

FEWEST = 30  # pixels that two predictions share, or that show the ground
ALIKE = 0.01  # of the depth: two predictions of one surface differ by so much at least
GROUND_UP, GROUND_DOWN, GROUND_ASIDE = 0.15, 0.25, 0.3  # of the object's box: where the ground around its foot is seen
TRIOS = 400  # tried planes: with a third of ground among the pixels, 15 of them lie on it
VOTERS = 5000  # pixels that say which plane is theirs
UPRIGHT = 0.5  # cosine of the steepest angle between the ground's normal and the image's upward direction
LOWEST = 0.999  # the part of an object's points above the one that touches the ground: a flyer shall not carry it

Place = Literal["seen", "standing"]
Align = Literal["shape", "depth"]


@dataclass(frozen=True, eq=False)
class Placement:
    """xyz (L,H,W,3) float32: the object's points in the frame and units of the scene | removed (L,H,W) bool: points of
    the scene that the object replaces | z' = scale z + shift | rays (3,3): A above | pixels that the fit rests on, and
    their median error as a part of the depth."""

    xyz: np.ndarray
    removed: np.ndarray
    scale: float
    shift: float
    rays: np.ndarray
    pixels: int
    error: float

    def to_dict(self) -> dict[str, Any]:
        """The transform as JSON, for who wants to place other points of the object."""
        return {
            "scene_from_object": "p' = (scale + shift / p.z) * rays @ p, OpenCV camera frames",
            "scale": self.scale,
            "shift": self.shift,
            "rays": self.rays.tolist(),
        }


def place(item: Stack, scene: Stack, how: Place = "seen", align: Align = "shape") -> Placement:
    """Find where an object stands in a scene that was predicted from the same photograph.

    how="seen": its layer 0 is set to the scene's depth at the same pixels, by the median of their ratios. "standing":
    the scene's picture does not show it; a plane is fitted to the scene around its foot, and it is moved along its rays
    until it touches that. align="depth" (of what is seen): scale and shift are both fitted to the depths, whatever that
    does to the shape; right where the scene's depth is trusted more than the object's proportions.

    ValueError where the two share too few pixels, where no ground is found, or where the fit would turn the object
    inside out.
    """
    Ks, Ko = _in_photograph(scene), _in_photograph(item)
    pixels = _pixels_of(item)
    rays = np.linalg.solve(Ks, pixels.reshape(-1, 3).T).T.reshape(pixels.shape)  # (H,W,3), of the scene's camera
    z = np.where(item.there, item.xyz[..., 2], np.nan).astype(np.float64)
    z0 = float(np.nanmedian(z))
    k = float(np.sqrt(Ko[0, 0] * Ko[1, 1] / (Ks[0, 0] * Ks[1, 1])))
    q = k * z / z0 + (1 - k)
    if not (q[item.there] > 0).all():
        raise ValueError(
            f"{item.name} reaches behind the camera of {scene.name}: their focal lengths differ {k:.2f} times; predict "
            "both from the same photograph"
        )
    there = _into(scene, pixels)
    if how == "standing":
        if align == "depth":
            raise ValueError("--align depth needs the object in the scene's picture; use it with --place seen")
        distance, count, error = _on_the_ground(item, scene, q, rays, there)
    else:
        depth = _depth_at(scene, there)
        both = item.there[0] & np.isfinite(depth)
        count = int(both.sum())
        if count < FEWEST:
            raise ValueError(
                f"{item.name} and {scene.name} share {count} pixels, fewer than {FEWEST}; predict both from the same "
                "photograph, or use --place standing for an object that the scene does not show"
            )
        distance = float(np.median(depth[both] / q[0][both]))
        error = float(np.median(np.abs(distance * q[0][both] / depth[both] - 1)))
    scale, shift = distance * k / z0, distance * (1 - k)
    if how == "seen" and align == "depth":
        scale, shift = _scale_shift(z[0][both], depth[both])
        error = float(np.median(np.abs((scale * z[0][both] + shift) / depth[both] - 1)))
    placed = (scale * z + shift)[..., None] * rays
    if not (placed[..., 2][item.there] > 0).all():
        raise ValueError(f"the fit puts a part of {item.name} behind the camera; use --align shape")
    xyz = np.where(item.there[..., None], placed, 0).astype(np.float32)
    tolerance = max(ALIKE, 3 * error) if how == "seen" else 0.0
    removed = _replaced(item, scene, placed[..., 2], tolerance)
    if not (scene.there & ~removed).any():
        raise ValueError(f"nothing of {scene.name} is left beside {item.name}; give a scene as the second one")
    return Placement(xyz, removed, scale, shift, np.linalg.solve(Ks, Ko), count, error)


def write_inserted(
    path: Path, item: Stack, scene: Stack, placement: Placement, mesh: bool = False, hidden: Hidden = "grey"
) -> Path:
    """One .glb with the nodes `scene` and `object`, as points or triangles; the object's node says its transform."""
    kept = scene.there & ~placement.removed
    parts = {"scene": (scene.xyz, kept, scene.rgb), "object": (placement.xyz, item.there, item.rgb)}
    made = {name: (triangulate(*part, hidden) if mesh else _points(*part, hidden)) for name, part in parts.items()}
    return write_mesh(path, made, {"object": placement.to_dict()})


def _points(xyz: np.ndarray, there: np.ndarray, rgb: np.ndarray, hidden: Hidden) -> Mesh:
    colours = np.broadcast_to(np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8), xyz.shape).copy()
    if hidden == "grey":
        colours[1:] = HIDDEN_GREY
    return Mesh(xyz[there], np.zeros((0, 3), np.int32), colours[there])


def _in_photograph(stack: Stack) -> np.ndarray:
    """K (3,3) in pixels of the photograph; a prediction without a frame saw the photograph as it is."""
    if stack.framed_from_image is None:
        return stack.K
    return np.asarray(np.linalg.solve(stack.framed_from_image, stack.K))


def _pixels_of(stack: Stack) -> np.ndarray:
    """(H,W,3): where in the photograph, homogeneous, the centre of each pixel of a prediction lies."""
    height, width = stack.there.shape[1:]
    v, u = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
    centres = np.stack([u, v, np.ones_like(u)], axis=-1)
    return centres if stack.framed_from_image is None else centres @ np.linalg.inv(stack.framed_from_image).T


def _into(stack: Stack, photograph: np.ndarray) -> np.ndarray:
    """Pixels (...,3) of the photograph -> (...,2) positions (u, v) in the image of a prediction."""
    framed = photograph if stack.framed_from_image is None else photograph @ stack.framed_from_image.T
    return np.asarray(framed[..., :2])


def _depth_at(scene: Stack, uv: np.ndarray) -> np.ndarray:
    """Layer-0 depth at positions (...,2), NaN where the four pixels around one are not of one surface. Inverse depth is
    interpolated, which is exact on a plane."""
    height, width = scene.there.shape[1:]
    z = torch.from_numpy(np.ascontiguousarray(scene.xyz[:1, ..., 2]))
    corners, _ = cells_of(z, torch.from_numpy(np.ascontiguousarray(scene.there[:1])), float(scene.K[0, 0]))
    whole = np.zeros(height * width, bool)
    whole[corners[:, 0].numpy()] = True
    at = uv - 0.5
    column, row = np.floor(at[..., 0]).astype(np.int64), np.floor(at[..., 1]).astype(np.int64)
    inside = (column >= 0) & (column < width - 1) & (row >= 0) & (row < height - 1)
    column, row = np.where(inside, column, 0), np.where(inside, row, 0)
    inside &= whole[row * width + column]
    s, t = at[..., 0] - column, at[..., 1] - row
    depth = scene.xyz[0, ..., 2].astype(np.float64)
    inverse = np.divide(1.0, depth, out=np.zeros_like(depth), where=depth > 0)
    upper = (1 - s) * inverse[row, column] + s * inverse[row, np.minimum(column + 1, width - 1)]
    below = np.minimum(row + 1, height - 1)
    lower = (1 - s) * inverse[below, column] + s * inverse[below, np.minimum(column + 1, width - 1)]
    mean = (1 - t) * upper + t * lower
    return np.where(inside, 1 / np.where(inside, mean, 1), np.nan)


def _scale_shift(z: np.ndarray, depth: np.ndarray) -> tuple[float, float]:
    """Least squares depth = scale z + shift; again without what is further off than three times the usual error."""
    kept = np.ones(len(z), bool)
    for _ in range(2):
        design = np.stack([z[kept], np.ones(int(kept.sum()))], axis=1)
        scale, shift = np.linalg.lstsq(design, depth[kept], rcond=None)[0]
        error = np.abs(scale * z + shift - depth)
        kept = error <= 3 * 1.4826 * np.median(error[kept]) + 1e-9 * depth
    if scale <= 0:
        raise ValueError(
            f"the object's depth runs against the scene's (scale {scale:.3g}); use --align shape, which keeps its shape"
        )
    return float(scale), float(shift)


def _on_the_ground(
    item: Stack, scene: Stack, q: np.ndarray, rays: np.ndarray, there: np.ndarray
) -> tuple[float, int, float]:
    """(distance D, pixels, error) at which the object, moved along its rays, touches the plane around its foot.

    On a plane 1 / z is affine in the image: a (u, v, 1), found in what the scene shows around the foot. In space that
    is n p = 1 with n = K^T a, and n p < 1 on the camera's side, so D = 1 / max n q r.
    """
    seen = there[item.there.any(axis=0)]
    (left, top), (right, bottom) = seen.min(axis=0), seen.max(axis=0)
    high, wide = bottom - top, right - left
    height, width = scene.there.shape[1:]
    v, u = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
    around = (v >= bottom - GROUND_UP * high) & (v <= bottom + GROUND_DOWN * high)
    around &= (u >= left - GROUND_ASIDE * wide) & (u <= right + GROUND_ASIDE * wide) & scene.there[0]
    count = int(around.sum())
    if count < FEWEST:
        raise ValueError(
            f"{scene.name} shows {count} pixels of ground around the foot of {item.name}, fewer than {FEWEST}; a "
            "larger scene is needed, or --place seen"
        )
    plane, error = _ground(u[around], v[around], 1 / scene.xyz[0, ..., 2][around].astype(np.float64), scene)
    normal = scene.K.T @ plane
    reach = float(np.quantile((q[..., None] * (rays @ normal)[None, ..., None])[item.there], LOWEST))
    if reach <= 0:
        raise ValueError(f"{item.name} lies above the horizon of the ground in {scene.name}, so it cannot stand on it")
    return 1 / reach, count, error


def _ground(u: np.ndarray, v: np.ndarray, inverse: np.ndarray, scene: Stack) -> tuple[np.ndarray, float]:
    """(a (3,), median error of the pixels on it): the plane 1 / z = a (u, v, 1) that most pixels lie on.

    Of the planes through three pixels, drawn by a fixed generator, those that face upwards, at most 60 degrees off; the
    best is fitted again, by least squares, to the pixels on it.
    """
    design = np.stack([u, v, np.ones(len(u))], axis=1)
    trios = np.random.Generator(np.random.Philox(0)).integers(0, len(u), (TRIOS, 3))
    trios = trios[np.abs(np.linalg.det(design[trios])) > 1]  # pixels^2: not on a line
    planes = np.linalg.solve(design[trios], inverse[trios][..., None])[..., 0]
    normals = planes @ scene.K
    planes = planes[normals[:, 1] >= np.linalg.norm(normals, axis=1) * UPRIGHT]
    if not len(planes):
        raise ValueError(f"{scene.name} shows no ground around the object's foot, nothing there faces upwards")
    some = slice(None, None, -(-len(u) // VOTERS))
    votes = (np.abs(planes @ design[some].T - inverse[some]) <= ALIKE * inverse[some]).sum(axis=1)
    best = np.abs(design @ planes[int(votes.argmax())] - inverse) <= ALIKE * inverse
    plane = np.linalg.lstsq(design[best], inverse[best], rcond=None)[0]
    return plane, float(np.median(np.abs(design[best] @ plane / inverse[best] - 1)))


def _replaced(item: Stack, scene: Stack, depth: np.ndarray, tolerance: float) -> np.ndarray:
    """(L,H,W) bool: points of the scene within the placed object, from its first surface on their ray to its last.

    With a tolerance (a part of the depth) also those that are the object itself, as the scene saw it, one pixel of its
    crop around it included. What lies behind the object stays.
    """
    first, last = np.nanmin(np.where(item.there, depth, np.inf), 0), np.nanmax(np.where(item.there, depth, -np.inf), 0)
    if tolerance > 0:
        first, last = ndimage.minimum_filter(first, 3), ndimage.maximum_filter(last, 3)
    height, width = first.shape
    uv = np.floor(_into(item, _pixels_of(scene))).astype(np.int64)
    inside = ((uv >= 0) & (uv < [width, height])).all(axis=-1)
    column, row = np.where(inside, uv[..., 0], 0), np.where(inside, uv[..., 1], 0)
    z = scene.xyz[..., 2]
    within = (z >= first[row, column] * (1 - tolerance)) & (z <= last[row, column] * (1 + tolerance))
    return np.asarray(scene.there & inside & within)
