"""Flyers: what hangs between two surfaces is found, and surfaces are left alone."""

import numpy as np
import pytest

from tests.train.spheres import rays, sphere, stack
from train.prediction.edges import CLEAR, JUMP, STEEP, WIDTH, flyers, without_flyers
from train.prediction.prediction import Prediction, point_cloud

SIZE = 96


def everywhere(xyz: np.ndarray) -> np.ndarray:
    return np.ones(xyz.shape[:3], bool)


def twin(xyz: np.ndarray, exists: np.ndarray) -> np.ndarray:
    """The docstring of `flyers`, pixel by pixel and way by way, in float64."""

    def sense(p: tuple[int, int, int], q: tuple[int, int, int]) -> int | None:
        for l, v, u in (p, q):
            if not (0 <= v < exists.shape[1] and 0 <= u < exists.shape[2] and exists[l, v, u]):
                return None
        a, b = xyz[p].astype(float), xyz[q].astype(float)
        middle = (a + b) / 2
        distance = float(np.linalg.norm(middle))
        along = float((b - a) @ middle) / distance
        across = float(np.linalg.norm((b - a) - along * middle / distance))
        steep = np.degrees(np.arctan2(abs(along), across)) > STEEP and abs(along) > JUMP * distance
        return int(np.sign(along)) if steep else 0

    found = np.zeros(exists.shape, bool)
    for l, v, u in np.argwhere(exists):
        for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):

            def at(k: int, l: int = l, v: int = v, u: int = u, down: int = down, right: int = right) -> int | None:
                """Of the segment from pixel k to pixel k + 1 along the way."""
                return sense((l, v + k * down, u + k * right), (l, v + (k + 1) * down, u + (k + 1) * right))

            own = at(0)
            if own not in (1, -1) or at(-1) != own:
                continue
            first, last = -1, 0
            while last - first + 1 <= WIDTH + 1 and at(first - 1) == own:
                first -= 1
            while last - first + 1 <= WIDTH + 1 and at(last + 1) == own:
                last += 1
            if last - first + 1 <= WIDTH + 1 and at(first - 1) is not None and at(last + 1) is not None:
                r = [np.linalg.norm(xyz[l, v + k * down, u + k * right]) for k in range(first - 1, last + 3)]
                jumped, own_ = abs(r[-2] - r[1]), r[1 - first]
                amid = min(abs(own_ - r[1]), abs(r[-2] - own_)) > CLEAR * jumped
                found[l, v, u] |= amid and abs(r[1] - r[0]) < jumped > abs(r[-1] - r[-2])
    return found


@pytest.mark.parametrize("seed", range(6))
def test_it_agrees_with_its_twin(seed: int) -> None:
    """On stacks of steps, slopes and noise, with pixels missing."""
    rng = np.random.default_rng(seed)
    depth = 2 + 0.4 * rng.integers(0, 3, (2, 14, 14)).repeat(2, 1)[:, :14] + 0.15 * rng.normal(size=(2, 14, 14))
    depth[1] = 1.5 + np.sort(rng.random((14, 14)), axis=1)
    xyz = (rays(112)[40:54, 40:54] * depth[..., None]).astype(np.float32)
    exists = rng.random(depth.shape) < 0.95
    got = flyers(xyz, exists)
    np.testing.assert_array_equal(got, twin(xyz, exists))
    assert got.sum() > 20
    np.testing.assert_array_equal(flyers(7 * xyz, exists), got)  # in any unit
    np.testing.assert_array_equal(flyers(xyz.swapaxes(1, 2), exists.swapaxes(1, 2)), got.swapaxes(1, 2))


@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize("centre", [(0, 0, 2), (0.3, -0.2, 1.6)])
def test_a_true_sphere_loses_nothing_to_speak_of(size: int, centre: tuple[float, float, float]) -> None:
    xyz, valid = stack(sphere(size, centre), 6)
    assert flyers(xyz, np.repeat(valid[None], 6, 0)).sum() == 0
    wall = np.full((1, size, size), 4.0)
    xyz, valid = stack(np.concatenate([sphere(size, centre), wall]), 3)  # now its limb is a jump, as is layer 1's
    assert flyers(xyz, np.repeat(valid[None], 3, 0)).sum() == 0


