"""A server that answers like the hub, and like GitHub's raw files, and misbehaves on demand."""

import gzip
import hashlib
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trimesh

from cluster.sources.download import Policy

QUICK = Policy(attempts=4, pause=0.001, longest_pause=0.05, connect=2, read=0.3, deadline=10)
OBJAVERSE = "/datasets/allenai/objaverse/resolve/main/"
XL = "/datasets/allenai/objaverse-xl/resolve/main/"
HTML = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>" + b" " * 1000


@dataclass
class Ill:
    """What is wrong with an address: `how`, with `what`, for the next `times` requests."""

    how: str
    what: Any = None
    times: int = 1_000_000


@dataclass
class Asked:
    path: str
    headers: dict[str, str]


@dataclass
class Hub:
    """`files` by path. Those of `linked` are redirected to /cdn/<path>, with what the hub says of large files."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    linked: set[str] = field(default_factory=set)
    ills: dict[str, list[Ill]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def put(self, path: str, data: bytes, linked: bool = False) -> str:
        """Its address."""
        self.files[path] = data
        if linked:
            self.linked.add(path)
        return self.url + path

    def ill(self, path: str, how: str, what: Any = None, times: int = 1_000_000) -> None:
        self.ills.setdefault(path, []).append(Ill(how, what, times))

    def paths(self) -> list[str]:
        return [each.path for each in self.asked]

    def next_ill(self, path: str) -> Ill | None:
        for each in self.ills.get(path, []):
            if each.times > 0:
                each.times -= 1
                return each
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        hub, path = self.hub, self.path
        hub.asked.append(Asked(path, dict(self.headers.items())))
        self.close_connection = True
        ill = hub.next_ill(path)
        try:
            if ill is not None and self.misbehave(ill, path):
                return
            name = path.removeprefix("/cdn")
            if name not in hub.files:
                self.answer(404, b"Entry not found")
            elif name in hub.linked and path == name:
                data = hub.files[name]
                digest = hashlib.sha256(data).hexdigest()
                self.answer(302, b"", {"Location": f"/cdn{name}", "X-Linked-ETag": f'"{digest}"',
                                       "X-Linked-Size": str(len(data))})  # fmt: skip
            else:
                self.serve(hub.files[name], ill)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            pass

    def misbehave(self, ill: Ill, path: str) -> bool:
        """Whether that was the whole answer."""
        data = self.hub.files.get(path.removeprefix("/cdn"), b"")
        if ill.how == "status":
            code, headers = ill.what if isinstance(ill.what, tuple) else (ill.what, {})
            self.answer(code, b"no", headers)
        elif ill.how == "redirect":
            self.answer(302, b"", {"Location": ill.what} if ill.what else {})
        elif ill.how == "html":
            self.answer(200, HTML, {"Content-Type": "text/html"})
        elif ill.how == "trickle":  # each byte in time, and the whole never
            self.start(200, {"Content-Length": str(len(data))})
            for index in range(len(data)):
                self.wfile.write(data[index : index + 1])
                if self.hub.over.wait(0.02):
                    break
        elif ill.how == "slow headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while not self.hub.over.wait(0.02):
                self.wfile.write(b"x")
        elif ill.how == "endless":
            self.start(200, {})
            while not self.hub.over.is_set():
                self.wfile.write(data[:4] + bytes(1 << 16))
        elif ill.how == "announce":  # more or less than there is
            self.start(200, {"Content-Length": str(len(data) + ill.what)})
            self.wfile.write(data)
        elif ill.how == "until closed":
            self.start(200, {})
            self.wfile.write(data[: ill.what])
        elif ill.how in ("chunks", "chunks cut"):
            self.protocol_version = "HTTP/1.1"
            self.start(200, {"Transfer-Encoding": "chunked"})
            for part in (data[:50], data[50:]):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
                if ill.how == "chunks cut":
                    return True
            self.wfile.write(b"0\r\n\r\n")
        elif ill.how == "cut headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")
        elif ill.how == "reset":
            self.connection.close()
        else:
            return False
        return True

    def serve(self, data: bytes, ill: Ill | None) -> None:
        """The file, or the range of it that was asked for; `ill` may spoil either."""
        how, what = (ill.how, ill.what) if ill else ("", None)
        if how == "wrong":
            data = data[:-1] + bytes([data[-1] ^ 1])
        if how == "cut" and isinstance(what, tuple):
            what, etag = what
        else:
            etag = f'"{hashlib.md5(data).hexdigest()}"'
        start, status, headers = 0, 200, {"ETag": etag, **({"Content-Type": what} if how == "type" else {})}
        asked = self.headers.get("Range", "")
        if asked and how != "no range" and (self.headers.get("If-Range") == etag or how == "any range"):
            start, status = int(asked.removeprefix("bytes=").removesuffix("-")), 206
            start += what if how == "other range" else 0
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        body = data[start:-9] if how == "short range" else data[start:]
        self.start(status, {**headers, "Content-Length": str(len(body))})
        if how in ("cut", "stall"):
            self.wfile.write(body[: what if what is not None else len(body) // 2])
            self.wfile.flush()
            if how == "stall":
                self.hub.over.wait(5)
        else:
            self.wfile.write(body)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.start(status, {"Content-Length": str(len(body)), **(headers or {})})
        self.wfile.write(body)

    def start(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()


@contextmanager
def serving(certificate: Path | None = None) -> Iterator[Hub]:
    """By https with a `certificate` (its key in the same file)."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        hub.url = hub.url.replace("http:", "https:")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def glb(index: int = 0) -> bytes:
    """A real, small one; another for every index."""
    mesh = trimesh.creation.icosphere(subdivisions=1) if index % 2 else trimesh.creation.box()
    mesh.apply_scale([1.0, 1.0 + index / 10, 0.7])
    return bytes(trimesh.Scene(mesh).export(file_type="glb"))


def packed(value: Any) -> bytes:
    return gzip.compress(json.dumps(value).encode(), mtime=0)
