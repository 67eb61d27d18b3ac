"""A web server on this machine that shows a folder, and may misbehave in the ways in which servers do."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Server(ThreadingHTTPServer):
    """`misbehave` maps (path, how many requests for it came before) to what happens: "" is nothing, a number is a
    status, "cut" and "stall" end or pause in the middle of the body, "drip" sends it, and "drip header" what comes
    before, twenty bytes a second, "longer" and "shorter" lie about its length, "elsewhere URL" redirects.
    """

    daemon_threads = True

    def __init__(self, folder: Path, ranges: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.ranges = folder, ranges
        self.misbehave: Callable[[str, int], str] = lambda path, before: ""
        self.requests: list[tuple[str, str]] = []  # (path, Range)
        self.sent = 0
        self.going_on = threading.Event()  # set: what stalls goes on
        self.url = f"http://127.0.0.1:{self.server_port}"

    def count(self, path: str) -> int:
        return sum(path == each for each, _ in self.requests)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        before = self.server.count(self.path)
        wanted = self.headers.get("Range", "")
        self.server.requests.append((self.path, wanted))
        what = self.server.misbehave(self.path, before)
        file = self.server.folder / self.path.lstrip("/")
        if what.startswith("elsewhere"):
            self._head(302, 0, {"Location": what.partition(" ")[2]})
            return
        if what == "drip header":
            self._dripped(b"HTTP/1.1 200 OK\r\n" + b"X: 0\r\n" * 80)
            return
        if what.isdecimal() or not file.is_file():
            self._head(int(what or 404), 0, {})
            return
        data, status, headers = file.read_bytes(), 200, {}
        if self.server.ranges and (found := re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)):
            begin, end = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
            if begin >= len(data):
                self._head(416, 0, {"Content-Range": f"bytes */{len(data)}"})
                return
            status, headers = 206, {"Content-Range": f"bytes {begin}-{end}/{len(data)}"}
            data = data[begin : end + 1]
        lie = {"longer": 100, "shorter": -min(100, len(data))}.get(what, 0)
        self._head(status, len(data) + lie, headers)
        if what == "drip":
            self._dripped(data)
            return
        half = len(data) // 2 if what in ("cut", "stall") else len(data)
        self._body(data[:half])
        if what == "stall":
            self.wfile.flush()
            self.server.going_on.wait(30)
        if what in ("cut", "longer", "stall", "shorter"):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _dripped(self, data: bytes) -> None:
        self.close_connection = True
        for at in range(len(data)):
            self._body(data[at : at + 1])
            if self.server.going_on.wait(0.05):
                return

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def _body(self, data: bytes) -> None:
        self.server.sent += len(data)  # before it is: who asked may look at once
        try:
            self.wfile.write(data)
        except OSError:  # who asked has gone
            self.close_connection = True


@contextmanager
def serving(folder: Path, ranges: bool = True) -> Iterator[Server]:
    server = Server(folder, ranges)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.going_on.set()
        server.shutdown()
        server.server_close()
        thread.join()
