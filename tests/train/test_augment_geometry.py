"""Geometry moves image, layers and camera together: every property is checked through the projection K' X."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from shards import rays
from shards.randomness import generator
from tests.train.planes import PLANES, K, as_view, plane_clip, plane_view
from train.config import Geometric, load
from train.data.augment import geometry
from train.data.augment.geometry import View

LARGE = Geometric(rotate=40, shear=0.2, aspect=0.3, zoom=(0.6, 1.6), shift=0.15, keep=0.3)


STEPS = {
    "fit": geometry.fit((64, 64), 48),
    "flip": geometry.flip(64),
    "rotate": geometry.rotate(0.3),
    "shear": geometry.shear(0.1, 64),
    "aspect": geometry.scale((1.1, 1 / 1.1), 64),
    "zoom in": geometry.scale((1.5, 1.5), 64),
    "zoom out": geometry.scale((0.6, 0.6), 64),
    "translate": geometry.translate(np.array([5.3, -7.1])),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_moved_point_is_seen_where_its_pixel_went(name: str) -> None:
    """K' (S x) = A (K x) for points anywhere in front of the camera: the definition of a consistent (A, S)."""
    A, S = STEPS[name](K)
    points = np.random.default_rng(0).uniform([-1, -1, 0.5], [1, 1, 4], (100, 3))
    pixels = points @ K.T
    pixels /= pixels[:, 2:]
    seen = (points @ S.T) @ geometry.moved(K, A, S).T
    np.testing.assert_allclose(seen / seen[:, 2:], pixels @ A.T, atol=1e-9)
    assert np.allclose((points @ S.T)[:, 2], points[:, 2]), "z must not change"


@pytest.mark.parametrize("name", STEPS)
def test_warped_layers_lie_on_the_moved_planes(name: str) -> None:
    """After the warp XYZ is on its own pixel's ray and, within the nearest-pixel error, on the plane moved by S."""
    view = as_view(plane_view(mask="full"))
    size = 48 if name == "fit" else 64
    A, S = STEPS[name](K)
    warped = geometry.warp(view, A, S, size)
    xyz = rays(warped.K, size, size)[None] * warped.depth[..., None]
    projected = xyz[:, warped.valid] @ warped.K.T
    v, u = np.nonzero(warped.valid)
    np.testing.assert_allclose(projected[..., 0] / projected[..., 2], np.broadcast_to(u + 0.5, projected.shape[:2]))
    np.testing.assert_allclose(projected[..., 1] / projected[..., 2], np.broadcast_to(v + 0.5, projected.shape[:2]))
    assert warped.valid.mean() > 0.3
    for layer, (*n, d) in enumerate(PLANES):
        on_plane = xyz[layer][warped.valid] @ (S @ np.array(n))
        # half a source pixel is 0.5/66 of a ray; times the slope and the depth of the planes, below 1 %
        np.testing.assert_allclose(on_plane, d, rtol=0.01)


def off_the_planes(view: View, S: np.ndarray) -> float:
    """How far the layers are from the planes moved by S, at most, in parts of their distance."""
    height, width = view.valid.shape
    xyz = rays(view.K, height, width)[None] * view.depth[..., None]
    return max(
        float(np.abs(xyz[layer][view.valid] @ (S @ np.array(n)) / d - 1).max(initial=0))
        for layer, (*n, d) in enumerate(PLANES)
    )


@pytest.mark.parametrize("shape", [(64, 64), (48, 80), (90, 50)])
def test_any_draw_of_any_shape_of_image_keeps_points_on_their_planes(shape: tuple[int, int]) -> None:
    view = as_view(plane_view(shape))
    seen = 0
    for i in range(20):
        ((A, S),) = geometry.draw([view], 56, LARGE, generator(0, i))
        warped = geometry.warp(view, A, S, 56)
        seen += int(warped.valid.sum())
        assert off_the_planes(warped, S) < 0.01
    assert seen > 20 * 500


def test_the_frames_of_a_clip_take_the_same_steps_each_about_its_own_camera() -> None:
    """The planes stand still while the camera zooms: after the draw all frames see the same moved planes."""
    views = [as_view(frame) for frame in plane_clip(4, (60, 72)).frames]
    for i in range(12):
        motions = geometry.draw(views, 56, LARGE, generator(1, i))
        for view, (A, S) in zip(views, motions):
            assert np.array_equal(S, motions[0][1])
            assert off_the_planes(geometry.warp(view, A, S, 56), S) < 0.01
            # a view alone is given the same draw, if it is kept
            alone = geometry.draw([view], 56, LARGE.model_copy(update={"keep": 0.0}), generator(1, i))
            together = geometry.draw(views, 56, LARGE.model_copy(update={"keep": 0.0}), generator(1, i))
            assert any(np.array_equal(alone[0][0], other) for other, _ in together)


