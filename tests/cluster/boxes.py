"""A source for the tests of the job: boxes that render in milliseconds, some of which misbehave on the way."""

import hashlib
import os
import re
import signal
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from cluster.sources import AssetRef, Unavailable
from render import Material, Mesh, Rejected, RenderSettings
from shards import Origin, Regime

SETTINGS = RenderSettings(views=2, height=48, width=48, backend="cpu", samples=1, min_coverage=0.002)
FACES = np.array(
    [[0, 1, 3], [0, 3, 2], [4, 7, 5], [4, 6, 7], [0, 5, 1], [0, 4, 5], [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4]]
    + [[1, 5, 7], [1, 7, 3]],
    np.int32,
)


@dataclass(frozen=True)
class Boxes:
    """`count` boxes. `trouble` maps an index to what its `load` does; "... once" only at the first attempt.

    `scratch` is a folder for the marks of first attempts, and for logs of every fetch and load. While it holds a file
    `down`, nothing can be fetched. `on_the_way` maps an index to what its `fetch` does (if `remote`): "unavailable 3"
    at the first three attempts.
    """

    count: int
    scratch: str
    trouble: dict[int, str] = field(default_factory=dict)
    on_the_way: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0  # that every load takes
    regime: Regime = "object"
    remote: bool = False
    own_terms: bool = True
    poisoned: ClassVar[bool] = False

    @property
    def text(self) -> str:
        return f"boxes:{self.count}"

    def assets(self) -> Iterable[AssetRef]:
        for index in range(self.count):
            sha256 = hashlib.sha256(f"box {index}".encode()).hexdigest()
            yield AssetRef(f"box-{index:02d}", "boxes", "CC0-1.0", str(index), sha256)

    def fetch(self, ref: AssetRef, folder: Path) -> str:
        assert self.remote, "boxes are made where they are loaded"
        assert not list(folder.iterdir())
        self._log("fetches", ref)
        (folder / "textures").mkdir()
        (folder / "textures" / "wood.bin").write_bytes(ref.uid.encode() * 1000)
        how = self.on_the_way.get(int(ref.locator), "")
        kind, _, times = how.partition(" ")
        if (Path(self.scratch) / "down").exists():
            raise Unavailable("503 Service Unavailable")
        if kind == "unavailable":
            if not times or self.log("fetches").count(ref.uid) <= int(times):
                raise Unavailable("429 Too Many Requests")
        else:
            self._misbehave(how, Path(self.scratch) / f"{ref.uid}.met")
        (folder / "box.txt").write_text(ref.uid)
        return "box.txt"

    def load(self, ref: AssetRef, path: Path | None) -> tuple[Mesh, Origin]:
        self._log("loads", ref)
        time.sleep(self.seconds)
        assert (path is not None) == self.remote
        if path is not None:
            assert path.read_text() == ref.uid
            assert (path.parent / "textures" / "wood.bin").read_bytes() == ref.uid.encode() * 1000
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        self._misbehave(self.trouble.get(int(ref.locator), ""), Path(self.scratch) / f"{ref.uid}.met")
        if Boxes.poisoned:
            raise RuntimeError("CUDA error 700: an illegal memory access was encountered")
        corner = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float64)
        vertices = corner * [1.0, 1.0 + int(ref.locator) / 10, 0.7]
        mesh = Mesh(vertices, FACES, np.zeros(len(FACES), np.int32), (Material(base_color=(0.8, 0.5, 0.2, 1.0)),))
        assert ref.sha256 is not None
        return mesh, Origin(ref.uid, ref.source, ref.sha256, ref.licence)

    def loads(self) -> list[str]:
        """The uids of all loads so far, by any process."""
        return self.log("loads")

    def log(self, name: str) -> list[str]:
        path = Path(self.scratch) / name
        return path.read_text().split() if path.exists() else []

    def _log(self, name: str, ref: AssetRef) -> None:
        with (Path(self.scratch) / name).open("a") as log:
            log.write(f"{ref.uid}\n")

    def _misbehave(self, how: str, mark: Path) -> None:
        kind, _, once = how.partition(" ")
        if once == "once":
            if mark.exists():
                return
            mark.touch()
        if kind == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "exit":
            raise SystemExit(3)
        elif kind == "hang":
            time.sleep(600)
        elif kind == "error":
            raise KeyError("no such node")
        elif kind == "poison":  # as an illegal access does to a CUDA context
            Boxes.poisoned = True
        elif kind == "reject":
            raise Rejected("no_faces", "it has no faces")
        elif kind == "large":
            np.ones(1 << 25)  # 256 MiB
        elif kind == "memory":
            np.ones(1 << 34)
        elif kind == "hoard":  # bit by bit, and nothing that NumPy could refuse at once
            kept = []
            while True:
                kept.append(bytearray(1 << 20))
        elif kind == "spin":  # in C, with the interpreter's lock: nothing of Python runs any more
            re.match(r"(a+)+$", "a" * 64 + "b")
