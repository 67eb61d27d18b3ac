"""The peel against answers known in closed form, and what it must not depend on."""

import numpy as np
import pytest
import trimesh

from render.peel import Scene, peel

SQUARE = np.array([[60.0, 0, 32], [0, 60, 32], [0, 0, 1]])
SKEWED = np.array([[70.0, 4.5, 20.3], [0, 52, 41.7], [0, 0, 1]])


def rays(K: np.ndarray, height: int, width: int) -> np.ndarray:
    """d (H,W,3) with d_z = 1 through the pixel centres."""
    v, u = np.mgrid[:height, :width] + 0.5
    return np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(K).T


def icosphere(centre: tuple[float, float, float], radius: float, subdivisions: int = 4) -> trimesh.Trimesh:
    sphere = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    sphere.apply_translation(centre)
    return sphere


@pytest.mark.parametrize("K", [SQUARE, SKEWED], ids=["square", "skewed"])
def test_sphere_has_the_front_and_the_back_depth_of_the_sphere(K):
    centre, radius = np.array([0.1, -0.05, 3.0]), 1.0
    sphere = icosphere(tuple(centre), radius, 6)
    depth, triangle = peel(sphere.vertices, sphere.faces, K, 64, 64, 3)
    d = rays(K, 64, 64)
    # |z d - c|^2 = r^2; the facets of this icosphere stay within 2e-4 of the sphere, more in z at the limb
    a, b, c = (d * d).sum(-1), d @ centre, centre @ centre - radius**2
    discriminant = b**2 - a * c
    clear = np.abs(discriminant) > 0.02
    inside = discriminant > 0
    assert inside[clear].any()
    assert not inside[clear].all()
    assert np.array_equal((triangle >= 0).sum(axis=0)[clear], 2 * inside[clear])
    root = np.sqrt(np.maximum(discriminant, 0))
    for layer, expected in ((0, (b - root) / a), (1, (b + root) / a)):
        error = np.abs(depth[layer] - expected)[clear & inside]
        assert error.max() < 2e-3


def test_tilted_plane_has_the_depth_of_the_plane():
    normal, offset = np.array([0.3, -0.5, 1.0]), 2.0
    x, y = np.meshgrid(np.linspace(-9, 9, 8), np.linspace(-9, 9, 8))
    z = (offset - normal[0] * x - normal[1] * y) / normal[2]
    vertices = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    grid = np.arange(64).reshape(8, 8)
    a, b, c, e = grid[:-1, :-1].ravel(), grid[:-1, 1:].ravel(), grid[1:, :-1].ravel(), grid[1:, 1:].ravel()
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([b, e, c], 1)])
    depth, triangle = peel(vertices, faces, SKEWED, 48, 64, 2)
    expected = offset / (rays(SKEWED, 48, 64) @ normal)
    assert (triangle[0] >= 0).all()
    assert (triangle[1] == -1).all()
    assert np.isinf(depth[1]).all()
    np.testing.assert_allclose(depth[0], expected, rtol=1e-7)


def test_inside_a_box_every_pixel_has_exactly_one_hit_at_the_wall():
    low, high = np.array([-2.0, -1.0, -3.0]), np.array([1.5, 1.2, 4.0])
    box = trimesh.creation.box(bounds=[low, high])
    depth, triangle = peel(box.vertices, box.faces, SKEWED, 60, 80, 3)
    assert ((triangle >= 0).sum(axis=0) == 1).all()
    d = rays(SKEWED, 60, 80)
    with np.errstate(divide="ignore"):
        expected = np.where(d > 0, high / d, low / d).min(axis=-1)
    np.testing.assert_allclose(depth[0], expected, rtol=1e-6)


@pytest.mark.parametrize("half", [50.0, 1e6], ids=["50 m", "1000 km"])
def test_floor_that_passes_below_and_behind_the_camera_is_seen_up_to_the_horizon(half):
    y = 1.5
    floor = np.array([[-half, y, -half], [half, y, -half], [half, y, half], [-half, y, half]])
    depth, triangle = peel(floor, [[0, 1, 2], [0, 2, 3]], SQUARE, 64, 64, 2, near=0.01)
    d = rays(SQUARE, 64, 64)
    with np.errstate(divide="ignore"):
        expected = y / d[..., 1]
    seen = (expected > 0) & (expected < half) & (np.abs(d[..., 0] * expected) < half)
    assert seen.any()
    assert np.array_equal(triangle[0] >= 0, seen)
    assert (triangle[1] == -1).all()
    np.testing.assert_allclose(depth[0][seen], expected[seen], rtol=1e-6)


