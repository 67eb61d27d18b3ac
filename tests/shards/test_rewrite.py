"""Datasets made of datasets: what goes in comes out, byte by byte, however often it was cut, killed and counted."""

import http.server
import json
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import webdataset

import shards
from shards import encode, generator, ledger, parallel, write_manifest, write_shard
from shards.check.verify import inspect
from shards.ledger import LedgerWriter
from shards.rewrite import choice, rewrite
from shards.rewrite.inputs import Input, open_input
from shards.rewrite.plan import Cut, planned, size_of
from shards.rewrite.rewrite import Made, Output
from shards.store import lease, open_store
from tests import s3
from tests.shards.conftest import write_dataset
from tests.shards.scenes import spheres_view


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def samples(path: Path | str) -> dict[str, str]:
    table = shards.open(path).manifest
    return dict(zip(table["key"].to_pylist(), table["sha256"].to_pylist()))


def with_ledger(root: Path) -> Path:
    with (root / "ledger.parquet").open("wb") as file, LedgerWriter(file) as writer:
        for index in range(40):
            status, views = ("done", 1) if index < 31 else ("rejected", 0)
            row = ledger.row(
                unit="000000-unit", asset=f"a{index}", source="test", licence="l", status=status, views=views
            )
            writer.write([row])
    return root


def made(
    command: str,
    inputs: list[Input],
    to: list[np.ndarray],
    *outs: Path,
    cut: Cut | None = None,
    skip_damaged: bool = False,
    workers: int = 2,
    **options: object,
) -> list[Made]:
    cut = cut or Cut(samples=5, bytes=None)
    header = choice.header(command, inputs, cut, **options)
    outputs = [Output(open_store(out), {**header, "part": number}) for number, out in enumerate(outs)]
    return rewrite.rewrite(inputs, to, outputs, cut, skip_damaged=skip_damaged, workers=workers)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_ledger(write_dataset(tmp_path_factory.mktemp("source")))


@pytest.mark.parametrize("cut", [Cut(1, None), Cut(7, None), Cut(1000, None), Cut(None, 30_000), Cut(4, 20_000), Cut()])
def test_resharding_keeps_samples_order_and_hash(source: Path, tmp_path: Path, cut: Cut) -> None:
    one = open_input(source)
    (there,) = made("reshard", [one], [choice.everything(one)], tmp_path / "a", cut=cut)
    assert there.hash == shards.open(tmp_path / "a").hash == shards.open(source).hash == one.hash
    for path in (tmp_path / "a" / "shards").iterdir():
        with tarfile.open(path) as archive:
            held = len({name.partition(".")[0] for name in archive.getnames()})
        assert held <= (cut.samples or held)
        assert path.stat().st_size <= (cut.bytes or np.inf) or held == 1
    two = open_input(tmp_path / "a")
    (back,) = made("reshard", [two], [choice.everything(two)], tmp_path / "b", cut=Cut(12, None))
    assert (back.samples, back.hash) == (31, one.hash)
    for left, right in zip(shards.open(source), shards.open(tmp_path / "b"), strict=True):
        assert left.key == right.key
    assert not (tmp_path / "b" / "units").exists()


def test_plain_webdataset_reads_what_was_written(source: Path, tmp_path: Path) -> None:
    one = open_input(source)
    made("reshard", [one], [choice.everything(one)], tmp_path / "a")
    paths = sorted(str(path) for path in (tmp_path / "a" / "shards").iterdir())
    read = list(webdataset.WebDataset(paths, shardshuffle=False, empty_check=False))
    assert [sample["__key__"] for sample in read] == list(samples(source))


def test_the_bytes_do_not_depend_on_the_number_of_threads(source: Path, tmp_path: Path) -> None:
    one = open_input(source)
    for workers in (1, 2, 9):
        made("filter", [one], [choice.where(one, "view % 2 = 0")], tmp_path / str(workers), workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "9")


def test_a_filter_keeps_what_it_says_and_a_filter_of_all_keeps_all(source: Path, tmp_path: Path) -> None:
    one = open_input(source)
    made("filter", [one], [choice.where(one, "true")], tmp_path / "all")
    assert samples(tmp_path / "all") == samples(source)
    made("filter", [one], [choice.where(one, "view >= 10 and frames = 1")], tmp_path / "some")
    kept = shards.open(tmp_path / "some").manifest
    wanted = [row for row in shards.open(source).manifest.to_pylist() if row["view"] >= 10 and row["frames"] == 1]
    place = ["shard", "offset", "shard_bytes", "shard_sha256"]
    assert kept.drop_columns(place).to_pylist() == [{k: v for k, v in row.items() if k not in place} for row in wanted]
    sizes = one.table(["bytes"])["bytes"].to_numpy()
    above = choice.where(one, f"bytes > {sizes.mean()}")
    assert ((above == 0) == (sizes > sizes.mean())).all()


