"""A file appears whole or not at all: temporary name in the same folder, sync, rename, sync of the folder."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .layout import TEMPORARY


@contextmanager
def committed(path: Path) -> Iterator[BinaryIO]:
    """A binary file that becomes `path` when the block ends, and vanishes when the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # two writers of one name never share a temporary file; the later rename wins, and the bytes are the same
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}"
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = str(path)  # a full disk names no file, and the temporary one is nobody's
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
