"""Assets on web servers: what is listed, what is brought, and what is said of servers that fail."""

import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import pytest

from cluster.sources import Unavailable, parse, remote, transfer
from render import Rejected
from tests.cluster.elsewhere import POINTS, TRIANGLE, brought, files_of, gltf

pytestmark = pytest.mark.usefixtures("hurried")


@dataclass
class Web:
    """A server of `files` that answers the next requests for a path with what `plan` says, or as it should."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    plan: dict[str, list[Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    etags: dict[str, str] = field(default_factory=dict)


@pytest.fixture
def web() -> Iterator[Web]:
    state = Web()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path
            state.asked.append(f"{self.command} {path}")
            planned = state.plan.get(f"{self.command} {path}") or state.plan.get(path) or []
            answer = planned.pop(0) if planned else 200
            if path not in state.files and answer == 200:
                answer = 404
            if isinstance(answer, str) and answer.startswith("/"):
                self.send_response(302)
                self.send_header("Location", answer)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if isinstance(answer, int) and answer != 200:
                self.send_response(answer)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = state.files[path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            if path in state.etags:
                self.send_header("ETag", state.etags[path])
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[: len(body) // 2] if answer == "truncate" else body)
                if answer == "truncate":
                    self.close_connection = True

        do_HEAD = do_GET

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_file_on_a_web_server_comes_with_its_companions(web: Web, tmp_path: Path) -> None:
    web.files = {"/my%20models/the%20chair.gltf?dl=1": gltf("my%20points.bin"), "/my%20models/my%20points.bin": POINTS}
    source = parse(f"{web.url}/my%20models/the%20chair.gltf?dl=1")
    (ref,) = source.assets()
    assert (ref.uid, ref.source, ref.licence) == ("the chair.gltf", f"{web.url}/my%20models", "unknown")
    main = brought(source, ref.uid, tmp_path / "new")
    assert files_of(tmp_path / "new") == {"the chair.gltf", "my points.bin"}
    assert len(source.load(ref, main)[0].faces) == 1


@pytest.mark.parametrize("status", [403, 404, 410, 503])
def test_what_a_server_signs_is_not_said(web: Web, tmp_path: Path, status: int) -> None:
    for path in ("/x.glb", "/e/MANIFEST.csv"):
        web.plan[path] = ["/s?X-Amz-Signature=SECRET"] * 20
        web.plan["/s?X-Amz-Signature=SECRET"] = [status] * 99
        with pytest.raises((ValueError, OSError)) as listing:
            list(parse(web.url + path.removesuffix("/MANIFEST.csv")).assets())
        assert "SECRET" not in str(listing.value)
    place = transfer.Place(f"{web.url}/x.glb", 5).to_json()
    with pytest.raises((Rejected, Unavailable)) as fetching:
        parse(f"{web.url}/x.glb").fetch(remote.AssetRef("x.glb", web.url, "CC0-1.0", place), tmp_path)
    assert "SECRET" not in str(fetching.value)


def test_a_listing_goes_through_the_proxy_of_the_environment(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    web.files = {"http://far.invalid/x.glb": b"glTF"}
    monkeypatch.setenv("http_proxy", web.url)
    monkeypatch.delenv("no_proxy", raising=False)
    fsspec.filesystem("http").clear_instance_cache()
    (ref,) = parse("http://far.invalid/x.glb").assets()
    assert ref.uid == "x.glb"
    assert web.asked


def test_a_folder_on_a_web_server_is_what_its_table_says(web: Web, tmp_path: Path) -> None:
    table = "path,licence\nb c.obj,cc0\nsub/../a.obj,by\n../up.obj,by\nhttp://other/x.obj,by\nreadme.txt,by\n"
    web.files = {"/pack/MANIFEST.csv": table.encode(), "/pack/b%20c.obj": TRIANGLE, "/pack/a.obj": TRIANGLE}
    source = parse(f"{web.url}/pack/")
    refs = list(source.assets())
    assert [(ref.uid, ref.licence) for ref in refs] == [("a.obj", "CC-BY-4.0"), ("b c.obj", "CC0-1.0")]
    for ref in refs:
        (tmp_path / ref.licence).mkdir()
        assert source.fetch(ref, tmp_path / ref.licence) == ref.uid
    with pytest.raises(ValueError, match=r"folder on a web server, which cannot be listed: put a MANIFEST\.csv"):
        list(parse(f"{web.url}/elsewhere").assets())


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ([503, 429], None),
        (["truncate", "truncate"], None),
        ([404], "missing"),
        ([410], "missing"),
        ([403], "forbidden"),
        ([401], "forbidden"),
        ([503] * 9, Unavailable),
        ([429] * 9, Unavailable),
        ([500] * 9, Unavailable),
        (["truncate"] * 9, Unavailable),
    ],
)
def test_what_a_server_answers_is_an_outcome_of_its_kind(
    web: Web, tmp_path: Path, answers: list[Any], outcome: Any
) -> None:
    web.files = {"/a.obj": TRIANGLE * 1000}
    source = parse(f"{web.url}/a.obj")
    (ref,) = source.assets()
    web.plan["GET /a.obj"] = list(answers)
    if outcome is None:
        assert (tmp_path / source.fetch(ref, tmp_path)).read_bytes() == TRIANGLE * 1000
        assert web.asked.count("GET /a.obj") == len(answers) + 1
        return
    with pytest.raises(Unavailable if outcome is Unavailable else Rejected) as error:
        source.fetch(ref, tmp_path)
    if outcome is not Unavailable:
        assert error.value.reason == outcome
        assert web.asked.count("GET /a.obj") == 1
    assert not files_of(tmp_path)


def test_a_server_that_refuses_head_is_asked_by_get_alone(web: Web, tmp_path: Path) -> None:
    web.files = {"/a.obj": TRIANGLE}
    web.plan["HEAD /a.obj"] = [405] * 9
    source = parse(f"{web.url}/a.obj")
    assert brought(source, "a.obj", tmp_path / "new").read_bytes() == TRIANGLE


def test_a_file_whose_etag_changed_is_rejected_and_weak_ones_say_nothing(web: Web, tmp_path: Path) -> None:
    web.files = {"/a.obj": TRIANGLE}
    source = parse(f"{web.url}/a.obj")
    for listed, now, same in (('"1"', '"1"', True), ('"1"', '"2"', False), ('W/"1"', 'W/"2"', True)):
        web.etags["/a.obj"] = listed
        (ref,) = source.assets()
        web.etags["/a.obj"] = now
        if same:
            source.fetch(ref, tmp_path)
            continue
        with pytest.raises(Rejected, match="changed"):
            source.fetch(ref, tmp_path)


def test_a_server_that_is_down_is_unavailable_and_never_a_rejection(web: Web, tmp_path: Path) -> None:
    source = parse("http://127.0.0.1:1/a.obj")
    with pytest.raises(OSError, match=r"http://127\.0\.0\.1:1/a\.obj cannot be listed just now"):
        list(source.assets())
    web.files = {"/a.obj": TRIANGLE}
    (ref,) = parse(f"{web.url}/a.obj").assets()
    moved = ref.locator.replace(web.url, "http://127.0.0.1:1")
    with pytest.raises(Unavailable):
        source.fetch(type(ref)(ref.uid, ref.source, ref.licence, moved), tmp_path)


def test_listing_waits_out_a_short_failure_and_says_what_may_not_be_read(web: Web) -> None:
    web.files = {"/pack/MANIFEST.csv": b"path,licence\na.obj,by\n"}
    web.plan["/pack/MANIFEST.csv"] = [503, 503]
    assert len(list(parse(f"{web.url}/pack").assets())) == 1
    for status, name in ((401, "pack/MANIFEST.csv"), (403, "a.obj")):
        web.plan[f"/{name}"] = [status] * 9
        with pytest.raises(ValueError, match=r"no permission to list http://.*check the credentials"):
            list(parse(f"{web.url}/{name.removesuffix('/MANIFEST.csv')}").assets())


def test_what_an_asset_may_bring_is_bounded(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = json.dumps({"images": [{"uri": f"{i}.png"} for i in range(50)]}).encode()
    web.files = {"/a.gltf": many, "/b.gltf": gltf("big.bin"), "/big.bin": bytes(5000), "/c.obj": TRIANGLE * 1000}
    monkeypatch.setattr("cluster.sources.companions.MOST", 20)
    monkeypatch.setattr(transfer, "DEFAULT", transfer.DEFAULT.__class__(folder_bytes=5100, file_bytes=5500))
    for name, reason in (("a.gltf", "too_many_files"), ("b.gltf", "file_too_large"), ("c.obj", "file_too_large")):
        with pytest.raises(Rejected) as error:
            brought(parse(f"{web.url}/{name}"), name, tmp_path / name)
        assert error.value.reason == reason
    assert len(web.asked) < 30


def test_names_that_no_file_system_takes_cost_no_more_than_the_companion(web: Web, tmp_path: Path) -> None:
    names = ["a" * 300, "x/" * 200 + "y", ".", "sub/..", "a.gltf", "a.gltf/b", "\0", "data:,x"]
    web.files = {"/a.gltf": json.dumps({"images": [{"uri": name} for name in names]}).encode()}
    brought(parse(f"{web.url}/a.gltf"), "a.gltf", tmp_path / "new")
    assert files_of(tmp_path / "new") == {"a.gltf"}
