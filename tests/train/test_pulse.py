"""What ranks say at every step arrives on all of them, in the same bits, without one waiting for another."""

import time

import torch

from tests.train import several
from train.ranks.parallel import Ranks
from train.ranks.pulse import Pulse


def numbers(ranks: Ranks) -> list[list[list[float]] | None]:
    pulse, found = Pulse(ranks, 30), []
    for step in range(4):
        found.append(pulse.read())
        pulse.beat([step + ranks.rank / 10, 1 / 3])
    found.append(pulse.read())
    assert pulse.read() is found[-1], "to read again waits for nothing and changes nothing"
    return [None if each is None else each.tolist() for each in found]


def test_every_rank_reads_what_all_said_a_beat_before() -> None:
    for found in several.on(3, numbers):
        assert found[0] is None
        assert found[1:] == [[[step + rank / 10, 1 / 3] for rank in range(3)] for step in range(4)]


def test_one_rank_hears_itself_with_the_same_delay() -> None:
    assert numbers(Ranks(0, 1, torch.device("cpu"))) == [None, *([[float(step), 1 / 3]] for step in range(4))]


def without_waiting(ranks: Ranks) -> float:
    """Seconds until a beat is sent, when another rank sends its own a second later."""
    pulse = Pulse(ranks, 30)
    ranks.gather_objects(None)
    if ranks.first:
        time.sleep(1.0)
    began = time.monotonic()
    pulse.beat([1.0])
    sent = time.monotonic() - began
    pulse.read()
    return sent


def test_to_beat_waits_for_nobody() -> None:
    assert max(several.on(2, without_waiting)) < 0.7


def lagging(ranks: Ranks) -> tuple[int, float]:
    pulse = Pulse(ranks, 30)
    for _ in range(6):
        time.sleep(0.1 if ranks.rank == 2 else 0.0)
        pulse.beat([])
        pulse.read()
    return pulse.slowest()


def test_the_rank_that_others_wait_for_is_known_to_all() -> None:
    found = several.on(3, lagging)
    assert found[0] == found[1] == found[2]
    rank, seconds = found[0]
    assert rank == 2
    assert 0.03 < seconds < 0.3
