"""`worldtrace predict`: pictures, folders and clips through the command, and mistakes told in one line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import worldtrace
from tests.train.micro import disc, micro_run, over
from train.prediction.archive import read_npz


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pictures before an even background; `object`, `scene` and `clip` are checkpoints."""
    runs = {"object": micro_run(), "scene": micro_run(scene=True), "clip": micro_run(frames=3)}
    monkeypatch.setattr("train.run.load_run", lambda source, device, say: runs[source])
    monkeypatch.setattr("train.prediction.masks._has_rembg", lambda: False)
    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(4):
        Image.fromarray(over(disc(centre=(30, 25 + 5 * k)), np.full(3, 240.0))).save(folder / f"p{k}.png")
    return folder


def predict(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        worldtrace.main(["predict", *map(str, arguments), "--steps", "1", "--seeds", "2"])
    said = capsys.readouterr()
    return int(left.value.code or 0), said.out, said.err


def test_a_folder_of_pictures(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = (photos, "--checkpoint", "object", "--mask", "auto", "--out", tmp_path / "out")
    code, said, error = predict(capsys, *call, "--format", "npz", "--format", ".PLY", "--seed", "7")
    assert (code, error) == (0, "")
    assert said.count("camera") == 4
    assert said.splitlines()[-1] == "4 predicted, 0 rejected"
    assert {path.name for path in (tmp_path / "out").glob("p0.*")} == {"p0.npz", "p0.ply"}
    assert read_npz(tmp_path / "out" / "p2.npz")[0].seeds == (7, 8)
    (photos / "p9.png").write_text("nothing")
    code, said, _ = predict(capsys, *call, "--format", "npz", "--format", "ply", "--seed", "7")
    assert code == 1
    assert "0 predicted, 4 were there already, 1 rejected" in said
    entry = json.loads((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()[-1])
    assert (entry["picture"], entry["state"]) == ("p9.png", "rejected")


def test_a_folder_is_a_clip_to_a_model_of_clips(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = (photos, "--mask", "flood", "--out", tmp_path / "clip.npz", "--checkpoint")
    code, said, _ = predict(capsys, *call, "clip")
    assert code == 0
    assert "photos: the first 3 of its frames" in said
    assert "masked by a fill" in said
    assert len(read_npz(tmp_path / "clip.npz")) == 3
    code, _, _ = predict(capsys, *call, "object", "--kind", "clip", "--frames", "2", "--stride", "2")
    assert code == 0
    first, second = read_npz(tmp_path / "clip.npz")
    shift = np.nonzero(second.valid)[1].mean() - np.nonzero(first.valid)[1].mean()
    assert first.framed_from_image is not None
    assert shift == pytest.approx(10 * first.framed_from_image[0, 0], abs=0.3)  # p0 and p2: 5 pixels a picture


def test_one_picture_may_go_into_a_folder(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said, _ = predict(capsys, photos / "p0.png", "--checkpoint", "scene", "--out", tmp_path / "out")
    assert code == 0
    assert (tmp_path / "out" / "p0.glb").is_file()
    assert "camera" in said
    sizes = []
    for extra in ([], ["--stretch"]):
        out = tmp_path / "scene.npz"
        assert predict(capsys, photos / "p0.png", "--checkpoint", "scene", "--out", out, *extra)[0] == 0
        sizes.append(read_npz(out)[0].valid.shape)
    assert sizes == [(14, 28), (28, 28)]


def test_flyers_are_left_out_where_that_is_asked(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "train.prediction.edges.without_flyers",
        lambda p: replace(p, exists=p.exists & (np.arange(3) < 2)[:, None, None]),
    )
    for extra, layers in ([], 3), (["--no-flyers"], 2):
        call = (photos / "p0.png", "--checkpoint", "scene", "--out", tmp_path / "a.npz")
        assert predict(capsys, *call, *extra)[0] == 0
        assert read_npz(tmp_path / "a.npz")[0].exists.any(axis=(0, 2, 3)).sum() == layers


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["p0.png", "--checkpoint", "object", "--out", "a.glb"], "nothing says where the object is"),
        (["p0.png", "--checkpoint", "object", "--out", "a.glb", "--format", "ply"], "--format is for an --out that is"),
        (["p0.png", "--checkpoint", "object", "--out", "a.glb", "--closed"], "--closed is of meshes; give --mesh too"),
        (["p0.png", "--checkpoint", "object", "--out", "a.glb", "--kind", "clip"], "one picture is no clip"),
        (["p0.png", "--checkpoint", "scene", "--out", "a.glb", "--mask", "auto"], "a scene needs none"),
        (["p0.png", "--checkpoint", "object", "--out", "a.glb", "--mask", "no.png"], "no such image"),
        ([".", "--checkpoint", "object", "--out", "{}/x", "--stride", "2"], "--frames and --stride are of clips"),
        ([".", "--checkpoint", "object", "--out", "a.glb"], "a folder of pictures; give one --out DIR"),
        ([".", "--checkpoint", "object", "--out", "{}"], "is the folder of the pictures"),
        ([".", "--checkpoint", "object", "--out", "{}/x", "--format", "gif"], "use one of"),
        (["p0.png", "--checkpoint", "object", "--out", "p0.png"], "is the picture itself"),
    ],
)
def test_a_mistake_is_one_line(
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(photos)
    code, _, error = predict(capsys, *[each.format(photos) for each in arguments])
    assert code == 2
    assert said in error
    assert error.count("\n") == 1
