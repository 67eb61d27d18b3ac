"""Connecting to Ray: a quiet local one by default, a running one on request."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

GIB = 1 << 30
ANSWERS_WITHIN = 20.0  # seconds, of a head that is there


def prepare(address: str | None = None, debug: bool = False) -> None:
    """Silence what Ray says at start, and of every worker it loses (the ledger says that better) unless `debug`; let it
    show its token to a cluster that is joined.

    Ray reads these once, when it is imported: call this before.
    """
    if (address or os.environ.get("RAY_ADDRESS", "local")) != "local":
        _show_token()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not debug:
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
        os.environ.setdefault("RAY_SCHEDULER_EVENTS", "0")
        os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # what an actor raised is in the reply already


@contextmanager
def connected(address: str | None, workers: int | None, debug: bool = False) -> Iterator[None]:
    """A Ray connection for the length of the block.

    `address`: "local" starts a Ray of its own on this machine, with `workers` CPUs (default, and beside GPUs, which are
    fed by more processes than render: the CPUs this process may use); "auto" or "HOST:PORT" joins a running one. None
    is "auto" inside a job that `ray job submit` started, which tells its entry point by RAY_ADDRESS, and "local"
    elsewhere. A connection that stands already is used and left. ValueError, in one sentence, where none can be had.
    """
    import logging

    import ray

    if ray.is_initialized():
        yield
        return
    if address is None:
        address = "auto" if os.environ.get("RAY_ADDRESS") else "local"
    level = "info" if debug else "error"
    logging.getLogger("ray").setLevel(level.upper())
    common: dict[str, Any] = {"log_to_driver": debug, "logging_level": level}
    if address == "local":
        ray.init(
            "local",
            num_cpus=_cpus(workers),
            include_dashboard=False,
            object_store_memory=_object_store(),
            **common,
        )
    else:
        _refuse_silence(address)
        try:
            ray.init(address, **common)
        except ConnectionError as error:
            raise ValueError(_nobody(address)) from error
        except RuntimeError as error:
            if "ersion mismatch" not in str(error):
                raise
            raise ValueError(_mismatch(address, str(error))) from error
    try:
        yield
    finally:
        ray.shutdown()


def _show_token() -> None:
    """`ray start` asks for a token wherever it finds one, and every Ray that was local before has left one; `ray.init`
    shows it only if told so.
    """
    known = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if known or (Path.home() / ".ray" / "auth_token").is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _refuse_silence(address: str) -> None:
    """Ask HOST:PORT for its cluster's id, as Ray does first. ValueError where nobody answers, or wants a token: Ray
    itself goes on asking for ten minutes.
    """
    import grpc

    if not re.fullmatch(r"[^/:]+:\d+", address):
        return  # "auto" finds its address on this machine
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId", bytes, bytes)
        try:
            ask(b"", timeout=ANSWERS_WITHIN)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise ValueError(_nobody(address)) from None
            if error.code() == grpc.StatusCode.UNAUTHENTICATED and os.environ.get("RAY_AUTH_MODE") != "token":
                raise ValueError(
                    f"the Ray at {address} asks for a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or bring its "
                    "~/.ray/auth_token here"
                ) from None


def _nobody(address: str) -> str:
    return f"no Ray answers at {address}: start one with `ray start --head`, or leave --address out"


def _cpus(workers: int | None) -> int:
    here = len(os.sched_getaffinity(0))
    if workers is None:
        return here
    return max(workers, here) if os.path.exists("/dev/nvidia0") else workers


def _mismatch(address: str, said: str) -> str:
    """One sentence of the lines in which Ray lists its own and Python's version there and here."""
    found = re.findall(r"Ray: *(\S+).*?Python: *(\S+)", said, re.DOTALL)
    there, here = (f"Ray {ray} on Python {python}" for ray, python in found[:2]) if len(found) > 1 else ("other", "")
    return (
        f"the cluster at {address} runs {there}, and this is {here}: versions must be the same everywhere, "
        "so install those of the cluster here, or start the job there with `ray job submit`"
    )


def _object_store() -> int:
    """A tenth of the machine, 0.25 to 2 GiB: it holds the samples of a few unfinished units, 10 MB each."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(max(memory // 10, GIB // 4), 2 * GIB)
