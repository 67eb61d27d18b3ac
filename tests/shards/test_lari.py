"""LaRI's files, as its curation scripts write them, of a world of known geometry: layers, cameras, images come back."""

import io
import os
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import shards
from shards.cli import app
from shards.lari import LaRI, layers_of
from shards.lari_cameras import blender_camera, values_of
from shards.rgbd import Scene, Unreadable, open_corpus
from shards.rgbd.base import intrinsics, origin_sha256
from shards.rgbd.plan import Settings
from shards.rgbd.pose import OPENGL
from shards.rgbd.write import import_corpus
from tests.shards.rgbd.stage import BALL, FLOOR, RADIUS, camera, colour, off_surface

SIDE = 64
LENS = 28
K_ROOM = intrinsics(LENS * SIDE / 32, LENS * SIDE / 32, SIDE / 2, SIDE / 2)
HALF = 2.0**-11  # what a half float is exact to


def every_surface(K: np.ndarray, pose: np.ndarray, height: int, width: int, layers: int) -> np.ndarray:
    """(H,W,layers) float16, z of the ball's near side, its far side and the floor, in order; -1 beyond the last."""
    rays = shards.rays(K, height, width)
    d, o = rays @ pose[:3, :3].T, pose[:3, 3]
    a, half = (d**2).sum(-1), d @ (o - BALL)
    root = half**2 - a * ((o - BALL) @ (o - BALL) - RADIUS**2)
    with np.errstate(invalid="ignore"):
        found = [
            (-half - np.sqrt(root)) / a,
            (-half + np.sqrt(root)) / a,
            np.broadcast_to(-(o @ FLOOR), a.shape) / (d @ FLOOR),
        ]
    z = np.stack(found, axis=-1)
    z = np.sort(np.where((z > 0) & (z < 40), z, np.inf), axis=-1)
    z = np.concatenate([z, np.full((height, width, layers), np.inf)], axis=-1)[..., :layers]
    return np.where(np.isfinite(z), z, -1).astype(np.float16)


def paint(path: Path, K: np.ndarray, pose: np.ndarray, ldi: np.ndarray, alpha: bool) -> None:
    first = np.maximum(ldi[..., 0].astype(float), 0)
    points = shards.rays(K, *first.shape) * first[..., None] @ pose[:3, :3].T + pose[:3, 3]
    image = np.where(first[..., None] > 0, colour(points), 0).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.dstack([image, np.where(first > 0, 255, 0).astype(np.uint8)]) if alpha else image).save(path)


def write_blender(folder: Path, room: bool, layers: int = 10, views: int = 2) -> None:
    """As save_ldi_front3d or save_ldi_objaverse leave a folder."""
    lens = LENS if room else 35
    K = intrinsics(lens * SIDE / 32, lens * SIDE / 32, SIDE / 2, SIDE / 2)
    for view in range(views):
        pose = camera(yaw=0.1 + 0.05 * view)
        ldi = every_surface(K, pose, SIDE, SIDE, layers)
        paint(folder / f"{view:03d}.png", K, pose, ldi, alpha=not room)
        np.savez_compressed(folder / f"{view:03d}_ldi.npz", ldi=ldi)
        matrix = np.linalg.inv(pose @ np.linalg.inv(OPENGL))[:3, :4]
        camera_file = np.array({"T_b_w2cam": matrix, "cam_len": lens}, dtype=object) if room else matrix
        np.save(folder / f"{view:03d}.npy", camera_file, allow_pickle=room)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "000_ldi.png")


K_SCAN = intrinsics(60.0, 62.0, 47.0, 30.5)


def write_scannetpp(root: Path) -> None:
    folder, pose = root / "00777c41d4/dslr", camera()
    ldi = every_surface(K_SCAN, pose, 60, 90, 10)
    paint(folder / "downscaled_undistorted_images/DSC00920.JPG", K_SCAN, pose, ldi, alpha=False)
    (folder / "ldi").mkdir()
    np.savez_compressed(folder / "ldi/DSC00920_ldi.npz", ldi=ldi)
    np.savez(folder / "ldi/DSC00920.npz", Tr_w2c_cv=np.linalg.inv(pose).astype(np.float32), K=K_SCAN.astype(np.float32))


