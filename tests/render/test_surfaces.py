"""Which hits are one surface, which are cut out, and which faces of a mesh say nothing."""

import numpy as np
import pytest
import trimesh
import warp as wp
from hypothesis import given, settings
from hypothesis import strategies as st

from render import surfaces
from render.hits import EMPTY, Hits, hits_of, keys_of
from render.mesh import Material, Mesh
from render.peel import Scene
from render.rays import Rays
from render.shade import Shader
from render.surfaces import compact, drop_duplicate_faces, merge_coincident
from render.texels import pack
from shards.contract import forward_fill
from tests.render.shapes import texture

K = np.array([[60.0, 0, 32], [0, 60, 32], [0, 0, 1]])


def column(*hits: tuple[float, int], slots: int = 8) -> Hits:
    """One pixel with the given (depth, facing), front to back; its triangles are numbered from 0."""
    depth = np.full((slots, 1, 1), np.inf, np.float32)
    triangle = np.full((slots, 1, 1), -1, np.int32)
    facing = np.zeros((slots, 1, 1), np.int8)
    for i, (z, side) in enumerate(hits):
        depth[i], triangle[i], facing[i] = z, i, side
    return Hits(depth, triangle, facing)


def kept(hits: Hits) -> list[int]:
    return [int(t) for t in hits.triangle[:, 0, 0] if t >= 0]


@pytest.mark.parametrize(
    ("hits", "expected"),
    [
        ([(1.0, 1), (1.0, 1), (2.0, -1)], [0, 2]),  # a face held twice
        ([(1.0, 1), (1.0, -1)], [0, 1]),  # a sheet with two sides
        ([(1.0, 1), (1.05, -1), (1.5, 1)], [0, 1, 2]),  # a thin shell keeps both sides
        ([(1.0, 1), (1.0, -1), (1.0, 1), (1.0, -1)], [0, 1]),  # a doubled sheet, its sides in either order
        ([(1.0, 1), (1.0, 1), (1.0, -1), (1.0, -1)], [0, 2]),
        ([(1.0, 1), (1.08, 1), (1.16, 1), (1.24, 1)], [0, 2]),  # measured from the hit kept: no endless chain
        ([(1.0, 1), (1.25, 1)], [0, 1]),
        ([], []),
    ],
)
def test_hits_merge_when_they_are_close_and_face_the_same_way(hits, expected):
    merged = merge_coincident(column(*hits), 0.1, 6)
    assert kept(merged) == expected
    for i, t in enumerate(expected):
        assert merged.depth[i, 0, 0] == np.float32(hits[t][0])
        assert merged.facing[i, 0, 0] == hits[t][1]
    assert np.isinf(merged.depth[len(expected) :]).all()
    assert (merged.facing[len(expected) :] == 0).all()


def test_a_doubled_and_a_near_doubled_mesh_look_like_the_mesh():
    mesh = trimesh.creation.torus(0.7, 0.3)
    vertices = mesh.vertices + [0, 0, 2.5]
    double = np.concatenate([vertices, vertices, vertices + [0, 0, 2e-5]])
    faces = np.concatenate([mesh.faces + i * len(vertices) for i in range(3)])
    single = Scene(vertices, mesh.faces).peel(K, 64, 64, 6).numpy()
    raw = Scene(double, faces).peel(K, 64, 64, 18).numpy()
    merged = merge_coincident(raw, 1e-3, 6)
    clear = np.ones((64, 64), bool)
    # At the limb the shifted copy alone may be hit, or sides lie closer than the tolerance in depth.
    for view in (single, merged):
        gap = view.depth[1::2] - np.where(np.isfinite(view.depth[::2]), view.depth[::2], 0)
        clear &= ~(gap < 0.05).any(axis=0)
    assert clear.mean() > 0.9
    assert np.array_equal((merged.triangle >= 0).sum(0)[clear], (single.triangle >= 0).sum(0)[clear])
    finite = np.isfinite(single.depth) & clear
    np.testing.assert_allclose(merged.depth[finite], single.depth[finite], rtol=0, atol=1e-3)
    assert np.array_equal(merged.facing[finite], single.facing[finite])


def test_tolerance_grows_with_depth_but_has_a_least_value():
    hits = column((1.0, 1), (1.05, 1), (1.2, 1), (5.0, 1), (5.2, 1), (6.0, 1), slots=8)
    assert kept(merge_coincident(hits, 0.0, 6, relative=0.1)) == [0, 2, 3, 5]
    assert kept(merge_coincident(hits, 0.3, 6, relative=0.1)) == [0, 3, 5]
    assert kept(merge_coincident(hits, 0.1, 6, relative=0.001)) == [0, 2, 3, 4, 5]


