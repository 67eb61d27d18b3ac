"""Downloads from a server that lies, stalls, throttles and never ends: whole and checked, or not at all."""

import datetime
import gzip
import hashlib
import ipaddress
import random
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from requests.structures import CaseInsensitiveDict

from cluster.sources.base import Unavailable
from cluster.sources.download import (
    _begin,
    _Linked,
    _next,
    _Part,
    _pause,
    _receive,
    _retry_after,
    _Trouble,
    download,
)
from cluster.sources.kinds import flaw
from render import Rejected
from tests.cluster.hub import HTML, QUICK, Hub, glb, serving

DATA = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
FILE = "/files/model.bin"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "HF_TOKEN",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as server:
        server.put(FILE, DATA)
        yield server


def get(server: Hub, folder: Path, path: str = FILE, **options: Any) -> bytes:
    """The bytes that came; whatever happens, nothing else is left in the folder."""
    into = folder / "model.bin"
    options = {"limit": 1 << 20, "policy": QUICK, **options}
    try:
        said = download(server.url + path, into, **options)
        data = into.read_bytes()
        assert said == hashlib.sha256(data).hexdigest()
        return data
    finally:
        assert [each.name for each in folder.iterdir()] in ([], ["model.bin"])


def test_a_file_arrives_in_one_request(hub: Hub, tmp_path: Path) -> None:
    assert get(hub, tmp_path, sha256=SHA256, size=len(DATA)) == DATA
    assert len(hub.asked) == 1
    assert "worldtrace" in hub.asked[0].headers["User-Agent"]


def test_what_is_cut_off_goes_on_where_it_ended(hub: Hub, tmp_path: Path) -> None:
    hub.ill(FILE, "cut", 100_000, times=2)
    assert get(hub, tmp_path) == DATA
    ranges = [each.headers.get("Range") for each in hub.asked]
    assert ranges == [None, "bytes=100000-", "bytes=200000-"]
    assert all(each.headers["If-Range"].startswith('"') for each in hub.asked[1:])


def test_what_stalls_goes_on_where_it_ended(hub: Hub, tmp_path: Path) -> None:
    hub.ill(FILE, "stall", 123_456, times=1)
    assert get(hub, tmp_path) == DATA
    assert hub.asked[1].headers["Range"] == "bytes=123456-"


@pytest.mark.parametrize("how", ["no range", "other range", "short range"])
def test_a_server_that_does_not_keep_to_the_range_is_asked_for_all(hub: Hub, tmp_path: Path, how: str) -> None:
    hub.ill(FILE, "cut", 100_000, times=1)
    hub.ill(FILE, how, 7, times=1)
    assert get(hub, tmp_path) == DATA


def test_a_file_that_changes_between_ranges_is_brought_anew(hub: Hub, tmp_path: Path) -> None:
    new = DATA[::-1]
    hub.ill(FILE, "cut", 100_000, times=1)
    original = hub.next_ill

    def then_replaced(path: str) -> Any:
        ill = original(path)
        if len(hub.asked) == 2:
            hub.files[FILE] = new
        return ill

    hub.next_ill = then_replaced  # type: ignore[method-assign]
    assert get(hub, tmp_path) == new


def test_a_range_of_another_file_is_not_appended(hub: Hub, tmp_path: Path) -> None:
    """A server that sends a range although the file is another one by now."""
    hub.ill(FILE, "cut", 100_000, times=1)
    original = hub.next_ill

    def then_replaced(path: str) -> Any:
        if len(hub.asked) == 2:
            hub.files[FILE] = DATA[::-1]
            hub.ill(FILE, "any range", times=1)
        return original(path)

    hub.next_ill = then_replaced  # type: ignore[method-assign]
    assert get(hub, tmp_path) == DATA[::-1]


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_strong_etag_all_is_asked_for_again(hub: Hub, tmp_path: Path, etag: str) -> None:
    hub.ill(FILE, "cut", (100_000, etag), times=2)
    assert get(hub, tmp_path) == DATA
    assert not any("Range" in each.headers for each in hub.asked)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 408])