def write_scrream(root: Path) -> None:
    folder, pose = root / "scene07/scene07_reduced_00", camera()
    ldi = every_surface(K_SCAN, pose, 60, 90, 10)
    paint(folder / "rgb/000590.png", K_SCAN, pose, ldi, alpha=False)
    for name in ("ldi", "camera_pose"):
        (folder / name).mkdir()
    np.savez_compressed(folder / "ldi/000590_ldi.npz", ldi=ldi)
    (folder / "camera_pose/000590.txt").write_text("\n".join(" ".join(map(repr, row)) for row in pose.tolist()))
    (folder / "intrinsics.txt").write_text("\n".join(" ".join(map(repr, row)) for row in K_SCAN.tolist()))


UID = "0b6d53e3b2d048b38af4e27d74210a6c"
HOUSE = "646caacd-2202-49a5-8aee-8461238c4121"
PLACES = {"lari-object": UID, "lari-room": HOUSE, "lari-scannetpp": "00777c41d4", "lari-scrream": "scene07"}


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lari")
    write_blender(root / "objaverse/000-007" / UID, room=False, layers=15)
    write_blender(root / "3dfront" / f"{HOUSE}_4", room=True)
    write_scannetpp(root / "scannetpp")
    write_scrream(root / "scrream")
    return root


def assert_every_surface(view: shards.LayeredView) -> None:
    """Each true hit lies on a surface of the world, as many as the ray meets, to the step of half floats."""
    pose = view.world_from_camera
    points = view.xyz() @ pose[:3, :3].T + pose[:3, 3]
    distance = np.linalg.norm(view.xyz(), axis=-1)
    assert (off_surface(points)[view.hit] <= (HALF + 1e-4) * distance[view.hit]).all()
    truth = every_surface(view.K, pose, *view.size, view.layers)
    ambiguous = np.abs((truth > 0).sum(-1).astype(int) - view.hits) > 0  # a grazed ball, by the rounding of a camera
    assert ambiguous.mean() < 0.002
    assert set(np.unique(view.hits)) >= {1, 3}


def test_a_round_trip_through_shards(everything: Path, tmp_path: Path) -> None:
    summary = import_corpus(everything, str(tmp_path / "out"), Settings("lari", size=512), workers=0)
    assert (summary.frames, summary.shards, dict(summary.rejected)) == (6, 4, {})
    dataset = shards.open(tmp_path / "out")
    samples = [dataset[i] for i in range(len(dataset))]
    found = {view.origin.source: view for view in samples if isinstance(view, shards.LayeredView)}
    assert set(found) == {"lari-object", "lari-room", "lari-scannetpp", "lari-scrream"}
    for source, view in found.items():
        assert_every_surface(view)
        assert not view.single_layer
        assert view.layers == 6
        assert view.regime == ("object" if source == "lari-object" else "scene")
        assert view.info["normalisation"] == {"scale": 1.0, "offset": [0.0, 0.0, 0.0]}
        assert view.info["flags"] == []
        assert view.info["overflow"] == 0
        assert view.origin.sha256 == origin_sha256("lari", PLACES[source]), "what decides the split"
        sees = view.rgba[..., 3] == 255
        assert np.array_equal(sees, view.hits > 0) if source == "lari-object" else sees.all()
    assert np.allclose(found["lari-scrream"].world_from_camera, camera())
    assert np.allclose(found["lari-scannetpp"].world_from_camera, camera(), atol=1e-5)
    assert np.allclose(found["lari-room"].K, K_ROOM)
    assert found["lari-object"].K[0, 0] == 35 * SIDE / 32
    assert len({*dataset.keys}) == 6


def test_views_of_one_thing_fall_into_one_split(everything: Path) -> None:
    corpus = LaRI(everything)
    places = {scene.name: scene.place for scene in corpus.scenes()}
    assert places == {
        f"3dfront/{HOUSE}_4": PLACES["lari-room"],
        f"objaverse/000-007/{UID}": PLACES["lari-object"],
        "scannetpp/00777c41d4/dslr/ldi": PLACES["lari-scannetpp"],
        "scrream/scene07/scene07_reduced_00/ldi": PLACES["lari-scrream"],
    }
    alone = everything / "objaverse/000-007" / UID
    (scene,) = LaRI(alone).scenes()
    assert scene == Scene(f"{UID}/.", UID)
    assert LaRI(alone).frames(scene) == ["000", "001"]
    for name in ("scannetpp/00777c41d4/dslr/ldi", "scrream/scene07/scene07_reduced_00/ldi"):
        corpus = LaRI(everything / Path(name).parent)
        (scene,) = corpus.scenes()
        assert scene.place == places[name], "whichever folder is given"
        (frame,) = corpus.frames(scene)
        assert corpus.view(scene, 0, frame, 6).hits.any()


