"""Clips: one normalisation, one light, moving vertices or a moving camera."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from render.mesh import Material, Mesh, Room
from render.motion import Creases, clip_times, posed
from render.views import render_views
from shards.contract import Clip, LayeredView
from shards.randomness import generator
from tests.render.shapes import box, mesh_of, origin, small, sphere


def sliding(reach: float = 3.0, duration: float = 1.0) -> Mesh:
    """A box that slides by `reach` along x in `duration` seconds."""
    mesh = box((1.0, 1.0, 1.0))
    return replace(mesh, duration=duration, pose=lambda t: mesh.vertices + [reach * t / duration, 0, 0])


def clip_of(mesh: Mesh, **changes: object) -> Clip:
    rendered = render_views(mesh, origin("clip"), small(**{"regime": "dynamic", "frames": 4, **changes}))
    assert rendered.rejected == []
    assert isinstance(rendered.samples[0], Clip)
    return rendered.samples[0]


def world_points(view: LayeredView) -> np.ndarray:
    pose = view.world_from_camera
    return view.xyz().astype(np.float64)[view.hit] @ pose[:3, :3].T + pose[:3, 3]


def test_the_frames_of_an_animation_share_one_normalisation():
    clip = clip_of(sliding(), crop=0.0, frames_per_second=4.0)
    assert clip.key.endswith("-c000")
    scales = {frame.info["normalisation"]["scale"] for frame in clip.frames}
    # frames at 0, 1/4, 1/2, 3/4 of the way: the box over all of them is 1 + 3 * 3/4 long
    assert list(scales) == [pytest.approx(1 / 3.25)]
    for t, frame in enumerate(clip.frames):
        points = world_points(frame)
        n = frame.info["normalisation"]
        asset = points / n["scale"] + n["offset"]
        assert frame.info["time"] == pytest.approx(t / 4)
        np.testing.assert_allclose(np.abs(asset - [0.75 * t, 0, 0]).max(axis=1), 0.5, atol=1e-4)


def test_light_and_exposure_stay_over_a_clip():
    clip = clip_of(sliding())
    assert len({str(frame.info["light"]) for frame in clip.frames}) == 1
    assert len({frame.info["exposure"] for frame in clip.frames}) == 1


def test_a_clip_does_not_depend_on_the_clips_before_it():
    mesh = sliding(duration=9.0)
    two = render_views(mesh, origin("clip"), small(regime="dynamic", frames=3, views=3)).samples
    again = render_views(mesh, origin("clip"), small(regime="dynamic", frames=3, views=2)).samples
    for a, b in zip(two, again):
        assert isinstance(a, Clip)
        assert isinstance(b, Clip)
        for x, y in zip(a.frames, b.frames):
            assert x.info == y.info
            assert x.rgba.tobytes() == y.rgba.tobytes()
            assert x.depth.tobytes() == y.depth.tobytes()
    assert two[0].frames[0].info["time"] != two[1].frames[0].info["time"]


def test_a_still_asset_is_seen_along_a_camera_path():
    clip = clip_of(box((1.0, 0.6, 0.8)), frames=5)
    eyes = np.array([frame.world_from_camera[:3, 3] for frame in clip.frames])
    assert np.ptp(np.linalg.norm(eyes, axis=1)) < 1e-9  # an arc around the object
    assert np.linalg.norm(eyes[0] - eyes[-1]) > 0.5
    for frame in clip.frames:
        np.testing.assert_allclose(np.abs(world_points(frame) / [0.5, 0.3, 0.4]).max(axis=1), 1.0, atol=2e-5)


def test_a_room_is_seen_in_metres_along_a_path_and_every_pose_is_recorded():
    inside = np.array([[-3.0, 0.0, -2.0], [3.0, 2.6, 2.0]])
    walls = trimesh.creation.box(extents=inside[1] - inside[0])
    walls.apply_translation(inside.mean(axis=0))
    mesh = replace(mesh_of(walls), room=Room(inside))
    rendered = render_views(mesh, origin("room"), small(regime="dynamic", frames=4, views=8, shadows=False, samples=1))
    assert rendered.rejected == []
    moves = set()
    for clip in rendered.samples:
        assert isinstance(clip, Clip)
        poses = np.array([frame.world_from_camera for frame in clip.frames])
        cameras = [frame.info["camera"] for frame in clip.frames]
        moves.add(cameras[0]["move"])
        assert all(not np.allclose(a, b) for a, b in itertools.pairwise(poses))
        assert np.all((poses[:, :3, 3] > inside[0]) & (poses[:, :3, 3] < inside[1]))
        np.testing.assert_allclose(poses[:, 1, 3], poses[0, 1, 3])  # at one height
        way = np.linalg.norm(poses[:, :3, 3] - poses[0, :3, 3], axis=1)
        if cameras[0]["move"] in ("dolly", "strafe"):
            np.testing.assert_allclose(way, np.abs([camera["along"] for camera in cameras]), atol=1e-12)
        for frame in clip.frames:
            assert frame.info["normalisation"]["scale"] == 1.0
            points = world_points(frame)  # on the walls, whichever pose they were seen from
            gap = np.minimum(np.abs(points - inside[0]), np.abs(points - inside[1])).min(axis=1)
            assert gap.max() < 5e-4
    assert len(moves) >= 3


def test_a_broken_pose_rejects_the_clip_with_its_time():
    mesh = sliding()
    broken = replace(mesh, pose=lambda t: mesh.vertices * (np.nan if t > 0.4 else 1.0))
    rendered = render_views(broken, origin("clip"), small(regime="dynamic", frames=4))
    assert rendered.samples == []
    assert rendered.rejected[0][1] in ("bad_animation", "non_finite")


def test_still_views_of_an_animation_show_poses_each_normalised_by_itself():
    mesh = box((1.0, 1.0, 1.0))
    growing = replace(mesh, duration=2.0, pose=lambda t: mesh.vertices * [1 + t, 1, 1])
    views = render_views(growing, origin("grow"), small(views=3)).samples
    again = render_views(growing, origin("grow"), small(views=2)).samples
    assert len({view.info["time"] for view in views}) == 3
    for view in views:
        assert view.info["normalisation"]["scale"] == pytest.approx(1 / (1 + view.info["time"]))
        half = np.array([0.5, 0.5 / (1 + view.info["time"]), 0.5 / (1 + view.info["time"])])
        np.testing.assert_allclose(np.abs(world_points(view) / half).max(axis=1), 1.0, atol=5e-5)
    assert views[1].rgba.tobytes() == again[1].rgba.tobytes()


def test_times_cover_a_short_animation_and_a_window_of_a_long_one():
    settings = small(frames=8, frames_per_second=10.0)
    np.testing.assert_allclose(clip_times(generator(0, "t"), 0.4, settings), np.arange(8) * 0.05)
    for k in range(20):
        times = clip_times(generator(0, "t", k), 5.0, settings)
        np.testing.assert_allclose(np.diff(times), 0.1)
        assert times[0] >= 0
        assert times[-1] < 5.0


def test_normals_of_a_pose_turn_with_it_and_creases_stay():
    for mesh in (sphere(2), mesh_of(trimesh.creation.box().subdivide(), smooth=False)):
        flat = np.cross(*(mesh.vertices[mesh.faces[:, k]] - mesh.vertices[mesh.faces[:, 0]] for k in (1, 2)))
        if mesh.normals is None:  # one vertex per corner, so that edges are sharp
            vertices = mesh.vertices[mesh.faces].reshape(-1, 3)
            normals = np.repeat(flat / np.linalg.norm(flat, axis=1, keepdims=True), 3, axis=0).astype(np.float32)
            faces = np.arange(len(vertices), dtype=np.int32).reshape(-1, 3)
            mesh = Mesh(vertices, faces, np.zeros(len(faces), np.int32), (Material(),), normals=normals)
        creases = Creases.of(mesh)
        assert creases is not None
        turn = trimesh.transformations.rotation_matrix(0.7, [1, 2, 3])[:3, :3]
        expected = creases.normals(mesh.vertices) @ turn.T
        np.testing.assert_allclose(creases.normals(mesh.vertices @ turn.T), expected, atol=1e-6)
        assert np.sum(creases.normals(mesh.vertices) * mesh.normals, axis=1).min() > 0.98


def test_posed_gives_all_frames():
    assert posed(sliding(), np.array([0.0, 0.5])).shape == (2, 8, 3)


def test_a_frame_in_which_the_mesh_shrinks_to_a_point_is_typed():
    mesh = box((1.0, 1.0, 1.0))
    shrinking = replace(mesh, duration=1.0, pose=lambda t: mesh.vertices * (1 - min(2 * t, 1.0)))
    rendered = render_views(shrinking, origin("clip"), small(regime="dynamic", frames=4))
    assert [reason for _, reason, _ in rendered.rejected] == ["too_few_pixels"]


def test_an_interior_that_is_not_described_is_seen_from_inside_where_that_is_asked_for():
    walls = trimesh.creation.box(extents=(6.0, 2.6, 5.0))
    walls.invert()  # a room's walls face inwards
    mesh = mesh_of(walls)
    inside = clip_of(mesh, indoors=True)
    assert inside.frames[0].info["normalisation"]["scale"] == 1.0
    assert inside.frames[0].info["camera"]["kind"] == "room"
    assert clip_of(mesh).frames[0].info["camera"]["kind"] == "object"
