"""A function on several ranks of this machine, over gloo or NCCL: a process each, forked from the server of `ranks`."""

import traceback
from collections.abc import Callable, Collection
from multiprocessing.connection import Connection, wait
from typing import Any

from tests.train import ranks


def on(
    world: int,
    function: Callable[..., Any],
    *arguments: Any,
    seconds: float = 120,
    lost: Collection[int] = (),
    device: str = "cpu",
) -> list[Any]:
    """What `function(ranks, *arguments)` returns on each of `world` ranks: plain values, in the order of ranks.

    AssertionError with the traceback of a rank that raised. What becomes of `lost` ranks does not matter.
    """
    port = ranks.free_port()
    pipes = [ranks.CONTEXT.Pipe(duplex=False) for _ in range(world)]
    processes = [
        ranks.CONTEXT.Process(target=_rank, args=(k, world, port, device, sender, function, arguments))
        for k, (_, sender) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    for _, sender in pipes:
        sender.close()
    found: dict[int, Any] = {}
    waiting: dict[Any, int] = {receiver: k for k, (receiver, _) in enumerate(pipes)}
    try:
        while waiting and (ready := wait(list(waiting), seconds)):
            for receiver in ready:
                k = waiting.pop(receiver)
                try:
                    raised, found[k] = receiver.recv()
                except EOFError:
                    raised, found[k] = True, "it ended without a word"
                assert not raised or k in lost, f"rank {k} of {world}: {found[k]}"
    finally:
        for process in processes:
            process.join(0 if waiting else 10)
            process.kill()
    assert not waiting, f"ranks {sorted(waiting.values())} of {world} did not answer within {seconds} s"
    return [found[k] for k in range(world)]


def _rank(
    rank: int, world: int, port: int, device: str, sender: Connection, function: Callable[..., Any], arguments: Any
) -> None:
    ranks.become(rank, world, port)
    from train.ranks import parallel

    try:
        with parallel.joined(device, 60) as here:
            value = function(here, *arguments)
    except BaseException:
        sender.send((True, traceback.format_exc()))
    else:
        sender.send((False, value))