def test_a_folder_of_its_own_name_in_a_folder_of_views(tmp_path: Path) -> None:
    write_blender(tmp_path / "a", room=False, views=1)
    write_blender(tmp_path / "a" / "a", room=False, views=2)
    corpus = LaRI(tmp_path / "a")
    assert {scene.name: len(corpus.frames(scene)) for scene in corpus.scenes()} == {"a/.": 1, "a": 2}
    assert import_corpus(tmp_path / "a", str(tmp_path / "out"), Settings("lari", size=512), workers=0).frames == 3
    assert len({*shards.open(tmp_path / "out").keys}) == 3


def slow_layers(ray: np.ndarray, layers: int) -> tuple[list[float], int]:
    """One ray by the rule, in words: (depth, hits)."""
    surfaces = sorted(float(z) for z in ray if np.isfinite(z) and z > 0)[:layers]
    return surfaces + [surfaces[-1] if surfaces else 0.0] * (layers - len(surfaces)), len(surfaces)


@pytest.mark.parametrize(("stored", "layers"), [(10, 6), (4, 6), (6, 6), (1, 1)])
@pytest.mark.parametrize("mess", ["clean", "holes", "unordered"])
def test_the_rule_of_the_layers(stored: int, layers: int, mess: str) -> None:
    rng = np.random.default_rng([stored, layers])
    ldi = np.sort(rng.uniform(0.5, 9, (7, 9, stored)), axis=-1)
    ldi[np.arange(stored) >= rng.integers(0, stored + 1, (7, 9, 1))] = -1
    if mess == "holes":
        ldi[rng.random(ldi.shape) < 0.3] = -1
        ldi[0, 0, :2] = (np.nan, 3.0)[:stored]
    elif mess == "unordered":
        ldi = rng.permuted(ldi, axis=-1)
    depth, hits, info = layers_of(ldi.astype(np.float16), layers)
    assert depth.dtype == np.float32
    assert hits.dtype == np.uint8
    for v, u in np.ndindex(7, 9):
        assert (depth[:, v, u].tolist(), hits[v, u]) == slow_layers(ldi.astype(np.float16)[v, u], layers)
    valid = ldi > 0
    holes = bool((~valid[..., :-1] & valid[..., 1:]).any())
    disorder = any(list(ray[ray > 0]) != sorted(ray[ray > 0]) for ray in ldi.astype(np.float16).reshape(-1, stored))
    assert info["flags"] == ["lari_holes"] * holes + ["lari_unordered"] * disorder
    full = int((np.sort(valid, axis=-1)[..., 0]).sum())
    assert info["overflow"] == (full if stored < layers else 0)
    if mess == "clean":
        assert info["flags"] == []