@pytest.mark.parametrize("how", ["split", "regime", "0.5,0.25,0.25"])
def test_a_merge_of_a_split_is_the_whole(source: Path, tmp_path: Path, how: str) -> None:
    one = open_input(source)
    if how[0].isdigit():
        shares = [float(share) for share in how.split(",")]
        names, to = [str(number) for number in range(3)], choice.by_asset(one, shares, 0)
    else:
        names, to = choice.by_column(one, how)
    parts = [tmp_path / name for name in names]
    made("split", [one], [to], *parts)
    of = [samples(part) for part in parts]
    assert sum(map(len, of)) == len({key for part in of for key in part}) == 31
    if not how[0].isdigit():
        column = [set(shards.open(part).manifest[how].to_pylist()) for part in parts]
        assert column == [{name} for name in names]
    inputs = [open_input(part) for part in parts]
    merged = choice.together(inputs, None)
    made("merge", inputs, merged.to, tmp_path / "whole")
    assert samples(tmp_path / "whole") == samples(source)
    assert (merged.equal, merged.conflicts) == (0, 0)
    with (tmp_path / "whole" / "ledger.parquet").open("rb") as left, (source / "ledger.parquet").open("rb") as right:
        assert list(ledger.rows(left)) == list(ledger.rows(right))


def test_views_of_an_asset_stay_together_and_shares_are_kept() -> None:
    rows = 4000
    assets = pa.array([f"{index // 4:064x}" for index in range(rows)])

    class Fake:
        def table(self, columns: list[str]) -> pa.Table:
            return pa.table({"asset_sha256": pa.chunked_array([assets])})

    to = choice.by_asset(Fake(), [0.7, 0.2, 0.1], 3)  # type: ignore[arg-type]
    assert (to.reshape(-1, 4) == to[::4, None]).all()
    # three standard deviations of a draw of 1000 assets
    for number, share in enumerate([0.7, 0.2, 0.1]):
        assert abs((to == number).mean() - share) < 3 * np.sqrt(share * (1 - share) / 1000)
    assert (to == choice.by_asset(Fake(), [0.7, 0.2, 0.1], 3)).all()  # type: ignore[arg-type]
    assert (to != choice.by_asset(Fake(), [0.7, 0.2, 0.1], 4)).any()  # type: ignore[arg-type]


def other_bytes(root: Path, key: str) -> Path:
    """A dataset of two samples: one that is the source's, and one with the key of another and its own content."""
    views = [spheres_view(0, 24, 28), spheres_view(99, 24, 28, key=key)]
    write_manifest(root, write_shard(root / "shards" / "a.tar", map(encode, views)))
    shards.write_dataset_json(root, {"layers": 6, "size": [24, 28], "job": {}})
    return root


def test_equal_samples_come_once_and_others_of_one_key_are_refused_or_chosen(source: Path, tmp_path: Path) -> None:
    key = spheres_view(5).key
    inputs = [open_input(source), open_input(other_bytes(tmp_path / "other", key))]
    with pytest.raises(ValueError, match=rf"1 keys come with different bytes.*{key}.*--keep first"):
        choice.together(inputs, None)
    for keep, of in (("first", 0), ("last", 1)):
        merged = choice.together(inputs, keep)
        assert (merged.equal, merged.conflicts) == (1, 1)
        made("merge", inputs, merged.to, tmp_path / keep)
        found = samples(tmp_path / keep)
        assert found == {**samples(source), key: samples(inputs[of].text)[key]}


def test_what_may_not_be_mixed_is_said(source: Path, tmp_path: Path) -> None:
    view = spheres_view(50, 16, 20, layers=3)
    root = tmp_path / "small"
    write_manifest(root, write_shard(root / "shards" / "a.tar", [encode(view)]))
    shards.write_dataset_json(root, {"layers": 3, "size": [16, 20]})
    inputs = [open_input(source), open_input(root)]
    with pytest.raises(ValueError, match=r"has layers 3, .* 6: give --mixed"):
        choice.header("merge", inputs, Cut())
    header = choice.header("merge", inputs, Cut(), True)
    assert (header["layers"], header["size"]) == (6, [24, 28])
    shards.write_dataset_json(root, {"layers": 3, "size": [16, 20], "conventions": {"depth": "along the ray"}})
    with pytest.raises(ValueError, match="another convention of depth"):
        choice.header("merge", [inputs[0], open_input(root)], Cut(), True)


