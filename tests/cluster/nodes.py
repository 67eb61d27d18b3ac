"""Real Ray nodes on this machine: a process family of `ray start` each, to be killed one by one or together."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from ray.util import get_node_ip_address

RAY = Path(sys.executable).parent / "ray"
ROOT = Path(__file__).parents[2]
STORE = 100_000_000  # bytes of the object store of a node
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # `ray start` asks for a token by default; it must be there for all that join, and drivers with them
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    # bytes from which a result stays on its node: so that the small samples of tests are lost with it, like large ones
    "RAY_max_direct_call_object_size": "2000",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(true: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class Family:
    """A process with all that comes of it, told by a variable of its environment, which all of them inherit."""

    def __init__(self, command: list[str], log: Path, **environment: str) -> None:
        self.mark = f"WORLDTRACE_FAMILY={secrets.token_hex(8)}"
        name, _, value = self.mark.partition("=")
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **ENVIRONMENT, **environment, name: value},
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def members(self, part: str = "") -> list[int]:
        """Process ids; of those with `part` in their command line."""
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                command = (environ.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if self.mark.encode() in environ.read_bytes() and part in command:
                    found.append(int(environ.parent.name))
        return found

    def kill(self) -> None:
        """All of them, at once, by SIGKILL."""
        while members := self.members():
            for pid in members:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.2)


class Nodes:
    """A head without work of its own and `count` nodes of `cpus` CPUs, on free ports, with a folder of their own."""

    def __init__(self, count: int, cpus: int = 1, dashboard: bool = False) -> None:
        self.count, self.cpus, self.dashboard = count, cpus, dashboard
        # not below a test's folder: the names of sockets have 107 bytes at most
        self.folder = Path(tempfile.mkdtemp(prefix="wt-ray-", dir="/tmp"))
        self.port, self.dashboard_port = free_port(), free_port()
        self.head: Family | None = None
        self.others: list[Family] = []

    @property
    def address(self) -> str:
        return f"{get_node_ip_address()}:{self.port}"  # Ray makes that of 127.0.0.1, too

    @property
    def dashboard_address(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    def dashboard_answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.dashboard_port), 1):
            return True
        return False

    def __enter__(self) -> "Nodes":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Everything, after `kill` or for the first time."""
        self.head = self._start_head()
        if not until(self._answers, 60):
            raise RuntimeError(f"no head: {(self.folder / 'log').read_text()[-2000:]}")
        self.others = [self.start_node() for _ in range(self.count)]

    def start_node(self) -> Family:
        return self._family(f"--address={self.address}", f"--num-cpus={self.cpus}")

    def restart(self, node: Family) -> None:
        """In place of `node`, one of `others`, which is killed with all that is left of it."""
        node.kill()
        self.others[self.others.index(node)] = self.start_node()

    def kill(self) -> None:
        for family in [*self.others, *([self.head] if self.head else [])]:
            family.kill()
        self.head, self.others = None, []

    def _start_head(self) -> Family:
        return self._family(
            "--head",
            f"--port={self.port}",
            "--num-cpus=0",
            f"--include-dashboard={str(self.dashboard).lower()}",
            f"--dashboard-port={self.dashboard_port}",
            f"--ray-client-server-port={free_port()}",
            f"--temp-dir={self.folder}",
        )

    def _family(self, *options: str) -> Family:
        common = [
            "--block",
            f"--node-ip-address={get_node_ip_address()}",
            "--disable-usage-stats",
            "--min-worker-port=0",
            "--max-worker-port=0",
            f"--dashboard-agent-listen-port={free_port()}",
            f"--metrics-export-port={free_port()}",
            f"--object-store-memory={STORE}",
        ]
        return Family([str(RAY), "start", *options, *common], self.folder / "log")

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection((get_node_ip_address(), self.port), 1):
            return True
        return False
