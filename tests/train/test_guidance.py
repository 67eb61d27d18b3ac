"""Guidance: the source view gives the image back, other views agree with a ray caster, paths and files are as said."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch.utils._python_dispatch import TorchDispatchMode

from tests.train.analytic_stacks import camera, rays, sphere_depths, sphere_prediction, stack_prediction
from train.downstream import splat
from train.downstream.cameras import Cameras, cameras, centre_of, read_cameras, write_cameras
from train.downstream.cells import cells_of, dice
from train.downstream.guidance import DepthRange, depth_range, frames, write_guidance
from train.downstream.splat import LARGEST, NOTHING, Frame, surfaces, view
from train.downstream.stack import Stack, ordered, stack_of
from train.prediction.archive import write_npz
from train.prediction.prediction import Prediction

CENTRE, RADIUS = np.array([0.0, 0.0, 2.0]), 0.5


@pytest.fixture(scope="module")
def sphere() -> Stack:
    return stack_of(sphere_prediction(128, tuple(CENTRE), RADIUS), flyers=True)


def look(stack: Stack, pose: np.ndarray, size: int | None = None, K: np.ndarray | None = None) -> Frame:
    size = stack.there.shape[1] if size is None else size
    return view(surfaces(stack), stack.K if K is None else K, pose, size, size)


def noisy_prediction(size: int = 64) -> Prediction:
    """What a poor model gives: every point of a sphere off by some percent, in all directions, layers out of order."""
    rng = np.random.default_rng(3)
    clean = sphere_prediction(size)
    xyz = clean.xyz * (1 + 0.03 * rng.standard_normal(clean.xyz.shape)).astype(np.float32)
    return Prediction(clean.rgb, clean.valid, np.where(clean.valid[..., None], xyz, 0), clean.K, (0,), name="noisy")


@pytest.mark.parametrize("noisy", [False, True])
def test_the_source_view_is_the_image_and_layer_0_bit_by_bit(noisy: bool) -> None:
    prediction = noisy_prediction() if noisy else sphere_prediction(128)
    stack = stack_of(prediction, flyers=True)
    frame = look(stack, np.eye(4))
    valid = prediction.valid
    np.testing.assert_array_equal(frame.rgb[valid], prediction.rgb[valid])
    np.testing.assert_array_equal(frame.depth[valid], prediction.xyz[0, 0, ..., 2][valid])
    assert (frame.layer[valid] == 0).all()
    assert (frame.layer[~valid] == NOTHING).all()
    assert (frame.depth[~valid] == 0).all()
    assert (frame.rgb[~valid] == 0).all()


@pytest.mark.parametrize("degrees", [20, 75, 90, 140, 180])
def test_a_sphere_seen_from_elsewhere_is_the_sphere(sphere: Stack, degrees: float) -> None:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, CENTRE - turn @ CENTRE  # about the sphere: the same picture from everywhere
    frame = look(sphere, pose)
    true = sphere_depths(rays(sphere.K, 128, 128), CENTRE, RADIUS)[0]
    seen, there = frame.layer != NOTHING, np.isfinite(true)
    assert (seen & there).sum() > 0.985 * there.sum()  # no holes
    assert not (seen & ~ndimage.binary_dilation(there, np.ones((3, 3)))).any()  # a border of a pixel at most
    both = seen & there
    steep = np.abs(np.gradient(np.where(there, true, np.nan))[0]) + np.abs(
        np.gradient(np.where(there, true, np.nan))[1]
    )
    flat = both & (steep < 0.02)
    assert np.abs(frame.depth - true)[flat].max() < 0.03
    assert np.median(np.abs(frame.depth - true)[both]) < 2e-3
    if degrees == 180:
        assert (frame.layer[both] == 1).mean() > 0.95  # the back is the hidden layer, in grey
        np.testing.assert_allclose(frame.rgb[frame.layer == 1], 150 / 255, atol=1e-6)


@pytest.mark.parametrize("zoom", [2.0, 7.0])
def test_a_magnified_plane_has_no_holes(zoom: float) -> None:
    depth = np.full((4, 48, 48), np.nan)
    K = camera(48)
    ray = rays(K, 48, 48)
    depth[0] = 2 / (1 + 0.5 * ray[..., 0])  # a slanted plane, z + x / 2 = 2
    stack = stack_of(stack_prediction(depth, K), flyers=True)
    size = 200
    near = np.diag([K[0, 0] * zoom, K[0, 0] * zoom, 1.0])
    near[:2, 2] = size / 2
    frame = look(stack, np.eye(4), size, near)
    v, u = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5, indexing="ij")
    new = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(near).T
    inside = (np.abs(new[..., :2]) < 0.95 * ray[..., 0].max()).all(-1)
    assert (frame.layer[inside] == 0).all()
    np.testing.assert_allclose(frame.depth[inside], (2 / (1 + 0.5 * new[..., 0]))[inside], rtol=3e-3)


def test_what_is_nearer_covers_what_is_farther() -> None:
    depth = np.full((4, 64, 64), np.nan)
    depth[0] = 4.0
    depth[0, 24:40, 24:40] = 2.0
    depth[1, 24:40, 24:40] = 4.0  # the wall goes on behind the square
    stack = stack_of(stack_prediction(depth, camera(64)), flyers=True)
    aside = np.eye(4)
    aside[0, 3] = 18 * 2.0 / camera(64)[0, 0]  # moves the square by 18 whole pixels, and the wall by 9
    frame = look(stack, aside)
    assert set(np.unique(np.round(frame.depth[frame.layer != NOTHING], 3))) == {2.0, 4.0}  # nothing hangs in between
    assert (np.abs(frame.depth - 2) < 1e-3).sum() == 256  # seen whole, and as large as before
    uncovered = frame.layer == 1
    assert uncovered.sum() > 0.3 * 256  # the camera looks behind it: half of what the square hid
    assert (frame.depth[uncovered] > 3.9).all()


def test_layers_are_put_in_order_along_their_rays() -> None:
    rng = np.random.default_rng(1)
    ray = rays(camera(16), 16, 16)
    z = rng.uniform(1, 2, (4, 16, 16)).astype(np.float32)
    exists = rng.random((4, 16, 16)) < 0.8
    xyz = (z[..., None] * ray).astype(np.float32)
    got = ordered(xyz, exists)
    naive = z.copy()
    for row in range(16):
        for column in range(16):
            deepest = -np.inf
            for layer in range(4):
                if exists[layer, row, column]:
                    deepest = naive[layer, row, column] = max(deepest, z[layer, row, column])
    np.testing.assert_array_equal(got[..., 2], naive)
    np.testing.assert_allclose(got, naive[..., None] * ray, rtol=1e-5)


def test_dice_is_bilinear_and_counts_right() -> None:
    rng = np.random.default_rng(2)
    corners = torch.from_numpy(rng.random((5, 4, 3)))
    across, down = torch.tensor([1, 3, 0, 2, 4]), torch.tensor([1, 2, 5, 2, 1])
    got, cell = dice(corners, across, down)
    naive = []
    for n in range(5):
        for j in range(int(down[n])):
            for i in range(int(across[n])):
                s, t = (i + 0.5) / int(across[n]), (j + 0.5) / int(down[n])
                a, b, c, d = corners[n]
                naive.append((n, (1 - t) * ((1 - s) * a + s * b) + t * ((1 - s) * c + s * d)))
    assert cell.tolist() == [n for n, _ in naive]
    np.testing.assert_allclose(got.numpy(), torch.stack([x for _, x in naive]).numpy(), rtol=1e-6)


def test_a_grazing_plane_hangs_together_and_a_step_does_not() -> None:
    K, size = camera(64), 64
    ray = rays(K, size, size)
    tilt = np.tan(np.radians(80))
    plane = torch.from_numpy((2 / (1 + tilt * ray[..., 0])).astype(np.float32))[None]
    there = (plane > 0) & (plane < 20)
    corners, rim = cells_of(plane, there, K[0, 0])
    whole = there[:, 1:, 1:] & there[:, :-1, :-1] & there[:, 1:, :-1] & there[:, :-1, 1:]
    assert not rim.any()
    assert len(corners) > 0.97 * int(whole.sum())
    step = torch.where(torch.arange(size) < 30, 2.0, 2.3).expand(1, size, size).contiguous()
    corners, _ = cells_of(step, torch.ones(1, size, size, dtype=torch.bool), K[0, 0])
    columns = corners[:, 0] % size
    assert len(corners) == (size - 1) * (size - 2)
    assert 29 not in columns.tolist()


def test_named_paths_start_at_the_photograph_and_move_rigidly(sphere: Stack) -> None:
    for path in ("orbit", "dolly", "spiral"):
        poses = cameras(path, sphere, 13, elevation=20).world_from_camera
        assert poses.shape == (13, 4, 4)
        np.testing.assert_allclose(poses[0], np.eye(4), atol=1e-12)
        turn = poses[:, :3, :3]
        np.testing.assert_allclose(turn @ turn.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turn.shape), atol=1e-12)
    assert len(cameras("dolly", sphere, 1).world_from_camera) == 1


def test_an_orbit_keeps_its_distance_its_height_and_its_middle(sphere: Stack) -> None:
    tilt = np.radians(30)
    up = np.array([0, -np.cos(tilt), -np.sin(tilt)])
    poses = cameras("orbit", sphere, 9, elevation=30).world_from_camera
    np.testing.assert_allclose(poses[-1], np.eye(4), atol=1e-12)  # 360 degrees: back again
    middle = centre_of(sphere.points)
    np.testing.assert_allclose(middle, CENTRE, atol=5e-3)
    centre = np.append(middle, 1)
    np.testing.assert_allclose(np.linalg.inv(poses) @ centre, np.broadcast_to(centre, (9, 4)), atol=1e-9)
    height = poses[:, :3, 3] @ up
    np.testing.assert_allclose(height, height[0], atol=1e-9)
    quarter = cameras("orbit", sphere, 2, amount=90).world_from_camera[1][:3, 3] - CENTRE
    np.testing.assert_allclose(quarter, [2, 0, 0], atol=5e-3)  # to the right: counter-clockwise, seen from above


def test_a_dolly_comes_nearer_and_a_spiral_looks_at_the_middle(sphere: Stack) -> None:
    assert cameras("dolly", sphere, 3).world_from_camera[-1][2, 3] == pytest.approx(1.0, abs=5e-3)
    poses = cameras("spiral", sphere, 20).world_from_camera
    seen = np.linalg.inv(poses) @ [0, 0, 2, 1]
    np.testing.assert_allclose(seen[:, :2], 0, atol=5e-3)  # on the optical axis, always


def test_cameras_come_back_from_their_file(sphere: Stack, tmp_path: Path) -> None:
    made = cameras("spiral", sphere, 7)
    back = read_cameras(write_cameras(tmp_path / "cameras.json", made, fps=24), sphere)
    np.testing.assert_array_equal(back.world_from_camera, made.world_from_camera)
    np.testing.assert_array_equal(back.K, made.K)
    assert (back.height, back.width) == (128, 128)
    (tmp_path / "bare.json").write_text(json.dumps({"world_from_camera": made.world_from_camera.tolist()}))
    np.testing.assert_array_equal(cameras(str(tmp_path / "bare.json"), sphere).K, sphere.K)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("{", "no JSON"),
        ("[]", "no object"),
        ('{"world_from_camera": 3}', "not (N,4,4)"),
        ('{"world_from_camera": [["a"]]}', "no matrix of numbers"),
        ('{"world_from_camera": [[1' + "0" * 400 + "]]}", "no matrix of numbers"),
        ('{"world_from_camera": [[[1,0,0,1e300],[0,1,0,0],[0,0,1,0],[0,0,0,1]]]}', "beyond 1e+12"),
        (
            '{"world_from_camera": [[[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]], "K": [[1,0,0],[0,1,0],[0,0,1]], '
            '"height": true, "width": 5}',
            "whole numbers of pixels",
        ),
        ('{"world_from_camera": [[[NaN,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]]}', "not finite"),
        ('{"world_from_camera": [[[2,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]]}', "no rotation"),
        ('{"world_from_camera": [[[-1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]]}', "no rotation"),
        ('{"world_from_camera": [[[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]], "height": 5}', "has no K"),
        (
            '{"world_from_camera": [[[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]], "K": [[1,0,0],[0,1,0],[0,0,1]], '
            '"height": 99999, "width": 5}',
            "whole numbers of pixels",
        ),
    ],
)
def test_a_file_of_cameras_that_is_none_is_refused_in_a_sentence(
    sphere: Stack, tmp_path: Path, told: str, says: str
) -> None:
    (tmp_path / "c.json").write_text(told)
    with pytest.raises(ValueError, match="json") as error:
        read_cameras(tmp_path / "c.json", sphere)
    assert says in str(error.value)
    with pytest.raises(FileNotFoundError):
        read_cameras(tmp_path / "none.json", sphere)
    with pytest.raises(ValueError, match="did you mean orbit"):
        cameras("orbits", sphere)


def test_the_depth_code_is_inverse_depth_near_bright_and_can_be_undone() -> None:
    span = DepthRange(1.0, 4.0)
    depth = np.linspace(1, 4, 1000, dtype=np.float32)[None]
    value = span.encode(depth)
    assert value[0, 0] == 255
    assert value[0, -1] == 1
    assert (np.diff(value[0].astype(int)) <= 0).all()
    step = (1 / 1.0 - 1 / 4.0) / 254
    np.testing.assert_array_less(np.abs(1 / span.decode(value) - 1 / depth), step / 2 + 1e-6)
    assert span.encode(np.zeros((2, 2), np.float32)).max() == 0
    assert span.decode(np.zeros((1, 1), np.uint8)).max() == 0


def test_the_depth_range_covers_what_every_camera_sees(sphere: Stack) -> None:
    along = cameras("orbit", sphere, 7)
    span = depth_range(sphere, along)
    for frame in frames(sphere, along):
        seen = frame.depth[frame.layer != NOTHING]
        assert span.near <= seen.min()
        assert seen.max() <= span.far
    away = Cameras(np.diag([-1.0, 1, -1, 1])[None], sphere.K, 8, 8)
    with pytest.raises(ValueError, match="leads away"):
        depth_range(sphere, away)


def test_videos_and_frames_hold_what_was_rendered(sphere: Stack, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    import OpenEXR

    flat = Stack(sphere.xyz, sphere.there, np.full_like(sphere.rgb, 0.5), sphere.K, None, "flat")
    flat.rgb[:, 64:] = [0.9, 0.2, 0.1]
    along = cameras("orbit", flat, 5, 60)
    odd = Cameras(along.world_from_camera, along.K, 127, 125)
    span = depth_range(flat, odd)
    made = list(frames(flat, odd))
    files = tmp_path / "rgb.mp4", tmp_path / "depth.mp4", tmp_path / "frames"
    shares = write_guidance(iter(made), odd, span, *files, fps=10)
    assert shares == pytest.approx([float((f.layer != NOTHING).mean()) for f in made])
    with av.open(str(files[0])) as video:
        assert video.streams.video[0].average_rate == 10
        got = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert [g.shape for g in got] == [(128, 126, 3)] * 5  # even sides, for H.264
    for g, frame in zip(got, made):
        assert np.abs(g[:127, :125] / 255.0 - frame.rgb).mean() < 0.02
    with av.open(str(files[1])) as video:
        assert "inverse depth" in video.metadata["comment"]
        got = [frame.to_ndarray(format="rgb24")[..., 0] for frame in video.decode(video=0)]
    for value, frame in zip(got, made):
        inner = np.zeros(frame.layer.shape, bool)
        inner[40:80, 45:80] = True
        np.testing.assert_allclose(span.decode(value[:127, :125])[inner], frame.depth[inner], rtol=0.02)
    for number, frame in enumerate(made):
        exact = OpenEXR.File(str(files[2] / f"depth_{number:04d}.exr")).channels()["Z"].pixels
        np.testing.assert_array_equal(exact, frame.depth)
        np.testing.assert_array_equal(np.asarray(Image.open(files[2] / f"layer_{number:04d}.png")), frame.layer)
        png = np.asarray(Image.open(files[2] / f"rgb_{number:04d}.png"))
        np.testing.assert_array_equal(png, np.round(frame.rgb * 255).astype(np.uint8))
    back = read_cameras(files[2] / "cameras.json", flat)
    assert (back.height, back.width) == (127, 125)


def test_a_video_that_fails_leaves_no_file(sphere: Stack, tmp_path: Path) -> None:
    pytest.importorskip("av")
    along = cameras("dolly", sphere, 3)

    def failing():
        yield next(iter(frames(sphere, along)))
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        write_guidance(failing(), along, depth_range(sphere, along), tmp_path / "rgb.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_sees_what_a_cpu_sees(sphere: Stack) -> None:
    along = cameras("orbit", sphere, 5)
    for one, other in zip(frames(sphere, along), frames(sphere, along, device="cuda")):
        assert (one.layer == other.layer).mean() > 0.999
        same = one.layer == other.layer
        assert (np.abs(one.depth - other.depth)[same] < 1e-3).mean() > 0.999


def test_the_command(tmp_path: Path, capsys) -> None:
    pytest.importorskip("av")
    import worldtrace

    write_npz(tmp_path / "it.npz", [sphere_prediction(64)])
    video = str(tmp_path / "v.mp4")
    for arguments, code, says in (
        (["--out", video, "--frames", "3", "--amount", "30"], 0, "3 frames of 64x64"),
        (["--depth", video, "--frames", "2", "--path", "dolly", "--hidden", "image"], 0, "inverse depth"),
        (["--folder", str(tmp_path / "f"), "--frames", "2"], 0, "wrote"),
        (["--folder", str(tmp_path / "g"), "--path", str(tmp_path / "f" / "cameras.json")], 0, "2 frames"),
        ([], 2, "nothing to write"),
        (["--out", str(tmp_path / "v.avi")], 2, "written as .mp4"),
        (["--out", video, "--depth", video], 2, "a name of its own"),
        (["--folder", str(tmp_path / "it.npz")], 2, "is a file"),
        (["--out", video, "--path", "dollie"], 2, "did you mean dolly"),
    ):
        with pytest.raises(SystemExit) as exit_:
            worldtrace.main(["guidance", str(tmp_path / "it.npz"), *arguments])
        captured = capsys.readouterr()
        assert exit_.value.code == code, captured.err
        assert says in captured.out + captured.err


def test_what_a_gpu_lacks_is_not_asked_of_it(sphere: Stack) -> None:
    """CUDA multiplies no matrices of integers; here such a product is an error too."""

    class NoIntegerProducts(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func._opname in ("mm", "mv", "addmm", "addmv", "bmm", "dot"):
                assert all(x.is_floating_point() for x in args if isinstance(x, torch.Tensor)), func
            return func(*args, **(kwargs or {}))

    with NoIntegerProducts():
        seen = look(sphere, np.eye(4))
    np.testing.assert_array_equal(seen.layer == 0, sphere.there[0])


def test_a_frame_is_the_same_in_whatever_portions_it_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is that of a portion; the largest one is no larger than asked for."""
    stack = stack_of(noisy_prediction(48), flyers=True)
    pose = cameras("orbit", stack, 8).world_from_camera[1]
    whole = look(stack, pose, 96, camera(96))
    largest = 0
    cut = splat.dice

    def counted(*arguments: torch.Tensor) -> Any:
        nonlocal largest
        found = cut(*arguments)
        largest = max(largest, len(found[0]))
        return found

    monkeypatch.setattr(splat, "dice", counted)
    monkeypatch.setattr(splat, "AT_ONCE", LARGEST**2)
    parts = look(stack, pose, 96, camera(96))
    for name in ("rgb", "depth", "layer"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name), err_msg=name)
    assert 0 < largest <= LARGEST**2
