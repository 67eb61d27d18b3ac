"""The kernel against independent ways to the same hits: the NumPy twin, exact rational arithmetic, Moeller-Trumbore."""

import platform
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import trimesh
import warp as wp
from hypothesis import given, settings
from hypothesis import strategies as st

from render import peel_numpy
from render.hits import Hits
from render.peel import Scene, peel

K = np.array([[50.0, 3, 30], [0, 55, 20], [0, 0, 1]])
HEIGHT, WIDTH = 48, 64


def assert_equal(a: Hits, b: Hits) -> None:
    for name, x, y in zip(Hits._fields, a, b, strict=True):
        assert x.dtype == y.dtype, name
        assert np.array_equal(x, y), name


def scene_of(vertices: np.ndarray, faces: np.ndarray, simd: bool) -> Scene:
    """Peeled on the CPU, by vectors of eight pixels or by the kernels that CUDA runs."""
    scene = Scene(vertices, faces, "cpu")
    scene._simd = simd
    return scene


BOTH = pytest.mark.parametrize("simd", [True, False], ids=["vectors", "kernels of cuda"])


@BOTH
@pytest.mark.parametrize("spread", [0.05, 0.5, 3.0, 100.0])
@pytest.mark.parametrize("layers", [1, 3, 6, 10, 40])
def test_random_soups_equal_the_twin_bit_by_bit(spread, layers, simd):
    generator = np.random.Generator(np.random.Philox(int(spread * 100) + layers))
    corners = generator.normal(size=(90, 1, 3)) + [0, 0, 1.5] + spread * generator.normal(size=(90, 3, 3))
    vertices, faces = corners.reshape(-1, 3), np.arange(270).reshape(-1, 3)
    hits = scene_of(vertices, faces, simd).peel(K, HEIGHT, WIDTH, layers, near=0.05).numpy()
    assert (hits.triangle >= 0).any()
    assert_equal(hits, peel_numpy.peel(vertices, faces, K, HEIGHT, WIDTH, layers, near=0.05))


@st.composite
def lattice_meshes(draw):
    """Corners on a coarse lattice around the camera: ties, faces without area, edge-on faces, duplicates in plenty."""
    count = draw(st.integers(3, 12))
    coordinate = st.integers(-4, 4)
    vertices = draw(st.lists(st.tuples(coordinate, coordinate, coordinate), min_size=count, max_size=count))
    corner = st.integers(0, count - 1)
    faces = draw(st.lists(st.tuples(corner, corner, corner), min_size=1, max_size=12))
    scale = draw(st.sampled_from([0.5, 1.0, 1 / 3]))
    focal = draw(st.sampled_from([8.0, 10.0, 7.3]))
    return np.array(vertices) * scale, np.array(faces), np.array([[focal, 0, 8.5], [0, focal, 8.5], [0, 0, 1]])


@settings(max_examples=150, deadline=None)
@given(lattice_meshes(), st.integers(1, 12))
def test_lattice_meshes_equal_the_twin_bit_by_bit(mesh, layers):
    vertices, faces, intrinsics = mesh
    expected = peel_numpy.peel(vertices, faces, intrinsics, 17, 17, layers, near=0.25)
    for simd in (True, False):
        hits = scene_of(vertices, faces, simd).peel(intrinsics, 17, 17, layers, near=0.25).numpy()
        assert_equal(hits, expected)


def exact_hit(corners: np.ndarray, K: np.ndarray, u: int, v: int) -> Fraction | None:
    """z of the ray of pixel (u, v) with a triangle in rational arithmetic, None outside; points of an edge count."""
    q = [Fraction(u) + Fraction(1, 2), Fraction(v) + Fraction(1, 2), Fraction(1)]
    p = [
        [sum(Fraction(k) * Fraction(x) for k, x in zip(row, corner)) for row in K.tolist()]
        for corner in corners.tolist()
    ]

    def determinant(a, b, c):
        return (
            a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0])
        )

    e = [determinant(q, p[1], p[2]), determinant(q, p[2], p[0]), determinant(q, p[0], p[1])]
    if min(e) < 0 < max(e) or sum(e) == 0:
        return None
    z = determinant(p[0], p[1], p[2]) / sum(e)
    return z if z > 0 else None


@pytest.mark.parametrize(
    ("size", "thickness", "depth"),
    [(1e-4, 1.0, 2.0), (1.0, 1e-6, 2.0), (300.0, 1e-5, 5.0), (5.0, 1.0, 1e5), (1e5, 1.0, 3.0), (20.0, 1e-3, 1e-2)],
    ids=["tiny", "sliver", "long sliver", "far", "huge", "close"],
)
def test_hits_and_depths_equal_exact_arithmetic(size, thickness, depth):
    """Triangles of a size in pixels, so much thinner than long, whose corners differ in depth by up to a factor two."""
    generator = np.random.Generator(np.random.Philox(int(np.log2(size * thickness * depth) + 100)))
    hit = missed = 0
    for _ in range(60):
        u, v = int(generator.integers(WIDTH)), int(generator.integers(HEIGHT))
        angle = generator.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        offsets = (generator.uniform(-1, 1, (3, 2)) * [size, size * thickness]) @ turn
        pixels = np.concatenate([np.array([u, v]) + 0.5 + offsets, np.ones((3, 1))], axis=1)
        corners = np.linalg.solve(K, pixels.T).T * (depth * generator.uniform(1, 2, (3, 1)))
        expected = exact_hit(corners, K, u, v)
        got, triangle = peel(corners, [[0, 1, 2]], K, HEIGHT, WIDTH, 1, backend="cpu")
        assert (triangle[0, v, u] >= 0) == (expected is not None)
        if expected is None:
            missed += 1
        else:
            hit += 1
            assert abs(float(got[0, v, u]) / float(expected) - 1) < 1e-7
    assert hit > 5
    assert missed > 5