@pytest.mark.parametrize("slope", [0, 0.9, 0.97])
def test_a_plane_is_no_jump_however_it_recedes(slope: float) -> None:
    """A floor that goes up to (almost) its horizon: at the end 0.02 to 60 times as far from pixel to pixel."""
    d = rays(SIZE)
    depth = 1 / (1 - slope * d[..., 1] / d[..., 1].max())
    xyz = (d * depth[..., None]).astype(np.float32)[None]
    assert not flyers(xyz, everywhere(xyz)).any()


@pytest.mark.parametrize("size", [112, 256])
@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("angle", [0, 20, 45, 70])
def test_points_of_a_smeared_step_are_found_and_its_surfaces_are_kept(size: int, width: int, angle: float) -> None:
    """Two planes at depths 1.5 and 2.5, whose edge runs at any angle, blended linearly over `width` pixels."""
    v, u = np.indices((size, size)) + 0.5 - size / 2
    across = u * np.cos(np.radians(angle)) + v * np.sin(np.radians(angle)) + 0.37
    blend = np.clip(across / (width + 0.8) + 0.5, 0, 1)
    xyz = (rays(size) * (1.5 + blend)[..., None]).astype(np.float32)[None]
    found = flyers(xyz, everywhere(xyz))[0]
    flying = (blend > 0.15) & (blend < 0.85)
    flying[[0, 1, 2, -1, -2, -3]] = flying[:, [0, 1, 2, -1, -2, -3]] = False  # ways that leave the image are not judged
    found[[0, 1, 2, -1, -2, -3]] = found[:, [0, 1, 2, -1, -2, -3]] = False
    assert found[flying].mean() > 0.9
    assert not found[(blend == 0) | (blend == 1)].any()


def test_a_hidden_layer_smeared_into_its_own_filling_is_found() -> None:
    """Layer 1 of a small sphere amid a larger object: where the ray ends it repeats layer 0 (Eq. 2)."""
    front = np.full((SIZE, SIZE), 1.0)
    disc = np.hypot(*(np.indices((SIZE, SIZE)) - SIZE / 2)) < 25
    back = np.where(disc, 2.0, 1.0)
    smeared = sum(np.roll(np.roll(back, a, 0), b, 1) for a in (-1, 0, 1) for b in (-1, 0, 1)) / 9
    xyz = (rays(SIZE) * np.stack([front, smeared])[..., None]).astype(np.float32)
    found = flyers(xyz, everywhere(xyz))
    between = (smeared > 1.15) & (smeared < 1.85)
    assert not found[0].any()
    assert found[1][between].mean() > 0.9
    assert not found[1][(smeared == 1) | (smeared == 2)].any()


def test_a_thin_thing_before_a_wall_is_no_flyer() -> None:
    """A wire of one pixel is nearer than what is on both sides of it: not between."""
    depth = np.full((SIZE, SIZE), 3.0)
    depth[:, SIZE // 2] = 1.0
    xyz = (rays(SIZE) * depth[..., None]).astype(np.float32)[None]
    assert not flyers(xyz, everywhere(xyz)).any()


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 40), (2, 40, 1), (1, 2, 2)])
def test_small_and_empty_layers(shape: tuple[int, int, int]) -> None:
    xyz = np.random.default_rng(0).normal(size=(*shape, 3)).astype(np.float32)
    assert flyers(xyz, np.ones(shape, bool)).shape == shape
    xyz[:] = np.nan
    assert not flyers(xyz, np.zeros(shape, bool)).any()


def test_a_prediction_without_flyers_has_no_repeats_of_them_either() -> None:
    """In a filled stack each flyer of layer 0 comes again in all layers behind it."""
    blend = np.clip((np.arange(SIZE) - 40) / 3, 0, 1)
    xyz = (rays(SIZE) * (1.5 + blend)[None, :, None]).astype(np.float32)
    stacked = np.repeat(np.stack([xyz, xyz, 1.001 * xyz])[None], 2, 0)
    valid = np.ones((SIZE, SIZE), bool)
    rgb = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    before = Prediction(rgb, valid, stacked, None, (0, 1))
    after = without_flyers(before)
    points, _ = point_cloud(after.xyz[1], rgb, valid, after.exists[1])
    assert len(points) == SIZE * SIZE - 2 * SIZE  # blend is 1/3 and 2/3 in two columns
    z = points[:, 2]
    assert (np.minimum(abs(z - 1.5), abs(z - 2.5)) < 1e-3).all()
    assert before.exists.all()