def test_hits_nearer_than_the_near_plane_do_not_count():
    # Seen from z = 0.67 in the first column to z = 1.48 in the last.
    wall = np.array([[-1.0, -9, 0.2], [-1.0, 9, 0.2], [1.5, -9, 2.0], [1.5, 9, 2.0]])
    faces = np.array([[0, 1, 2], [2, 1, 3]])
    everything, _ = peel(wall, faces, SQUARE, 16, 64, 1, near=1e-3)
    for near in (0.7, 1.0, 1.4):
        depth, triangle = peel(wall, faces, SQUARE, 16, 64, 1, near=near)
        expected = np.where(everything >= np.float32(near), everything, np.inf)
        assert np.isinf(expected).any()
        assert np.isfinite(expected).any()
        assert np.array_equal(depth, expected)
        assert np.array_equal(triangle >= 0, np.isfinite(depth))


def test_what_lies_behind_the_camera_is_not_seen():
    sphere = icosphere((0.0, 0.0, -3.0), 1.0)
    _, triangle = peel(sphere.vertices, sphere.faces, SQUARE, 32, 32, 2)
    assert (triangle == -1).all()


def test_exact_duplicates_are_all_reported_in_the_order_of_their_numbers():
    triangle_once = np.array([[-1.0, -1, 2], [1, -1, 2], [0, 1, 3]])
    faces = np.array([[0, 1, 2], [2, 1, 0], [1, 2, 0]])
    depth, triangle = peel(triangle_once, faces, SQUARE, 64, 64, 4)
    hit = triangle[0] >= 0
    assert hit.any()
    assert np.array_equal(depth[0], depth[1])
    assert np.array_equal(depth[0], depth[2])
    for layer in range(3):
        assert (triangle[layer][hit] == layer).all()
    assert (triangle[3] == -1).all()


def test_faces_without_area_have_no_hits():
    # Points of a line through many pixel centres, a doubled corner, one point three times.
    vertices = np.array([[-1.0, 0.0, 2], [0.5, 0.0, 2], [1.0, 0.0, 2], [0.0, 1, 2], [-0.7, -0.7, 2], [0.7, 0.7, 2]])
    faces = np.array([[0, 1, 2], [0, 2, 1], [0, 3, 3], [1, 1, 1], [4, 5, 4]])
    K = np.array([[64.0, 0, 32.5], [0, 64, 32.5], [0, 0, 1]])
    _, triangle = peel(vertices, faces, K, 64, 64, 2)
    assert (triangle == -1).all()


def test_faces_without_area_have_no_hits_where_their_line_passes_a_pixel_centre_up_to_rounding():
    generator = np.random.Generator(np.random.Philox(8))
    for _ in range(200):
        # Three points of a line, exact in integers, that meets the ray of pixel (20, 20).
        through, along = generator.integers([-9, -9, 20], [10, 10, 40]), generator.integers(-6, 7, 3)
        focal = generator.uniform(20, 90, 2)
        K = np.array([[focal[0], 0, 20.5], [0, focal[1], 20.5], [0, 0, 1]])
        K[:2, 2] -= focal * through[:2] / through[2]
        _, triangle = peel(np.array([through - along, through + along, through + 2 * along]), [[0, 1, 2]], K, 41, 41, 1)
        assert (triangle == -1).all()


def soup(seed: int, count: int = 120) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.Generator(np.random.Philox(seed))
    vertices = generator.normal(size=(count, 3)) * [1.0, 1.0, 0.6] + [0, 0, 2.0]
    return vertices, generator.integers(0, count, size=(count, 3))