class Attack:
    """Unpickled, it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_pickles_are_read_without_being_run(tmp_path: Path) -> None:
    marker, path = tmp_path / "made", tmp_path / "000.npy"
    for hostile in ({"T_b_w2cam": Attack(marker), "cam_len": 30}, Attack(marker), [Attack(marker)]):
        np.save(path, np.array(hostile, dtype=object), allow_pickle=True)
        with pytest.raises(Unreadable, match=r"it names (posix|nt|os)\.mkdir"):
            blender_camera(path)
    assert not marker.exists()
    np.save(path, np.array({"T_b_w2cam": np.array([{}]), "cam_len": 30}, dtype=object), allow_pickle=True)
    with pytest.raises(Unreadable, match="it holds an array of O8"):
        blender_camera(path)


# A tuple of 2^30 in 150 bytes: each level names the one below twice.
BOMB = b")q\x80" + b"".join(b"h%ch%c\x86q%c" % (level, level, level + 1) for level in range(0x80, 0x9E))
MATRIX = b"X\x09\0\0\0T_b_w2cam"


@pytest.mark.parametrize(
    "item",
    [
        BOMB + b"N",
        MATRIX + BOMB,
        MATRIX + BOMB + b"X\x01\0\0\0x\x93",
        MATRIX + b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01)cnumpy\ndtype\n" + BOMB + b"\x85R(NNtb\x89Ntb",
        b"X\x07\0\0\0cam_len\x8a\xff" + b"\x7f" * 255,  # a whole number of 614 digits
    ],
    ids=["key", "matrix", "name", "type", "number"],
)
def test_pickles_that_name_one_thing_many_times(item: bytes, tmp_path: Path) -> None:
    file, path = io.BytesIO(), tmp_path / "000.npy"
    np.save(file, np.array({"T_b_w2cam": np.eye(4)[:3], "cam_len": 31}, object), allow_pickle=True)
    content = file.getvalue()
    end = content.rindex(b"uat") + 1  # of the map
    path.write_bytes(content[:end] + item + b"s" + content[end:])
    began = time.process_time()
    with pytest.raises(Unreadable, match="holds no camera of LaRI"):
        blender_camera(path)
    assert time.process_time() - began < 1


@pytest.mark.parametrize("protocol", [3, 4])
def test_what_numpy_pickles_is_read(protocol: int) -> None:
    for order, kind in (("C", "<f8"), ("F", "<f8"), ("C", ">f8"), ("C", "<f4")):
        matrix = np.asarray(np.random.default_rng(0).normal(size=(3, 4)), kind, order=order)  # type: ignore[call-overload]
        content = pickle.dumps(np.array({"T_b_w2cam": matrix, "cam_len": 31, "x": [1.5, "y"]}, object), protocol)
        found = values_of(content)
        assert np.array_equal(found.pop("T_b_w2cam"), matrix)
        assert found == {"cam_len": 31, "x": [1.5, "y"]}


def test_damaged_cameras_raise_one_kind_of_error(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, np.array({"T_b_w2cam": np.eye(4)[:3], "cam_len": 31}, object), allow_pickle=True)
    whole, path = file.getvalue(), tmp_path / "000.npy"
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(200):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 3):
            data[at] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(data[: rng.integers(1, len(data) + 1)] if rng.random() < 0.2 else data))
        try:
            blender_camera(path)
        except Unreadable as error:
            refused += error.reason in ("unreadable_camera", "absurd_pose", "truncated")
    assert refused > 150


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("000_ldi.npz", {"ldi": np.full((SIDE, SIDE, 3), None)}, "unreadable_depth"),
        ("000_ldi.npz", {"ldi": np.ones((SIDE, SIDE), np.float16)}, "unreadable_depth"),
        ("000_ldi.npz", {"other": np.ones((SIDE, SIDE, 3), np.float16)}, "unreadable_depth"),
        ("000_ldi.npz", {"ldi": np.ones((SIDE, SIDE + 1, 3), np.float16)}, "size_mismatch"),
        ("000_ldi.npz", {"ldi": -np.ones((SIDE, SIDE, 3), np.float16)}, "no_valid_depth"),
        ("000.npy", None, "missing_file"),
        ("000.png", None, "missing_file"),
    ],
)
def test_what_cannot_be_used_has_a_typed_reason(
    tmp_path: Path, name: str, content: dict[str, np.ndarray] | None, reason: str
) -> None:
    write_blender(tmp_path / UID, room=False, views=1)
    if content is None:
        (tmp_path / UID / name).unlink()
    else:
        np.savez(tmp_path / UID / name, **content)  # type: ignore[arg-type]
    with pytest.raises(Unreadable) as caught:
        LaRI(tmp_path).view(Scene(UID), 0, "000", 6)
    assert caught.value.reason == reason


def test_a_folder_without_views_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is no LaRI folder: expected folders of NAME_ldi\.npz"):
        import_corpus(tmp_path, str(tmp_path / "out"), Settings("lari"), workers=0)
    assert isinstance(open_corpus("lari", tmp_path), LaRI)


def test_the_command_goes_on_where_it_was(tmp_path: Path) -> None:
    write_blender(tmp_path / "in" / UID, room=False, layers=4, views=2)

    def run(*more: str) -> str:
        arguments = ["from-lari", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--workers", "0", *more]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.exception
        return result.output.splitlines()[-1]

    assert run().endswith("2 frames of 1 scene in 1 shard, 2 of them new")
    write_blender(tmp_path / "in" / f"{HOUSE}_2", room=True, views=3)
    assert run().endswith("5 frames of 2 scenes in 2 shards, 3 of them new")
    assert run().endswith("5 frames of 2 scenes in 2 shards, nothing was left to do")
    view = shards.open(tmp_path / "out", where=f"asset = 'lari/{UID}'")[0]
    assert isinstance(view, shards.LayeredView)
    assert view.info["overflow"] == 0, "at most 3 of the 4 layers of the file are used"
    refused = CliRunner().invoke(app, ["from-rgbd", "lari", str(tmp_path / "in"), "--out", str(tmp_path / "x")])
    assert isinstance(refused.exception, ValueError)
    assert str(refused.exception) == "lari holds several layers: import it by `worldtrace shards from-lari`"
