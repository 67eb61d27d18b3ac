"""The job on a real local Ray: one dataset, whatever happens to the assets, the workers and the driver."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

import shards
from cluster import dataset, tables
from cluster.dataset import Means, render_dataset
from cluster.ledger import Ledger
from cluster.sources.filters import Filters
from shards.check.repair import repair
from shards.check.verify import verify
from shards.store import open_store
from tests.cluster.boxes import SETTINGS, Boxes
from tests.cluster.conftest import ALONE, COUNT, contents, ledger

pytestmark = pytest.mark.usefixtures("local_ray")


def test_a_dataset_is_whole_and_nothing_else_is_left(undisturbed: Path) -> None:
    assert sorted(path.name for path in undisturbed.iterdir()) == [
        "dataset.json",
        "ledger.parquet",
        "manifest.parquet",
        "shards",
    ]
    dataset = shards.open(undisturbed)
    assert len(dataset) == 18
    assert [sample.origin.uid for sample in dataset] == [f"box-{index // 2:02d}" for index in range(18)]
    assert all((sample.hits > 0).any() for sample in dataset)
    assert dataset.config["complete"]
    assert dataset.config["job"]["assets"] == 9
    assert len(list((undisturbed / "shards").glob("*.tar"))) == 3
    assert dataset.statistics == shards.statistics(dataset) is not None
    assert [(row["asset"], row["attempt"], row["status"], row["views"]) for row in ledger(undisturbed)] == [
        (f"box-{index:02d}", 1, "done", 2) for index in range(9)
    ]


def test_the_number_of_workers_changes_no_byte(undisturbed: Path, tmp_path: Path, scratch: str) -> None:
    render_dataset([Boxes(COUNT, scratch)], tmp_path / "out", SETTINGS, shard_views=6, means=Means(workers=2))
    assert contents(tmp_path / "out") == contents(undisturbed)


def test_mishaps_that_pass_leave_no_trace_but_in_the_ledger(undisturbed: Path, tmp_path: Path, scratch: str) -> None:
    source = Boxes(COUNT, scratch, {1: "crash once", 4: "hang once", 7: "exit once"})
    means = Means(workers=2, asset_timeout=2.0)
    summary = render_dataset([source], tmp_path / "out", SETTINGS, shard_views=6, means=means)
    assert contents(tmp_path / "out") == contents(undisturbed)
    assert (summary.done, summary.views, summary.rejected, summary.failed) == (9, 18, {}, {})
    lost = [(row["asset"], row["attempt"], row["status"], row["reason"]) for row in ledger(tmp_path / "out")]
    assert [row for row in lost if row[2] != "done"] == [
        ("box-01", 1, "failed", "crashed"),
        ("box-04", 1, "failed", "timeout"),
        ("box-07", 1, "failed", "crashed"),
    ]
    assert [row for row in lost if row[1] == 2] == [
        ("box-01", 2, "done", None),
        ("box-04", 2, "done", None),
        ("box-07", 2, "done", None),
    ]


def test_every_mishap_costs_its_asset_only(tmp_path: Path, scratch: str) -> None:
    trouble = {0: "crash", 1: "reject", 3: "error", 4: "memory", 5: "hang", 7: "spin"}
    source = Boxes(9, scratch, trouble)
    means = Means(workers=2, asset_timeout=2.0, memory=1 << 30)
    summary = render_dataset([source], tmp_path / "out", SETTINGS, shard_views=6, means=means)
    assert summary.rejected == {"no_faces": 1, "out_of_memory": 1}
    assert summary.failed == {"crashed": 1, "error": 1, "timeout": 2}
    assert {sample.origin.uid for sample in shards.open(tmp_path / "out")} == {"box-02", "box-06", "box-08"}
    last = {row["asset"]: row for row in ledger(tmp_path / "out")}
    assert {asset: row["attempt"] for asset, row in last.items()} == {
        "box-00": 2,
        "box-01": 1,
        "box-02": 1,
        "box-03": 1,
        "box-04": 1,
        "box-05": 2,
        "box-06": 1,
        "box-07": 2,
        "box-08": 1,
    }
    assert last["box-04"]["message"] == "needs more than 1 GiB"
    assert last["box-07"]["message"] == "not done after 2 s (--asset-timeout)"
    assert "KeyError: 'no such node' (boxes.py:" in last["box-03"]["message"]
    assert last["box-01"]["message"] == "it has no faces"


def test_a_finished_dataset_is_left_alone_and_a_damaged_shard_that_is_deleted_is_made_again(
    tmp_path: Path, scratch: str
) -> None:
    source, out = Boxes(6, scratch, {1: "reject"}), tmp_path / "out"
    first = render_dataset([source], out, SETTINGS, shard_views=4, means=ALONE)
    before = contents(out)
    again = render_dataset([source], out, SETTINGS, shard_views=4)
    assert (again.done, again.rejected, again.views, again.fresh_views) == (5, first.rejected, 10, 0)
    assert len(source.loads()) == 6

    damaged = sorted((out / "shards").glob("*.tar"))[1]
    content = bytearray(damaged.read_bytes())
    content[1000] ^= 0xFF
    damaged.write_bytes(content)
    with pytest.raises(shards.CorruptSample, match=r"delete it .* and run the same render command again"):
        list(shards.open(out))
    damaged.unlink()
    summary = render_dataset([source], out, SETTINGS, shard_views=4, means=ALONE)
    assert contents(out) == before
    assert source.loads()[6:] == ["box-02", "box-03"]
    assert (summary.assets, summary.views, summary.fresh_views) == (6, 10, 4)


def test_what_a_repair_left_out_is_made_again(undisturbed: Path, tmp_path: Path, scratch: str) -> None:
    """`shards verify --repair` writes the manifest without the samples of a lost shard, and without unsound ones."""
    source, out = Boxes(COUNT, scratch), tmp_path / "out"
    shutil.copytree(undisturbed, out)
    damaged, lost, _ = sorted((out / "shards").glob("*.tar"))
    lost.unlink()
    content = bytearray(damaged.read_bytes())
    content[1000] ^= 0xFF
    damaged.write_bytes(content)
    assert repair(out)[0] < 12
    summary = render_dataset([source], out, SETTINGS, shard_views=6, means=ALONE)
    assert shards.open(out).hash == shards.open(undisturbed).hash
    assert verify(out) == []
    assert source.loads() == [f"box-{index:02d}" for index in range(6)]
    assert (summary.views, summary.fresh_views) == (18, 12)


def test_an_asset_that_ends_otherwise_when_its_shard_is_made_again(
    undisturbed: Path, tmp_path: Path, scratch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unit's first record says that an asset failed. Its shard is lost and made again with that asset, and the job
    is killed between the shard and the record: the first record must not be taken for that of the second shard.
    """
    failing, source, out = Boxes(COUNT, scratch, {4: "error"}), Boxes(COUNT, scratch), tmp_path / "out"
    assert render_dataset([failing], out, SETTINGS, shard_views=6, means=ALONE).failed == {"error": 1}
    shard = sorted((out / "shards").iterdir())[1]
    shard.unlink()

    def killed(sources: object, settings: object, filters: object, store: object, missing: list, *rest: object) -> int:
        assert [unit.name for unit in missing] == [shard.stem]
        shard.parent.mkdir(exist_ok=True)
        shutil.copy(undisturbed / "shards" / shard.name, shard)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "render_units", killed)
        with pytest.raises(KeyboardInterrupt):
            render_dataset([source], out, SETTINGS, shard_views=6, means=ALONE)
    render_dataset([source], out, SETTINGS, shard_views=6, means=ALONE)
    assert verify(out) == []
    assert contents(out) == contents(undisturbed)


