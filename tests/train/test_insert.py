"""Insertion: a room with a sphere, one photograph, two predictions with their own crop, camera and scale."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from tests.train.analytic_stacks import rays, sphere_depths, stack_prediction
from train.downstream.insert import place, write_inserted
from train.downstream.stack import Stack, stack_of
from train.prediction.archive import write_npz
from train.prediction.prediction import Prediction

WIDTH, HEIGHT, FOCAL = 240, 180, 210.0
PHOTO = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1.0]])
CENTRE, RADIUS = np.array([0.5, 0.7, 4.0]), 0.5
FLOOR, WALL, SIDE = CENTRE[1] + RADIUS, 7.0, 1.2  # the sphere stands on the floor
LAYERS = 4


def room_depth(ray: np.ndarray) -> np.ndarray:
    """(H,W): a floor, a back wall, and a wall to the right, which stands as near to the sphere's foot as the floor."""
    with np.errstate(divide="ignore"):
        floor = np.where(ray[..., 1] > 0, FLOOR / ray[..., 1], np.inf)
        side = np.where(ray[..., 0] > 0, SIDE / ray[..., 0], np.inf)
    return np.minimum(np.minimum(floor, side), WALL)


def scene_prediction(with_sphere: bool, scale: float = 1.0, framed: np.ndarray | None = None) -> Prediction:
    """Of the whole photograph, in units of `scale` metres' inverse."""
    K = PHOTO if framed is None else framed @ PHOTO
    height, width = (HEIGHT, WIDTH) if framed is None else (150, 200)
    ray = rays(K, height, width)
    room = room_depth(ray)[None]
    body = sphere_depths(ray, CENTRE, RADIUS) if with_sphere else np.full((2, height, width), np.nan)
    depth = np.concatenate(
        [np.where(np.isfinite(body[:1]), body[:1], room), body[1:], np.full((2, height, width), np.nan)]
    )
    depth[2] = np.where(np.isfinite(depth[1]), room[0], np.nan)
    rgb = np.full((height, width, 3), 0.5, np.float32)
    return stack_prediction(depth * scale, K, rgb, framed, "scene")


def crop(size: int = 126) -> np.ndarray:
    """framed_from_image: a square about the sphere, which fills two thirds of it."""
    middle = (PHOTO @ (CENTRE / CENTRE[2]))[:2]
    zoom = size * (2 / 3) / (2 * RADIUS / CENTRE[2] * FOCAL)
    return np.array([[zoom, 0, size / 2 - zoom * middle[0]], [0, zoom, size / 2 - zoom * middle[1]], [0, 0, 1]])


def object_prediction(scale: float, focal: float = 1.0) -> Prediction:
    """Of the crop: with the photograph's own camera, in units of its own; or as a model imagines it that takes the crop
    for a picture of `focal` times the focal length: nearer, in the same proportions."""
    framed = crop()
    ray = rays(framed @ PHOTO, 126, 126)
    two = sphere_depths(ray, CENTRE, RADIUS)
    depth = np.concatenate([two, np.full((LAYERS - 2, 126, 126), np.nan)])
    K = framed @ PHOTO
    if focal != 1:  # z' = D (k z / z0 + 1 - k) backwards, with k = focal
        z0 = np.nanmedian(two)
        depth = (depth / z0 - (1 - focal)) / focal * z0
        K = K.copy()
        K[0, 0] *= focal
        K[1, 1] *= focal
    return stack_prediction(depth * scale, K, None, framed, "object")


def truth(item: Stack, scale: float = 1.0) -> np.ndarray:
    """(2,H,W,3): where front and back of the sphere are, in the scene's frame and units."""
    ray = rays(crop() @ PHOTO, 126, 126)
    return sphere_depths(ray, CENTRE, RADIUS)[..., None] * ray * scale


def worst(xyz: np.ndarray, there: np.ndarray, true: np.ndarray) -> float:
    """The largest distance, as a part of the sphere's distance to the camera."""
    off = np.linalg.norm(xyz[:2] - true, axis=-1) / np.linalg.norm(true, axis=-1)
    return float(off[there[:2]].max())