def test_a_host_that_is_down_or_throttles_is_asked_again(hub: Hub, tmp_path: Path, status: int) -> None:
    hub.ill(FILE, "status", status, times=3)
    assert get(hub, tmp_path) == DATA
    assert len(hub.asked) == 4


def test_one_that_stays_down_is_unavailable(hub: Hub, tmp_path: Path) -> None:
    hub.ill(FILE, "status", 503)
    with pytest.raises(Unavailable, match=r"HTTP 503.*4 failed attempts"):
        get(hub, tmp_path)
    assert len(hub.asked) == QUICK.attempts


def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="connection"):
        download("http://127.0.0.1:9/x", tmp_path / "x", limit=9, policy=QUICK)


def test_a_retry_after_is_kept_to(hub: Hub, tmp_path: Path) -> None:
    hub.ill(FILE, "status", (429, {"Retry-After": "1"}), times=1)
    started = time.monotonic()
    assert get(hub, tmp_path, policy=replace(QUICK, longest_pause=2)) == DATA
    assert 1.0 <= time.monotonic() - started < 2


def test_a_long_retry_after_is_not_waited_for_here(hub: Hub, tmp_path: Path) -> None:
    hub.ill(FILE, "status", (503, {"Retry-After": "3"}))
    with pytest.raises(Unavailable, match="503"):
        get(hub, tmp_path)
    assert len(hub.asked) == 1


def test_a_retry_after_may_be_a_date_by_the_servers_clock() -> None:
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert _retry_after({"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT", "Date": date}) == 30
    assert _retry_after({"Retry-After": "Wed, 21 Oct 2015 07:00:00 GMT", "Date": date}) == 0
    for text in ("soon", "-5", "", "99" * 400, "Wed, 99 Oct"):
        assert _retry_after({"Retry-After": text, "Date": date}) in (None, 999999999.0)


def test_pauses_double_with_jitter_and_have_a_bound() -> None:
    policy = replace(QUICK, pause=1.0, longest_pause=20.0)
    for failed in range(1, 12):
        pauses = [_pause(f"http://h/{index}", failed, _Trouble("no"), policy) for index in range(50)]
        most = min(20.0, 2.0 ** (failed - 1))
        assert all(pause is not None and most / 2 <= pause <= most for pause in pauses)
        assert len(set(pauses)) == 50  # the fetchers of a cluster do not come back at once
        again = _pause("http://h/0", failed, _Trouble("no"), policy)
        assert again == pauses[0]


@pytest.mark.parametrize(("status", "reason"), [(404, "missing"), (410, "missing"), (451, "missing"),
                                                (401, "forbidden"), (403, "forbidden"), (400, "refused")])  # fmt: skip
def test_a_host_that_says_no_is_believed_at_once(hub: Hub, tmp_path: Path, status: int, reason: str) -> None:
    hub.ill(FILE, "status", status)
    with pytest.raises(Rejected) as caught:
        get(hub, tmp_path)
    assert caught.value.reason == reason
    assert len(hub.asked) == 1


def test_a_host_that_bans_says_not_now(hub: Hub, tmp_path: Path) -> None:
    hub.ill(FILE, "status", 403)
    with pytest.raises(Unavailable):
        get(hub, tmp_path, bans=(403,))


@pytest.mark.parametrize("more", [-1000, 1000])
def test_a_wrong_length_is_not_believed(hub: Hub, tmp_path: Path, more: int) -> None:
    """Announcing less than there is ends the transfer in good order: only the checksum tells."""
    hub.ill(FILE, "announce", more, times=1)
    assert get(hub, tmp_path, sha256=SHA256) == DATA
    hub.ill(FILE, "announce", more)
    with pytest.raises((Unavailable, Rejected)):
        get(hub, tmp_path, sha256=SHA256)


