"""What is drawn of a view, and where from: against the camera that made it."""

import numpy as np
import pytest

from shards.pointcloud import HIDDEN
from shards.viewer.points import LAYERS, Stack, bounds, colours, look_from, outline, pixel, stack_of
from tests.shards.scenes import spheres_view

VIEW = spheres_view(3, 40, 56)


def test_true_hits_are_those_of_the_view_and_filled_is_what_training_sees() -> None:
    hits, filled = stack_of(VIEW, filled=False), stack_of(VIEW, filled=True)
    assert hits.there.sum() == VIEW.hits.sum()
    assert filled.there.sum() == VIEW.valid.sum() * VIEW.layers
    np.testing.assert_array_equal(hits.xyz, VIEW.xyz())


@pytest.mark.parametrize("by", ["image", "layer", "depth", "error"])
def test_colours_say_what_they_are_to_say(by: str) -> None:
    stack = stack_of(VIEW, filled=False)
    error = np.where(stack.there, stack.xyz[..., 2], np.nan)
    error[1, :5] = np.nan
    rgb = colours(stack, by, error, worst=float(np.nanmax(error)))  # type: ignore[arg-type]
    assert rgb.shape == (*stack.there.shape, 3)
    if by == "image":
        np.testing.assert_array_equal(rgb[0], VIEW.rgba[..., :3])
        assert (rgb[1:] == HIDDEN).all()
    elif by == "layer":
        assert [tuple(int(c) for c in rgb[l, 0, 0]) for l in range(6)] == list(LAYERS[:6])
    else:  # a scale: equal values have equal colours, and larger errors and nearer surfaces are brighter
        z, light = stack.xyz[..., 2][stack.there], rgb[stack.there].astype(int).sum(axis=1)
        known = np.isfinite(error[stack.there])
        order = np.argsort(z[known])
        rank = np.corrcoef(np.arange(order.size), light[known][order])[0, 1]
        assert (rank > 0.9) if by == "error" else (rank < -0.9)
    if by == "error":
        assert (rgb[~np.isfinite(error)] == HIDDEN).all()


def test_the_outline_ends_in_the_corners_of_the_image() -> None:
    K = np.array([[70.0, 2.0, 11.0], [0, 60.0, 35.0], [0, 0, 1]])  # off centre, unequal, skewed
    segments = outline(K, (40, 56), 0.3)
    assert segments.shape == (8, 2, 3)
    assert (segments[:4, 0] == 0).all()
    ends = segments[:4, 1]
    np.testing.assert_allclose(ends[:, 2], 0.3)
    np.testing.assert_allclose((ends @ K.T)[:, :2] / ends[:, 2:], [[0, 0], [56, 0], [56, 40], [0, 40]], atol=1e-9)
    np.testing.assert_array_equal(segments[4:, 0], ends)
    np.testing.assert_array_equal(segments[4:, 1], np.roll(ends, -1, axis=0))


def test_a_pixel_is_as_large_as_its_neighbour_is_far() -> None:
    z = np.full((1, 3, 4), 2.0, np.float32)
    xyz = np.zeros((1, 3, 4, 3), np.float32)
    xyz[..., 2] = z
    stack = Stack(xyz, z > 0, np.zeros((3, 4, 3), np.uint8))
    assert pixel(stack, np.diag([50.0, 50.0, 1.0])) == pytest.approx(2 / 50)
    assert pixel(Stack(xyz, z < 0, stack.rgb), np.diag([50.0, 50.0, 1.0])) > 0


def test_everything_is_in_view_from_aside_and_upright() -> None:
    low, high = bounds([stack_of(VIEW, filled=False)])
    eye, target = look_from(low, high)
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0, -1.0, 0])  # up is -y
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    assert up[1] < 0
    for point in [*corners, np.zeros(3)]:
        seen = np.array([right, up, forward]) @ (point - eye)
        assert seen[2] > 0
        assert abs(seen[1]) < seen[2] * np.tan(np.pi / 6) * 1.05
        assert abs(seen[0]) < seen[2] * np.tan(np.pi / 6) * 1.4
    assert eye[1] < target[1]  # from above


def test_nothing_to_draw_has_bounds_too() -> None:
    empty = Stack(np.zeros((1, 2, 2, 3), np.float32), np.zeros((1, 2, 2), bool), np.zeros((2, 2, 3), np.uint8))
    low, high = bounds([empty])
    assert (low < high).all()
    assert np.isfinite(look_from(low, high)).all()