@pytest.mark.parametrize("scale", [0.37, 1.0, 12.0])
@pytest.mark.parametrize("units", [1.0, 0.25])
def test_the_true_place_is_recovered_whatever_scale_and_crop(scale: float, units: float) -> None:
    item = stack_of(object_prediction(scale), flyers=True)
    scene = stack_of(scene_prediction(True, units), flyers=True)
    placement = place(item, scene)
    assert worst(placement.xyz, item.there, truth(item, units)) < 1e-3
    assert placement.scale == pytest.approx(units / scale, rel=1e-3)
    assert placement.shift == pytest.approx(0, abs=1e-3 * units)


def test_a_framed_scene_is_the_same_scene() -> None:
    framed = np.array([[200 / 240, 0, 0], [0, 200 / 240, 0], [0, 0, 1]])
    item = stack_of(object_prediction(0.4), flyers=True)
    placement = place(item, stack_of(scene_prediction(True, 1.0, framed), flyers=True))
    assert worst(placement.xyz, item.there, truth(item)) < 1e-3


@pytest.mark.parametrize("focal", [0.6, 1.7])
@pytest.mark.parametrize("align", ["shape", "depth"])
def test_another_focal_length_in_the_crop_changes_nothing(focal: float, align: str) -> None:
    item = stack_of(object_prediction(0.4, focal), flyers=True)
    placement = place(item, stack_of(scene_prediction(True), flyers=True), align=align)
    assert worst(placement.xyz, item.there, truth(item)) < 2e-3
    # the sentence that the file says about its transform is true of every point
    told = placement.to_dict()
    own = item.xyz[item.there].astype(np.float64)
    moved = (told["scale"] + told["shift"] / own[:, 2:]) * (own @ np.array(told["rays"]).T)
    np.testing.assert_allclose(moved, placement.xyz[item.there], atol=1e-5)


def test_points_stay_on_the_rays_of_their_pixels() -> None:
    rng = np.random.default_rng(0)
    prediction = object_prediction(0.4, 1.3)
    noisy = prediction.xyz * (1 + 0.02 * rng.standard_normal((*prediction.xyz.shape[:-1], 1), np.float32))
    item = stack_of(
        Prediction(prediction.rgb, prediction.valid, noisy, prediction.K, (0,), framed_from_image=crop()), flyers=True
    )
    placement = place(item, stack_of(scene_prediction(True), flyers=True))
    projected = placement.xyz @ (crop() @ PHOTO).T
    v, u = np.meshgrid(np.arange(126) + 0.5, np.arange(126) + 0.5, indexing="ij")
    uv = projected[..., :2] / np.where(item.there, projected[..., 2], 1)[..., None]
    np.testing.assert_allclose(uv[item.there], np.broadcast_to(np.stack([u, v], -1), uv.shape)[item.there], atol=1e-3)


@pytest.mark.parametrize("focal", [1.0, 1.4])
def test_a_new_object_stands_on_the_floor(focal: float) -> None:
    item = stack_of(object_prediction(0.4, focal), flyers=True)
    placement = place(item, stack_of(scene_prediction(False), flyers=True), how="standing")
    assert worst(placement.xyz, item.there, truth(item)) < 2e-3
    assert placement.xyz[item.there][:, 1].max() == pytest.approx(FLOOR, rel=2e-3)


def test_the_scene_gives_way_where_the_object_is_and_stays_behind_it() -> None:
    item = stack_of(object_prediction(0.4), flyers=True)
    scene = stack_of(scene_prediction(True), flyers=True)
    removed = place(item, scene).removed
    on_sphere = np.isfinite(sphere_depths(rays(PHOTO, HEIGHT, WIDTH), CENTRE, RADIUS)[0])
    assert (removed[0] & on_sphere).sum() > 0.98 * on_sphere.sum()  # its front, as the scene saw it
    assert (removed[1] & on_sphere).sum() > 0.98 * on_sphere.sum()  # its back
    assert (removed[0] & ~on_sphere).sum() < 0.1 * on_sphere.sum()  # a rim of a pixel of floor
    behind = scene.there[2] & (scene.xyz[2, ..., 2] > CENTRE[2] + RADIUS * 1.2)
    assert behind.sum() > 0.3 * on_sphere.sum()
    assert not removed[2][behind].any()