def test_hits_of_a_mesh_equal_moeller_and_trumbore():
    mesh = trimesh.util.concatenate(
        [trimesh.creation.torus(0.8, 0.3, 24, 12), trimesh.creation.icosphere(2, radius=0.5)]
    )
    mesh.apply_transform(trimesh.transformations.euler_matrix(0.7, 0.3, 0.1))
    vertices = mesh.vertices + [0.05, 0.02, 2.0]
    depth, triangle = peel(vertices, mesh.faces, K, HEIGHT, WIDTH, 12)
    v, u = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    d = (np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(K).T).reshape(-1, 1, 3)
    a, b, c = (vertices[mesh.faces[:, i]] for i in range(3))
    cross = np.cross(d, c - a)
    inverse = 1 / (cross * (b - a)).sum(-1)
    s = (cross * -a).sum(-1) * inverse
    other = np.cross(-a, b - a)
    t = (d * other).sum(-1) * inverse
    z = (other * (c - a)).sum(-1) * inverse
    hit = (s >= 0) & (t >= 0) & (s + t <= 1) & (z > 0)
    expected = np.sort(np.where(hit, z, np.inf), axis=1)[:, :12].T.reshape(12, HEIGHT, WIDTH)
    assert np.array_equal(np.isfinite(expected), triangle >= 0)
    finite = np.isfinite(expected)
    assert finite[3].any()
    np.testing.assert_allclose(depth[finite], expected[finite], rtol=2e-7)


def test_a_mesh_of_every_size_of_triangle_is_the_same_by_vectors_and_by_the_kernels_of_cuda():
    """Too large for the twin: boxes of every width and height, slivers, walls in strips, lists that overflow."""
    generator = np.random.Generator(np.random.Philox(21))
    for spread, count in ((0.02, 4000), (0.2, 800), (2.0, 150)):
        stretch = np.where(generator.random((count, 1, 3)) < 0.2, 0.02, 1.0)
        corners = generator.normal(size=(count, 1, 3)) + [0, 0, 2.0]
        corners = corners + spread * stretch * generator.normal(size=(count, 3, 3))
        vertices, faces = corners.reshape(-1, 3), np.arange(3 * count).reshape(-1, 3)
        for slots in (1, 4, 8, 12, 21):
            a, b = (
                scene_of(vertices, faces, simd).peel(np.diag([5, 5, 1]) @ K, 240, 320, slots).numpy()
                for simd in (True, False)
            )
            assert (a.triangle >= 0).any()
            assert_equal(a, b)


def hits_of_a_soup(simd: bool = True) -> Hits:
    generator = np.random.Generator(np.random.Philox(31))
    corners = generator.normal(size=(400, 1, 3)) + [0, 0, 2.0]
    corners = corners + generator.choice([0.03, 0.3, 3.0], size=(400, 1, 1)) * generator.normal(size=(400, 3, 3))
    scene = scene_of(corners.reshape(-1, 3), np.arange(1200).reshape(-1, 3), simd)
    return scene.peel(np.diag([3, 3, 1]) @ K, 3 * HEIGHT, 3 * WIDTH, 10).numpy()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names a processor of another family")
def test_a_processor_of_narrower_vectors_gives_the_same_bits(tmp_path):
    """The vectors compiled for SSE 4, in a process of its own, against those of this processor."""
    program = f"""
import sys, warp as wp
wp.config.kernel_cache_dir = {str(tmp_path / "kernels")!r}
wp.config.cpu_compiler_flags = "-target-cpu x86-64-v2"
import numpy as np
from tests.render.test_peel_twin import hits_of_a_soup
np.savez({str(tmp_path / "hits.npz")!r}, **hits_of_a_soup()._asdict())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning:" not in done.stdout + done.stderr  # nor does the compiler talk to a user
    with np.load(tmp_path / "hits.npz") as narrow:
        assert_equal(hits_of_a_soup(), Hits(**narrow))


def test_strips_that_find_no_room_in_the_list_are_peeled_all_the_same(monkeypatch):
    expected = hits_of_a_soup()
    for room in (1, 7, 50):
        monkeypatch.setattr(sys.modules[Scene.__module__], "STRIPS", room)
        assert_equal(hits_of_a_soup(simd=False), expected)


@pytest.mark.gpu
def test_cuda_equals_the_cpu_bit_by_bit():
    if not wp.is_cuda_available():
        pytest.skip("Warp finds no CUDA device")
    generator = np.random.Generator(np.random.Philox(9))
    for spread in (0.01, 0.3, 50.0):  # 50: triangles that cover the image, and go by rows on CUDA
        corners = generator.normal(size=(5000, 1, 3)) + [0, 0, 1.5] + spread * generator.normal(size=(5000, 3, 3))
        vertices, faces = corners.reshape(-1, 3), np.arange(15000).reshape(-1, 3)
        for slots in (1, 6, 12):
            views = [Scene(vertices, faces, name).peel(K, 200, 300, slots).numpy() for name in ("cpu", "cuda")]
            assert_equal(*views)
