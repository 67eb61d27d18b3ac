"""`worldtrace render --preview`: a picture of one asset, soon, and one line for whatever stands in its way."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import worldtrace
from render import RenderSettings

BAD = Path(__file__).parents[2].parent / "shared" / "assets" / "bad"
SMALL = ["--size", "48", "--views", "2"]


def run(*arguments: str | Path) -> int | str | None:
    with pytest.raises(SystemExit) as end:
        worldtrace.main(["render", "--preview", *map(str, arguments)])
    return end.value.code


def test_a_procedural_asset_becomes_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sheet.png"
    assert run("procedural:objects?start=3", *SMALL, "--out", out) == 0
    said = capsys.readouterr().out
    assert "objects-s0-000003, the first asset of its source" in said
    assert "2 of 2 views kept" in said
    with Image.open(out) as page:
        assert page.format == "PNG"
        assert min(page.size) > 1000


def test_any_setting_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[RenderSettings] = []

    def unwritten(sources: object, out: object, settings: RenderSettings, *_: object) -> tuple[int, str]:
        seen.append(settings)
        return 1, ""

    monkeypatch.setattr("cluster.preview.write_preview", unwritten)
    changes = ["--set", "fov_mode=54.2", "--set", "aspect=0.8,1.25", "--set", "shadows=false"]
    assert run("procedural:rooms", *SMALL, *changes, "--out", tmp_path / "a.png") == 0
    wanted = {"regime": "scene", "views": 2, "height": 48, "width": 48}
    assert seen == [RenderSettings(**wanted, fov_mode=54.2, aspect=(0.8, 1.25), shadows=False)]


def test_a_picture_without_a_view_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sheet.png"
    assert run("procedural:objects", *SMALL, "--set", "min_coverage=1", "--out", out) == 1
    assert "0 of 2 views kept, view 0 rejected as too_few_pixels" in capsys.readouterr().out
    assert out.exists()  # it shows what was refused


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "sheet.png"
    assert run("procedural:objects", *SMALL, "--out", out) == 2
    said = capsys.readouterr().err
    assert f"--out {out} cannot be written (" in said
    assert said.count("\n") == 1


def test_no_ray_is_needed(tmp_path: Path) -> None:
    program = "import sys, worldtrace\ntry: worldtrace.main(sys.argv[1:])\nfinally: assert 'ray' not in sys.modules"
    command = [sys.executable, "-c", program, "render", "--preview", "procedural:objects?count=1", *SMALL]
    done = subprocess.run([*command, "--out", tmp_path / "a.png"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "source 'nowhere' does not exist"),
        (["procedural:objects", "--out", "sheet"], "name that ends in .png"),
        (["procedural:objects", "procedural:objects?seed=1"], "2 sources are given"),
        (["procedural:objects", "--size", "big"], "--size 'big' is no image size"),
        (["procedural:objects", "--size", "100000"], "less than or equal to 8192 (found 100000)"),
        (
            ["procedural:objects", "--set", "asset_timeout=3"],
            "asset_timeout is no render setting but an option: --asset-t",
        ),
        (["procedural:objects", "--set", "views=3"], "views has an option of its own"),
        (["procedural:objects", "--set", "famnig_median=3"], "the nearest known setting is 'framing_median'"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("--out", "sheet.png", *arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not BAD.is_dir(), reason=f"the broken assets are not at {BAD}")
@pytest.mark.parametrize("name", ["truncated.glb", "nan_vertices.ply", "empty.obj", "draco_required.glb"])
def test_a_broken_asset_is_refused_by_its_reason(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(BAD / name, *SMALL, "--out", tmp_path / "sheet.png") == 2
    said = capsys.readouterr().err
    assert f"{name} is rejected, " in said
    assert said.count("\n") == 1
    assert not (tmp_path / "sheet.png").exists()


def test_an_asset_ends_with_its_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin = time.monotonic()
    many = ["procedural:rooms?count=1", "--views", "1000", "--out", tmp_path / "sheet.png"]
    assert run(*many, "--asset-timeout", "1") == 2
    assert "is rejected, timeout: took more than 1 s" in capsys.readouterr().err
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("Failed to allocate 64 bytes on device 'cpu'")])
def test_an_asset_without_memory_is_rejected(
    error: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(*_: object) -> None:
        raise error

    monkeypatch.setattr("cluster.preview.preview", hungry)
    assert run("procedural:objects", "--memory", "64", "--out", tmp_path / "sheet.png") == 2
    assert "is rejected, out_of_memory: needs more than 64 GiB" in capsys.readouterr().err
