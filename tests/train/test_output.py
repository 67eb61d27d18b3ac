"""What `predict` takes and writes, through the command itself."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

import shards
import worldtrace
from tests.shards.scenes import spheres_view
from train import config
from train.loop import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset of 40 sphere pictures and a run of two steps on it."""
    folder = tmp_path_factory.mktemp("trained")
    views = [spheres_view(i, 28, 28, layers=3) for i in range(40)]
    rows = shards.write_shard(folder / "data" / "shards" / "000000-test.tar", [shards.encode(v) for v in views])
    shards.write_manifest(folder / "data", rows)
    shards.write_dataset_json(folder / "data", {"layers": 3, "size": [28, 28]})
    encoder = {"width": 32, "depth": 1, "heads": 2, "taps": 1, "grid": 2}
    small = {"preset": "tiny", "width": 32, "heads": 2, "decoder_blocks": 3, "head_blocks": 1, "layers": 3}
    settings = {
        "data": {"path": str(folder / "data"), "size": 28, "batch": 4, "workers": 0},
        "model": {**small, "patch": 14, "encoder": encoder},
        "log": {"tensorboard": False},
        "steps": 2,
        "out": str(folder / "run"),
    }
    train(config.from_dict(settings))
    return folder


def command(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        worldtrace.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return int(left.value.code or 0), captured.out, captured.err


def test_predicting_a_sample_writes_every_format(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = [tmp_path / f"a.{suffix}" for suffix in ("glb", "ply", "png", "npz")]
    options = [option for out in outs for option in ("--out", out)]
    image = f"{trained / 'data'}#heldout"
    code, said, _ = command(
        capsys, "predict", image, "--checkpoint", trained / "run", "--seeds", "2", "--steps", "2", *options
    )
    assert code == 0
    assert "visible" in said
    assert "against the truth" in said
    arrays = np.load(tmp_path / "a.npz", allow_pickle=False)
    assert arrays["xyz"].shape == (2, 3, 28, 28, 3)
    visible = int(arrays["valid"].sum())
    cloud = trimesh.load(tmp_path / "a.ply")
    assert visible <= len(cloud.vertices) <= 3 * visible
    assert Image.open(tmp_path / "a.png").width > 500
    assert trimesh.load(tmp_path / "a.glb").geometry


def test_predicting_a_picture_needs_a_mask_and_uses_it(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rgb = np.full((60, 80, 3), 200, np.uint8)
    Image.fromarray(rgb).save(tmp_path / "photo.png")
    mask = np.zeros((60, 80), np.uint8)
    mask[20:50, 10:40] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    call = ["predict", tmp_path / "photo.png", "--checkpoint", trained / "run", "--steps", "1", "--out"]
    code, _, error = command(capsys, *call, tmp_path / "photo.ply")
    assert code == 2
    assert "--mask" in error
    assert error.count("\n") == 1
    code, _, error = command(capsys, *call, tmp_path / "photo.png", "--mask", tmp_path / "mask.png")
    assert code == 2
    assert "is the picture itself" in error
    code, said, _ = command(capsys, *call, tmp_path / "photo.ply", "--mask", tmp_path / "mask.png")
    assert code == 0
    assert "photo.png" in said
    assert (tmp_path / "photo.ply").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{data}#nosuchkey", "--checkpoint", "{run}", "--out", "a.glb"], "no sample 'nosuchkey'"),
        (["{data}#heldout", "--checkpoint", "{run}", "--out", "a.gif"], "use one of .glb"),
        (["{data}#heldout", "--checkpoint", "{data}", "--out", "a.glb"], "no checkpoint there"),
        (["none.png", "--checkpoint", "{run}", "--out", "a.glb"], "no such image"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    trained: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    filled = [a.format(data=trained / "data", run=trained / "run") for a in arguments]
    code, _, error = command(capsys, "predict", *filled)
    assert code == 2
    assert said in error
    assert error.count("\n") == 1


def test_eval_prints_a_table_and_writes_a_report(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["eval", "--checkpoint", trained / "run", "--data", trained / "data", "--seeds", "2", "--steps", "1"]
    code, said, _ = command(capsys, *call, "--out", tmp_path / "report.json")
    assert code == 0
    assert "CD-L1" in said
    assert "train" in said
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["methods"]) == {"model_best", "model", "mean", "layer0"}
    assert report["settings"]["samples"] == len(report["samples"]) > 0
    code, _, error = command(capsys, *call, "--split", "test+vall")
    assert code == 2
    assert "vall" in error


def test_looking_at_help_does_not_import_torch() -> None:
    code = (
        "import sys, worldtrace\n"
        "try: worldtrace.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'ray', 'warp'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
