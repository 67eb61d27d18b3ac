"""What both kinds of store promise, tested on both; and what goes wrong with each, said in one sentence."""

import errno
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.store import Store, bucket, lease, open_store
from tests import s3


@pytest.fixture(scope="module")
def server() -> Iterator[s3.Server]:
    with s3.serving() as server:
        yield server


@pytest.fixture(params=["folder", "s3", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(lease, "SETTLE", 0.0)
    if request.param == "folder":
        return open_store(tmp_path / "out")
    if request.param == "s3":
        request.getfixturevalue("server")
    return open_store(f"{request.param}://{s3.BUCKET}/{tmp_path.name}")


def put(store: Store, name: str, data: bytes) -> None:
    with store.writing(name) as file:
        file.write(data)


def test_what_was_written_is_read_and_listed(store: Store) -> None:
    assert store.top() == []
    assert store.sizes("shards") == {}
    put(store, "shards/a.tar", b"one")
    put(store, "shards/b.tar", b"")
    put(store, "units/c.json", b"three")
    put(store, "dataset.json", b"{}")
    assert store.top() == ["dataset.json", "shards", "units"]
    assert store.sizes("shards") == {"shards/a.tar": 3, "shards/b.tar": 0}
    assert store.read("shards/a.tar") == b"one"
    with store.reading("shards/a.tar") as file:
        assert (file.seek(1), file.read()) == (1, b"ne")
    put(store, "shards/a.tar", b"another")  # a listing or a read is never one of before
    assert (store.read("shards/a.tar"), store.sizes("shards")["shards/a.tar"]) == (b"another", 7)
    assert store.exists("units/c.json")
    assert not store.exists("units/d.json")
    store.delete(["shards/a.tar", "shards/b.tar", "shards/never.tar", "units/c.json"])
    assert store.top() == ["dataset.json"]
    assert not store.exists("units/c.json")


def test_what_is_not_there_is_not_found(store: Store) -> None:
    for read in (store.read, lambda name: store.reading(name).__enter__()):
        with pytest.raises(FileNotFoundError):
            read("nothing")


def interrupted(store: Store, name: str, size: int) -> None:
    with store.writing(name) as file:
        for _ in range(0, size, 1 << 20):
            file.write(bytes(1 << 20))
        raise KeyError


@pytest.mark.parametrize("size", [10, 12 << 20])
def test_a_write_that_fails_leaves_nothing(store: Store, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where parts of it were uploaded already, and where there was a file before."""
    monkeypatch.setattr(bucket, "PART", 5 << 20)
    put(store, "manifest.parquet", b"before")
    for name in ("manifest.parquet", "ledger.parquet"):
        with pytest.raises(KeyError):
            interrupted(store, name, size)
    assert store.top() == ["manifest.parquet"]
    assert store.read("manifest.parquet") == b"before"
    if store.text.startswith("s3"):
        assert s3.unfinished_uploads() == []


def test_an_object_of_several_parts_is_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "PART", 5 << 20)
    pieces = [os.urandom(700_001) for _ in range(18)]
    with store.writing("manifest.parquet") as file:
        for piece in pieces:
            file.write(piece)
        assert file.tell() == 18 * 700_001
    assert store.read("manifest.parquet") == b"".join(pieces)


def test_it_travels_without_a_secret(store: Store) -> None:
    put(store, "a", b"1")
    packed = pickle.dumps(store)
    assert b"testing" not in packed
    assert pickle.loads(packed) == store
    assert pickle.loads(packed).read("a") == b"1"


def test_it_outlives_a_fork(store: Store) -> None:
    put(store, "shards/a", b"1")
    if store.text.startswith("memory"):
        return
    code = (
        "import os, sys; from shards.store import open_store\n"
        "store = open_store(sys.argv[1]); store.read('shards/a')\n"
        "pid = os.fork()\n"
        "if not pid: os._exit(0 if store.read('shards/a') == b'1' else 1)\n"
        "sys.exit(os.waitpid(pid, 0)[1])"
    )
    assert subprocess.run([sys.executable, "-c", code, store.text], timeout=60).returncode == 0


def test_the_claim_is_gone_with_its_block(store: Store) -> None:
    with store.claim() as claim:
        claim.check()
        assert not claim.lost
        assert store.top() == [".render.lock"]
    assert store.top() == []
    with store.claim():
        pass


def test_more_objects_than_a_page_holds(server: s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, prefix = s3.client(), tmp_path.name
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    for index in range(25):
        bucket.put_object(Bucket=s3.BUCKET, Key=f"{prefix}/units/{index:06d}-aa.json", Body=b"{}")
    store = open_store(f"s3://{s3.BUCKET}/{prefix}")
    server.requests.clear()
    names = store.sizes("units")
    assert len(names) == 25
    assert len(server.requests) == 3
    server.requests.clear()
    store.delete(names)
    assert len(server.requests) == 1
    assert store.sizes("units") == {}


def test_uploads_that_nobody_completed_are_swept(server: s3.Server, tmp_path: Path) -> None:
    store = open_store(f"s3://{s3.BUCKET}/{tmp_path.name}")
    mine, others = (
        f"{tmp_path.name}/shards/000001-0123abcd0123.tar",
        [f"{tmp_path.name}/backup.bin", "manifest.parquet"],
    )
    uploads = {
        key: s3.client().create_multipart_upload(Bucket=s3.BUCKET, Key=key)["UploadId"]
        for key in (f"{tmp_path.name}/manifest.parquet", mine, *others)
    }
    store.sweep()
    assert sorted(s3.unfinished_uploads()) == sorted(others)
    open_store(f"s3://{s3.BUCKET}").sweep()
    assert s3.unfinished_uploads() == others[:1]
    s3.client().abort_multipart_upload(Bucket=s3.BUCKET, Key=others[0], UploadId=uploads[others[0]])


def test_left_over_files_are_swept_and_others_are_not(tmp_path: Path) -> None:
    left = ["shards/.000001-0123abcd0123.tar.00ff00ff.tmp", "units/.0000.parquet.00ff00ff.tmp"]
    left += [".dataset.json.00ff00ff.tmp", "units/.000001-0123abcd0123.json.00ff00ff.tmp"]
    others = [
        ".editor-backup.tmp",
        "shards/.a.tar.00ff00ff.tmp",
        "shards/x.tmp",
        ".dataset.json.tmp",
        ".x.00ff00ff.tmp",
    ]
    for name in left + others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("half")
    (tmp_path / ".manifest.parquet.00ff00ff.tmp").mkdir()
    open_store(tmp_path).sweep()
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        others
    )


@pytest.mark.parametrize(
    ("status", "code"), [("503", "SlowDown"), ("429", "TooManyRequests"), ("500", "InternalError")]
)
def test_throttling_is_waited_out(
    server: s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, code: str
) -> None:
    monkeypatch.setattr(bucket.time, "sleep", lambda seconds: None)
    store = open_store(f"s3://{s3.BUCKET}/{tmp_path.name}")
    left = 9

    def refuse(method: str, path: str) -> tuple[str, str] | None:
        nonlocal left
        left -= 1
        return (status, code) if left > 0 and left % 4 else None

    monkeypatch.setattr(server, "refuse", refuse)
    for index in range(4):
        put(store, f"shards/{index}", b"1")
    assert len(store.sizes("shards")) == 4


def test_a_store_that_never_answers_is_given_up(
    server: s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "PATIENCE", 0.0)
    store = open_store(f"s3://{s3.BUCKET}/{tmp_path.name}")
    with monkeypatch.context() as patch:
        patch.setattr(server, "refuse", lambda method, path: ("503", "SlowDown"))
        with pytest.raises(OSError, match=r"cannot be written: the store throttles or cannot be reached") as error:
            put(store, "a", b"1")
    assert "\n" not in str(error.value)
    assert store.top() == []


def test_a_bucket_without_permission(server: s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "refuse", lambda method, path: ("403", "AccessDenied"))
    store = open_store(f"s3://{s3.BUCKET}/{tmp_path.name}")
    for what in (lambda: put(store, "a", b"1"), store.top, lambda: store.sizes("shards"), lambda: store.delete(["a"])):
        with pytest.raises(OSError, match="these credentials need to list, read, write and delete there") as error:
            what()
        assert store.text in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(OSError, match="cannot be"), store.claim():
        pass


def test_a_bucket_that_may_be_read_but_not_written(
    server: s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "refuse", lambda method, path: ("403", "AccessDenied") if method == "PUT" else None)
    with pytest.raises(OSError, match=r"cannot be written: .*these credentials"):
        put(open_store(f"s3://{s3.BUCKET}/{tmp_path.name}"), "a", b"1")


def test_no_bucket_no_credentials_no_network(server: s3.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="s3://nowhere/x cannot be written: there is no such bucket: make it first"):
        put(open_store("s3://nowhere/x"), "a", b"1")
    with monkeypatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.delenv(name)
        patch.setenv("HOME", "/nonexistent")
        s3.forget()
        with pytest.raises(OSError, match="no credentials were found: set AWS_ACCESS_KEY_ID"):
            put(open_store(f"s3://{s3.BUCKET}/x"), "a", b"1")
    with monkeypatch.context() as patch:
        patch.setattr(bucket, "PATIENCE", 0.0)
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        s3.forget()
        with pytest.raises(OSError, match=r"cannot be reached .*see to the network") as error:
            put(open_store(f"s3://{s3.BUCKET}/x"), "a", b"1")
        assert "\n" not in str(error.value)
    s3.forget()


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "the disk is full: make room"),
        (errno.EROFS, "the file system is read-only: give another --out"),
        (errno.EDQUOT, "your quota is used up"),
    ],
)
def test_a_full_disk_and_a_read_only_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str
) -> None:
    store = open_store(tmp_path)

    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match=f"cannot be written: {remedy}") as error:
            put(store, "shards/a.tar", b"1")
    assert str(error.value).startswith(str(tmp_path))
    assert "\n" not in str(error.value)
    assert list(tmp_path.rglob("*.t*")) == []


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("there is no /dev/full")
    store = open_store(tmp_path)
    (tmp_path / "shards").mkdir()

    def fill() -> None:
        with store.writing("shards/a.tar") as file:
            os.dup2(os.open("/dev/full", os.O_WRONLY), file.fileno())
            file.write(bytes(1 << 20))

    with pytest.raises(OSError, match="the disk is full"):
        fill()
    assert list((tmp_path / "shards").iterdir()) == []


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with (
        pytest.raises(OSError, match=r"out cannot be written: .*give another --out"),
        open_store(tmp_path / "out").claim(),
    ):
        pass


def test_addresses_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"unknown scheme 'ftp': give a folder, or one of s3"):
        open_store("ftp://host/x")
    with pytest.raises(ValueError, match="names no bucket"):
        open_store("s3:///x")
    assert open_store("s3://b/x/").text == "s3://b/x"
