"""Connecting to Ray: a quiet local one by default, a running one on request."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

GIB = 1 << 30


def quiet(debug: bool = False) -> None:
    """Silence what Ray says at start, and of every worker it loses (the ledger says that better) unless `debug`.

    Ray reads these once, when it is imported: call this before.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not debug:
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
        os.environ.setdefault("RAY_SCHEDULER_EVENTS", "0")


@contextmanager
def connected(address: str | None, workers: int | None, debug: bool = False) -> Iterator[None]:
    """A Ray connection for the length of the block.

    `address`: "local" starts a Ray of its own on this machine, with `workers` CPUs (default: the CPUs this process may
    use); "auto" or "HOST:PORT" joins a running one. None is "auto" inside a job that `ray job submit` started, which
    tells its entry point by RAY_ADDRESS, and "local" elsewhere. A connection that stands already is used and left.
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
            num_cpus=workers or len(os.sched_getaffinity(0)),
            include_dashboard=False,
            object_store_memory=_object_store(),
            **common,
        )
    else:
        try:
            ray.init(address, **common)
        except ConnectionError as error:
            raise ValueError(
                f"no Ray answers at {address}: start one with `ray start --head`, or leave --address out "
                "(one that asks for a token lets nobody in without RAY_AUTH_MODE=token)"
            ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _object_store() -> int:
    """A tenth of the machine, 0.25 to 2 GiB: it holds the samples of a few unfinished units, 10 MB each."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(max(memory // 10, GIB // 4), 2 * GIB)
