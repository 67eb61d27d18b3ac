"""Private folders for the files of one asset, gone with the process that made them however it ends."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RAM_DISK = Path("/dev/shm")
SPARE = 1 << 30  # bytes of the RAM disk that are left to others: Ray keeps its object store there


@contextmanager
def private_folder(size: int | None = None) -> Iterator[Path]:
    """A new, empty folder, removed with all that is in it when the block ends, or else the process.

    `size` bytes are to be written there: they go to the RAM disk where that has room, so that no disk is waited for.
    None, not known: to $TMPDIR.
    """
    room = shutil.disk_usage(RAM_DISK).free if size is not None and RAM_DISK.is_dir() else 0
    place = RAM_DISK if size is not None and size + SPARE < room and os.access(RAM_DISK, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(dir=_root(place or Path(tempfile.gettempdir()))))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_roots: dict[tuple[int, Path], Path] = {}


def _root(place: Path) -> Path:
    """This process's folder in `place`. A shell of its own removes it when the process is gone, killed or not: it waits
    for the end of a pipe that only this process holds open, and is no child of it, for Ray kills those.
    """
    key = (os.getpid(), place)
    if key not in _roots:
        root = Path(tempfile.mkdtemp(prefix="worldtrace-", dir=place))
        waits, held = os.pipe()  # neither is inherited by other children
        watch = 'exec 3<&0 0</dev/null >/dev/null 2>&1; (cat <&3; rm -rf -- "$0") & exec 3<&-'
        subprocess.run(["sh", "-c", watch, str(root)], stdin=waits, start_new_session=True, check=True, cwd="/")
        os.close(waits)
        _roots[key] = root
        _held.append(held)
    return _roots[key]


_held: list[int] = []  # descriptors, open as long as the process lives
