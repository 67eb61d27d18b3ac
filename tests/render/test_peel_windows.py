"""Many views at once and windows of images: the same keys, bit by bit, as one whole image at a time."""

from collections.abc import Callable

import numpy as np
import pytest
import trimesh
import warp as wp

from render.hits import EMPTY, hits_of, keys_of
from render.peel import Scene

HEIGHT, WIDTH = 60, 84
NEAR = 0.05


@pytest.fixture(params=["cpu", "cuda's kernels on the cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def scene_of(request: pytest.FixtureRequest) -> Callable[[np.ndarray, np.ndarray], Scene]:
    """A scene of vertices and faces, peeled by the vectors of the CPU, or by the kernels of CUDA there or here."""
    if request.param == "cuda" and not wp.is_cuda_available():
        pytest.skip("Warp finds no CUDA device")

    def scene(vertices: np.ndarray, faces: np.ndarray) -> Scene:
        result = Scene(vertices, faces, "cuda" if request.param == "cuda" else "cpu")
        result._simd = request.param == "cpu"
        return result

    return scene


def mixture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A ball of small faces, a soup of large ones around the camera, and a vertex that no face uses."""
    generator = np.random.Generator(np.random.Philox(seed))
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.7)
    corners = generator.normal(size=(60, 1, 3)) + [0, 0, 2.0] + generator.normal(size=(60, 3, 3))
    vertices = np.concatenate([[[1e3, -1e3, 3.0]], ball.vertices + [0.1, 0.0, 2.0], corners.reshape(-1, 3)])
    faces = np.concatenate([ball.faces + 1, np.arange(180).reshape(-1, 3) + 1 + len(ball.vertices)])
    return vertices, faces


def cameras(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """K (B,3,3) and camera_from_world (B,4,4) that look at z = 2 from around the origin; one K is mirrored."""
    generator = np.random.Generator(np.random.Philox(seed))
    K = np.tile(np.eye(3), (count, 1, 1))
    K[:, 0, 0], K[:, 1, 1] = generator.uniform(40, 120, (2, count))
    K[:, 0, 1] = generator.uniform(-5, 5, count)
    K[:, 0, 2], K[:, 1, 2] = generator.uniform(20, 60, (2, count))
    K[1, 0, 0] *= -1
    pose = np.tile(np.eye(4), (count, 1, 1))
    for one in pose:
        one[:3, :3] = trimesh.transformations.euler_matrix(*generator.uniform(-0.4, 0.4, 3))[:3, :3]
        one[:3, 3] = generator.uniform(-0.3, 0.3, 3)
    return K, pose


def keys(scene: Scene, *arguments: object, **named: object) -> np.ndarray:
    return scene.keys(*arguments, **named).numpy().copy()  # the next call writes to the same memory


def test_a_batch_of_views_is_its_views_one_by_one(scene_of):
    vertices, faces = mixture(1)
    K, pose = cameras(5, 2)
    scene = scene_of(vertices, faces)
    for slots in (1, 3, 6, 10, 13):
        together = keys(scene, K, pose, HEIGHT, WIDTH, slots, NEAR)
        assert together.shape == (5, slots, HEIGHT * WIDTH)
        assert together.dtype == np.uint64
        assert len({one.tobytes() for one in together}) == 5
        assert (together[:, 0] != EMPTY).any()
        assert (together[:, 0] == EMPTY).any()
        for view, one in enumerate(together):
            assert np.array_equal(one, keys(scene, K[[view]], pose[[view]], HEIGHT, WIDTH, slots, NEAR)[0])
            hits = scene.peel(K[view], HEIGHT, WIDTH, slots, NEAR, pose[view]).numpy()
            assert np.array_equal(one.reshape(slots, HEIGHT, WIDTH), keys_of(hits))


def test_a_window_has_the_keys_that_the_whole_image_has_there(scene_of):
    vertices, faces = mixture(3)
    K, pose = cameras(4, 4)
    scene = scene_of(vertices, faces)
    slots, height, width = 7, 23, 31
    whole = keys(scene, K, pose, HEIGHT, WIDTH, slots, NEAR).reshape(4, slots, HEIGHT, WIDTH)
    for origins in ([[0, 0]] * 4, [[37, 53]] * 4, [[5, 0], [0, 7], [11, 13], [30, 50]]):
        part = keys(scene, K, pose, height, width, slots, NEAR, np.array(origins))
        part = part.reshape(4, slots, height, width)
        for view, (row, column) in enumerate(origins):
            assert np.array_equal(part[view], whole[view, :, row : row + height, column : column + width])
    # A window may reach beyond the image, and start before it.
    outside = keys(scene, K, pose, 3 * HEIGHT, 3 * WIDTH, slots, NEAR, np.array([[-HEIGHT, -WIDTH]] * 4))
    outside = outside.reshape(4, slots, 3 * HEIGHT, 3 * WIDTH)
    assert np.array_equal(outside[:, :, HEIGHT:-HEIGHT, WIDTH:-WIDTH], whole)


def box_of(hit: np.ndarray) -> tuple[int, int, int, int]:
    """row, column, height, width of the True of (H,W)."""
    rows, columns = np.flatnonzero(hit.any(axis=1)), np.flatnonzero(hit.any(axis=0))
    return int(rows[0]), int(columns[0]), int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def test_windows_bound_the_hits_closely(scene_of):
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.5)
    stray = np.concatenate([ball.vertices + [0.1, -0.1, 2.5], [[50.0, 50, 3]]])
    K, pose = cameras(12, 5)
    scene = scene_of(stray, ball.faces)
    boxes = scene.windows(K, pose, HEIGHT, WIDTH)
    assert boxes.shape == (12, 4)
    assert boxes.dtype == np.int64
    margin = 3 * WIDTH
    whole = keys(scene, K, pose, HEIGHT + 2 * margin, WIDTH + 2 * margin, 1, 1e-3, np.full((12, 2), -margin))
    hit = whole.reshape(12, HEIGHT + 2 * margin, WIDTH + 2 * margin) != EMPTY
    small = 0
    for view, (row, column, height, width) in enumerate(boxes.tolist()):
        top, left, rows, columns = box_of(hit[view])
        # The hits inside the image, and no more than a pixel beyond them.
        for start, size, first, count, end in (
            (row, height, top - margin, rows, HEIGHT),
            (column, width, left - margin, columns, WIDTH),
        ):
            assert max(first - 1, 0) <= start <= max(first, 0)
            assert min(first + count, end) <= start + size <= min(first + count + 1, end)
        small += height * width < HEIGHT * WIDTH / 2
    assert small > 3


def test_windows_where_the_near_plane_cuts_and_where_nothing_is_seen(scene_of):
    box = trimesh.creation.box((0.4, 0.4, 2.0))
    K = np.array([[60.0, 0, WIDTH / 2], [0, 60, HEIGHT / 2], [0, 0, 1]])
    scene = scene_of(box.vertices, box.faces)
    centres = np.array([[0, 0, 3.0], [0.2, 0.1, 0.5], [0, 0, -3.0], [9, 0, 3.0], [0, 0, 1.0 + NEAR]])
    pose = np.tile(np.eye(4), (len(centres), 1, 1))
    pose[:, :3, 3] = centres
    K = np.tile(K, (len(centres), 1, 1))
    ahead, cut, behind, beside, touching = scene.windows(K, pose, HEIGHT, WIDTH, NEAR).tolist()
    assert ahead == [24, 36, 12, 12]  # 60 * 0.2 / 2 = 6 pixels to each side of the middle
    assert cut == [0, 0, HEIGHT, WIDTH]
    assert behind == [0, 0, 0, 0]
    assert beside == [0, 0, 0, 0]
    assert touching == [0, 0, HEIGHT, WIDTH]  # wider than the image, all of it beyond the near plane
    hit = hits_of(keys(scene, K, pose, HEIGHT, WIDTH, 2, NEAR)).triangle >= 0
    assert hit[1].any()
    assert not hit[2:4].any()
    assert hit[4, 0].all()


def test_windows_of_nothing():
    K, pose = cameras(2, 7)
    empty = Scene(np.ones((4, 3)), np.zeros((0, 3), int))
    assert empty.windows(K, pose, HEIGHT, WIDTH).tolist() == [[0, 0, 0, 0]] * 2
    assert (keys(empty, K, pose, HEIGHT, WIDTH, 3) == EMPTY).all()
    some = Scene(*mixture(8))
    assert some.windows(K[:0], pose[:0], HEIGHT, WIDTH).shape == (0, 4)
    assert some.keys(K[:0], pose[:0], HEIGHT, WIDTH, 3).shape == (0, 3, HEIGHT * WIDTH)


def test_keys_follow_the_vertices_the_near_plane_and_the_windows_asked_for_before():
    vertices, faces = mixture(9)
    K, pose = cameras(2, 10)
    scene = Scene(vertices, faces, "cpu")
    before = keys(scene, K, pose, HEIGHT, WIDTH, 4, NEAR)
    scene.windows(K, pose, HEIGHT, WIDTH, 1.9)
    assert np.array_equal(keys(scene, K, pose, HEIGHT, WIDTH, 4, NEAR), before)
    moved = vertices + [0, 0.1, 0.2]
    scene.windows(K, pose, HEIGHT, WIDTH, NEAR)
    scene.update(moved)
    expected = keys(Scene(moved, faces, "cpu"), K, pose, HEIGHT, WIDTH, 4, NEAR)
    assert not np.array_equal(before, expected)
    assert np.array_equal(keys(scene, K, pose, HEIGHT, WIDTH, 4, NEAR), expected)
    assert np.array_equal(keys(scene, K[:1], pose[:1], HEIGHT, WIDTH, 4, NEAR), expected[:1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"K": np.eye(3)}, r"K has shape \(3, 3\) and camera_from_world \(2, 4, 4\)"),
        ({"camera_from_world": np.tile(np.eye(4), (3, 1, 1))}, r"camera_from_world \(3, 4, 4\)"),
        ({"K": np.array([np.eye(3), np.zeros((3, 3))])}, "invertible"),
        ({"camera_from_world": np.ones((2, 4, 4))}, "not affine"),
        ({"origins": np.zeros((2, 2))}, "origins are float64"),
        ({"origins": np.zeros((1, 2), int)}, "for 2 views"),
        ({"origins": np.array([[0, 0], [2**24, 0]])}, "pixel 16777226"),
        ({"height": 0}, "at least 1"),
        ({"height": 2**14, "width": 2**13, "slots": 2}, "one view at a time"),
        ({"near": -1.0}, "near is -1.0"),
    ],
)
def test_wrong_batches_are_named_in_one_sentence(change, words):
    arguments = {
        "K": np.tile(np.eye(3), (2, 1, 1)),
        "camera_from_world": np.tile(np.eye(4), (2, 1, 1)),
        "height": 10,
        "width": 10,
        "slots": 2,
    }
    with pytest.raises(ValueError, match=words) as caught:
        Scene(np.eye(3), np.array([[0, 1, 2]]), "cpu").keys(**(arguments | change))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
