"""Folders elsewhere: what is listed, what is brought, and what is said of stores that fail.

The clients are the real ones, the servers are in this process.
"""

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import fsspec
import pytest
from moto.server import ThreadedMotoServer

from cluster.sources import Unavailable, parse, remote, transfer
from render import Rejected
from tests.cluster.elsewhere import POINTS, TRIANGLE, brought, files_of, gltf

pytestmark = pytest.mark.usefixtures("hurried")


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


def test_a_store_without_permission_is_one_sentence_at_listing_and_forbidden_at_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
