"""Kills workers, Ray nodes, the head and the driver of one job by SIGKILL at random moments, and compares the dataset
with that of an undisturbed run.

    python -m tests.benchmarks.chaos [--rounds 20] [--nodes 2] [--seed 0]

What is asserted: after the last restart every file but ledger.parquet has the bytes of an undisturbed run; nothing
else is left; and no asset was loaded more often than its work was lost. Lost to a kill is: of a worker, one asset; of
a node, the head or the driver, every asset that had been loaded and whose unit was not committed. Hence, over the whole
job, loads <= assets + sum of what was lost, and for every single asset, loads <= 1 + kills that found it uncommitted.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cluster import connection

connection.prepare()
from cluster.dataset import Means, render_dataset  # noqa: E402
from cluster.ledger import Ledger  # noqa: E402
from shards.store import open_store  # noqa: E402
from tests.cluster.boxes import SETTINGS, Boxes  # noqa: E402
from tests.cluster.conftest import contents  # noqa: E402
from tests.cluster.nodes import Family, Nodes, until  # noqa: E402

KINDS = ("worker", "node", "driver", "head")
PER_UNIT = 3
SECONDS = 0.3  # that the load of a box takes: so that most kills hit one
ASSETS_PER_ROUND = 12


@dataclass
class Chaos:
    """One job under fire."""

    out: Path
    scratch: Path
    count: int
    nodes: Nodes
    moments: random.Random
    allowed: Counter[str] = field(default_factory=Counter)  # loads of each asset that were lost for sure
    perhaps: Counter[str] = field(default_factory=Counter)  # the one load that went with a worker is one of these
    lost: int = 0
    driver: Family | None = None
    rows: list[tuple[str, float, int, int, int]] = field(default_factory=list)

    @property
    def source(self) -> Boxes:
        return Boxes(self.count, str(self.scratch), seconds=SECONDS)

    def start_driver(self) -> None:
        command = [sys.executable, "-m", "tests.cluster.driver", str(self.out), str(self.scratch), str(self.count)]
        options = [f"address={self.nodes.address}", f"seconds={SECONDS}", f"workers={self.nodes.count}"]
        self.driver = Family([*command, *options], self.scratch / "driver.log")

    def running(self) -> bool:
        return self.driver is not None and self.driver.process.poll() is None

    def finished(self) -> bool:
        return self.driver is not None and self.driver.process.poll() == 0

    def uncommitted(self) -> list[str]:
        """Assets that were loaded since they were lost last, and whose units have no record: what a kill may cost."""
        done = {int(name.partition("-")[0]) for name in Ledger(open_store(self.out)).units()}
        loads = Counter(self.source.loads())
        return sorted(
            uid
            for uid, count in loads.items()
            if int(uid.partition("-")[2]) // PER_UNIT not in done and count > self.allowed[uid]
        )

    def note_lost(self, assets: list[str]) -> None:
        self.allowed.update(assets)
        self.lost += len(assets)

    def strike(self, kind: str) -> bool:
        """Kill one of `kind`; False where there was none to kill."""
        if kind == "driver":
            if not self.running():
                return False
            self.end_driver()
            self._wait_for_workers(self.nodes.others)
        elif kind == "head":
            self.nodes.kill()
        elif kind == "node":
            up = [node for node in self.nodes.others if node.members("raylet/raylet")]
            if not up:
                return False
            node = self.moments.choice(up)
            os.kill(node.members("raylet/raylet")[0], signal.SIGKILL)
            self._wait_for_workers([node])
        else:
            workers = [pid for node in self.nodes.others for pid in node.members("ray::Worker")]
            if not workers:
                return False
            os.kill(self.moments.choice(workers), signal.SIGKILL)
        return True

    @staticmethod
    def _wait_for_workers(nodes: list[Family]) -> None:
        """Until they are gone, too: what they load in their last second is lost as well."""
        if not until(lambda: not any(node.members("ray::Worker") for node in nodes), 20):
            raise AssertionError("workers outlive what they work for")

    def end_driver(self) -> None:
        assert self.driver is not None
        self.driver.kill()

    def round(self, kind: str) -> None:
        if not self.nodes.head:
            self.nodes.start()
        self.revive()
        if not self.running() and not self.finished():
            self.start_driver()
        begun = len(self.source.loads())
        # some work is done in every round
        until(lambda: self.revive() or self.finished() or len(self.source.loads()) > begun, 90)
        time.sleep(self.moments.uniform(0.0, 4.0))
        struck = self.strike(kind)
        before = self.uncommitted()
        if struck and kind == "worker":
            self.perhaps.update(before)
            self.lost += 1
        elif struck:
            self.note_lost(before)
        time.sleep(1.0)  # a driver whose Ray is gone ends by itself, or else it is ended with it
        if kind == "head" and self.driver is not None and not self.finished():
            self.end_driver()
        units = len(Ledger(open_store(self.out)).units()) if self.out.exists() else 0
        name = kind if struck else f"({kind})"
        self.rows.append((name, time.monotonic(), units, len(self.source.loads()), len(before)))

    def revive(self) -> bool:
        """Start nodes again that were killed, or came before their head was ready. False, so that it can be waited
        with.
        """
        for node in list(self.nodes.others):
            if node.process.poll() is not None:  # `ray start --block` ends when its raylet is gone
                self.nodes.restart(node)
        return False

    def finish(self) -> None:
        """Without any more kills, until the job is done."""
        for _ in range(3):
            if not self.nodes.head:
                self.nodes.start()
            self.revive()
            if not self.running() and not self.finished():
                # its driver lost its own node, or was killed: what is uncommitted now was lost with it
                self.start_driver()
            if until(lambda: self.revive() or not self.running(), 300) and self.finished():
                return
            self.note_lost(self.uncommitted())
        raise AssertionError(f"the job does not end: {(self.scratch / 'driver.log').read_text()[-3000:]}")


@contextmanager
def under_fire(rounds: int, nodes: int, seed: int, folder: Path) -> Iterator[Chaos]:
    (folder / "scratch").mkdir()
    with Nodes(nodes) as cluster:
        count = rounds * ASSETS_PER_ROUND
        chaos = Chaos(folder / "out", folder / "scratch", count, cluster, random.Random(seed))
        try:
            yield chaos
        finally:
            if chaos.driver is not None:
                chaos.end_driver()


def run(rounds: int, nodes: int, seed: int, folder: Path) -> Chaos:
    """The whole of it; AssertionError where something does not hold."""
    with under_fire(rounds, nodes, seed, folder) as chaos:
        began = time.monotonic()
        for index in range(rounds):
            died = chaos.driver is not None and not chaos.running() and not chaos.finished()
            if died and chaos.rows and chaos.rows[-1][0] == "node":  # it was that node's
                chaos.note_lost(chaos.uncommitted())
            chaos.round(KINDS[index % len(KINDS)])
            kind, at, units, loads, lost_now = chaos.rows[-1]
            print(
                f"{index + 1:3d}  {kind:9s} at {at - began:6.1f} s  {units:4d} units committed  {loads:4d} loads  "
                f"{lost_now:3d} loaded, not committed",
                flush=True,
            )
        chaos.finish()
        source = chaos.source
    calm = folder / "calm"
    (folder / "calm-scratch").mkdir()
    with connection.connected("local", workers=1):
        render_dataset([Boxes(chaos.count, str(folder / "calm-scratch"))], calm, SETTINGS, 6, Means(workers=1))
    assert contents(chaos.out) == contents(calm), "the dataset is not that of an undisturbed run"
    loads = Counter(source.loads())
    excess = {uid: count for uid, count in loads.items() if count > 1 + chaos.allowed[uid] + chaos.perhaps[uid]}
    assert not excess, f"rendered more often than lost: {excess}"
    assert loads.total() <= chaos.count + chaos.lost, (loads.total(), chaos.count, chaos.lost)
    return chaos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        chaos = run(options.rounds, options.nodes, options.seed, folder)
        total = len(chaos.source.loads())
        print(f"{chaos.count} assets, {total} loads, at most {chaos.count + chaos.lost} allowed; the dataset is equal")
    except BaseException:
        print((folder / "scratch" / "driver.log").read_text()[-3000:])
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
