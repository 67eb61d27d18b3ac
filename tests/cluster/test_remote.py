"""Folders elsewhere: what is listed, what is brought, and what is said of stores that fail.

The clients are the real ones, the servers are in this process.
"""

import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import fsspec
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from cluster.sources import FileSource, Source, Unavailable, access, parse, remote, transfer
from render import Rejected

TRIANGLE = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"


def gltf(buffer: str, image: str | None = None) -> bytes:
    """A triangle whose buffer, and perhaps whose image, lie in other files."""
    said: dict[str, Any] = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "buffers": [{"uri": buffer, "byteLength": 36}],
    }
    if image is not None:
        said["images"] = [{"uri": image}]
    return json.dumps(said).encode()


POINTS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4").tobytes()


def brought(source: Source, uid: str, folder: Path) -> Path:
    folder.mkdir(parents=True)
    (ref,) = [ref for ref in source.assets() if ref.uid == uid]
    return folder / source.fetch(ref, folder)


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "PAUSE", 0.01)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """`put(key, bytes)` into the bucket "assets", which the environment leads to."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    client = boto3.client("s3")
    client.create_bucket(Bucket="assets")
    yield lambda key, data: client.put_object(Bucket="assets", Key=key, Body=data)
    for entry in client.list_objects_v2(Bucket="assets").get("Contents", []):
        client.delete_object(Bucket="assets", Key=entry["Key"])
    client.delete_bucket(Bucket="assets")
    fsspec.filesystem("s3").clear_instance_cache()


def test_a_bucket_lists_what_a_folder_of_the_same_files_lists(bucket: Callable[..., Any], tmp_path: Path) -> None:
    files = {
        "b/chair.GLB": b"glTF",
        "a.obj": TRIANGLE,
        "a.mtl": b"",
        "z.json": b"{}",
        ".hidden/x.glb": b"x",
        "b/._chair.glb": b"x",
        "photo.png": b"x",
        "out/dataset.json": b"{}",
        "out/units/000000-aa.json": b"{}",
    }
    table = b"path,licence,triangles,animated,category\nmodels/a.obj,CC BY 4.0,12,n,chair;table\nmodels/z.json,,x,,\n"
    for name, data in files.items():
        bucket(f"pack/models/{name}", data)
        (tmp_path / "pack" / "models" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pack" / "models" / name).write_bytes(data)
    bucket("pack/MANIFEST.csv", table)
    bucket("packages/other.glb", b"x")
    (tmp_path / "pack" / "MANIFEST.csv").write_bytes(table)
    (tmp_path / "pack" / "models" / "out" / ".render.lock").touch()
    source = parse("s3://assets/pack/models/")
    assert source.remote
    assert parse(source.text) == source
    refs, local = list(source.assets()), list(parse(str(tmp_path / "pack" / "models")).assets())
    said = [(r.uid, r.licence, r.triangles, r.animated, r.categories) for r in refs]
    assert said == sorted((r.uid, r.licence, r.triangles, r.animated, r.categories) for r in local)
    assert said[0] == ("a.obj", "CC-BY-4.0", 12, False, ("chair", "table"))
    assert {(ref.source, ref.sha256) for ref in refs} == {("s3://assets/pack/models", None)}
    assert refs == list(source.assets())
    (only,) = parse("s3://assets/pack/models/a.obj").assets()
    assert (only.uid, only.source, only.licence) == ("a.obj", "s3://assets/pack/models", "CC-BY-4.0")


def test_companions_come_with_the_main_file_and_the_mesh_is_the_same(
    bucket: Callable[..., Any], tmp_path: Path
) -> None:
    for name, data in {
        "g/a.gltf": gltf("buffers/the%20points.bin", "tex/absent.png"),
        "g/buffers/the points.bin": POINTS,
        "o/b.obj": b"mtllib sub/one.mtl\nmtllib two words.mtl\nusemtl x\n" + TRIANGLE,
        "o/sub/one.mtl": b"newmtl x\nmap_Kd -s 1 1 1 my wood.png\nmap_Bump -bm 0.5 sub/bump.png\n",
        "o/two words.mtl": b"newmtl y\n",
        "o/my wood.png": b"no image",
        "o/unnamed.png": b"not asked for",
        "o/two": b"not asked for: the whole line is a file",
    }.items():
        bucket(name, data)
    source = parse("s3://assets")
    main = brought(source, "g/a.gltf", tmp_path / "g")
    assert files_of(tmp_path / "g") == {"a.gltf", "buffers/the points.bin"}
    (ref,) = [ref for ref in source.assets() if ref.uid == "g/a.gltf"]
    mesh, origin = source.load(ref, main)
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert origin.sha256 == hashlib.sha256(gltf("buffers/the%20points.bin", "tex/absent.png")).hexdigest()
    brought(source, "o/b.obj", tmp_path / "o")
    assert files_of(tmp_path / "o") == {"b.obj", "sub/one.mtl", "two words.mtl", "my wood.png"}


@pytest.mark.parametrize(
    "name", ["../secret.bin", "%2e%2e/secret.bin", "..%5Csecret.bin", "/secret.bin", "s3://assets/secret.bin"]
)
def test_no_file_is_asked_for_that_lies_outside_of_the_folder(
    bucket: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    bucket("secret.bin", POINTS)
    bucket("in/a.gltf", gltf(name))
    source = parse("s3://assets/in")
    main = brought(source, "a.gltf", tmp_path / "new")
    assert files_of(tmp_path) == {"new/a.gltf"}
    with pytest.raises(Rejected) as error:
        source.load(next(iter(source.assets())), main)
    assert error.value.reason == "path_outside_folder"


def test_an_object_that_changes_or_goes_after_the_listing_is_rejected(
    bucket: Callable[..., Any], tmp_path: Path
) -> None:
    bucket("in/a.obj", TRIANGLE)
    source = parse("s3://assets/in")
    (ref,) = source.assets()
    bucket("in/a.obj", TRIANGLE.replace(b"1", b"2"))  # as long as before
    for reason in ("changed", "missing"):
        with pytest.raises(Rejected) as error:
            source.fetch(ref, tmp_path)
        assert error.value.reason == reason
        assert not files_of(tmp_path)
        boto3.client("s3").delete_object(Bucket="assets", Key="in/a.obj")


def test_a_place_that_holds_nothing_or_does_not_exist_is_refused_in_one_sentence(bucket: Callable[..., Any]) -> None:
    bucket("texts/readme.txt", b"x")
    with pytest.raises(ValueError, match="s3://assets/texts holds no 3D file"):
        list(parse("s3://assets/texts").assets())
    for url in ("s3://assets/nowhere", "s3://assets/nowhere/a.glb", "s3://no-such-bucket/x"):
        with pytest.raises(FileNotFoundError, match=f"source {url} does not exist"):
            list(parse(url).assets())


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


def test_a_store_without_permission_is_one_sentence_at_listing_and_forbidden_at_fetch(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3's own words for 403, from a server that knows nothing else."""

    def refuse(code: str) -> bytes:
        return f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()

    class Refusing(http.server.BaseHTTPRequestHandler):
        code = "AccessDenied"

        def do_GET(self) -> None:
            body = refuse(self.code)
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        fsspec.filesystem("s3").clear_instance_cache()
        source = parse("s3://closed/models")
        for code in ("AccessDenied", "SignatureDoesNotMatch", "RequestTimeTooSkewed"):
            Refusing.code = code
            with pytest.raises(ValueError, match="no permission to list s3://closed/models") as error:
                list(source.assets())
            assert "\n" not in str(error.value)
        Refusing.code = "AccessDenied"
        place = transfer.Place("closed/models/a.obj").to_json()
        with pytest.raises(Rejected) as rejected:
            source.fetch(remote.AssetRef("a.obj", source.text, "unknown", place), tmp_path)
        assert rejected.value.reason == "forbidden"
        for code in ("RequestTimeTooSkewed", "ExpiredToken"):  # of this node, and no fault of the asset
            Refusing.code = code
            with pytest.raises(Unavailable):
                source.fetch(remote.AssetRef("a.obj", source.text, "unknown", place), tmp_path)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        fsspec.filesystem("s3").clear_instance_cache()


