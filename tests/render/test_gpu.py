"""What a GPU renders is what a CPU renders: layers bit by bit, pictures but for rounding, batches view by view."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import warp as wp

from render import RenderSettings, procedural, render_views
from render.cameras import Camera
from render.frames import Stage
from render.mesh import AlphaMode, Material, Mesh
from render.normalise import normalise
from shards import LayeredView, encode
from tests.render.shapes import origin, quads, small, texture

GPU = "cuda"
VIEWS = 5

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(GPU == "cuda" and not wp.is_cuda_available(), reason="no CUDA device is visible to Warp"),
]


def foliage() -> Mesh:
    """Two crossed stacks of panes: leaves cut out of MASK, tinted BLEND with holes, OPAQUE whose alpha is ignored."""
    random = np.random.Generator(np.random.Philox(5))
    rgba = random.integers(0, 256, (32, 32, 4), np.uint8)
    blotches = np.kron(random.integers(0, 2, (8, 8)), np.ones((4, 4), np.int64)).astype(np.uint8)
    rgba[..., 3] = 255 * blotches
    soft = rgba.copy()
    soft[..., 3] = 40 + 180 * blotches
    bumps = np.full((16, 16, 4), 255, np.uint8)
    bumps[..., :2] = random.integers(100, 156, (16, 16, 2))
    turned = np.array([[0.0, -2.0, 0.3], [2.0, 0.0, 0.1], [0.0, 0.0, 1.0]])
    materials = (
        Material(base_color_texture=texture(rgba), alpha_mode="MASK", normal_texture=texture(bumps)),
        Material(
            base_color=(0.4, 0.9, 0.6, 0.9),
            base_color_texture=texture(soft, wrap_s="mirror", wrap_t="clamp", transform=turned),
            alpha_mode="BLEND",
        ),
        Material(base_color_texture=texture(rgba), alpha_mode="MASK", alpha_cutoff=0.3, roughness=0.3, metallic=0.7),
        Material(base_color_texture=texture(soft)),
    )
    assert {material.alpha_mode for material in materials} == set(get_args(AlphaMode))
    stack = quads([-0.3, 0.0, 0.2, 0.5], materials, 1.0, 2.5)
    across = stack.vertices @ np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]) + [0.1, 0.05, 0.0]
    assert stack.uv is not None
    return replace(
        stack,
        vertices=np.concatenate([stack.vertices, across]),
        faces=np.concatenate([stack.faces, stack.faces + len(stack.vertices)]),
        material=np.tile(stack.material, 2),
        uv=np.tile(stack.uv, (2, 1)),
    )


def settings_of(kind: str, backend: str, **changes: object) -> RenderSettings:
    regime = "scene" if kind == "room" else "object"
    shape = {"views": VIEWS, "height": 72, "width": 96, "samples": 2}
    return small(**{**shape, "backend": backend, "regime": regime, **changes})


@pytest.fixture(scope="module", params=["foliage", "object", "room"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def mesh(kind: str) -> Mesh:
    return foliage() if kind == "foliage" else procedural.make(f"{kind}s", 0, 3)


@pytest.fixture(scope="module")
def pairs(kind: str, mesh: Mesh) -> list[tuple[LayeredView, LayeredView]]:
    """Every view by the CPU and by the GPU."""
    ours, theirs = (render_views(mesh, origin(kind), settings_of(kind, backend)) for backend in ("cpu", GPU))
    assert [view for view, *_ in ours.rejected] == [view for view, *_ in theirs.rejected]
    assert len(ours.samples) >= VIEWS - 1
    return list(zip(ours.samples, theirs.samples, strict=True))


def test_the_layers_of_a_gpu_are_those_of_a_cpu_bit_by_bit(pairs, kind):
    for cpu, gpu in pairs:
        assert (cpu.info["backend"], gpu.info["backend"]) == ("cpu", GPU)
        np.testing.assert_array_equal(cpu.K, gpu.K)
        np.testing.assert_array_equal(cpu.world_from_camera, gpu.world_from_camera)
        np.testing.assert_array_equal(cpu.hits, gpu.hits)
        np.testing.assert_array_equal(cpu.depth.view(np.uint32), gpu.depth.view(np.uint32))
        for name in ("flags", "overflow", "slots"):
            assert cpu.info[name] == gpu.info[name], name
    assert max(int(cpu.hits.max()) for cpu, _ in pairs) >= 3


def test_so_are_their_facings_in_one_batch(pairs, mesh, kind):
    placed = mesh if kind == "room" else normalise(mesh, ())[0]
    cameras = [Camera(view.K, view.world_from_camera, *view.hits.shape, {}) for view, _ in pairs]
    found = []
    for backend in ("cpu", GPU):
        stage = Stage(placed, settings_of(kind, backend), {})
        found.append(stage.layers(stage.framed(cameras)))
    for ours, theirs, (view, _) in zip(*found, pairs, strict=True):
        np.testing.assert_array_equal(ours.hits, view.hits)
        for name in ("hits", "facing"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        np.testing.assert_array_equal(ours.depth.view(np.uint32), theirs.depth.view(np.uint32))
        assert {-1, 0, 1} == set(np.unique(ours.facing))


def test_the_pictures_of_a_gpu_are_those_of_a_cpu_but_for_rounding(pairs, kind):
    for cpu, gpu in pairs:
        assert gpu.info["exposure"] == pytest.approx(cpu.info["exposure"], rel=1e-4)
        np.testing.assert_array_equal(cpu.rgba[..., 3] > 127, gpu.rgba[..., 3] > 127)
        np.testing.assert_array_equal(gpu.rgba[..., 3] > 127, gpu.hits > 0)
        differs = np.abs(cpu.rgba.astype(int) - gpu.rgba).max(axis=-1)
        assert (differs > 1).mean() < 1e-3  # a sample at the border of a shadow
        assert cpu.rgba[cpu.hits > 0][:, :3].std() > 5


def test_a_gpu_takes_several_views_at_once_and_they_are_the_views_one_by_one(kind, mesh, monkeypatch):
    sizes = []
    image = Stage.image

    def counted(stage, shots, *rest):
        sizes.append(len(shots))
        return image(stage, shots, *rest)

    monkeypatch.setattr(Stage, "image", counted)
    settings = settings_of(kind, GPU)
    together = render_views(mesh, origin(kind), settings)
    assert max(sizes) > 1
    sizes.clear()
    monkeypatch.setattr(Stage, "batch", property(lambda stage: 1))
    alone = render_views(mesh, origin(kind), settings)
    assert set(sizes) == {1}
    assert together.rejected == alone.rejected
    for a, b in zip(together.samples, alone.samples, strict=True):
        assert encode(a).members == encode(b).members


def test_as_many_views_are_taken_at_once_as_fit_into_the_memory_for_them(mesh):
    small_views, large_views = (
        Stage(mesh, settings_of("object", GPU, height=side, width=side), {}).batch for side in (64, 2048)
    )
    assert small_views > large_views >= 1


def test_a_clip_of_a_gpu_is_that_of_a_cpu():
    actor = procedural.make("actors", 0, 2)
    changes = {"regime": "dynamic", "frames": 4, "views": 1}
    cpu, gpu = (
        render_views(actor, origin("actor"), settings_of("actor", backend, **changes)).samples[0].frames
        for backend in ("cpu", GPU)
    )
    for ours, theirs in zip(cpu, gpu, strict=True):
        np.testing.assert_array_equal(ours.hits, theirs.hits)
        np.testing.assert_array_equal(ours.depth.view(np.uint32), theirs.depth.view(np.uint32))
        assert (np.abs(ours.rgba.astype(int) - theirs.rgba) > 1).mean() < 1e-3