def test_a_wrong_length_shows_in_the_file_itself(hub: Hub, tmp_path: Path) -> None:
    hub.put(FILE, glb())
    hub.ill(FILE, "announce", -8, times=1)
    assert get(hub, tmp_path, kind="glb") == glb()
    assert len(hub.asked) == 2


def test_wrong_bytes_are_asked_for_once_more(hub: Hub, tmp_path: Path) -> None:
    hub.ill(FILE, "wrong", times=1)
    assert get(hub, tmp_path, sha256=SHA256) == DATA
    assert "Range" not in hub.asked[1].headers


def test_the_same_wrong_bytes_twice_are_rejected(hub: Hub, tmp_path: Path) -> None:
    hub.ill(FILE, "wrong")
    with pytest.raises(Rejected) as caught:
        get(hub, tmp_path, sha256=SHA256)
    assert caught.value.reason == "checksum"
    assert len(hub.asked) == 2


@pytest.mark.parametrize("how", ["endless", "announce", ""])
def test_no_more_is_written_than_was_granted(hub: Hub, tmp_path: Path, how: str) -> None:
    if how:
        hub.ill(FILE, how, 1 << 40)
    with pytest.raises(Rejected) as caught:
        get(hub, tmp_path, limit=400_000 if how == "announce" else 200_000)  # it is 300,000 long
    assert caught.value.reason == "file_too_large"
    assert len(hub.asked) == 1


def test_a_trickle_is_cut_at_the_deadline(hub: Hub, tmp_path: Path) -> None:
    """Each byte comes within the read time-out: only the deadline ends it."""
    for how in ("trickle", "slow headers"):
        hub.ills.clear()
        hub.ill(FILE, how)
        started = time.monotonic()
        with pytest.raises(Unavailable):
            get(hub, tmp_path, policy=replace(QUICK, deadline=0.5))
        assert time.monotonic() - started < 1.5


def test_an_end_that_nothing_vouches_for_is_not_believed(hub: Hub, tmp_path: Path) -> None:
    """Without a length the end of the connection is the end of the file, wherever that was."""
    hub.put(FILE, glb())
    hub.ill(FILE, "until closed", 40, times=1)
    assert get(hub, tmp_path) == glb()
    for options in ({"sha256": hashlib.sha256(glb()).hexdigest()}, {"size": len(glb())}, {"kind": "glb"}):
        hub.ill(FILE, "until closed", 40, times=1)
        hub.ill(FILE, "until closed", times=1)
        hub.asked.clear()
        assert get(hub, tmp_path, **options) == glb()
        assert len(hub.asked) == 2
    for how in ("cut headers", "reset", "chunks cut", "chunks"):
        hub.ill(FILE, how, times=1)
        hub.asked.clear()
        assert get(hub, tmp_path) == glb()
        assert len(hub.asked) == (1 if how == "chunks" else 2), how


def test_a_page_of_html_is_no_file(hub: Hub, tmp_path: Path) -> None:
    hub.put(FILE, glb())
    for kind in ("glb", None):
        hub.ill(FILE, "html", times=1)
        assert get(hub, tmp_path, kind=kind) == glb()
    hub.ill(FILE, "html")
    with pytest.raises(Unavailable, match="HTML"):
        get(hub, tmp_path, kind="glb")
    hub.ills.clear()
    hub.put("/page.obj", HTML)  # a model that is in truth a page: its host says nothing of HTML
    hub.ill("/page.obj", "type", "text/plain")
    assert get(hub, tmp_path, "/page.obj") == HTML
    with pytest.raises(Unavailable, match="no parquet file"):
        get(hub, tmp_path, kind="parquet")


