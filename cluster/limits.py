"""What one asset may take of the process that works on it, and what it took."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def limited_memory(limit: int) -> Iterator[None]:
    """Let this process allocate at most `limit` bytes more of private memory within the block.

    RLIMIT_DATA and not RLIMIT_AS: what CUDA, Ray and Warp reserve or share counts only once it is private and writable.
    Beyond it NumPy and Python raise MemoryError. Native code may abort instead, which the job sees as a crash. What the
    process holds already is not counted, so that no asset pays for those before it.
    """
    before = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = private_memory() + limit
    hard = before[1]  # asking for more would be an error
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def private_memory() -> int:
    """Bytes that this process holds as RLIMIT_DATA counts them (VmData); 0 where the system does not say."""
    return _status("VmData")


def forget_peak() -> None:
    """Let `peak_memory` count from now on, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """The most bytes of RAM that this process held at once since `forget_peak`; 0 where the system does not say."""
    return _status("VmHWM")


def _status(name: str) -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith(f"{name}:")), 0)
