"""Who holds all others up is found, named by all of them and ended; who is only slow is not."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.train import ranks
from train.ranks import heartbeat
from train.ranks.heartbeat import LONGER, Heard, Heartbeat, Word, judge, lost
from train.ranks.parallel import Ranks, joined
from train.ranks.pulse import Pulse

TIMEOUT = 2.0


def word(step: int = 7, collectives: int = 70, moves: int = 30, **more: object) -> Heard:
    silent = float(more.pop("silent", 0.0))  # type: ignore[arg-type]
    return Heard(Word("node", 1, step, str(more.pop("activity", "computes")), moves, collectives, **more), silent)  # type: ignore[arg-type]


def test_the_one_that_all_wait_for_is_named_and_nobody_who_waits() -> None:
    for behind in ({"step": 6}, {"collectives": 69}, {"moves": 29}):
        heard = [word(still=99.0) for _ in range(4)]
        assert (judge([*heard, word(still=99.0, stack="data.py:3 read", **behind)], 10.0) or "").startswith(
            "rank 4 of 5, on node, has not moved for 99 s: at step"
        )
    heard[2] = word(step=6, still=99.0, stack="data.py:3 read")
    assert "at step 6 it computes, in data.py:3 read; the same command" in (judge(heard, 10.0) or "")


def test_the_order_is_step_then_collectives_then_moves() -> None:
    """Rank 0 alone writes reports, and so moves more often than those who wait for it."""
    heard = [word(collectives=69, moves=99, still=11.0), word(still=11.0), word(moves=29, still=11.0)]
    assert "rank 0 of 3" in (judge(heard, 10.0) or "")


def test_as_long_as_the_last_one_moves_nobody_hangs() -> None:
    waiting = [word(step=8, still=500.0), word(step=8, still=400.0)]
    assert judge([*waiting, word(still=9.0)], 10.0) is None
    assert judge([*waiting, word(still=9.0), word(still=99.0)], 10.0) is None, "one of the last two moves"
    assert judge([*waiting, word(still=9.0, silent=2.0)], 10.0) is not None


@pytest.mark.parametrize("activity", sorted(LONGER))
def test_what_may_last_is_given_time_and_so_are_those_who_wait_for_it(activity: str) -> None:
    waiting = [word(still=500.0) for _ in range(3)]
    assert judge([*waiting, word(step=6, activity=activity, still=10.0 * LONGER[activity] - 1)], 10.0) is None
    assert judge([*waiting, word(step=6, activity=activity, still=10.0 * LONGER[activity] + 1)], 10.0) is not None
    assert LONGER[activity] < heartbeat.BACKSTOP, "the groups of processes wait longer than anything that may last"


def test_ranks_that_are_equally_far_are_named_together() -> None:
    said = judge([word(still=99.0, stack=f"a.py:{k} b") for k in range(5)], 10.0) or ""
    assert all(f"rank {k} of 5" in said for k in range(3))
    assert "and 2 more" in said


def test_who_has_left_holds_nobody_up() -> None:
    gone = [word(step=3, still=99.0, left=left) for left in ("done", "lost touch", "an error")]
    assert judge([*gone, word(still=1.0)], 10.0) is None
    assert judge(gone, 10.0) is None


def test_an_error_is_blamed_before_silence_and_those_who_lost_touch_never() -> None:
    touch, dead, failed = word(left="lost touch"), word(silent=9.0), word(left="no disk")
    assert lost([touch, word(), word(left="done", silent=99.0)]) is None
    assert "rank 1 of 2, on node, has ended without a word" in (lost([touch, dead]) or "")
    assert "rank 2 of 3, on node, has ended with an error: no disk" in (lost([touch, dead, failed]) or "")
    assert lost([touch, replace(dead, silent=heartbeat.SILENT / 2)]) is None


def test_one_rank_has_nobody_to_tell() -> None:
    error = ConnectionError("as it was")
    with pytest.raises(ConnectionError) as raised, Heartbeat(Ranks(0, 1, torch.device("cpu")), 0.1) as heart:
        stands_still(heart, error)
    assert raised.value is error


def stands_still(heart: Heartbeat, error: Exception) -> None:
    heart.at(1, "computes")
    time.sleep(0.3)
    raise error


# Processes.


def each(rank: int, world: int, port: int, log: Path, bad: int, fault: str) -> None:
    """Some steps of a run that does nothing but keep its ranks in step; at step 3 the `bad` one has a `fault`."""
    file = log.open("w", buffering=1)
    os.dup2(file.fileno(), 2)
    sys.stdout = sys.stderr = file
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    heartbeat.GRACE = 2.0
    faults: dict[str, Callable[[], object]] = {
        "pause": signal.pause,
        "spin": spin,
        "sleep": lambda: time.sleep(1000),
        "alone": dist.barrier,
        "slow": lambda: time.sleep(0.7 * TIMEOUT),
        "first": lambda: time.sleep(1.5 * TIMEOUT),
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "error": error,
    }
    try:
        with joined("cpu", TIMEOUT * heartbeat.BACKSTOP) as here, Heartbeat(here, TIMEOUT) as heart:
            pulse = Pulse(here, 60)
            for step in range(1, 5):
                heart.at(step, "waits for data")
                time.sleep(0.01)
                heart.at(step, "computes its first step" if fault == "first" else "computes")
                if rank == bad and step == 3:
                    with here.answering():
                        faults[fault]()
                pulse.beat([step])
                here.gather(torch.ones(1, dtype=torch.float64))
            pulse.read()
    except (ValueError, OSError) as raised:
        print(f"worldtrace train: {raised}")
        os._exit(2)
    print("well")


def spin() -> None:
    while True:
        pass


def error() -> None:
    raise ValueError("a fault of this rank alone")


def ended(folder: Path, fault: str, bad: int = 1, world: int = 3) -> tuple[list[int | None], list[str], float]:
    """Exit codes, what each rank said, and the seconds that the run took."""
    port = ranks.free_port()
    logs = [folder / f"{rank}.log" for rank in range(world)]
    made = ranks.CONTEXT.Process
    processes = [made(target=each, args=(k, world, port, logs[k], bad, fault)) for k in range(world)]
    began = time.monotonic()
    for process in processes:
        process.start()
    codes = ranks.join(processes, 60)
    return codes, [log.read_text() for log in logs], time.monotonic() - began


HUNG = [("pause", "pause|each", 1), ("spin", "spin", 1), ("sleep", "<lambda>|each", 0), ("alone", "barrier", 1)]


@pytest.mark.parametrize(
    ("fault", "place", "bad"), [HUNG[0], *(pytest.param(*h, marks=pytest.mark.slow) for h in HUNG[1:])]
)
def test_a_rank_that_hangs_is_named_by_all_and_ended(tmp_path: Path, fault: str, place: str, bad: int) -> None:
    codes, said, seconds = ended(tmp_path, fault, bad)
    assert codes == [2, 2, 2], said
    assert seconds < 45, "much less, but that this machine may be busy"
    for text in said:
        assert text.count("worldtrace train: ") == 1, text
        assert f"rank {bad} of 3, on {socket.gethostname()}, has not moved for " in text
        assert "at step 3 it computes, in " in text
        assert any(f" {name}" in text for name in place.split("|")), text


@pytest.mark.parametrize("fault", ["slow", pytest.param("first", marks=pytest.mark.slow)])
def test_a_rank_that_is_slow_or_compiles_is_not_called_hung(tmp_path: Path, fault: str) -> None:
    codes, said, _ = ended(tmp_path, fault)
    assert codes == [0, 0, 0], said
    assert said == ["well\n"] * 3


@pytest.mark.slow  # with the next one: test_parallel and test_faults do so in whole runs
@pytest.mark.parametrize("bad", [1, 0])
def test_a_killed_rank_is_named_by_those_who_lose_it(tmp_path: Path, bad: int) -> None:
    codes, said, _ = ended(tmp_path, "kill", bad)
    assert codes == [-signal.SIGKILL if rank == bad else 2 for rank in range(3)]
    for rank in set(range(3)) - {bad}:
        assert (
            f"rank {bad} of 3, on {socket.gethostname()}, has ended without a word, as one that was killed"
            in said[rank]
        )


@pytest.mark.slow
def test_an_error_of_one_rank_is_told_by_all(tmp_path: Path) -> None:
    codes, said, _ = ended(tmp_path, "error")
    assert codes == [2, 2, 2]
    assert said[1] == "worldtrace train: a fault of this rank alone\n"
    for rank in (0, 2):
        assert "rank 1 of 3, on " in said[rank]
        assert "has ended with an error: a fault of this rank alone; the same command" in said[rank]