def test_redirections_are_followed_and_have_a_bound(hub: Hub, tmp_path: Path) -> None:
    hub.ill("/a", "redirect", "b?x=1", times=1)
    hub.ill("/b?x=1", "redirect", hub.url + FILE, times=1)
    assert get(hub, tmp_path, "/a") == DATA
    hub.ill("/loop", "redirect", "/loop")
    with pytest.raises(Unavailable, match="more than 8 times"):
        get(hub, tmp_path, "/loop")
    assert hub.paths().count("/loop") == 9 * QUICK.attempts


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "javascript:1", None, "http://[bad", "http://h:99999/"]
)
def test_redirections_lead_to_nothing_but_http(hub: Hub, tmp_path: Path, target: str | None) -> None:
    hub.ill(FILE, "redirect", target)
    with pytest.raises(Unavailable):
        get(hub, tmp_path)
    assert set(hub.paths()) == {FILE}


@pytest.mark.parametrize("headers", [{"Content-Length": "9" * 5000}, {"Content-Range": f"bytes 0-1/{'9' * 5000}"}])
def test_a_length_of_thousands_of_digits_is_none(headers: dict[str, str]) -> None:
    response = requests.Response()
    response.status_code, response.headers = 206 if "Content-Range" in headers else 200, CaseInsensitiveDict(headers)
    part = MagicMock(size=0, etag="")
    if response.status_code == 200:
        assert _begin(response, part, _Linked(size=7)) == 7
    else:
        with pytest.raises(_Trouble, match="another range"):
            _begin(response, part, _Linked())


@pytest.mark.parametrize(
    "target",
    ["169.254.169.254", "127.0.0.1:9", "[::1]", "[fe80::1]", "0.0.0.0", "[::ffff:169.254.169.254]", "localhost"],
)
def test_a_public_host_leads_to_no_address_of_this_machine_or_its_link(target: str) -> None:
    with pytest.raises(_Trouble, match="does not follow"):
        _next("http://93.184.216.34/x", f"http://{target}/latest/meta-data")
    assert _next("http://127.0.0.1/x", "http://127.0.0.1:9/y") == "http://127.0.0.1:9/y"
    assert _next("http://93.184.216.34/x", "http://93.184.216.35/y") == "http://93.184.216.35/y"


def test_nothing_leads_from_https_to_http() -> None:
    assert _next("https://a/x", "/y") == "https://a/y"
    assert _next("http://a/x", "https://b/y") == "https://b/y"
    with pytest.raises(_Trouble):
        _next("https://a/x", "http://a/x")


def test_what_the_hub_says_of_a_linked_file_is_checked(hub: Hub, tmp_path: Path) -> None:
    hub.put("/linked", DATA, linked=True)
    hub.ill("/cdn/linked", "wrong", times=1)
    hub.ill("/cdn/linked", "announce", -5, times=1)
    assert get(hub, tmp_path, "/linked", hub=hub.url) == DATA
    assert hub.paths() == ["/linked", "/cdn/linked"] * 3
    hub.asked.clear()
    hub.ill("/cdn/linked", "wrong", times=1)  # of another host nothing is believed
    assert get(hub, tmp_path, "/linked", hub="http://elsewhere") != DATA


def test_a_signed_address_that_expired_is_asked_for_again(hub: Hub, tmp_path: Path) -> None:
    hub.put("/linked", DATA, linked=True)
    hub.ill("/cdn/linked", "status", 403, times=1)
    assert get(hub, tmp_path, "/linked", hub=hub.url) == DATA