def test_the_order_of_the_faces_changes_nothing_but_their_numbers():
    vertices, faces = soup(1)
    shuffle = np.random.Generator(np.random.Philox(2)).permutation(len(faces))
    depth, triangle = peel(vertices, faces, SQUARE, 48, 48, 40)
    shuffled_depth, shuffled_triangle = peel(vertices, faces[shuffle], SQUARE, 48, 48, 40)
    assert np.array_equal(depth, shuffled_depth)
    renamed = np.where(shuffled_triangle >= 0, shuffle[shuffled_triangle], -1)
    # Only hits of one depth may change places.
    assert np.array_equal(np.sort(triangle, axis=0), np.sort(renamed, axis=0))
    tied = (depth[1:] == depth[:-1]).any(axis=0)
    assert np.array_equal(triangle[:, ~tied], renamed[:, ~tied])


def test_rolling_or_reversing_a_face_moves_no_hit_and_reversing_flips_its_facing():
    vertices, faces = soup(3)
    reference = Scene(vertices, faces).peel(SQUARE, 48, 48, 30).numpy()
    rolled = Scene(vertices, np.roll(faces, 1, axis=1)).peel(SQUARE, 48, 48, 30).numpy()
    flipped = Scene(vertices, faces[:, ::-1]).peel(SQUARE, 48, 48, 30).numpy()
    for other in (rolled, flipped):
        # z is a weighted mean whose terms change places: the last bit may differ
        finite = np.isfinite(reference.depth)
        assert np.array_equal(finite, np.isfinite(other.depth))
        np.testing.assert_allclose(other.depth[finite], reference.depth[finite], rtol=3e-7)
    assert (reference.facing != 0).any()
    same = (reference.triangle == flipped.triangle) & (reference.triangle >= 0)
    assert same.mean() > 0.5
    assert np.array_equal(flipped.facing[same], -reference.facing[same])


def test_facing_is_the_sign_of_the_normal_against_the_ray_also_under_a_mirrored_camera():
    vertices, faces = soup(4)
    mirrored = np.array([[-60.0, 0, 32], [0, 60, 32], [0, 0, 1]])
    for K in (SQUARE, mirrored):
        hits = Scene(vertices, faces).peel(K, 48, 48, 30).numpy()
        a, b, c = (vertices[faces[hits.triangle][..., i]] for i in range(3))
        towards = -np.sign((np.cross(b - a, c - a) * rays(K, 48, 48)).sum(axis=-1))
        assert np.array_equal(hits.facing, np.where(hits.triangle >= 0, towards, 0))


def test_more_layers_extend_the_layers_there_were():
    vertices, faces = soup(5)
    deep = peel(vertices, faces, SQUARE, 40, 40, 9)
    for layers in (1, 2, 5, 8):
        for more, fewer in zip(deep, peel(vertices, faces, SQUARE, 40, 40, layers), strict=True):
            assert np.array_equal(more[:layers], fewer)


def test_a_part_of_the_image_is_that_part():
    vertices, faces = soup(6)
    depth, triangle = peel(vertices, faces, SQUARE, 64, 64, 12)
    K = SQUARE.copy()
    K[:2, 2] -= [16, 8]
    part = peel(vertices, faces, K, 40, 24, 12)
    window = np.s_[:, 8:48, 16:40]
    assert np.array_equal(triangle[window], part[1])
    np.testing.assert_allclose(depth[window], part[0], rtol=3e-7)


def test_a_scene_serves_many_cameras_as_the_function_does_one():
    vertices, faces = soup(7)
    scene = Scene(vertices, faces)
    angle = 0.3
    pose = np.eye(4)
    pose[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    pose[:3, 3] = [0.1, 0.2, 0.5]
    first = scene.peel(SQUARE, 32, 40, 6).numpy()
    moved = scene.peel(SKEWED, 40, 32, 6, camera_from_world=pose).numpy()
    again = scene.peel(SQUARE, 32, 40, 6).numpy()
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a, b)
    depth, triangle = peel(vertices @ pose[:3, :3].T + pose[:3, 3], faces, SKEWED, 40, 32, 6)
    assert np.array_equal(moved.triangle, triangle)
    np.testing.assert_allclose(moved.depth, depth, rtol=3e-7)
    scene.update(vertices + [0, 0, 1.0])
    depth, _ = peel(vertices + [0, 0, 1.0], faces, SQUARE, 32, 40, 6)
    assert np.array_equal(scene.peel(SQUARE, 32, 40, 6).numpy().depth, depth)


