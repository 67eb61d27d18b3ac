"""Starting Warp without its complaint on a machine without an NVIDIA driver, which every worker would repeat."""

import contextlib
import ctypes
import os
import sys

import warp as wp


def start() -> None:
    """Initialises Warp. Its native library writes to the error stream that no driver was found, whatever the log level,
    so the stream is closed meanwhile; only if there is indeed no driver, and nothing else can then be said there."""
    if _driver():
        return  # it starts by itself, when first used, and may say what it has to say
    wp.config.log_level = wp.LOG_WARNING
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        kept = os.dup(2)
        stack.callback(os.close, kept)
        stack.callback(os.dup2, kept, 2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, nowhere)
        os.dup2(nowhere, 2)
        wp.init()


def _driver() -> bool:
    """Whether the library of the driver can be loaded, by the names that Warp tries."""
    for name in ("libcuda.so", "libcuda.so.1", "nvcuda.dll"):
        with contextlib.suppress(OSError):
            ctypes.CDLL(name)
            return True
    return False