def test_the_token_goes_to_the_hub_and_nowhere_else(hub: Hub, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with serving() as other:
        other.put(FILE, DATA)
        hub.ill("/at-the-hub", "redirect", other.url + FILE)
        get(hub, tmp_path, "/at-the-hub", hub=hub.url)
        assert hub.asked[0].headers["Authorization"] == "Bearer hf_secret"
        assert "Authorization" not in other.asked[0].headers
        get(hub, tmp_path, FILE)
        assert "Authorization" not in hub.asked[-1].headers


def test_a_token_that_is_refused_is_not_the_assets_fault(hub: Hub, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    hub.ill(FILE, "status", 401)
    with pytest.raises(Unavailable, match="HF_TOKEN") as caught:
        get(hub, tmp_path, hub=hub.url)
    assert "hf_old" not in str(caught.value)


def test_netrc_is_not_sent(hub: Hub, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "in").mkdir()
    get(hub, tmp_path / "in")
    assert "Authorization" not in hub.asked[0].headers


def test_a_proxy_of_the_environment_is_used(hub: Hub, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("http_proxy", hub.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    hub.put("http://models.invalid/chair", DATA)
    into = tmp_path / "chair"
    download("http://models.invalid/chair", into, limit=1 << 20, policy=QUICK)
    assert into.read_bytes() == DATA


def test_a_disk_that_cannot_be_written_is_not_the_assets_fault(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot be written"):
        download(hub.url + FILE, tmp_path / "file" / "x", limit=1 << 20, policy=QUICK)
    assert Path("/dev/full").exists()  # the next line writes where there is no room
    with pytest.raises(Unavailable, match="No space left"):
        _write_to_full(hub)


def _write_to_full(hub: Hub) -> None:
    part = object.__new__(_Part)
    part.path, part.url, part.limit = Path("/dev/full"), "u", 1 << 20
    part._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    part.size, part.etag, part.page, part.head, part._hash = 0, "", False, bytearray(), hashlib.sha256()
    part.restart = lambda etag="": None  # type: ignore[method-assign, misc]
    _receive(hub.url + FILE, part, None, None, (), QUICK, time.monotonic() + 5, True)


def test_two_at_once_leave_one_whole_file(hub: Hub, tmp_path: Path) -> None:
    hub.ill(FILE, "cut", 50_000, times=6)
    with ThreadPoolExecutor(4) as threads:
        policy = replace(QUICK, attempts=10)
        list(threads.map(lambda _: download(hub.url + FILE, tmp_path / "x", limit=1 << 20, policy=policy), range(4)))
    assert [each.name for each in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == DATA


def test_every_kind_shows_where_its_end_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    pq.write_table(pa.table({"a": list(range(1000))}), path)
    parquet = path.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", DATA)
    packed = path.read_bytes()
    gzipped = gzip.compress(DATA[:5000], mtime=0)
    for kind, data in {"glb": glb(), "parquet": parquet, "zip": packed, "gzip": gzipped}.items():
        path.write_bytes(data)
        assert flaw(path, kind) is None, kind  # type: ignore[arg-type]
        for length in (0, 1, 4, 11, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:length])
            assert flaw(path, kind), (kind, length)  # type: ignore[arg-type]
    path.write_bytes(gzipped * 3)  # several members are one file
    assert flaw(path, "gzip") is None
    path.write_bytes(gzipped[:-6] + b"\0\0" + gzipped[-4:])
    assert flaw(path, "gzip")


def test_a_gzip_bomb_is_no_gzip_file(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("cluster.sources.kinds.MOST_UNPACKED", 1 << 22)
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(bytes(1 << 24), mtime=0))
    assert "expands" in str(flaw(path, "gzip"))


def certificate(path: Path) -> Path:
    """For 127.0.0.1, signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


def test_https_is_trusted_by_the_certificates_of_the_environment(tmp_path: Path, monkeypatch: Any) -> None:
    pem = certificate(tmp_path / "pem")
    (tmp_path / "in").mkdir()
    with serving(pem) as hub:
        hub.put(FILE, DATA)
        with pytest.raises(Unavailable, match="TLS"):
            get(hub, tmp_path / "in")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
        hub.ill(FILE, "cut", 100_000, times=1)
        assert get(hub, tmp_path / "in") == DATA
        hub.ill("/down", "redirect", "http://127.0.0.1:9/model")
        with pytest.raises(Unavailable, match="does not follow"):
            get(hub, tmp_path / "in", "/down")
        for how in ("trickle", "slow headers"):
            hub.ills.clear()
            hub.ill(FILE, how)
            started = time.monotonic()
            with pytest.raises(Unavailable):
                get(hub, tmp_path / "in", policy=replace(QUICK, deadline=0.5))
            assert time.monotonic() - started < 1.5
