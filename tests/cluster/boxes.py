"""A source for the tests of the job: boxes that render in milliseconds, some of which misbehave on the way."""

import hashlib
import os
import re
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from cluster.sources import AssetRef
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

    `scratch` is a folder for the marks of first attempts, and for a log of every load.
    """

    count: int
    scratch: str
    trouble: dict[int, str] = field(default_factory=dict)
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
        raise AssertionError("boxes are made where they are loaded")

    def load(self, ref: AssetRef, path: Path | None) -> tuple[Mesh, Origin]:
        with (Path(self.scratch) / "loads").open("a") as log:
            log.write(f"{ref.uid}\n")
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
        return (Path(self.scratch) / "loads").read_text().split()

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
        elif kind == "memory":
            np.ones(1 << 34)
        elif kind == "hoard":  # bit by bit, and nothing that NumPy could refuse at once
            kept = []
            while True:
                kept.append(bytearray(1 << 20))
        elif kind == "spin":  # in C, with the interpreter's lock: nothing of Python runs any more
            re.match(r"(a+)+$", "a" * 64 + "b")
