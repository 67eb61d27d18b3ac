"""A whole job whose dataset lies in a bucket: the same bytes as in a folder, whatever happens on the way."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shards
from cluster import dataset
from cluster.dataset import render_dataset
from cluster.ledger import Ledger
from shards.store import lease, open_store
from shards.store.bucket import ObjectStore
from shards.store.lease import Lease
from tests import s3
from tests.cluster.boxes import SETTINGS, Boxes
from tests.cluster.conftest import ALONE, COUNT, contents

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(local_ray: None) -> Iterator[s3.Server]:
    """Known to the workers, too, by a file that their environment names."""
    with s3.serving() as server:
        config = Path(os.environ["AWS_CONFIG_FILE"])
        keys = "aws_access_key_id = testing\naws_secret_access_key = testing\nregion = us-east-1\n"
        config.write_text(f"[default]\n{keys}endpoint_url = {server.url}\n")
        yield server
        config.unlink()


@pytest.fixture
def out(server: s3.Server, local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(lease, "BEAT", 0.1)
    monkeypatch.setattr(lease, "PATIENCE", 1.0)
    monkeypatch.setattr(lease, "SETTLE", 0.1)
    return f"s3://{s3.BUCKET}/{tmp_path.name}"


def hashes(out: str) -> dict[str, str]:
    """As `contents` of a folder: every object but the ledger."""
    found = s3.objects(f"{out.partition('/bucket/')[2]}/")
    return {name: hashlib.sha256(data).hexdigest() for name, data in sorted(found.items()) if name != "ledger.parquet"}


def test_a_dataset_in_a_bucket_is_that_of_a_folder(undisturbed: Path, out: str, scratch: str, tmp_path: Path) -> None:
    summary = render_dataset([Boxes(COUNT, scratch)], out, SETTINGS, shard_views=6, means=ALONE)
    assert hashes(out) == contents(undisturbed)
    assert summary.views == 2 * COUNT
    assert s3.unfinished_uploads() == []
    for name, data in s3.objects(f"{out.partition('/bucket/')[2]}/").items():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(data)
    dataset = shards.open(tmp_path / "copy")
    assert dataset.statistics == shards.statistics(dataset)
    assert "testing" not in (tmp_path / "copy" / "dataset.json").read_text()  # the credentials

    again = render_dataset([Boxes(COUNT, scratch)], out, SETTINGS, shard_views=6, means=ALONE)
    assert (again.views, again.fresh_views) == (2 * COUNT, 0)
    with pytest.raises(ValueError, match=r"render\.views is 2 there and 3 here"):
        render_dataset([Boxes(COUNT, scratch)], out, SETTINGS.model_copy(update={"views": 3}), shard_views=6)
    lost = sorted(open_store(out).sizes("shards"))[1]
    open_store(out).delete([lost])
    mended = render_dataset([Boxes(COUNT, scratch)], out, SETTINGS, shard_views=6, means=ALONE)
    assert mended.fresh_views == 6
    assert hashes(out) == contents(undisturbed)


def test_a_killed_driver_is_continued_in_a_bucket(undisturbed: Path, out: str, scratch: str) -> None:
    command = [sys.executable, "-m", "tests.cluster.driver", out, scratch, str(COUNT), "hang"]
    store = open_store(out)
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not store.sizes("units") and time.monotonic() < deadline:
            time.sleep(0.1)
        process.kill()
    committed = len(store.sizes("units"))
    assert 1 <= committed < COUNT // 3
    summary = render_dataset([Boxes(COUNT, scratch)], out, SETTINGS, shard_views=6, means=ALONE)
    assert hashes(out) == contents(undisturbed)
    assert summary.fresh_views <= 2 * (COUNT - 3 * committed)


def test_a_holder_that_was_followed_stops_before_the_tables(
    undisturbed: Path, out: str, scratch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first job stalls when all is rendered; a second one comes, finishes, and the first one wakes up."""
    finished: list[int] = []
    finish = dataset._finish

    def stall(held: Lease, *rest: Any) -> None:
        if not finished:
            finished.append(0)
            held._stopped.set()  # its thread stands still, as all of its process
            finished.append(render_dataset([Boxes(COUNT, scratch)], out, SETTINGS, shard_views=6, means=ALONE).views)
        finish(held, *rest)

    monkeypatch.setattr(dataset, "_finish", stall)
    with pytest.raises(ValueError, match=r"was taken over by (process|another job)") as error:
        render_dataset([Boxes(COUNT, scratch)], out, SETTINGS, shard_views=6, means=ALONE)
    assert "\n" not in str(error.value)
    assert finished == [0, 2 * COUNT]
    assert hashes(out) == contents(undisturbed)
    assert len(Boxes(COUNT, scratch).loads()) == COUNT  # the second one had nothing to render


def test_a_holder_that_was_followed_and_is_interrupted_undoes_nothing(
    out: str, scratch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is committed yet, and dataset.json is its successor's."""

    def followed(sources: object, settings: object, filters: object, store: ObjectStore, *rest: object) -> int:
        store.write(".render.lock", b'{"holder": "process 1 on elsewhere #1", "beats": 3}')
        raise KeyboardInterrupt

    monkeypatch.setattr(lease, "BEAT", 1000.0)  # it finds out when it looks
    monkeypatch.setattr(dataset, "render_units", followed)
    with pytest.raises(KeyboardInterrupt):
        render_dataset([Boxes(COUNT, scratch)], out, SETTINGS, shard_views=6, means=ALONE)
    assert open_store(out).top() == [".render.lock", "dataset.json"]


def test_a_bucket_that_may_not_be_written_ends_the_job_in_one_sentence(
    server: s3.Server, out: str, scratch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shards_only(method: str, path: str) -> tuple[str, str] | None:
        return ("403", "AccessDenied") if method == "PUT" and "/shards/" in path else None

    monkeypatch.setattr(server, "refuse", shards_only)
    with pytest.raises(OSError, match=r"cannot be written: .*these credentials need to") as error:
        render_dataset([Boxes(2, scratch)], out, SETTINGS, means=ALONE)
    assert "\n" not in str(error.value)
    monkeypatch.setattr(server, "refuse", lambda method, path: None)
    assert render_dataset([Boxes(2, scratch)], out, SETTINGS, means=ALONE).views == 4


def test_a_bucket_that_throttles_costs_time_alone(
    undisturbed: Path, server: s3.Server, out: str, scratch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [0]

    def throttle(method: str, path: str) -> tuple[str, str] | None:
        asked[0] += 1
        return ("503", "SlowDown") if asked[0] % 5 == 0 else None

    monkeypatch.setattr(server, "refuse", throttle)
    render_dataset([Boxes(COUNT, scratch)], out, SETTINGS, shard_views=6, means=ALONE)
    monkeypatch.setattr(server, "refuse", lambda method, path: None)
    assert hashes(out) == contents(undisturbed)
    store = open_store(out)
    assert isinstance(store, ObjectStore)
    assert Ledger(store).units() == set()
