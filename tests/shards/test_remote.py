"""A dataset is the same wherever it lies: in a folder, a bucket, or behind a web server that has bad days."""

import json
import pickle
import shutil
import ssl
import time
from collections.abc import Iterator
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from typer.testing import CliRunner

import shards
from shards.cli import app
from shards.store import bucket, open_store, waiting, web
from tests import s3
from tests.shards.web import Server, serving


@pytest.fixture(scope="module")
def server(dataset_on_disk: Path) -> Iterator[Server]:
    with serving(dataset_on_disk) as server:
        yield server


@pytest.fixture(scope="module")
def plain_server(dataset_on_disk: Path) -> Iterator[Server]:
    """One that knows no parts of files."""
    with serving(dataset_on_disk, ranges=False) as server:
        yield server


@pytest.fixture(scope="module")
def moto() -> Iterator[s3.Server]:
    with s3.serving() as server:
        yield server


@pytest.fixture(autouse=True)
def behaving(server: Server, plain_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (server, plain_server):
        each.misbehave = lambda path, before: ""
        each.requests.clear()
        each.sent = 0
        each.going_on.clear()
    monkeypatch.setattr(web, "_sleep", lambda seconds: None)


@pytest.fixture(params=["folder", "s3", "memory", "http", "http without parts"])
def url(request: pytest.FixtureRequest, dataset_on_disk: Path) -> str:
    if request.param == "folder":
        return str(dataset_on_disk)
    if request.param.startswith("http"):
        name = "server" if request.param == "http" else "plain_server"
        return str(request.getfixturevalue(name).url)
    if request.param == "s3":
        request.getfixturevalue("moto")
    place = f"{request.param}://{s3.BUCKET}/data"
    copy_to(dataset_on_disk, place)
    return place


def copy_to(folder: Path, place: str) -> None:
    store = open_store(place)
    if not store.exists("dataset.json"):
        for path in folder.rglob("*"):
            if path.is_file():
                with store.writing(path.relative_to(folder).as_posix()) as file:
                    file.write(path.read_bytes())


def test_a_dataset_is_the_same_wherever_it_lies(url: str, dataset_on_disk: Path) -> None:
    here, there = shards.open(dataset_on_disk), shards.open(url)
    assert there.hash == here.hash
    assert there.manifest.equals(here.manifest)
    for which in (0, 17, -1, here.keys[9]):
        assert there.members(there.row_of(which)) == here.members(here.row_of(which))
    assert there[30].key == here[30].key
    assert shards.open(url, "val", where="z_max > 0").keys == shards.open(dataset_on_disk, "val").keys
    again = pickle.loads(pickle.dumps(there))
    assert again.members(3) == here.members(3)


def test_the_commands_read_from_anywhere(url: str, dataset_on_disk: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout.replace(url, "PLACE").replace(str(dataset_on_disk), "PLACE")

    for arguments in (("ls", "--keys", "--where", "L1 > 0.01"), ("order", "--seed", "3", "--batch", "4"), ("info",)):
        assert run(arguments[0], url, *arguments[1:]) == run(arguments[0], str(dataset_on_disk), *arguments[1:])
    key = shards.open(dataset_on_disk).keys[2]
    for place, name in ((url, "there"), (str(dataset_on_disk), "here")):
        run("export", place, key, "--out", str(tmp_path / f"{name}.npz"))
    one, two = (np.load(tmp_path / f"{name}.npz") for name in ("there", "here"))
    assert all(np.array_equal(one[name], two[name]) for name in two.files)


def test_one_sample_costs_one_part_of_a_shard(server: Server) -> None:
    dataset = shards.open(server.url)
    dataset[0]  # now the columns of the manifest are here
    server.requests.clear()
    server.sent = 0
    dataset[12]
    assert [path for path, _ in server.requests] == [f"/shards/{dataset.shards[dataset.shard_of[12]]}"]
    assert server.sent == dataset.selection.bytes[12]


def test_what_is_nothing_is_refused_in_one_sentence(
    server: Server, moto: s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "PATIENCE", 0.0)
    monkeypatch.setattr(web, "PATIENCE", 0.0)
    cases: list[tuple[str, type[Exception], str]] = [
        (f"{server.url}/nothing", FileNotFoundError, r"nothing/dataset.json is missing: give the folder or URL"),
        (f"s3://{s3.BUCKET}/nothing", FileNotFoundError, r"nothing/dataset.json is missing: give the folder or URL"),
        ("s3://nowhere/data", OSError, r"s3://nowhere/data cannot be read: there is no such bucket: see to its name"),
        ("memory://nowhere/data", FileNotFoundError, "dataset.json is missing"),
        ("http://127.0.0.1:9/data", OSError, "cannot be reached .*see to the network"),
        ("http:///data", ValueError, "names no host"),
        ("https://me:secret@example.org/data", ValueError, "password in its address"),
        ("s3://me:secret@bucket/data", ValueError, "s3://bucket is given with a password in its address"),
        ("s3://me:sec/ret@bucket/data", ValueError, "s3://bucket is given with a password"),
        ("ftp://me:secret@host/data", ValueError, "password in its address"),
        (f"{server.url}/?token=1", ValueError, r"part behind \?"),
        ("ftp://example.org/data", ValueError, "unknown scheme 'ftp'.*s3.*https"),
        ("s3:///data", ValueError, "names no bucket"),
    ]
    for place, kind, match in cases:
        with pytest.raises(kind, match=match) as error:
            shards.open(place)
        assert "\n" not in str(error.value)
        assert "secret" not in str(error.value)
    for status in ("401", "403"):
        server.misbehave = lambda path, before, status=status: status
        with pytest.raises(OSError, match=rf"refuses it \({status}\): see to the address"):
            shards.open(server.url)
    monkeypatch.setattr(moto, "refuse", lambda method, path: ("403", "AccessDenied"))
    with pytest.raises(OSError, match=r"s3://bucket/data cannot be read: .*need to list and read there"):
        shards.open(f"s3://{s3.BUCKET}/data")


def test_damaged_and_newer_tables_are_told_of(dataset_on_disk: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dataset_on_disk, tmp_path / "copy"))
    with serving(folder) as server:
        config = json.loads((folder / "dataset.json").read_text())
        for change, match in (({"version": 99}, "version 99.*update worldtrace"), ({"format": "x"}, "not that of a")):
            (folder / "dataset.json").write_text(json.dumps({**config, **change}))
            with pytest.raises(ValueError, match=match):
                shards.open(server.url)
        shutil.copy(dataset_on_disk / "dataset.json", folder)
        (folder / "manifest.parquet").write_bytes(b"PAR1")
        with pytest.raises(ValueError, match=rf"{server.url}/manifest.parquet is damaged"):
            shards.open(server.url)
        (folder / "manifest.parquet").unlink()
        with pytest.raises(FileNotFoundError, match=rf"{server.url}/manifest.parquet is missing"):
            shards.open(server.url)


@pytest.mark.parametrize("trouble", ["500", "503", "429", "cut", "longer", "stall"])
@pytest.mark.parametrize("parts", [True, False])
def test_a_server_that_fails_is_asked_again(
    trouble: str, parts: bool, server: Server, plain_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file fails twice. 30 seconds without a byte are 0.2 here."""
    monkeypatch.setattr(web, "TIMEOUT", 0.2)
    chosen = server if parts else plain_server
    expected = shards.open(chosen.url)
    wanted = expected.hash, expected.members(20)
    chosen.requests.clear()
    chosen.misbehave = lambda path, before: trouble if before < 2 else ""
    dataset = shards.open(chosen.url)
    assert (dataset.hash, dataset.members(20)) == wanted
    name = f"shards/{dataset.shards[0]}"
    assert b"".join(dataset.store.pieces(name)) == (chosen.folder / name).read_bytes()


def test_a_download_that_was_cut_goes_on_where_it_was(server: Server) -> None:
    name = f"shards/{shards.open(server.url).shards[0]}"
    size = (server.folder / name).stat().st_size
    server.requests.clear()
    server.sent = 0
    server.misbehave = lambda path, before: "cut" if before < 3 else ""
    assert b"".join(open_store(server.url).pieces(name)) == (server.folder / name).read_bytes()
    assert server.sent == size
    assert [asked for _, asked in server.requests][:2] == ["", f"bytes={size // 2}-"]


def test_patience_ends_with_one_sentence(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """With clocks that only pauses move: the pauses grow, and add up to no more than the limit."""
    clock, pauses = [0.0], []

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        pauses.append(seconds)

    dataset = shards.open(server.url)
    len(dataset.keys), dataset.hash, dataset.shards
    monkeypatch.setattr(web, "_sleep", sleep)
    monkeypatch.setattr(web.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(web.random, "uniform", lambda low, high: high)
    server.misbehave = lambda path, before: "503"
    with pytest.raises(OSError, match=r"the server fails .*was asked for 120 s: see to the network"):
        dataset.members(0)
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert 90 < sum(pauses) <= 120


def test_a_server_that_says_too_little_is_not_believed(server: Server) -> None:
    """A length that is too short cannot be told from a file that is: the sample is called damaged, never decoded."""
    dataset = shards.open(server.url)
    dataset.members(0)
    server.misbehave = lambda path, before: "shorter" if "shards" in path else ""
    with pytest.raises(shards.CorruptSample, match="truncated"):
        dataset.members(0)


def test_redirects_are_followed_so_far(server: Server, plain_server: Server, dataset_on_disk: Path) -> None:
    server.misbehave = lambda path, before: f"elsewhere {plain_server.url}{path}"
    assert shards.open(server.url).hash == shards.open(dataset_on_disk).hash
    assert plain_server.requests
    server.misbehave = lambda path, before: f"elsewhere {server.url}{path}"
    server.requests.clear()
    with pytest.raises(OSError, match="cannot be read"):
        shards.open(server.url)
    assert len(server.requests) <= 12
    for target in ("file:///etc/hostname", "ftp://127.0.0.1/x"):
        server.misbehave = lambda path, before, target=target: f"elsewhere {target}"
        with pytest.raises(OSError, match="cannot be read"):
            shards.open(server.url)


@pytest.mark.parametrize("what", ["drip", "drip header"])
def test_a_server_that_drips_is_no_server(what: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes long before TIMEOUT, and all of them would take hours."""
    store = open_store(server.url)
    monkeypatch.setattr(web, "TIMEOUT", 0.3)
    monkeypatch.setattr(web, "PATIENCE", 0.7)
    server.misbehave = lambda path, before: what
    begin = time.monotonic()
    for read in (lambda: store.read("manifest.parquet"), lambda: list(store.pieces("manifest.parquet"))):
        with pytest.raises(OSError, match=r"only \d+ bytes came in 0 s\), and was asked for 0.7 s"):
            read()
    assert time.monotonic() - begin < 5
    count = server.count("/manifest.parquet")
    server.misbehave = lambda path, before: what if before == count else ""
    monkeypatch.setattr(web, "PATIENCE", 20.0)
    assert store.read("manifest.parquet") == (server.folder / "manifest.parquet").read_bytes()


def test_who_waits_for_a_store_is_told(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line, after a while."""
    monkeypatch.setattr(web, "_sleep", lambda seconds: None)
    monkeypatch.setattr(bucket.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(waiting, "_told", {})
    failures = iter([True] * 3 + [False] + [True] * 3)

    def read(fs: object) -> None:
        if next(failures, False):
            raise ConnectionError("no route\x1b[2J to host")

    server.misbehave = lambda path, before: "503" if before < 3 else ""
    store = cast(bucket.ObjectStore, open_store("memory://told"))
    store.asked("read", read)
    assert not caplog.messages
    monkeypatch.setattr(waiting, "QUIET", 0.0)
    store.asked("read", read)
    open_store(server.url).exists("dataset.json")
    assert caplog.messages == [
        "memory://told does not answer (no route?[2J to host): it is asked again for up to 120 s",
        f"{server.url} does not answer (Service Unavailable): it is asked again for up to 120 s",
    ]


def test_a_web_server_is_read_alone(server: Server) -> None:
    store = open_store(server.url)
    for what in (lambda: store.writing("a"), lambda: store.delete(["a"]), store.claim, store.sweep):
        with pytest.raises(OSError, match="cannot be written: a web server is read alone"):
            what()
    with pytest.raises(OSError, match="cannot be listed"):
        store.top()


def test_a_part_behind_the_end_is_none(url: str) -> None:
    store = open_store(url)
    size = store.size("dataset.json")
    assert size == len(store.read("dataset.json"))
    for begin in (size, size + 10):
        assert store.part("dataset.json", begin, 5) == b""
    assert store.part("dataset.json", size - 3, 10) == store.read("dataset.json")[-3:]
    assert store.part("dataset.json", 2, 0) == b""


def certificate(folder: Path) -> Path:
    """Of this machine, signed by itself; with its key, in one PEM file."""
    x509 = pytest.importorskip("cryptography.x509", reason="cryptography, which moto brings, makes the certificate")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "127.0.0.1")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1))
        .not_valid_after(datetime(2120, 1, 1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_https_is_checked_and_stays_https(
    server: Server, dataset_on_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = certificate(tmp_path)
    with serving(dataset_on_disk) as secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        secure.socket = context.wrap_socket(secure.socket, server_side=True)
        url = secure.url.replace("http://", "https://")
        monkeypatch.setattr(web, "_sleep", lambda seconds: pytest.fail("a certificate does not become better"))
        with pytest.raises(OSError, match=r"dataset.json cannot be read: .*certificate"):
            shards.open(url)
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        assert shards.open(url)[4].key == shards.open(dataset_on_disk).key(4)
        secure.misbehave = lambda path, before: f"elsewhere {server.url}{path}"
        with pytest.raises(OSError, match="redirects to http, without encryption"):
            shards.open(url)
