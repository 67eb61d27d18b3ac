"""Layered views with an analytic answer, made with numpy alone: rays through spheres and a plane."""

import hashlib

import numpy as np

from shards import Clip, LayeredView, Origin, Regime, forward_fill, generator, rays


def sphere_depth(directions: np.ndarray, center: np.ndarray, radius: float) -> np.ndarray:
    """Both z of the intersections (2,H,W) of rays (H,W,3) with z = 1 and a sphere; inf where there is none."""
    a = (directions**2).sum(-1)
    b = directions @ center
    with np.errstate(invalid="ignore"):
        root = np.sqrt(b * b - a * (center @ center - radius * radius))
    return np.nan_to_num(np.stack([(b - root) / a, (b + root) / a]), nan=np.inf)


def spheres_view(
    index: int = 0,
    height: int = 48,
    width: int = 56,
    layers: int = 6,
    count: int = 3,
    regime: Regime = "object",
    key: str | None = None,
    shift: float = 0.0,
) -> LayeredView:
    """`count` random spheres about (0, 0, 1.9), some inside others; colour by direction, soft alpha at the rim."""
    rng = generator(7, "test-spheres", index)
    focal = 0.98 * max(height, width)
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    directions = rays(K, height, width)
    surfaces = []
    for _ in range(count):
        center = np.array([*rng.uniform(-0.25, 0.25, 2) + shift, rng.uniform(1.7, 2.1)])
        surfaces.append(sphere_depth(directions, center, rng.uniform(0.1, 0.4)))
    depth, hits = forward_fill(np.sort(np.concatenate(surfaces), axis=0)[:layers].astype(np.float32))
    if depth.shape[0] < layers:
        depth = np.concatenate([depth, np.repeat(depth[-1:], layers - depth.shape[0], axis=0)])
    normal = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    rgba = np.empty((height, width, 4), np.uint8)
    rgba[..., :3] = np.clip(127 + 300 * normal * depth[0][..., None] / 2, 0, 255)
    rgba[..., 3] = np.where(hits > 0, 255, np.where(np.roll(hits, 1, 1) > 0, 128, 0))
    sha = hashlib.sha256(f"spheres-{index}".encode()).hexdigest()
    pose = np.eye(4)
    pose[:3, 3] = rng.normal(size=3)
    return LayeredView(
        key=key or f"spheres-{sha[:8]}-v{index:03d}",
        rgba=rgba,
        hits=hits,
        depth=depth,
        K=K,
        world_from_camera=pose,
        regime=regime,
        origin=Origin(f"spheres/{index}", "test", sha, "CC0-1.0"),
        info={"view": index, "flags": ["untextured"] if index % 2 else [], "overflow": index, "light": [0.1, 1 / 3]},
    )


def spheres_clip(index: int = 0, frames: int = 3, **kwargs: int) -> Clip:
    """The same spheres moving to the right, frame by frame."""
    views = [spheres_view(index, key=f"clip-{index}-c000-t{t}", shift=0.05 * t, **kwargs) for t in range(frames)]
    return Clip(f"clip-{index}-c000", tuple(views))
