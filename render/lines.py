"""The lines of an untrusted text file, one at a time: a gigabyte of them must not become a gigabyte of objects."""

import io
from collections.abc import Iterator

from render.limits import Limits
from render.mesh import Rejected


def lines(data: bytes, limits: Limits) -> Iterator[bytes]:
    """Every line of `data` with its end, which may be LF, CR LF or CR. Raises Rejected("corrupt") for one that is
    longer than `limits.line_bytes`: its words would be objects of fifty bytes each.
    """
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    file = io.BytesIO(data)
    most = limits.line_bytes
    while line := file.readline(most + 1):
        if len(line) > most:
            raise Rejected("corrupt", f"a line has more than {most} bytes")
        yield line
