"""From a corpus to a dataset: what the samples say, which bytes appear, and what happens when it does not go well."""

import dataclasses
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import fsspec
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import shards
from shards import layout, ledger
from shards.check.verify import verify
from shards.commands.from_rgbd import from_rgbd
from shards.rgbd import Frame, Scene, Unreadable, convert, open_corpus, workers
from shards.rgbd.base import check_intrinsics, check_pose, checked, intrinsics
from shards.rgbd.plan import Selection, Settings
from shards.rgbd.write import Summary, import_corpus
from shards.store import open_store
from tests.shards.rgbd import corpora
from tests.shards.rgbd.stage import colour, off_surface

SCANNET = Settings("scannet", size=48, run=1)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scannet"
    for scene in ("scene0003_00", "scene0003_01", "scene0004_00"):
        corpora.scannet(folder, scene)
    return folder


def write(folder: Path, out: Path, settings: Settings = SCANNET, **options: object) -> Summary:
    return import_corpus(folder, str(out), settings, workers=0, **options)  # type: ignore[arg-type]


def contents(root: Path, ledger: bool = False) -> dict[str, bytes]:
    """Every file of a dataset, without the ledger, which holds times."""
    paths = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in paths if ledger or path.name != layout.LEDGER}


def test_samples_are_single_layered_and_in_metres(scans: Path, tmp_path: Path) -> None:
    summary = write(scans, tmp_path / "out")
    assert (summary.frames, summary.scenes, summary.shards, summary.fresh) == (6, 3, 6, 6)
    dataset = shards.open(tmp_path / "out")
    assert len(dataset) == 6
    for view in (dataset[row] for row in range(len(dataset))):
        assert isinstance(view, shards.LayeredView)
        assert view.regime == "rgbd"
        assert view.single_layer
        assert view.layers == 6
        assert set(np.unique(view.hits)) == {0, 1}
        assert (view.rgba[..., 3] == 255).all()
        assert min(view.size) == 48
        assert (view.depth == view.depth[:1]).all()
        xyz, pose = view.xyz()[0][view.valid].astype(np.float64), view.world_from_camera
        near = xyz[:, 2] < 5
        points = (xyz @ pose[:3, :3].T + pose[:3, 3])[near]
        assert np.quantile(off_surface(points), 0.9) < 0.003
        assert np.abs(view.rgba[view.valid][near, :3].astype(float) - colour(points)).mean() < 4
        assert view.origin.source == "scannet"
        assert view.origin.licence.startswith("ScanNet")


def test_two_scans_of_a_room_share_a_split(scans: Path, tmp_path: Path) -> None:
    write(scans, tmp_path / "out")
    rows = shards.read_manifest(tmp_path / "out").to_pylist()
    by_scene = {row["asset"]: row["asset_sha256"] for row in rows}
    assert by_scene["scannet/scene0003_00"] == by_scene["scannet/scene0003_01"] != by_scene["scannet/scene0004_00"]
    assert len({row["key"] for row in rows}) == 6


def test_verify_finds_nothing_and_the_ledger_tells_all(scans: Path, tmp_path: Path) -> None:
    (scans / "scene0004_00/depth/1.png").write_bytes(b"none")
    summary = write(scans, tmp_path / "out")
    assert summary.rejected == {"unreadable_depth": 1}
    assert "5 frames of 3 scenes in 5 shards, 5 of them new; 1 rejected (unreadable_depth 1" in summary.line()
    with open_store(str(tmp_path / "out")).reading(layout.LEDGER) as file:
        rows = list(ledger.rows(file))
    assert [row["status"] for row in rows].count("rejected") == 1
    (row,) = (row for row in rows if row["status"] == "rejected")
    assert (row["reason"], row["views_rejected"]) == ("unreadable_depth", ["1:unreadable_depth"])
    assert verify(tmp_path / "out") == []