def test_a_draw_is_kept_or_rejected_for_the_whole_clip() -> None:
    clip = [as_view(frame) for frame in plane_clip(6).frames]
    config = Geometric(shift=0.6, zoom=(1.2, 1.6), keep=0.9, rotate=0)
    split = 0
    for i in range(40):
        motions = geometry.draw(clip, 64, config, generator(0, i))
        assert geometry.kept([v.valid for v in clip], [A for A, _ in motions], 64) >= 0.9
        alone = [geometry.kept([v.valid], [A], 64) for v, (A, _) in zip(clip, motions)]
        split += min(alone) < 0.9 < max(alone)
    assert split, "some frame alone would have been drawn again"


def warped_plainly(view: View, A: np.ndarray, S: np.ndarray, size: int) -> View:
    """The slow twin of `warp`: every pixel of the image looked up by itself."""
    height, width = view.valid.shape
    v, u = np.mgrid[0:size, 0:size] + 0.5
    inverse = np.linalg.inv(A)
    source_u, source_v = (
        np.floor(inverse[i, 0] * u + inverse[i, 1] * v + inverse[i, 2] + 1e-9).astype(np.int64) for i in (0, 1)
    )
    inside = (source_u >= 0) & (source_u < width) & (source_v >= 0) & (source_v < height)
    source_u, source_v = source_u.clip(0, width - 1), source_v.clip(0, height - 1)
    valid = view.valid[source_v, source_u] & inside
    depth = np.where(valid, view.depth[:, source_v, source_u], np.float32(0))
    image = Image.fromarray(view.rgba)
    across, down = (max(1, round(float(np.linalg.norm(inverse[:2, i])))) for i in (0, 1))
    if max(across, down) > 1:
        image = image.reduce((across, down))
        inverse = np.diag([1 / across, 1 / down, 1]) @ inverse
    coefficients: Any = tuple(float(c) for c in inverse[:2].ravel())
    moved = image.transform((size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    return View(np.asarray(moved), depth, valid, geometry.moved(view.K, A, S))


@pytest.mark.parametrize("shape", [(64, 64), (40, 90), (120, 60)])
@pytest.mark.parametrize("mask", ["disc", "full"])
@pytest.mark.parametrize("size", [48, 220])
def test_a_warp_within_boxes_is_that_of_every_pixel(shape: tuple[int, int], mask: str, size: int) -> None:
    view = as_view(plane_view(shape, mask=mask))
    for i in range(8):
        upright = {} if i % 2 else {"rotate": 0.0, "shear": 0.0}  # whose boxes are as small as they can be
        ((A, S),) = geometry.draw([view], size, LARGE.model_copy(update={"keep": 0.0, **upright}), generator(2, i))
        found, expected = geometry.warp(view, A, S, size), warped_plainly(view, A, S, size)
        assert np.array_equal(found.valid, expected.valid)
        assert np.array_equal(found.depth, expected.depth)
        assert np.array_equal(found.K, expected.K)
        assert np.array_equal(found.rgba[..., 3] > 0, expected.rgba[..., 3] > 0)
        seen = expected.rgba[..., 3] > 0
        assert np.abs(found.rgba[seen].astype(int) - expected.rgba[seen]).max(initial=0) <= 1


def test_a_view_without_a_valid_pixel_stays_without_one() -> None:
    view = as_view(plane_view())
    empty = View(view.rgba * 0, view.depth * 0, view.valid & False, view.K)
    ((A, S),) = geometry.draw([empty], 56, LARGE, generator(0))
    warped = geometry.warp(empty, A, S, 56)
    assert not warped.valid.any()
    assert not warped.depth.any()
    assert not warped.rgba.any()


def test_flipping_twice_is_the_identity() -> None:
    view = as_view(plane_view(mask="full"))
    once = geometry.warp(view, *geometry.flip(64)(view.K), 64)
    assert np.array_equal(once.depth, view.depth[:, :, ::-1])
    twice = geometry.warp(once, *geometry.flip(64)(once.K), 64)
    for name in ("rgba", "depth", "valid"):
        assert np.array_equal(getattr(twice, name), getattr(view, name)), name
    np.testing.assert_allclose(twice.K, view.K)


def test_colour_and_layers_move_together() -> None:
    """Red encodes u of the source: the colour found at a pixel must name the source pixel whose depth it carries."""
    view = as_view(plane_view(mask="full"))
    A, S = STEPS["rotate"](K)
    warped = geometry.warp(view, A, S, 64)
    inner = warped.rgba[..., 3] == 255
    source = np.linalg.inv(A) @ np.stack([*(np.mgrid[0:64, 0:64][::-1] + 0.5).reshape(2, -1), np.ones(4096)])
    expected = source[0].reshape(64, 64)[inner]
    assert np.abs(warped.rgba[..., 0][inner] / 255 * 64 - expected).max() < 1.0


def test_shrinking_averages_colour_but_never_depth() -> None:
    view = plane_view(mask="full")
    checker = np.indices((64, 64)).sum(0) % 2 * 255
    rgba = view.rgba.copy()
    rgba[..., :3] = checker[..., None]
    depth = np.where(checker > 0, np.float32(1), np.float32(5))[None].repeat(2, 0)
    warped = geometry.warp(View(rgba, depth, view.valid, K), *geometry.fit((64, 64), 16)(K), 16)
    assert np.abs(warped.rgba[..., :3].astype(int) - 127).max() <= 2
    assert set(np.unique(warped.depth)) <= {1.0, 5.0}


def test_a_draw_that_loses_the_object_is_not_used() -> None:
    view = as_view(plane_view())
    config = Geometric(shift=1.0, zoom=(2.0, 3.0), keep=0.9)
    for i in range(20):
        ((A, _),) = geometry.draw([view], 64, config, generator(0, i))
        assert geometry.kept([view.valid], [A], 64) >= 0.9


def inside(view: View, A: np.ndarray, size: int) -> int:
    v, u = np.nonzero(view.valid)
    moved = A[:2] @ np.stack([u + 0.5, v + 0.5, np.ones(len(u))])
    return int(((moved >= 0) & (moved < size)).all(axis=0).sum())


@pytest.mark.parametrize("shape", [(64, 64), (64, 65), (48, 80), (90, 51), (40, 121)])
@pytest.mark.parametrize("mask", ["disc", "full"])
def test_what_a_draw_keeps_is_counted_against_what_the_central_square_shows(shape: tuple[int, int], mask: str) -> None:
    """Where the square holds all that is valid, as in square views of objects, it is the part of all valid pixels."""
    view = as_view(plane_view(shape, mask=mask))
    left = inside(view, geometry.resize(view, 56), 56)
    assert left == view.valid.sum() or (mask == "full" and shape[0] != shape[1])
    for i in range(6):
        ((A, _),) = geometry.draw([view], 56, LARGE.model_copy(update={"keep": 0.0}), generator(4, i))
        assert geometry.kept([view.valid], [A], 56) == inside(view, A, 56) / left


@pytest.mark.parametrize("config", ["wt_s", "wt_s_mix"])
def test_photographs_of_all_shapes_are_cropped_as_squares_are(config: str) -> None:
    """The zooms that the shipped configs ask for are drawn, whatever `fit` has cropped."""
    settings = load(config, []).augment.geometric
    drawn = {}
    for shape in ((64, 64), (48, 64), (36, 64), (64, 48)):
        view = as_view(plane_view(shape, mask="full"))
        motions = [geometry.draw([view], 56, settings, generator(5, i))[0] for i in range(60)]
        zooms = np.array([np.sqrt(abs(np.linalg.det(A[:2, :2]))) * min(shape) / 56 for A, _ in motions])
        assert zooms.min() < 1.1
        assert zooms.max() > 1.5
        assert 15 < sum(S[0, 0] < 0 for _, S in motions) < 45
        drawn[shape] = zooms
    for zooms in drawn.values():
        np.testing.assert_allclose(zooms, drawn[64, 64])


def test_an_image_that_no_draw_suits_is_still_flipped() -> None:
    hopeless = Geometric(zoom=(3.0, 4.0), keep=0.9)
    flips = 0
    for shape in ((64, 64), (48, 80), (90, 50)):
        view = as_view(plane_view(shape, mask="full"))
        for i in range(20):
            ((A, S),) = geometry.draw([view], 56, hopeless, generator(6, i))
            plain, shown = (geometry.warp(view, a, s, 56) for a, s in ((geometry.resize(view, 56), np.eye(3)), (A, S)))
            flipped = S[0, 0] < 0
            assert np.array_equal(shown.depth, plain.depth[..., ::-1] if flipped else plain.depth)
            assert off_the_planes(shown, S) < 0.01
            flips += flipped
    assert 15 < flips < 45


def test_pillow_samples_at_pixel_centres() -> None:
    """`_warp_colour` relies on Image.transform mapping centres (u + 0.5): a shift by one pixel must be lossless."""
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    moved = Image.fromarray(pixels).transform(
        (8, 8), Image.Transform.AFFINE, (1, 0, 1, 0, 1, 0), Image.Resampling.BILINEAR
    )
    assert np.array_equal(np.asarray(moved)[:, :7], pixels[:, 1:])
