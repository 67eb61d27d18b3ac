"""Whether anything grows with the number of assets: the driver, the workers, the object store.

    python -m tests.benchmarks.soak [--assets 2000] [--fetched]

Small boxes through a job with two workers; resident memory at a tenth of the assets and at the end, the most that Ray's
object store held, and the events a second that the driver took.
"""

import argparse
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from cluster import connection

connection.prepare()
import ray  # noqa: E402

from cluster.dataset import Means, render_dataset  # noqa: E402
from cluster.job import Job  # noqa: E402
from tests.cluster.boxes import SETTINGS, Boxes  # noqa: E402

MIB = 1 << 20


@dataclass
class Watch:
    """Resident memory in MiB of the driver and its actors, at chosen numbers of committed units."""

    at: tuple[int, ...]
    committed: int = 0
    seen: dict[int, dict[str, float]] = field(default_factory=dict)
    stored: float = 0.0  # MiB, the most that was in use
    looked: float = 0.0

    def note(self, job: Job) -> None:
        if (now := time.monotonic()) - self.looked > 1.0:
            self.looked = now
            whole = ray.cluster_resources().get("object_store_memory", 0.0)
            free = ray.available_resources().get("object_store_memory", 0.0)
            self.stored = max(self.stored, (whole - free) / MIB, job.held / MIB)
        done = self.committed
        if done in self.at and done not in self.seen:
            self.seen[done] = {"driver": resident(os.getpid()), **actors()}


def resident(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def actors() -> dict[str, float]:
    """Of the actors of this machine, by the name of their process ("ray::Worker"), the largest of each."""
    found: dict[str, float] = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            name = path.read_bytes().split(b"\0")[0].decode().partition(".")[0]
            if name in ("ray::Worker", "ray::Fetcher", "ray::Committer"):
                found[name[5:].lower()] = max(found.get(name[5:].lower(), 0.0), resident(int(path.parent.name)))
        except (OSError, ValueError):
            continue
    return found


def soak(assets: int, fetched: bool, folder: Path) -> Watch:
    """A job of `assets` boxes in units of ten; memory at a tenth of them and at the end."""
    watch = Watch((assets // 100, assets // 10 - 1))
    look, finish = Job._look, Job._finish

    def looked(job: Job, now: float) -> None:
        look(job, now)
        watch.note(job)

    def finished(job: Job, opened: object) -> None:
        watch.committed += 1
        watch.note(job)
        finish(job, opened)  # type: ignore[arg-type]

    Job._look, Job._finish = looked, finished  # type: ignore[method-assign, assignment]
    try:
        source = Boxes(assets, str(folder), remote=fetched)
        render_dataset([source], folder / "out", SETTINGS, 20, Means(workers=2, fetchers=2))
    finally:
        Job._look, Job._finish = look, finish  # type: ignore[method-assign]
    return watch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=int, default=2000)
    parser.add_argument("--fetched", action="store_true")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        with connection.connected("local", workers=2):
            begun = time.monotonic()
            watch = soak(options.assets, options.fetched, folder)
            took = time.monotonic() - begun
        for units, memory in watch.seen.items():
            print(f"{units * 10:6d} assets  " + "  ".join(f"{name} {size:.0f} MiB" for name, size in memory.items()))
        print(f"{took:.0f} s; the object store held {watch.stored:.1f} MiB at most")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