@st.composite
def layered(draw):
    slots, pixels = draw(st.integers(1, 7)), 5
    columns = [
        column(*sorted(zip(depth, facing)), slots=slots)
        for depth, facing in (
            (
                draw(st.lists(st.sampled_from([1.0, 1.05, 1.5, 2.0]), max_size=slots)),
                draw(st.lists(st.sampled_from([1, -1]), min_size=slots, max_size=slots)),
            )
            for _ in range(pixels)
        )
    ]
    hits = Hits(*(np.concatenate(arrays, axis=2) for arrays in zip(*columns, strict=True)))
    bits = draw(st.lists(st.booleans(), min_size=slots * pixels, max_size=slots * pixels))
    return hits, np.array(bits).reshape(slots, 1, pixels), draw(st.integers(1, slots))


@settings(max_examples=100, deadline=None)
@given(layered())
def test_compaction_keeps_exactly_the_kept_hits_in_order(case):
    hits, keep, layers = case
    before = [array.copy() for array in hits]
    result = compact(hits, keep, layers)
    for pixel in range(5):
        rows = np.flatnonzero(keep[:, 0, pixel] & (hits.triangle[:, 0, pixel] >= 0))[:layers]
        for array, source, empty in zip(result, hits, (np.inf, -1, 0), strict=True):
            expected = [*source[rows, 0, pixel], *[empty] * (layers - len(rows))]
            assert array[:, 0, pixel].tolist() == expected
            assert array.dtype == source.dtype
    assert all(np.array_equal(a, b) for a, b in zip(hits, before, strict=True))


@settings(max_examples=100, deadline=None)
@given(layered())
def test_merging_twice_is_merging_once_and_nothing_kept_is_close(case):
    hits, _, _ = case
    slots = len(hits.depth)
    once = merge_coincident(hits, 0.1, slots)
    twice = merge_coincident(once, 0.1, slots)
    assert all(np.array_equal(a, b) for a, b in zip(once, twice, strict=True))
    for pixel in range(5):
        for side in (1, -1):
            depth = once.depth[once.facing[:, 0, pixel] == side, 0, pixel]
            assert (np.diff(depth) >= 0.1 - 1e-6).all()
    nothing = merge_coincident(hits, 0.0, slots)
    assert all(np.array_equal(a, b) for a, b in zip(nothing, hits, strict=True))


LOOK = Rays(np.zeros(3), np.eye(3), K)
CHECKS = np.zeros((8, 8, 4), np.uint8)
CHECKS[..., 3] = 255 * (np.add.outer(np.arange(8), np.arange(8)) % 2)


