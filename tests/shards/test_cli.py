"""`worldtrace shards`: each command on a real dataset, and its errors."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from typer.testing import CliRunner, Result

import shards
from render import procedural
from shards import LayeredView, Order, encode, ledger, write_dataset_json, write_manifest, write_shard
from shards.cli import app
from shards.summary import ROOMS
from tests.shards.scenes import spheres_view


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == code, (result.output, result.exception)
    return result


def fails(*arguments: object, match: str) -> None:
    """The command raises what the top-level command prints as one line."""
    result = run(*arguments, code=1)
    assert isinstance(result.exception, ValueError | FileNotFoundError), result.exception
    assert re.search(match, str(result.exception)), result.exception
    assert len(str(result.exception).splitlines()) == 1


def test_info_states_counts_coverage_and_the_papers(dataset_copy: Path) -> None:
    ledger = {
        "status": ["done", "rejected", "rejected", "failed"],
        "reason": [None, "no_faces", "no_faces", "crash"],
        "views_rejected": [["3:too_few_pixels"], [], [], []],
    }
    pq.write_table(pa.table(ledger), dataset_copy / "ledger.parquet")
    text = run("info", dataset_copy).stdout
    dataset = shards.open(dataset_copy)
    assert "31 samples" in text
    assert dataset.hash in text
    coverage = np.mean([row["coverage"][0] for row in dataset.manifest.to_pylist()])
    assert re.search(rf"L0\W+{100 * coverage:.2f}\W+8\.14", text)
    median = np.median([row["coverage"][1] for row in dataset.manifest.to_pylist()])
    assert re.search(rf"L1\W+[\d.]+\W+7\.90\W+{100 * median:.2f}\W+6\.01", text)
    assert re.search(rf"L0.*\W{100 * coverage / 8.14:.2f}\W", text)
    assert re.search(r"L5\W+[\d.]+\W+0\.60", text)
    assert re.search(r"rejected\W+no_faces\W+2", text)
    assert re.search(r"view rejected\W+too_few_pixels\W+1", text)
    assert "untextured: 15" in text
    assert "not measured" in text
    assert "1.904278" in text


def test_info_compares_objects_alone_with_the_papers_objects(tmp_path: Path) -> None:
    views = [spheres_view(i, 24, 28, regime="scene" if i < 3 else "object") for i in range(8)]
    write_manifest(tmp_path, write_shard(tmp_path / "shards" / "000000-unit.tar", map(encode, views)))
    write_dataset_json(tmp_path, {"layers": 6, "size": [24, 28]})
    text = run("info", tmp_path).stdout
    for title, shown, beside in (
        ("5 samples of objects and their clips", views[3:], r"\W+8\.14"),
        ("3 samples of scene", views[:3], r"\W+[\d.]+"),
    ):
        mean = 100 * np.mean([np.mean(view.hits > 0) for view in shown])
        assert re.search(rf"{title}[^L]*L0\W+{mean:.2f}{beside}", text)


def written(directory: Path, views: list[LayeredView]) -> Path:
    directory.mkdir(exist_ok=True)
    write_manifest(directory, write_shard(directory / "shards" / "000000-unit.tar", map(encode, views)))
    write_dataset_json(directory, {"layers": 6, "size": [24, 28]})
    return directory


def from_source(view: LayeredView, source: str) -> LayeredView:
    return replace(view, origin=replace(view.origin, source=source))


def test_info_compares_no_clip_in_metres_with_objects(tmp_path: Path) -> None:
    views = [spheres_view(i, 24, 28, regime="dynamic") for i in range(9)]
    views[:2] = [from_source(view, "procedural:rooms") for view in views[:2]]
    deep = views[2]  # by its source it may be anything; as a normalised object it is too deep
    views[2] = replace(
        deep, depth=np.where(deep.depth > 0, deep.depth + 2 * (np.arange(28) > 14), 0).astype(np.float32)
    )
    directory = written(tmp_path / "mixed", views)
    text = run("info", directory).stdout
    for title, shown, beside in (
        ("6 samples of objects and their clips", views[3:], r"\W+8\.14"),
        ("3 samples of clips in metres", views[:3], r"\W+[\d.]+"),
    ):
        mean = 100 * np.mean([np.mean(view.hits > 0) for view in shown])
        assert re.search(rf"{title}[^L]*L0\W+{mean:.2f}{beside}", text)
    assert "1.904278" not in text
    run("stats", directory)
    text = run("info", directory).stdout
    assert f"{shards.open(directory).statistics['mean'][2]:.6f}" in text  # type: ignore[index]
    assert "1.904278" not in text
    assert "clips in metres in it" in " ".join(text.split())
    text = run("info", written(tmp_path / "clips", views[3:])).stdout
    assert "1.904278" in text
    assert "in metres" not in text


def test_info_of_scenes_alone_has_nothing_about_objects(tmp_path: Path) -> None:
    text = run("info", written(tmp_path, [spheres_view(i, 24, 28, regime="scene") for i in range(3)])).stdout
    assert "3 samples of scene" in text
    for absent in ("8.14", "1.904278", "not measured", "z-score"):
        assert absent not in text


def test_the_source_of_rooms_is_the_one_whose_clips_stay_in_metres() -> None:
    for kind in procedural.KINDS:
        assert (procedural.make(kind, 0, 0).room is not None) == (f"procedural:{kind}" == ROOMS)


def test_stats_are_written_and_then_shown(dataset_copy: Path) -> None:
    before = json.loads((dataset_copy / "dataset.json").read_text())
    text = run("stats", dataset_copy).stdout
    after = json.loads((dataset_copy / "dataset.json").read_text())
    assert after.pop("statistics") == shards.statistics(dataset_copy)
    assert after.pop("digest") != before.pop("digest")
    assert after == before
    mean = shards.open(dataset_copy).statistics["mean"]  # type: ignore[index]
    assert f"{mean[2]:.6f}" in text
    assert f"{mean[2]:.6f}" in run("info", dataset_copy).stdout
    assert run("verify", dataset_copy).stdout.strip().endswith("sound")


def test_ls_lists_keys_for_programs_and_a_table_for_people(dataset_on_disk: Path) -> None:
    dataset = shards.open(dataset_on_disk)
    assert run("ls", dataset_on_disk, "--keys").stdout.splitlines() == dataset.keys
    assert run("ls", dataset_on_disk, "--keys", "--limit", 3).stdout.splitlines() == dataset.keys[:3]
    train = run("ls", dataset_on_disk, "--keys", "--split", "train").stdout.splitlines()
    assert train == shards.open(dataset_on_disk, "train").keys
    clips = run("ls", dataset_on_disk, "--keys", "--where", "frames > 1").stdout.splitlines()
    assert clips == ["clip-40-c000"]
    assert all(key in run("ls", dataset_on_disk).stdout for key in dataset.keys)
    fails("ls", dataset_on_disk, "--where", "frame > 1", match="frames")
    fails("ls", dataset_on_disk / "nothing", match="not a folder")


def test_show_draws_a_sheet(dataset_on_disk: Path, tmp_path: Path) -> None:
    keys = shards.open(dataset_on_disk).keys
    run("show", dataset_on_disk, keys[2], "5", "--out", tmp_path / "two.png", "--tile", 32)
    run("show", dataset_on_disk, "--count", 3, "--where", "frames == 1", "--out", tmp_path / "three.png", "--tile", 32)
    heights = [Image.open(tmp_path / name).size[1] for name in ("two.png", "three.png")]
    assert heights == [2 * 54 + 4, 3 * 54 + 4]
    fails("show", dataset_on_disk, "nothing", "--out", tmp_path / "x.png", match="shards ls")
    fails("show", dataset_on_disk, "99", "--out", tmp_path / "x.png", match="row 99 of 31")
    fails("show", dataset_on_disk, "--out", tmp_path / "x.jpg", match="PNG")
    fails("show", dataset_on_disk, "--where", "frames > 9", "--out", tmp_path / "x.png", match="empty")


def test_verify_lists_what_is_wrong_and_repairs(dataset_copy: Path) -> None:
    assert "sound" in run("verify", dataset_copy).stdout
    (dataset_copy / "manifest.parquet").unlink()
    assert "missing" in run("verify", dataset_copy, code=1).stdout
    text = run("verify", dataset_copy, "--repair").stdout
    assert "31 sound samples" in text
    assert text.strip().endswith("sound")
    path = min((dataset_copy / "shards").iterdir())
    path.write_bytes(path.read_bytes()[:-3])
    assert path.name in run("verify", dataset_copy, code=1).stdout


def test_export_writes_points_and_arrays(dataset_on_disk: Path, tmp_path: Path) -> None:
    view = shards.open(dataset_on_disk)[4]
    for suffix in ("ply", "glb"):
        assert (
            f"{view.hits.sum()} points"
            in run("export", dataset_on_disk, view.key, "--out", tmp_path / f"a.{suffix}").stdout
        )
    run("export", dataset_on_disk, "4", "--out", tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["depth"], view.depth)
        np.testing.assert_array_equal(arrays["xyz"], view.xyz())
        np.testing.assert_array_equal(arrays["K"], view.K)
    run("export", dataset_on_disk, "4", "--out", tmp_path / "a.exr")
    assert (tmp_path / "a.exr").stat().st_size > 0
    run("export", dataset_on_disk, "clip-40-c000", "--frame", 2, "--out", tmp_path / "c.ply")
    fails("export", dataset_on_disk, "clip-40-c000", "--frame", 3, "--out", tmp_path / "c.ply", match="0 to 2")
    fails("export", dataset_on_disk, "nothing", "--out", tmp_path / "c.ply", match="shards ls")
    fails("export", dataset_on_disk, "4", "--out", tmp_path / "a.obj", match=r"\.glb")


def test_order_prints_the_keys_of_a_step(dataset_on_disk: Path) -> None:
    train = shards.open(dataset_on_disk, "train")
    order = Order(len(train), 3, train.hash)
    expected = [train.keys[order[g]] for g in range(4000, 4004)]
    assert run("order", dataset_on_disk, "--seed", 3, "--batch", 4, "--step", 1000).stdout.splitlines() == expected


def test_help_teaches() -> None:
    text = run("--help").stdout
    assert re.search(r"\border\b", text)
    for command in ("info", "ls", "show", "verify", "stats", "export", "view"):
        assert re.search(rf"\b{command}\b", text)
        assert "DIR" in run(command, "--help").stdout


def test_what_strangers_wrote_is_printed_and_commands_nothing(tmp_path: Path) -> None:
    """Escape sequences are spelled out; brackets are brackets, not the markup of rich; a path is a path."""
    nasty = "\x1b]0;gone\x07\x1b[2J[/b] [red]:smile:"
    view = spheres_view(3, 24, 28)
    view = replace(view, origin=replace(view.origin, licence=nasty, source=nasty), info={**view.info, "flags": [nasty]})
    directory = written(tmp_path / "data[old]", [view])
    row = ledger.row(unit="000000-unit", asset=nasty, source=nasty, licence=nasty, status="rejected", reason=nasty)
    with open(directory / "ledger.parquet", "wb") as file, ledger.LedgerWriter(file) as table:
        table.write([row | {"reason": nasty}])
    seen = r"\x1b]0;gone\x07\x1b[2J[/b] [red]:smile:"
    for command in (["ls"], ["ls", "--keys"], ["info"], ["order", "--batch", 1, "--split", "all", "--long"]):
        text = run(command[0], directory, *command[1:]).stdout
        assert not set(text) & {"\x1b", "\x07"}
        if command == ["info"]:
            assert text.count(seen) >= 3
            assert "data[old]: 1 sample," in text
    assert seen in run("ls", directory).stdout
