"""Processes that read a whole dataset through one cache, as the ranks and workers of a node do."""

import multiprocessing
import random
from multiprocessing.process import BaseProcess
from pathlib import Path

import shards


def read_all(url: str, folder: str, limit: int, seed: int, ahead: bool) -> None:
    """Every sample, in an order of its own."""
    data = shards.open(url, cache=shards.Cache(folder, limit))
    rows = list(range(len(data)))
    random.Random(seed).shuffle(rows)
    if ahead:
        data.expect([data.shards[data.shard_of[row]] for row in rows])
    for row in rows:
        data.members(row)


def started(count: int, url: str, folder: Path, limit: int, ahead: bool) -> list[BaseProcess]:
    """That many of them. They share no memory, and nothing that this process holds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.shards.readers"])  # they need not import everything anew
    processes = [
        context.Process(target=read_all, args=(url, str(folder), limit, seed, ahead), daemon=True)
        for seed in range(count)
    ]
    for process in processes:
        process.start()
    return processes
