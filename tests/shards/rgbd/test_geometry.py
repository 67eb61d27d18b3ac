"""Pixel grids: what is moved between them stays where it was, and no depth is made up."""

from dataclasses import replace

import numpy as np
import pytest

from shards import generator, rays
from shards.rgbd import Frame
from shards.rgbd.base import half_pixel, intrinsics, z_from_distance
from shards.rgbd.geometry import (
    aligned,
    area_resized,
    bilinear,
    ideal,
    nearest_in_cell,
    reprojected,
    sample_depth,
    splat,
    undistorted,
    unhidden,
    unprojected,
)
from shards.rgbd.resize import resized
from tests.shards.rgbd.stage import assert_on_stage, camera, photograph

K = intrinsics(120.0, 118.0, 83.0, 61.0)
NORMAL, OFFSET = np.array([0.1, -0.2, 1.0]), 3.0


def plane(K: np.ndarray, height: int, width: int) -> np.ndarray:
    """z of the plane NORMAL . x = OFFSET on a pixel grid."""
    return np.asarray(OFFSET / (rays(K, height, width) @ NORMAL), np.float32)


@pytest.mark.parametrize("size", [40, 59, 100])
def test_a_plane_stays_the_plane(size: int) -> None:
    """Exactly, whatever the ratio of the sizes: 1/z is affine on it."""
    frame = Frame(np.zeros((120, 160, 3), np.uint8), plane(K, 120, 160), K)
    small = resized(frame, size)
    height, width = small.depth.shape
    assert min(height, width) == size
    truth = plane(small.K, height, width)
    inner = np.s_[1:-1, 1:-1]
    assert np.allclose(small.depth[inner], truth[inner], rtol=1e-6)
    assert np.allclose(small.depth, truth, rtol=1e-2)


def test_no_depth_lies_between_two_surfaces_and_none_grows() -> None:
    depth = np.where(np.arange(160) < 77, np.float32(2), np.float32(9))[None].repeat(120, 0)
    depth[:40] = 0
    small = resized(Frame(np.zeros((120, 160, 3), np.uint8), depth, K), 50).depth
    assert set(np.unique(small).tolist()) == {0, 2, 9}
    assert abs(np.mean(small == 0) - 1 / 3) < 0.02
    assert abs(np.mean(small == 2) - 2 / 3 * 77 / 160) < 0.02


def test_sparse_depth_keeps_the_nearest_point_of_every_cell() -> None:
    rng = generator(0, "sparse")
    depth = np.where(rng.random((120, 160)) < 0.03, rng.uniform(1, 9, (120, 160)), 0).astype(np.float32)
    for height, width in ((40, 53), (47, 62)):
        small = nearest_in_cell(depth, height, width)
        expected = np.full((height, width), np.inf)
        for v, u in np.argwhere(depth):
            at = int((v + 0.5) * height / 120), int((u + 0.5) * width / 160)
            expected[at] = min(expected[at], depth[v, u])
        assert np.array_equal(small, np.where(np.isfinite(expected), expected, 0).astype(np.float32))
    frame = Frame(np.zeros((120, 160, 3), np.uint8), depth, K, flags=("sparse",))
    assert np.array_equal(resized(frame, 40).depth, nearest_in_cell(depth, 40, 53))
    large = resized(frame, 240, upscale=True).depth
    assert np.count_nonzero(large) == np.count_nonzero(depth)


def test_a_resized_frame_shows_the_same_world() -> None:
    pose = camera()
    big = intrinsics(330.0, 333.0, 200.0, 140.0)
    image, z, _ = photograph(big, pose, 300, 400)
    small = resized(Frame(image, z.astype(np.float32), big, pose), 100)
    assert small.depth.shape == (100, 133)
    near = replace(small, depth=np.where(small.depth < 5, small.depth, np.float32(0)))
    assert_on_stage(near, 0.003, edges=0.02, levels=1.5)


def test_nothing_is_enlarged_unless_asked() -> None:
    frame = Frame(np.zeros((120, 160, 3), np.uint8), plane(K, 120, 160), K)
    assert resized(frame, 500) is frame
    assert resized(frame, 120) is frame
    large = resized(frame, 240, upscale=True)
    assert large.depth.shape == (240, 320)
    inner = np.s_[2:-2, 2:-2]
    assert np.allclose(large.depth[inner], plane(large.K, 240, 320)[inner], rtol=1e-6)


def test_images_shrink_by_area() -> None:
    image = generator(0, "area").integers(0, 256, (60, 90, 3), np.uint8)
    means = image.reshape(20, 3, 30, 3, 3).mean(axis=(1, 3))
    assert np.abs(area_resized(image, 20, 30).astype(float) - means).max() <= 1


def test_depth_of_another_resolution_is_looked_up_on_the_rays_of_the_picture() -> None:
    K_image, K_depth = intrinsics(240, 236, 170, 118), intrinsics(66, 64, 42, 31)
    image = np.zeros((240, 320, 3), np.uint8)
    small, depth, K_small = aligned(image, K_image, plane(K_depth, 64, 84), K_depth)
    height, width = depth.shape
    assert small.shape == (height, width, 3)
    assert K_small[0, 0] == pytest.approx(1.25 * 66, rel=0.02)  # no finer than what is known
    known = depth > 0
    assert np.mean(known) > 0.8
    assert np.median(np.abs(depth[known] / plane(K_small, height, width)[known] - 1)) < 1e-6