class Killed(BaseException):
    """As the kernel does it: nothing is cleaned up by who is killed, beyond what the store does."""


@pytest.mark.parametrize("last", [0, 1, 3, 6])
def test_a_killed_run_is_gone_on_with(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    one = open_input(source)
    to = [choice.everything(one)]
    made("reshard", [one], to, tmp_path / "whole", workers=1)
    written: list[str] = []
    real = rewrite.parts_into

    def parts_into(file: object, name: str, parts: Iterator) -> list[dict]:
        if len(written) == last:
            raise Killed
        written.append(name)
        return real(file, name, parts)

    monkeypatch.setattr(rewrite, "parts_into", parts_into)
    with pytest.raises(Killed):
        made("reshard", [one], to, tmp_path / "out", workers=1)
    with pytest.raises((ValueError, FileNotFoundError)):
        shards.open(tmp_path / "out")
    with pytest.raises(ValueError, match="not finished"):
        open_input(tmp_path / "out")
    again: list[str] = []
    monkeypatch.setattr(rewrite, "parts_into", lambda f, name, p: again.append(name) or real(f, name, p))
    made("reshard", [one], to, tmp_path / "out", workers=2)
    assert not set(written) & set(again)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    again.clear()
    made("reshard", [one], to, tmp_path / "out")  # finished: nothing to do
    assert again == []
    with pytest.raises(ValueError, match="holds another dataset"):
        made("reshard", [one], to, tmp_path / "out", cut=Cut(4, None))


DAMAGES: dict[str, tuple[Callable[[Path], object], int]] = {
    "flipped": (lambda path: flip(path, 600), 1),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-20_000]), 11),
    "missing": (lambda path: path.unlink(), 12),
}


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", DAMAGES)
def test_no_damaged_sample_is_copied(source: Path, dataset_copy: Path, tmp_path: Path, name: str) -> None:
    damage, most = DAMAGES[name]
    damage(min((dataset_copy / "shards").iterdir()))
    one = open_input(dataset_copy)
    to = [choice.everything(one)]
    with pytest.raises(shards.CorruptSample, match=r"spheres.*000000-unit.tar: .*--skip-damaged"):
        made("reshard", [one], to, tmp_path / "out")
    (there,) = made("reshard", [one], to, tmp_path / "out", skip_damaged=True)
    assert 1 <= len(there.lost) <= most
    assert there.samples + len(there.lost) == 31
    assert samples(tmp_path / "out").items() <= samples(source).items()
    assert [sample.key for sample in shards.open(tmp_path / "out")] == list(samples(tmp_path / "out"))
    config = shards.read_dataset_json(tmp_path / "out")
    assert (config["lost"], config["statistics"]) == (len(there.lost), None)
    with (tmp_path / "out" / "ledger.parquet").open("rb") as file:
        rows = list(ledger.rows(file))
    assert [row["reason"] for row in rows] == ["damaged"] * len(there.lost)
    assert all("000000-unit.tar" in row["message"] for row in rows)


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("skip", [True, False])
def test_what_was_restored_since_is_not_left_out(
    source: Path, dataset_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, skip: bool
) -> None:
    """A run with --skip-damaged is killed, the shard restored, and the run gone on with."""
    path = min((dataset_copy / "shards").iterdir())
    good = path.read_bytes()
    DAMAGES[name][0](path)
    one = open_input(dataset_copy)
    to = [choice.everything(one)]
    made("reshard", [one], to, tmp_path / "finished", skip_damaged=True)
    with pytest.raises(ValueError, match=r"without \d+ damaged samples: give --skip-damaged"):
        made("reshard", [one], to, tmp_path / "finished")

    def dies(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(rewrite, "_finish", dies)
        with pytest.raises(Killed):
            made("reshard", [one], to, tmp_path / "out", skip_damaged=True)
    if not skip:
        with pytest.raises(shards.CorruptSample):
            made("reshard", [open_input(dataset_copy)], to, tmp_path / "out")
    path.write_bytes(good)
    (there,) = made("reshard", [open_input(dataset_copy)], to, tmp_path / "out", skip_damaged=skip)
    assert (there.samples, there.lost) == (31, [])
    made("reshard", [open_input(dataset_copy)], to, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_version_1_is_read_and_version_2_written(tmp_path: Path) -> None:
    old = Path(__file__).parent / "version1"
    one = open_input(old)
    (there,) = made("reshard", [one], [choice.everything(one)], tmp_path / "new")
    assert there.hash == shards.open(old).hash
    table = shards.open(tmp_path / "new").manifest
    assert all(members for members in table["members"].to_pylist())
    assert all(len(sha256) == 64 for sha256 in table["shard_sha256"].to_pylist())
    assert shards.read_dataset_json(tmp_path / "new")["version"] == 2


def test_places_that_are_not_free_are_refused(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = open_input(source)
    to = [choice.everything(one)]
    (tmp_path / "link").symlink_to(source)
    for out in (source, source / "inside", source.parent, tmp_path / "link"):
        with pytest.raises(ValueError, match="read or written too: give another --out"):
            made("reshard", [one], to, out)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("precious")
    with pytest.raises(ValueError, match=r"holds 'notes\.txt'"):
        made("reshard", [one], to, tmp_path / "taken")
    assert contents(tmp_path / "taken") == {"notes.txt": b"precious"}
    monkeypatch.setattr(rewrite.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 70_000_000}))
    monkeypatch.setattr(rewrite, "SPARE", 69_990_000)
    with pytest.raises(OSError, match=r"needs [\d.]+ KB and 69.99 MB to spare, .* has 70 MB free: make room"):
        made("reshard", [one], to, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bucket_serves_as_a_folder_does(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SETTLE", 0.0)
    one = open_input(source)
    to = [choice.where(one, "split = 'train'")]
    made("filter", [one], to, tmp_path / "local")
    (there,) = made("filter", [one], to, "memory://rewritten")  # type: ignore[arg-type]
    two = open_input("memory://rewritten")
    assert (two.hash, two.samples) == (there.hash, there.samples)
    made("filter", [two], [choice.everything(two)], tmp_path / "back")
    assert samples(tmp_path / "back") == samples(tmp_path / "local")
    names = {"dataset.json", "manifest.parquet", "ledger.parquet", "shards"}
    assert set(open_store("memory://rewritten").top()) == names


class Sizes:
    """An input of samples of these sizes, whose manifest comes in pieces of any length."""

    text = "x"

    def __init__(self, sizes: np.ndarray, first: int, rng: np.random.Generator) -> None:
        self.sizes, self.first, self.rng = sizes, first, rng

    def batches(self) -> Iterator[pa.Table]:
        begin = 0
        while begin < len(self.sizes):
            end = min(len(self.sizes), begin + int(self.rng.integers(1, 50)))
            keys = [str(self.first + number) for number in range(begin, end)]
            yield pa.table({"key": keys, "sha256": keys, "bytes": self.sizes[begin:end]})
            begin = end


@pytest.mark.parametrize("trial", range(40))
def test_any_plan_has_every_sample_once_in_order_and_within_limits(trial: int) -> None:
    rng = generator(trial, "plan")
    inputs: list[Sizes] = []
    for _ in range(rng.integers(1, 4)):
        first = sum(len(source.sizes) for source in inputs)
        inputs.append(Sizes(rng.integers(1, 5000, rng.integers(0, 200)), first, rng))
    outputs = int(rng.integers(1, 5))
    to = [rng.integers(-1, outputs, len(source.sizes)).astype(np.int16) for source in inputs]
    cut = Cut([None, int(rng.integers(1, 20))][trial % 2], [None, int(rng.integers(1, 30_000))][trial // 2 % 2])
    found: dict[int, list[int]] = {output: [] for output in range(outputs)}
    names: dict[int, list[str]] = {output: [] for output in range(outputs)}
    for plan in planned(inputs, to, cut):  # type: ignore[arg-type]
        assert plan.index == len(names[plan.output])
        names[plan.output].append(plan.stem)
        count, size = len(plan.table), int(plan.table["bytes"].to_numpy().sum()) + 1024
        assert 1 <= count <= (cut.samples or count)
        assert size <= (cut.bytes or size) or count == 1
        found[plan.output] += map(int, plan.table["key"].to_pylist())
    for output in range(outputs):
        assert found[output] == np.flatnonzero(np.concatenate(to) == output).tolist()
        assert names[output] == sorted(set(names[output]))


def test_sizes_are_read_as_people_write_them() -> None:
    assert [size_of(text) for text in ("256MB", "1 GiB", "1.5kb", "77")] == [256_000_000, 1 << 30, 1500, 77]
    with pytest.raises(ValueError, match="256MB"):
        size_of("large")
    with pytest.raises(ValueError, match="0 samples"):
        Cut(samples=0)


def test_where_a_dataset_comes_from_is_told_without_a_path(source: Path, tmp_path: Path) -> None:
    one = open_input(source)
    made("filter", [one], [choice.everything(one)], tmp_path / "a", where="true")
    config = shards.read_dataset_json(tmp_path / "a")
    assert config["derived"]["where"] == "true"
    assert config["derived"]["from"][0]["hash"] == one.hash
    assert config["derived"]["from"][0]["job"] == {"seed": 0}
    assert "job" not in config  # a render job that is run again must not take it for its own
    assert str(tmp_path) not in json.dumps(config)
    assert str(source) not in json.dumps(config)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def web_server(root: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranged, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class Ranged(Quiet):
    """A web server that serves parts of files, as those of data sets do."""

    def do_GET(self) -> None:
        begin, _, end = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        part = content[int(begin) : int(end) + 1 if end else None]
        if int(begin) >= len(content):
            self.send_error(416)
            return
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {begin}-{int(begin) + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


def test_a_web_server_serves_as_input(source: Path, tmp_path: Path) -> None:
    with web_server(source) as url:
        assert inspect(url, workers=1).problems == []
        one = open_input(url)
        made("filter", [one], [choice.where(one, "view < 20")], tmp_path / "web")
    two = open_input(source)
    made("filter", [two], [choice.where(two, "view < 20")], tmp_path / "local")
    assert contents(tmp_path / "web") == contents(tmp_path / "local")


@pytest.mark.slow
def test_s3_gives_the_bytes_that_a_folder_gives(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "WORTH", 0)
    one = open_input(source)
    to = [np.arange(31, dtype=np.int16) % 2]
    made("split", [one], to, tmp_path / "0", tmp_path / "1")
    with s3.serving():
        urls = [f"s3://{s3.BUCKET}/parts/{number}" for number in range(2)]
        made("split", [one], to, *urls)  # type: ignore[arg-type]
        for number, url in enumerate(urls):
            assert inspect(url, workers=2).problems == []
            assert shards.statistics(url, workers=2) == shards.statistics(tmp_path / str(number))
            store = open_store(url)
            assert store.top() == ["dataset.json", "ledger.parquet", "manifest.parquet", "shards"]
            there = {name: store.read(name) for name in [*store.sizes("shards"), *store.top()[:3]]}
            assert there == contents(tmp_path / str(number))
        inputs = [open_input(url) for url in urls]
        made("merge", inputs, choice.together(inputs, None).to, tmp_path / "whole")
    assert samples(tmp_path / "whole") == samples(source)


SLOWLY = """
import sys, time
from shards.rewrite import rewrite
from shards.commands.reshard import reshard
real = rewrite.parts_into
def parts_into(file, name, parts):
    time.sleep(0.1)
    return real(file, name, parts)
rewrite.parts_into = parts_into
reshard(sys.argv[1], sys.argv[2], samples=3, workers=1)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_what_the_next_one_finishes(source: Path, tmp_path: Path) -> None:
    one = open_input(source)
    whole, out = tmp_path / "whole", tmp_path / "out"
    header = {**choice.header("reshard", [one], Cut(3, None)), "statistics": None}
    rewrite.rewrite([one], [choice.everything(one)], [Output(open_store(whole), header)], Cut(3, None))
    for wanted in (1, 4, 7, 99):
        process = subprocess.Popen(
            [sys.executable, "-c", SLOWLY, str(source), str(out)], cwd=Path(shards.__file__).parents[1]
        )
        while process.poll() is None and len(list((out / "shards").glob("*.tar"))) < wanted:
            time.sleep(0.01)
        process.kill()
        process.wait()
    assert shards.open(out).hash == one.hash
    assert contents(out) == contents(whole)


def test_damage_between_the_contents_of_a_sample_is_mended_on_the_way(
    source: Path, dataset_copy: Path, tmp_path: Path
) -> None:
    """The manifest knows sizes and hashes, so headers and padding can be made anew."""
    row = shards.open(dataset_copy).manifest.to_pylist()[5]
    flip(dataset_copy / "shards" / row["shard"], row["offset"] + 100)
    flip(dataset_copy / "shards" / row["shard"], row["offset"] + row["bytes"] - 1)
    one = open_input(dataset_copy)
    made("reshard", [one], [choice.everything(one)], tmp_path / "out", cut=Cut(12, None))
    assert shards.open(tmp_path / "out").hash == shards.open(source).hash
    assert inspect(tmp_path / "out").problems == []