def test_tables_are_not_written_over_the_shard_of_another_job(
    undisturbed: Path, tmp_path: Path, scratch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holder that stalled between its shard and its record wakes up after another job made the unit otherwise."""
    source, out = Boxes(COUNT, scratch), tmp_path / "out"
    real = dataset.render_units

    def another(*arguments: object) -> int:
        fresh = real(*arguments)
        last = sorted((out / "shards").iterdir())[-1]
        last.write_bytes(last.read_bytes() + bytes(512))
        return fresh

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "render_units", another)
        with pytest.raises(ValueError, match=r"another shard of unit 000002-.*run the same"):
            render_dataset([source], out, SETTINGS, shard_views=6, means=ALONE)
    assert not (out / "manifest.parquet").exists()
    render_dataset([source], out, SETTINGS, shard_views=6, means=ALONE)
    assert contents(out) == contents(undisturbed)


@pytest.mark.parametrize("name", ["dataset.json", "ledger.parquet"])
def test_the_remedy_for_a_damaged_file_of_the_dataset_works(
    name: str, undisturbed: Path, tmp_path: Path, scratch: str
) -> None:
    source, out = Boxes(COUNT, scratch), tmp_path / "out"
    shutil.copytree(undisturbed, out)
    (out / name).write_bytes(b"{damaged")
    with pytest.raises(ValueError, match=f"{name} is damaged .*remove it and run the same render command") as error:
        render_dataset([source], out, SETTINGS, shard_views=6, means=ALONE)
    assert "\n" not in str(error.value)
    (out / name).unlink()
    render_dataset([source], out, SETTINGS, shard_views=6, means=ALONE)
    assert contents(out) == contents(undisturbed)


def test_what_is_committed_is_not_rendered_again(undisturbed: Path, tmp_path: Path, scratch: str) -> None:
    """The folder as a driver leaves it that is killed after its second unit, in the middle of the third."""
    source, out = Boxes(COUNT, scratch), tmp_path / "out"
    shutil.copytree(undisturbed, out)
    names = sorted(path.stem for path in (out / "shards").iterdir())
    tables.reopen(open_store(out))
    for gone in (out / "ledger.parquet", out / "manifest.parquet", out / "shards" / f"{names[2]}.tar"):
        gone.unlink()
    (out / "shards" / f".{names[2]}.tar.0123abcd.tmp").write_bytes(b"half a shard")
    stored = json.loads((out / "dataset.json").read_text())
    (out / "dataset.json").write_bytes(shards.dataset_json({**stored, "complete": False, "statistics": None}))

    summary = render_dataset([source], out, SETTINGS, shard_views=6, means=ALONE)
    assert contents(out) == contents(undisturbed)
    assert sorted(source.loads()) == ["box-06", "box-07", "box-08"]
    assert (summary.views, summary.fresh_views) == (18, 6)


def test_the_folder_of_another_config_is_refused(undisturbed: Path, scratch: str) -> None:
    before = contents(undisturbed)
    with pytest.raises(ValueError, match=r"render\.views is 2 there and 3 here"):
        render_dataset([Boxes(COUNT, scratch)], undisturbed, SETTINGS.model_copy(update={"views": 3}), shard_views=6)
    with pytest.raises(ValueError, match=r"shard_views is 6 there and 8 here"):
        render_dataset([Boxes(COUNT, scratch)], undisturbed, SETTINGS, shard_views=8)
    with pytest.raises(ValueError, match=r"sources is .*boxes:9.* there and .*boxes:10.* here.*does not grow"):
        render_dataset([Boxes(COUNT + 1, scratch)], undisturbed, SETTINGS, shard_views=6)
    assert contents(undisturbed) == before


@pytest.mark.parametrize(
    "theirs",
    [
        ["thesis.doc", ".editor-backup.tmp"],
        ["units/chapter1.doc", "units/data.json"],
        ["manifest.parquet", "ledger.parquet"],
        [".x.tmp/file"],
    ],
)
def test_the_folder_of_other_people_is_refused_and_left_alone(theirs: list[str], tmp_path: Path, scratch: str) -> None:
    out = tmp_path / "out"
    for name in theirs:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("precious")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="and no dataset: give an empty or a new place as --out"):
        render_dataset([Boxes(2, scratch)], out, SETTINGS, means=ALONE)
    assert contents(tmp_path) == before


def test_a_dataset_is_finished_by_the_software_that_began_it(undisturbed: Path, tmp_path: Path, scratch: str) -> None:
    source, out = Boxes(COUNT, scratch), tmp_path / "out"
    shutil.copytree(undisturbed, out)
    stored = json.loads((out / "dataset.json").read_text())
    stored["software"]["numpy"] = "1.0"
    (out / "dataset.json").write_bytes(shards.dataset_json(stored))
    assert render_dataset([source], out, SETTINGS, shard_views=6).fresh_views == 0  # nothing to do for any version
    sorted((out / "shards").glob("*.tar"))[1].unlink()
    with pytest.raises(ValueError, match=r"begun with numpy 1\.0, but 2\..* install numpy==1\.0 and go on") as error:
        render_dataset([source], out, SETTINGS, shard_views=6)
    assert "\n" not in str(error.value)
    assert shards.read_dataset_json(out)["software"]["numpy"] == "1.0"


def test_a_record_may_become_visible_late_but_not_never(
    undisturbed: Path, tmp_path: Path, scratch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS, where a node may believe for a minute that what another one wrote is not there."""
    see, asked = Ledger.visible, Counter()

    def late(book: Ledger, unit: str) -> bool:
        asked[unit] += 1
        return asked[unit] > 3 and see(book, unit)

    monkeypatch.setattr(Ledger, "visible", late)
    render_dataset([Boxes(COUNT, scratch)], tmp_path / "out", SETTINGS, shard_views=6, means=ALONE)
    assert contents(tmp_path / "out") == contents(undisturbed)

    monkeypatch.setattr(Ledger, "visible", lambda book, unit: False)
    monkeypatch.setattr("cluster.job.VISIBLE_AFTER", 0.3)
    with pytest.raises(ValueError, match="not the same folder on every node"):
        render_dataset([Boxes(1, scratch)], tmp_path / "never", SETTINGS, means=ALONE)


def test_a_dataset_of_nothing_is_a_dataset(tmp_path: Path, scratch: str) -> None:
    summary = render_dataset([Boxes(2, scratch, {0: "reject", 1: "reject"})], tmp_path / "out", SETTINGS, means=ALONE)
    assert summary.rejected == {"no_faces": 2}
    assert len(shards.open(tmp_path / "out")) == 0


def test_an_asset_that_comes_twice_is_rendered_once(tmp_path: Path, scratch: str) -> None:
    source = Boxes(1, scratch)
    summary = render_dataset([source, source], tmp_path / "out", SETTINGS, means=ALONE)
    assert (summary.done, summary.rejected, summary.views) == (1, {"duplicate": 1}, 2)
    assert ledger(tmp_path / "out")[1]["message"] == "the same name and bytes as boxes/box-00"


def test_a_backend_that_cannot_run_ends_the_job_in_one_sentence(tmp_path: Path, scratch: str) -> None:
    """And leaves nothing: the next one may be another."""
    for backend, means, message in (
        ("cuda", Means(), "Ray has no GPU here"),
        ("pyrender", ALONE, "--backend pyrender"),
    ):
        settings = SETTINGS.model_copy(update={"backend": backend})
        with pytest.raises(ValueError, match=message) as error:
            render_dataset([Boxes(1, scratch)], tmp_path / backend, settings, means=means)
        assert "\n" not in str(error.value)
        assert not (tmp_path / backend).exists()


def test_what_failed_for_a_reason_is_made_again_on_request(undisturbed: Path, tmp_path: Path, scratch: str) -> None:
    out = tmp_path / "out"
    first = render_dataset([Boxes(COUNT, scratch, {4: "crash"})], out, SETTINGS, shard_views=6, means=ALONE)
    assert first.failed == {"crashed": 1}
    source = Boxes(COUNT, scratch)
    before = len(source.loads())
    same = render_dataset([source], out, SETTINGS, shard_views=6, means=ALONE, retry=["timeout"])
    assert (same.failed, same.fresh_views, len(source.loads())) == ({"crashed": 1}, 0, before)
    again = render_dataset([source], out, SETTINGS, shard_views=6, means=ALONE, retry=["crashed"])
    assert (again.failed, again.views, again.fresh_views) == ({}, 2 * COUNT, 6)
    assert sorted(source.loads()[before:]) == ["box-03", "box-04", "box-05"]
    assert contents(out) == contents(undisturbed)


def test_what_filters_drop_is_said(tmp_path: Path, scratch: str) -> None:
    (tmp_path / "bad.txt").write_text("box-01\n")
    filters = Filters.parse(without=tmp_path / "bad.txt")
    summary = render_dataset([Boxes(3, scratch)], tmp_path / "out", SETTINGS, means=ALONE, filters=filters)
    assert summary.assets == 2
    assert "1 of 3 assets filtered out: without 1" in summary.line()
    stored = shards.read_dataset_json(tmp_path / "out")
    assert stored["filtered"] == {"without": 1}
    assert stored["job"]["filters"]["without"]["uids"] == 1
    assert render_dataset([Boxes(3, scratch)], tmp_path / "out", SETTINGS, filters=filters).fresh_views == 0
    with pytest.raises(ValueError, match="filters"):
        render_dataset([Boxes(3, scratch)], tmp_path / "out", SETTINGS, filters=Filters.parse())