def test_points_seen_from_elsewhere() -> None:
    motion = np.eye(4)
    motion[:3, 3] = 0.1, -0.05, 0.2
    seen = reprojected(plane(K, 120, 160), K, motion, K, 120, 160)
    points = unprojected(seen, K)
    from_first = points - motion[:3, 3]
    inside = seen[10:-10, 20:-20]
    assert np.mean(inside > 0) > 0.99
    assert np.quantile(np.abs(from_first @ NORMAL - OFFSET), 0.99) < 0.01


def test_splatting_inverts_unprojecting() -> None:
    depth = plane(K, 120, 160)
    depth[generator(0, "holes").random(depth.shape) < 0.5] = 0
    back = splat(unprojected(depth, K), K, 120, 160)
    assert np.mean(np.isclose(back, depth, rtol=1e-6)) > 0.999
    behind = np.array([[0, 0, -1], [0, 0, 0], [np.nan, 0, 1], [0, 0, np.inf]])
    assert not splat(behind, K, 120, 160).any()


def test_the_nearest_of_two_points_in_a_pixel_stays() -> None:
    points = np.array([[0, 0, 4.0], [0, 0, 2.0], [0, 0, 3.0]])
    depth = splat(points, K, 120, 160)
    assert depth[61, 83] == 2
    assert np.count_nonzero(depth) == 1


def test_what_shines_through_a_near_thing_goes_and_the_ground_stays() -> None:
    height, width = 200, 300
    v, u = np.mgrid[0:height, 0:width]
    ground = np.where(v > 100, 1.5 * 300 / np.maximum(v - 100, 1), 0).astype(np.float32)
    lattice = (v % 5 == 0) & (u % 3 == 0)
    sparse = np.where(lattice, ground, 0).astype(np.float32)
    kept = unhidden(sparse, reach=20)
    assert np.array_equal(kept, sparse)
    wall = np.where(lattice & (v > 60) & (u > 100) & (u < 200), np.float32(3), sparse)
    leak = wall.copy()
    leak[90:140:5, 120:180:7] = 40  # seen by the scanner over the wall's edge
    kept = unhidden(leak, reach=20)
    assert not (kept[90:140, 110:190] == 40).any()
    assert np.count_nonzero(kept == 3) == np.count_nonzero(leak == 3)
    bough = np.where(lattice & (v > 30) & (v < 60), np.float32(4), np.where(lattice & (v >= 60), np.float32(20), 0))
    assert np.array_equal(unhidden(bough, reach=20), bough)  # what is seen under a near thing stays


def test_a_lens_is_undone() -> None:
    radial, tangential = (0.05, -0.12, 0.02), (0.001, -0.002)
    x, y = np.meshgrid(np.linspace(-0.6, 0.6, 30), np.linspace(-0.5, 0.5, 30))
    r2 = x * x + y * y
    factor = 1 + radial[0] * r2 + radial[1] * r2**2 + radial[2] * r2**3
    xd = x * factor + 2 * tangential[0] * x * y + tangential[1] * (r2 + 2 * x * x)
    yd = y * factor + tangential[0] * (r2 + 2 * y * y) + 2 * tangential[1] * x * y
    assert np.allclose(ideal(xd, yd, radial, tangential), (x, y), atol=1e-9)
    picture = np.zeros((120, 160, 3), np.uint8)
    for xs, ys in zip(xd[::6, ::6].ravel(), yd[::6, ::6].ravel()):  # dots where the lens puts points of a grid
        u, v = int(K[0, 0] * xs + K[0, 2]), int(K[1, 1] * ys + K[1, 2])
        picture[max(v - 1, 0) : v + 2, max(u - 1, 0) : u + 2] = 255
    straight = undistorted(picture, K, radial, tangential)
    assert straight is not None
    for xs, ys in zip(x[::6, ::6].ravel(), y[::6, ::6].ravel()):
        u, v = K[0, 0] * xs + K[0, 2], K[1, 1] * ys + K[1, 2]
        if 3 < u < 157 and 3 < v < 117:
            assert straight[int(v), int(u)].min() > 150
    unmoved = undistorted(picture, K, (0, 0, 0))
    assert unmoved is not None
    assert np.array_equal(unmoved, picture)
    assert undistorted(picture, K, (-3.0, 0, 0)) is None


def test_between_pixels() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, 3] = 200
    assert bilinear(image, np.array([3.5, 3.0, 4.25, 7.0]), np.array([1.5, 2.5, 0.5, 1.0]))[:, 0].tolist() == [
        200,
        100,
        50,
        0,
    ]
    depth = np.full((4, 6), 2, np.float32)
    assert sample_depth(depth, np.array([-0.1, 0.0, 5.9, 6.0]), np.full(4, 2.0)).tolist() == [0, 2, 2, 0]


def test_conventions() -> None:
    assert half_pixel(K)[:2, 2].tolist() == [83.5, 61.5]
    directions = rays(K, 120, 160)
    distance = plane(K, 120, 160) * np.linalg.norm(directions, axis=-1)
    assert np.allclose(z_from_distance(distance, K), plane(K, 120, 160), rtol=1e-6)