def test_an_import_that_was_killed_goes_on(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(scans, tmp_path / "whole")
    written = []
    real = convert.shard_into

    def dies(file: object, name: str, samples: object) -> object:
        written.append(name)
        if len(written) == 4:
            file.write(b"half of a shard")  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return real(file, name, samples)  # type: ignore[arg-type]

    monkeypatch.setattr(convert, "shard_into", dies)
    with pytest.raises(KeyboardInterrupt):
        write(scans, tmp_path / "out")
    assert not (tmp_path / "out" / layout.MANIFEST).exists()
    summary = write(scans, tmp_path / "out")
    assert (summary.frames, summary.fresh) == (6, 3)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert write(scans, tmp_path / "out").fresh == 0


def test_a_record_without_its_shard_is_made_again(scans: Path, tmp_path: Path) -> None:
    write(scans, tmp_path / "out")
    whole = contents(tmp_path / "out")
    next((tmp_path / "out" / "shards").iterdir()).unlink()
    assert write(scans, tmp_path / "out").fresh == 1
    assert contents(tmp_path / "out") == whole


def test_a_corpus_may_grow(scans: Path, tmp_path: Path) -> None:
    """What was there keeps its bytes, and the result is that of an import of everything at once."""
    shutil.move(scans / "scene0003_01", tmp_path / "later")
    write(scans, tmp_path / "out")
    before = contents(tmp_path / "out")
    shutil.move(tmp_path / "later", scans / "scene0003_01")
    assert write(scans, tmp_path / "out").fresh == 2
    after = contents(tmp_path / "out")
    assert all(after[name] == content for name, content in before.items() if name.startswith("shards/"))
    write(scans, tmp_path / "whole")
    assert after == contents(tmp_path / "whole")


def test_a_scene_may_grow(scans: Path, tmp_path: Path) -> None:
    """As while it is being unpacked: its last shard is made again."""
    settings = dataclasses.replace(SCANNET, run=2)
    (scans / "scene0003_00/depth/1.png").rename(tmp_path / "1.png")
    write(scans, tmp_path / "out", settings)
    (tmp_path / "1.png").rename(scans / "scene0003_00/depth/1.png")
    summary = write(scans, tmp_path / "out", settings)
    assert (summary.frames, summary.made, summary.fresh) == (6, 1, 1), "two frames written, one of them new"
    write(scans, tmp_path / "whole", settings)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_rejected_frames_are_read_again_when_asked(scans: Path, tmp_path: Path) -> None:
    path = scans / "scene0003_00/depth/1.png"
    sound = path.read_bytes()
    path.write_bytes(b"")
    write(scans, tmp_path / "out")
    path.write_bytes(sound)
    assert write(scans, tmp_path / "out").line().count("nothing was left to do")
    path.rename(path.with_suffix(".kept"))
    path.write_bytes(b"")
    assert "0 of them new" in write(scans, tmp_path / "out", retry=True).line()
    path.with_suffix(".kept").rename(path)
    assert write(scans, tmp_path / "out", retry=True).fresh == 1
    write(scans, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_selections(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("scene0004_00\nscene0009_00\n")
    cases = {
        Selection(scenes="scene0003_*"): 4,
        Selection(split_file=tmp_path / "train.txt"): 2,
        Selection(limit=3): 3,
    }
    for number, (selection, frames) in enumerate(cases.items()):
        assert write(scans, tmp_path / str(number), selection=selection).frames == frames
    assert write(scans, tmp_path / "every", dataclasses.replace(SCANNET, every=2)).frames == 3


def test_a_smaller_selection_takes_nothing_away(scans: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SCANNET, run=2)
    write(scans, tmp_path / "out", settings)
    whole = contents(tmp_path / "out")
    assert write(scans, tmp_path / "out", settings, selection=Selection(scenes="scene0003*", limit=1)).fresh == 0
    assert contents(tmp_path / "out") == whole


def test_what_the_user_must_mend(scans: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"is no BlendedMVS folder: expected PID/blended_images.*it holds scene0003_00"
    ):
        write(scans, tmp_path / "a", Settings("blendedmvs"))
    with pytest.raises(ValueError, match="did you mean 'scannet'"):
        write(scans, tmp_path / "a", Settings("scanet"))
    with pytest.raises(ValueError, match="has no option 'deph': did you mean 'depth'"):
        write(scans, tmp_path / "a", Settings("arkitscenes", (("deph", "lowres"),)))
    with pytest.raises(ValueError, match=r"option confidence.*'high': give a number such as 1"):
        write(scans, tmp_path / "a", Settings("arkitscenes", (("confidence", "high"),)))
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        write(scans / "none", tmp_path / "a")
    with pytest.raises(ValueError, match="none of the 3 scenes"):
        write(scans, tmp_path / "a", selection=Selection(scenes="kitchen"))
    assert not (tmp_path / "a").exists()
    write(scans, tmp_path / "a")
    with pytest.raises(ValueError, match="was imported with size 48 and not 64: give another --out"):
        write(scans, tmp_path / "a", dataclasses.replace(SCANNET, size=64))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "letter.txt").write_text("x")
    with pytest.raises(ValueError, match=r"holds 'letter.txt' and no dataset"):
        write(scans, tmp_path / "b")


def test_nothing_that_can_be_used_leaves_nothing(scans: Path, tmp_path: Path) -> None:
    for path in scans.rglob("depth/*.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the 6 frames .* can be used: unreadable_depth, 0: 0.png"):
        write(scans, tmp_path / "out")
    assert not contents(tmp_path / "out", ledger=True)


def test_into_an_object_store(scans: Path, tmp_path: Path) -> None:
    write(scans, tmp_path / "out")
    import_corpus(scans, "memory://rgbd-test", SCANNET, workers=0)
    fs = fsspec.filesystem("memory")
    found = {name.partition("/rgbd-test/")[2]: fs.cat_file(name) for name in fs.find("/rgbd-test")}
    found.pop(layout.LEDGER)
    assert found == contents(tmp_path / "out")


def test_the_command(scans: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(from_rgbd)
    arguments = ["scannet", str(scans), "--out", str(tmp_path / "out"), "--size", "48", "--per-shard", "1"]
    result = CliRunner().invoke(app, [*arguments, "--workers", "0"])
    assert result.exit_code == 0, result.output
    assert "6 frames of 3 scenes in 6 shards, 6 of them new" in result.stdout
    (tmp_path / "train.txt").write_text("scene0004_00\nscene0009_00\n")
    result = CliRunner().invoke(app, [*arguments, "--workers", "0", "--split-file", str(tmp_path / "train.txt")])
    assert "nothing was left to do" in result.stdout
    assert result.stdout.splitlines()[-1].endswith(": scene0009_00")
    write(scans, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def frame_of(surface: np.ndarray, **changes: object) -> Frame:
    height, width = surface.shape
    image = np.zeros((height, width, 3), np.uint8)
    frame = Frame(image, surface, intrinsics(width, width, width / 2, height / 2))
    return dataclasses.replace(frame, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": np.zeros((7, 10, 3), np.uint8)}, "size_mismatch"),
        ({"depth": np.zeros((10, 10), np.float32)}, "no_valid_depth"),
        ({"depth": np.full((10, 10), np.nan, np.float32)}, "no_valid_depth"),
        ({"depth": np.full((10, 10), 1e9, np.float32)}, "no_valid_depth"),
        ({"depth": np.full((10, 10), -1, np.float32)}, "no_valid_depth"),
        ({"K": intrinsics(0, 0, 5, 5)}, "absurd_intrinsics"),
        ({"K": intrinsics(1e6, 1e6, 5, 5)}, "absurd_intrinsics"),
        ({"K": intrinsics(10, 10, 50, 5)}, "absurd_intrinsics"),
        ({"K": intrinsics(10, 100, 5, 5)}, "absurd_intrinsics"),
        ({"K": intrinsics(np.nan, 10, 5, 5)}, "absurd_intrinsics"),
        ({"K": np.eye(4)}, "absurd_intrinsics"),
        ({"world_from_camera": np.full((4, 4), np.inf)}, "absurd_pose"),
        ({"world_from_camera": np.diag([2.0, 2, 2, 1])}, "absurd_pose"),
        ({"world_from_camera": np.diag([-1.0, 1, 1, 1])}, "absurd_pose"),
    ],
)
def test_frames_that_cannot_be(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(Unreadable) as error:
        checked(frame_of(np.ones((10, 10), np.float32), **changes))
    assert error.value.reason == reason


def test_what_is_no_depth_becomes_zero() -> None:
    depth = np.ones((10, 10), np.float32)
    depth[0] = np.array([np.nan, np.inf, -np.inf, -1, 0, 1e9, 1, 1, 1, 1])
    found = checked(frame_of(depth)).depth
    assert (found[0] == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]).all()
    check_intrinsics(intrinsics(10, 10, 5, 5), 10, 10)
    check_pose(np.eye(4))


@dataclasses.dataclass(frozen=True)
class Trap:
    """A corpus whose frames do what their names say; for processes of their own."""

    folder: Path

    name: ClassVar[str] = "trap"
    title: ClassVar[str] = "Trap"
    licence: ClassVar[str] = "CC0-1.0"
    synthetic: ClassVar[bool] = True
    layout: ClassVar[str] = "anything"

    def scenes(self) -> Iterable[Scene]:
        return [Scene("one"), Scene("two")]

    def frames(self, scene: Scene) -> Sequence[str]:
        return [path.name for path in sorted((self.folder / scene.name).iterdir())]

    def read(self, scene: Scene, frame: str) -> Frame:
        with (self.folder.parent / "reads").open("a") as file:
            file.write(f"{scene.name}/{frame}\n")
        if "die" in frame:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "hang" in frame:
            time.sleep(1000)
        if "bug" in frame:
            raise ZeroDivisionError("a reader that did not foresee it")
        if "eat" in frame:
            np.ones(1 << 40, np.uint8)
        return frame_of(np.full((16, 16), 1 + len(frame), np.float32))


class TrapSettings(Settings):
    def open(self, folder: Path) -> Trap:
        return Trap(folder)


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    for scene, names in {"one": ["0-die", "1", "2-hang", "3", "4-bug", "5-eat", "6"], "two": ["1", "2"]}.items():
        for name in names:
            (tmp_path / "trap" / scene).mkdir(parents=True, exist_ok=True)
            (tmp_path / "trap" / scene / name).touch()
    return tmp_path / "trap"


@pytest.mark.slow
def test_frames_that_kill_and_hang_cost_themselves_alone(trap: Path, tmp_path: Path) -> None:
    """And the bytes do not depend on the number of processes. Each of the seven imports the shards room."""
    for count in (1, 2):
        out = tmp_path / str(count)
        summary = import_corpus(trap, str(out), TrapSettings("trap"), workers=count, patience=3.0)
        assert summary.rejected == {"crashed": 2, "timed_out": 1, "too_large": 1}
        assert summary.frames == 5
        assert not list(out.rglob("*.tmp"))
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_a_process_may_start_more_slowly_than_it_reads() -> None:
    worker = workers._Worker(None, None)  # type: ignore[arg-type]
    assert worker.left(patience=1) > 50
    worker.started = True
    assert worker.left(patience=1) <= 1


@pytest.mark.slow
def test_every_good_frame_is_kept_however_many_are_bad(tmp_path: Path) -> None:
    """And is read twice at most; each bad one once."""
    names = [f"{i:02d}-{'good' if i % 2 else 'die'}" for i in range(20)]
    (tmp_path / "trap" / "one").mkdir(parents=True)
    (tmp_path / "trap" / "two").mkdir()
    for name in names:
        (tmp_path / "trap" / "one" / name).touch()
    begun = []
    summary = import_corpus(
        tmp_path / "trap",
        str(tmp_path / "out"),
        TrapSettings("trap"),
        patience=20.0,
        progress=lambda done, total: begun.append((done, total)),
    )
    assert (summary.frames, dict(summary.rejected)) == (10, {"crashed": 10})
    assert begun[-1] == (20, 20)
    reads = Counter((tmp_path / "reads").read_text().split())
    assert reads == {f"one/{name}": 2 if "good" in name else 1 for name in names}


def test_options_reach_the_reader(tmp_path: Path) -> None:
    reader = open_corpus("arkitscenes", tmp_path, {"confidence": "2", "depth": "lowres"})
    assert (reader.confidence, reader.depth) == (2, "lowres")  # type: ignore[attr-defined]


def test_depth_is_kept_as_well_as_it_was_known(scans: Path, tmp_path: Path) -> None:
    """Measured depth to 2.5e-4, or as asked."""
    write(scans, tmp_path / "exact", dataclasses.replace(SCANNET, bound=1e-6))
    exact = shards.open(tmp_path / "exact")
    for bound, settings in ((2.5e-4, SCANNET), (1e-3, dataclasses.replace(SCANNET, bound=1e-3))):
        write(scans, tmp_path / str(bound), settings)
        found = shards.open(tmp_path / str(bound))
        worst = 0.0
        for key in exact.keys:
            ours, truth = found[key], exact[key]
            assert isinstance(ours, shards.LayeredView)
            assert isinstance(truth, shards.LayeredView)
            assert np.array_equal(ours.hits, truth.hits)
            valid = truth.valid
            worst = max(worst, float(np.abs(ours.depth[0][valid] / truth.depth[0][valid] - 1).max()))
        assert 0.3 * bound < worst <= bound + 2e-6