def shader_of(*materials: Material, count: int = 400, seed: int = 3) -> Shader:
    """Triangles at random in front of a camera at the origin, one after the other in these materials."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-1, 1, (count, 1, 3)) * [1.2, 1.2, 0.8] + rng.uniform(-0.6, 0.6, (count, 3, 3)) + [0, 0, 3.5]
    faces = np.arange(3 * count, dtype=np.int32).reshape(-1, 3)
    uv = rng.uniform(0, 2, (3 * count, 2)).astype(np.float32)
    material = (np.arange(count) % len(materials)).astype(np.int32)
    mesh = Mesh(corners.reshape(-1, 3), faces, material, materials, uv=uv)
    return Shader(pack(mesh), mesh.vertices)


def device(keys: np.ndarray):
    return wp.array(np.ascontiguousarray(keys), dtype=wp.uint64, device="cpu")


def by_twins(shader: Shader, keys: np.ndarray, layers: int, tolerance: float, relative: float):
    """The same by alpha test, `compact`, `merge_coincident` and `forward_fill` of keys (S,h,w)."""
    hits = hits_of(keys)
    full = hits.triangle[-1] >= 0
    if shader.packed.tested:
        one = [shader.surfaces(device(k.reshape(1, 1, -1)), [LOOK], np.zeros((1, 2)), k.shape, 1) for k in keys]
        hits = compact(hits, np.concatenate([o.hits.numpy() > 0 for o in one]), len(keys))
    merged = merge_coincident(hits, tolerance, layers, relative)
    depth, count = forward_fill(merged.depth)
    starved = int((full & ~np.isfinite(merged.depth[-1])).sum())
    return depth, count, merged.facing, starved


@pytest.mark.parametrize("layers", [1, 3, 6])
@pytest.mark.parametrize(("tolerance", "relative"), [(0.0, 0.0), (0.02, 0.0), (0.0, 2e-3), (0.01, 4e-3)])
def test_the_kernel_equals_test_merge_and_fill_to_the_last_bit(layers, tolerance, relative):
    rng = np.random.default_rng(layers)
    for shader in (
        shader_of(Material()),
        shader_of(Material(), Material(base_color_texture=texture(CHECKS), alpha_mode="MASK")),
    ):
        vertices = shader.scene.vertices.numpy()
        hits = Scene(vertices, shader.packed.faces, "cpu").peel(K, 64, 64, 7).numpy()
        keys = keys_of(hits)
        # what a peel of coincident faces gives: the same depth again, or one a hair behind, seen from either side
        again = keys[:-1] ^ rng.integers(0, 2, keys[:-1].shape, dtype=np.uint64)
        double = rng.random(again.shape) < 0.3
        keys[1:] = np.where(double & (keys[1:] != EMPTY), again, keys[1:])
        keys = np.sort(keys, axis=0)
        found = shader.surfaces(device(keys.reshape(1, 7, -1)), [LOOK], np.zeros((1, 2)), (64, 64), layers,
                                tolerance, relative).numpy()  # fmt: skip
        depth, count, facing, starved = by_twins(shader, keys, layers, tolerance, relative)
        assert found.depth[0].tobytes() == depth.tobytes()
        assert np.array_equal(found.hits[0], count)
        assert np.array_equal(found.facing[0], facing)
        assert found.starved.tolist() == [starved]
        assert [a.dtype for a in found] == [np.float32, np.uint8, np.int8, np.int32]


@settings(max_examples=100, deadline=None)
@given(layered(), st.sampled_from([0.0, 0.05, 0.1, 0.5]), st.sampled_from([0.0, 0.05]))
def test_the_kernel_merges_any_columns_as_its_twin_does(case, tolerance, relative):
    hits, _, layers = case
    found = SOLID.surfaces(device(keys_of(hits).reshape(1, len(hits.depth), -1)), [LOOK], np.zeros((1, 2)), (1, 5),
                           layers, tolerance, relative).numpy()  # fmt: skip
    depth, count, facing, starved = by_twins(SOLID, keys_of(hits), layers, tolerance, relative)
    for a, b in zip(found, (depth, count, facing, [starved]), strict=True):
        assert np.array_equal(a[0], b) if np.ndim(b) > 1 else np.array_equal(a, b)


SOLID = shader_of(Material(), count=20)


def test_views_and_windows_change_nothing_but_where_results_lie():
    cut = Material(base_color_texture=texture(CHECKS), alpha_mode="MASK")
    shader = shader_of(Material(), cut)
    scene = Scene(shader.scene.vertices.numpy(), shader.packed.faces, "cpu")
    turns = [np.eye(3), np.array([[0, -1.0, 0], [1, 0, 0], [0, 0, 1]])]
    views, origins, size = [], np.array([[5, 9], [20, 3]]), (31, 40)
    whole, windows = [], []
    for turn, (row, column) in zip(turns, origins, strict=True):
        pose = np.eye(4)
        pose[:3, :3] = turn.T
        views.append(Rays(np.zeros(3), turn, K))
        keys = keys_of(scene.peel(K, 64, 64, 6, camera_from_world=pose).numpy())
        whole.append(shader.surfaces(device(keys.reshape(1, 6, -1)), views[-1:], np.zeros((1, 2)), (64, 64), 4).numpy())
        window = keys[:, row : row + 31, column : column + 40].reshape(6, -1)
        windows.append(np.concatenate([window, np.zeros((6, 24), np.uint64)], axis=1))  # padding is not looked at
    both = device(np.stack(windows))
    found = shader.surfaces(both, views, origins, size, 4).numpy()
    first, starved = shader.first_depth(both, views, origins, size)
    first = first.numpy()
    for view, (row, column) in enumerate(origins):
        part = (slice(row, row + 31), slice(column, column + 40))
        for a, b in zip(found[:3], whole[view][:3], strict=True):
            assert np.array_equal(a[view], b[0][(..., *part)])
        expected = np.where(found.hits[view] > 0, found.depth[view, 0], np.inf)
        assert np.array_equal(first[view], expected)
        full = windows[view][-1, : 31 * 40].reshape(31, 40) != EMPTY
        assert starved[view] == (full & (found.hits[view] == 0)).sum()


def test_what_a_kernel_is_given_is_checked():
    keys = device(np.full((1, 2, 12), EMPTY, np.uint64))
    where = ([LOOK], np.zeros((1, 2)), (3, 4))
    assert SOLID.surfaces(keys, *where, 2).numpy().hits.sum() == 0
    for bad in ({"tolerance": -1.0}, {"relative": np.nan}):
        with pytest.raises(ValueError, match="tolerance is"):
            SOLID.surfaces(keys, *where, 2, **bad)
    with pytest.raises(ValueError, match="layers is 0"):
        SOLID.surfaces(keys, *where, 0)
    with pytest.raises(ValueError, match=r"keys of shape \(1, 2, 12\).*1 views of 4 x 4"):
        SOLID.first_depth(keys, [LOOK], np.zeros((1, 2)), (4, 4))
    with pytest.raises(ValueError, match="keys of shape"):
        SOLID.unresolved(keys, [LOOK, LOOK], np.zeros((2, 2)), (3, 4))


def test_wrong_shapes_and_ranges_are_named():
    hits = column((1.0, 1))
    with pytest.raises(ValueError, match="keep has shape"):
        compact(hits, np.ones((8, 2, 1), bool), 2)
    with pytest.raises(ValueError, match="layers is 9"):
        compact(hits, np.ones((8, 1, 1), bool), 9)
    for bad in (-1.0, np.nan):
        with pytest.raises(ValueError, match="tolerance is"):
            merge_coincident(hits, bad, 2)
        with pytest.raises(ValueError, match="relative is"):
            merge_coincident(hits, 0.1, 2, bad)


def test_duplicate_faces_are_dropped_whatever_their_winding_or_indices():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [1, -0.0, 0], [0, 1, 0]])
    faces = np.array([[0, 1, 2], [2, 1, 0], [1, 2, 0], [4, 5, 6], [6, 1, 4], [0, 1, 3], [0, 3, 1], [1, 2, 3]])
    assert drop_duplicate_faces(faces, vertices).tolist() == [True, False, False, False, False, True, False, True]


def test_faces_without_area_are_dropped_at_any_scale():
    for scale in (1e-6, 1.0, 1e6):
        vertices = np.array([[0.0, 0, 0], [1, 1, 1], [2, 2, 2], [0, 1, 0], [0.1, 0.2, 0.3], [0.3, 0.6, 0.9]]) * scale
        faces = np.array([[0, 1, 2], [0, 0, 1], [3, 3, 3], [0, 4, 5], [0, 1, 3]])
        assert drop_duplicate_faces(faces, vertices).tolist() == [False, False, False, False, True]
    assert drop_duplicate_faces(np.zeros((0, 3), int), np.zeros((0, 3))).tolist() == []


def test_an_ordinary_mesh_loses_no_face():
    mesh = trimesh.creation.icosphere(subdivisions=3)
    assert drop_duplicate_faces(mesh.faces, mesh.vertices).all()
    twice = np.concatenate([mesh.faces, mesh.faces[::-1, ::-1]])
    keep = drop_duplicate_faces(twice, mesh.vertices)
    assert np.array_equal(keep, np.arange(len(twice)) < len(mesh.faces))


@pytest.mark.parametrize("digest", [surfaces._digest, lambda rows: np.full(len(rows), 7, np.uint64)], ids=["hash", "7"])
def test_faces_are_dropped_as_comparing_them_all_would_even_where_all_hashes_collide(digest, monkeypatch):
    monkeypatch.setattr(surfaces, "_digest", digest)
    rng = np.random.default_rng(5)
    for vertex_count, face_count in ((4, 30), (20, 200), (60, 1500)):
        vertices = rng.integers(-1, 2, (vertex_count, 3)).astype(float)
        faces = rng.integers(0, vertex_count, (face_count, 3))
        seen, expected = set(), []
        for corners in vertices[faces]:
            key = tuple(sorted(map(tuple, corners.tolist())))
            area = np.linalg.norm(np.cross(corners[1] - corners[0], corners[2] - corners[0]))
            expected.append(bool(area > 0 and key not in seen))
            seen.add(key)
        assert drop_duplicate_faces(faces, vertices).tolist() == expected
        assert 0 < sum(expected) < face_count