def test_hits_stay_as_they_are_while_anything_holds_them():
    vertices, faces = soup(7)
    scene = Scene(vertices, faces)
    K = [SQUARE + [[0, 0, shift], [0, 0, 0], [0, 0, 0]] for shift in range(12)]
    # Some are dropped at once, so that their memory is lent again; sizes differ; arrays outlive what made them.
    held = []
    for i in range(12):
        height = 40 + 8 * (i % 3)
        held.append((i, height, scene.peel(K[i], height, 40, 5).numpy()))
        scene.peel(K[0], height, 40, 5)
        del held[: i % 2]
    del scene
    assert len(held) > 4
    for i, height, hits in held:
        expected = Scene(vertices, faces).peel(K[i], height, 40, 5).numpy()
        for a, b in zip(hits, expected, strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("number", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("index", [np.uint8, np.int16, np.int64, np.uint64])
def test_any_number_type_will_do(number, index):
    vertices = np.array([[-1, -1, 2], [1, -1, 2], [0, 1, 2]], number)
    depth, triangle = peel(vertices, np.array([[0, 1, 2]], index), SQUARE, 64, 64, 1)
    assert depth.dtype == np.float32
    assert triangle.dtype == np.int32
    assert set(np.unique(depth[np.isfinite(depth)])) == {np.float32(2)}


def test_nothing_to_see_gives_empty_layers():
    for vertices, faces in ((np.zeros((0, 3)), np.zeros((0, 3), int)), (np.ones((5, 3)), np.zeros((0, 3), int))):
        depth, triangle = peel(vertices, faces, SQUARE, 4, 6, 2)
        assert depth.shape == triangle.shape == (2, 4, 6)
        assert np.isinf(depth).all()
        assert (triangle == -1).all()


TRIANGLE = np.array([[-1.0, -1, 2], [1, -1, 2], [0, 1, 2]])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vertices": np.zeros((3, 2))}, r"vertices are float64 of shape \(3, 2\)"),
        ({"vertices": np.array([["a", "b", "c"]] * 3)}, "give numbers"),
        ({"vertices": np.array([[0, 0, 1], [0, np.nan, 1], [1, 0, 1]])}, "vertex 1"),
        ({"vertices": np.array([[0, 0, 1], [0, 1, 1], [np.inf, 0, 1]])}, "vertex 2"),
        ({"faces": np.array([[0, 1, 3]])}, "index 3 but there are 3 vertices"),
        ({"faces": np.array([[0, -1, 2]])}, "index -1"),
        ({"faces": np.array([[0, 1, 2**40]])}, f"index {2**40}"),
        ({"faces": np.array([[0.0, 1.0, 2.0]])}, "give integers"),
        ({"faces": np.array([0, 1, 2])}, r"shape \(3,\)"),
        ({"K": np.eye(4)}, r"K has shape \(4, 4\)"),
        ({"K": np.zeros((3, 3))}, "invertible"),
        ({"K": np.array([[60.0, 0, 32], [0, 0, 32], [0, 0, 1]])}, "invertible"),
        ({"K": np.array([[60.0, 0, np.nan], [0, 60, 32], [0, 0, 1]])}, "not finite"),
        ({"height": 0}, "at least 1"),
        ({"layers": 0}, "at least 1"),
        ({"height": 40000, "width": 40000, "layers": 6}, "a part of the image"),
        ({"near": 0.0}, "near is 0.0"),
        ({"near": np.nan}, "near is nan"),
        ({"backend": "metal"}, "choose auto, cpu or cuda"),
    ],
)
def test_wrong_input_is_named_in_one_sentence(change, words):
    arguments = {
        "vertices": TRIANGLE,
        "faces": np.array([[0, 1, 2]]),
        "K": SQUARE,
        "height": 8,
        "width": 8,
        "layers": 2,
    }
    with pytest.raises(ValueError, match=words) as caught:
        peel(**(arguments | change))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