def test_the_floor_below_a_new_object_stays() -> None:
    item = stack_of(object_prediction(0.4), flyers=True)
    scene = stack_of(scene_prediction(False), flyers=True)
    removed = place(item, scene, how="standing").removed
    assert removed.sum() <= 0.002 * scene.there.sum()


def test_what_cannot_be_placed_is_said() -> None:
    item = stack_of(object_prediction(0.4), flyers=True)
    far = np.eye(3)
    far[0, 2] = 5000
    elsewhere = scene_prediction(True)
    elsewhere = Prediction(
        elsewhere.rgb, elsewhere.valid, elsewhere.xyz, elsewhere.K, (0,), name="scene", framed_from_image=far
    )
    with pytest.raises(ValueError, match="share 0 pixels"):
        place(item, stack_of(elsewhere, flyers=True))
    wall = scene_prediction(False)
    flat = np.where(wall.valid, WALL, 0)[None].repeat(LAYERS, 0)
    wall = stack_prediction(flat, PHOTO, name="wall")
    with pytest.raises(ValueError, match="no ground"):
        place(item, stack_of(wall, flyers=True), how="standing")
    with pytest.raises(ValueError, match="--place seen"):
        place(item, stack_of(wall, flyers=True), how="standing", align="depth")


@pytest.mark.parametrize("mesh", [False, True])
def test_the_file_has_two_named_nodes(tmp_path: Path, mesh: bool) -> None:
    item = stack_of(object_prediction(0.4), flyers=True)
    scene = stack_of(scene_prediction(True), flyers=True)
    placement = place(item, scene)
    path = write_inserted(tmp_path / "both.glb", item, scene, placement, mesh)
    content = path.read_bytes()
    length = struct.unpack_from("<I", content, 12)[0]
    told = {node["name"]: node for node in json.loads(content[20 : 20 + length])["nodes"]}
    assert set(told) == {"scene", "object"}
    assert told["object"]["extras"]["scale"] == placement.scale
    loaded = trimesh.load(path, force="scene")
    shape = loaded.geometry[loaded.graph["object"][1]]
    at = np.asarray(shape.vertices) * [1, -1, -1]  # glTF is y-up
    assert np.abs(np.linalg.norm(at - CENTRE, axis=1) - RADIUS).max() < 5e-3


def test_the_command(tmp_path: Path, capsys) -> None:
    import worldtrace

    write_npz(tmp_path / "object.npz", [object_prediction(0.4)])
    write_npz(tmp_path / "scene.npz", [scene_prediction(True)])
    both = [str(tmp_path / "object.npz"), str(tmp_path / "scene.npz")]
    for arguments, code, says in (
        (["--out", str(tmp_path / "both.glb")], 0, "of the scene gave way"),
        (["--out", str(tmp_path / "both.glb"), "--mesh", "--align", "depth"], 0, "wrote"),
        (["--out", str(tmp_path / "both.ply")], 2, "one .glb"),
        ([both[0], both[0]], 2, "nothing of object is left beside object"),
        ([str(tmp_path / "both.glb"), both[1]], 2, "both.glb shows one stack; give the .npz"),
    ):
        other = ["--out", str(tmp_path / "other.glb")]
        given = [*both, *arguments] if arguments[0] == "--out" else [*arguments, *other]
        with pytest.raises(SystemExit) as exit_:
            worldtrace.main(["insert", *given])
        captured = capsys.readouterr()
        assert exit_.value.code == code, captured.err
        assert says in captured.out + captured.err