def test_any_file_system_of_fsspec_will_do(tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    files.pipe({"/c-memory/a.obj": TRIANGLE, "/c-memory/sub/b.gltf": gltf("x.bin"), "/c-memory/sub/x.bin": POINTS})
    try:
        source = parse("memory://c-memory")
        assert [ref.uid for ref in source.assets()] == ["a.obj", "sub/b.gltf"]
        for uid in ("a.obj", "sub/b.gltf"):
            main = brought(source, uid, tmp_path / uid)
            assert len(source.load(next(iter(source.assets())), main)[0].faces) == 1
    finally:
        files.rm("/c-memory", recursive=True)


def test_real_assets_load_from_elsewhere_as_they_do_from_a_folder(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2].parent / "shared" / "assets" / "objects"
    if not folder.is_dir():
        pytest.skip("needs ../shared/assets/objects")
    small = [
        folder / name for name in ("fuze_obj", "kaykit_lamp_standing", "kenney_building_small_c", "tree_low_poly_blend")
    ]
    files = fsspec.filesystem("memory")
    for path in [file for each in small for file in each.rglob("*") if file.is_file()]:
        files.pipe(f"/c-real/{path.relative_to(folder).as_posix()}", path.read_bytes())
    try:
        local = {ref.uid: ref for ref in parse(str(folder)).assets()}
        source, compared = parse("memory://c-real"), 0
        for ref in source.assets():
            (tmp_path / ref.uid).mkdir(parents=True)
            main = tmp_path / ref.uid / source.fetch(ref, tmp_path / ref.uid)
            try:
                here, origin = parse(str(folder)).load(local[ref.uid], None)
            except Rejected as error:
                with pytest.raises(Rejected, match=error.reason):
                    source.load(ref, main)
                continue
            there, elsewhere = source.load(ref, main)
            assert (here.vertices == there.vertices).all()
            assert (here.faces == there.faces).all()
            assert here.flags == there.flags  # "missing_texture" is one
            assert elsewhere.sha256 == origin.sha256
            compared += any(each != main for each in (tmp_path / ref.uid).rglob("*.*"))
        assert compared >= 3  # with companions
    finally:
        files.rm("/c-real", recursive=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s4://bucket/x", "unknown protocol 's4'"),
        ("htps://host/x.glb", "did you mean https://"),
        ("https://user:pw@host/x.glb", "holds credentials"),
        ("s3://TOKEN@bucket/x", "holds credentials"),
        ("ftp://user@host/x", "holds credentials"),
        ("https://host/x.glb?X-Amz-Signature=abc", "may hold a secret"),
        ("https://host/x.glb?code=abc", "may hold a secret"),
        ("https://host/x.glb?v=1&Policy=abc", "may hold a secret"),
        ("https://host/x.glb?v=1;jwt=abc", "may hold a secret"),
        ("https://host/x.glb?=abc", "may hold a secret"),
        ("https://host/x.glb?%70wd=abc", "may hold a secret"),
        ("https://host/x.glb#abc", "has a fragment"),
        ("zip://x::s3://bucket/a.zip", "unpack the archive"),
        ("s3://", "names no place"),
        ("gs://bucket/x", r"pip install 'worldtrace\[gs\]'"),
    ],
)
def test_an_address_that_cannot_be_is_refused_in_one_sentence(text: str, message: str) -> None:
    if text.startswith("gs:"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(__import__("sys").modules, "gcsfs", None)
            fsspec.registry._registry.pop("gs", None) if hasattr(fsspec.registry, "_registry") else None
            with pytest.raises(ValueError, match=message):
                parse(text)
        return
    with pytest.raises(ValueError, match=message) as error:
        parse(text)
    assert "\n" not in str(error.value)
    assert "pw" not in str(error.value)
    assert "abc" not in str(error.value)


def test_a_file_url_is_a_local_folder(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_bytes(TRIANGLE)
    assert parse(f"file://{tmp_path}") == FileSource(str(tmp_path))
