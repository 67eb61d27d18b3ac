"""Which copies processes expect to need, told to whoever makes room on this machine.

Each that expects something has a file in the cache, locked for as long as it lives, with the tags of those copies in
the order of need. It is advice and no lock: what is only fetched ahead never takes the place of an expected copy, and
what is needed now may, last of all. So nobody who needs a shard waits for somebody who merely expects another.
"""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from .file_locks import closed, locked, opened

NAME = ".expected-{}.lock"
_NAME = re.compile(r"[.]expected-\d+[.]lock")
TAG = 16  # letters of a tag, which are those of `tag_of`
MOST = 1 << 16  # copies that one process and dataset may expect


class Expected:
    """The file of one who expects; `tell` makes it when there is something to tell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.handle: int | None = None

    def tell(self, tags: Sequence[str]) -> None:
        """Of all copies that are expected now, in the order of need."""
        if self.handle is None:
            if not tags:
                return
            self.handle = self._taken()
        text = "".join(tags[:MOST]).encode()
        os.pwrite(self.handle, text, 0)
        os.ftruncate(self.handle, len(text))

    def _taken(self) -> int:
        """The first file that nobody living has."""
        for number in count():
            handle = opened(self.folder / NAME.format(number), os.O_RDWR | os.O_CREAT)
            if locked(handle):
                return handle
            closed(handle)
        raise AssertionError("numbers do not end")

    def close(self) -> None:
        if self.handle is not None:
            handle, self.handle = self.handle, None
            with suppress(OSError):
                os.ftruncate(handle, 0)
            closed(handle)


def is_list(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def ranks(folder: Path) -> dict[str, int]:
    """Tag -> how soon the copy is needed, 0 next, by whom it is needed the soonest. Those of the living alone."""
    found: dict[str, int] = {}
    for name in os.listdir(folder):
        if not is_list(name):
            continue
        with suppress(OSError):
            handle = opened(folder / name, os.O_RDONLY)
            try:
                if not locked(handle):
                    text = os.pread(handle, TAG * MOST, 0).decode("ascii", "replace")
                    for rank, begin in enumerate(range(0, len(text), TAG)):
                        tag = text[begin : begin + TAG]
                        found[tag] = min(rank, found.get(tag, rank))
            finally:
                closed(handle)
    return found
