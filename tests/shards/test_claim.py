"""Who may write: leases of an object store, whatever the clocks say, and holders that stall, die or wake up late."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from shards.store import lease, open_store
from shards.store.bucket import ObjectStore
from shards.store.lease import Lease
from tests import s3


@pytest.fixture(scope="module")
def server() -> Iterator[s3.Server]:
    with s3.serving() as server:
        yield server


@pytest.fixture(params=["s3", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """Its leases beat every 50 ms, and count as dead after half a second."""
    monkeypatch.setattr(lease, "BEAT", 0.05)
    monkeypatch.setattr(lease, "PATIENCE", 0.5)
    monkeypatch.setattr(lease, "SETTLE", 0.1)
    if request.param == "s3":
        request.getfixturevalue("server")
    store = open_store(f"{request.param}://{s3.BUCKET}/{time.monotonic_ns()}")
    assert isinstance(store, ObjectStore)
    return store


def stalled(store: ObjectStore) -> Lease:
    """A holder whose process stands still: it holds the lease and does not beat."""
    token = f"process 1 on elsewhere #{time.monotonic_ns()}"
    assert lease._created(store, token)
    return Lease(store, token)


def test_a_living_holder_is_named_and_not_disturbed(store: ObjectStore) -> None:
    said: list[str] = []
    with store.claim() as first:
        for _ in range(2):
            with pytest.raises(ValueError, match=r"is being written by process \d+ on .*: wait for it"):
                store.claim(said.append).__enter__()
        first.check()
    assert "waiting up to 0.5 s to see whether that job lives" in said[0]
    with store.claim():
        pass


def test_a_dead_holder_is_followed(store: ObjectStore) -> None:
    stalled(store)
    begin = time.monotonic()
    with store.claim() as claim:
        assert time.monotonic() - begin >= lease.PATIENCE
        claim.check()


@pytest.mark.parametrize("clock", [0.0, 4e9])
def test_no_clock_is_looked_at(store: ObjectStore, clock: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A holder that lives is kept, and a dead one followed, by a machine whose clock is off by decades."""
    with store.claim(), monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: clock)
        with pytest.raises(ValueError, match="is being written"):
            store.claim().__enter__()
    stalled(store)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: clock) if store.scheme == "memory" else None  # S3 signs with the clock
        with store.claim():
            pass


def test_a_holder_that_wakes_up_after_it_was_followed_stops_and_touches_nothing(store: ObjectStore) -> None:
    first = stalled(store)
    with store.claim() as second:
        first.start()  # it wakes up
        deadline = time.monotonic() + 10
        while not first.lost and time.monotonic() < deadline:
            time.sleep(0.02)
        assert first.lost
        with pytest.raises(ValueError, match=r"was taken over by process \d+ on .* while this one was stalled"):
            first.check()
        first.release()
        second.check()
        assert store.top() == [".render.lock"]
    assert store.top() == []


def test_it_need_not_have_beaten_to_find_out(store: ObjectStore) -> None:
    """Between two beats: `check` itself asks."""
    first = stalled(store)
    with store.claim():
        assert not first.lost
        with pytest.raises(ValueError, match="was taken over"):
            first.check()
        assert first.lost


def test_of_many_at_the_same_moment_one_holds(store: ObjectStore) -> None:
    held: list[object] = []
    refused: list[str] = []
    together = threading.Barrier(5)

    def take(stack: ExitStack) -> None:
        together.wait()
        try:
            held.append(stack.enter_context(store.claim()))
        except ValueError as error:
            refused.append(str(error))

    with ExitStack() as stack:
        threads = [threading.Thread(target=take, args=(stack,)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(held), len(refused)) == (1, 4)


def test_a_lease_that_somebody_removed_is_lost(store: ObjectStore) -> None:
    with store.claim() as claim:
        store.delete([".render.lock"])
        with pytest.raises(ValueError, match="was taken over by another job"):
            claim.check()


def test_a_lost_answer_costs_no_lease(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease was written, its answer went missing, and the request that follows meets it."""
    whole = lease._put

    def twice(store: ObjectStore, token: str, beats: int, **condition: object) -> None:
        whole(store, token, beats, **condition)
        if condition:
            whole(store, token, beats, **condition)

    monkeypatch.setattr(lease, "_put", twice)
    said: list[str] = []
    with store.claim(said.append) as claim:
        claim.check()
    assert said == []
    assert store.top() == []


def test_whatever_a_client_raises_the_lease_is_renewed(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    renewed, whole = threading.Event(), lease._put

    def odd(store: ObjectStore, token: str, beats: int, **condition: object) -> None:
        if beats == 1:
            raise RuntimeError("the client's loop is closed")
        whole(store, token, beats, **condition)
        if beats > 1:
            renewed.set()

    monkeypatch.setattr(lease, "_put", odd)
    with store.claim() as claim:
        assert renewed.wait(10)
        claim.check()


def test_nobody_waits_for_a_store_that_does_not_answer(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answered, whole = threading.Event(), threading.Event(), lease._put

    def slow(store: ObjectStore, token: str, beats: int, **condition: object) -> None:
        if beats:
            asked.set()
            answered.wait(20)
        else:
            whole(store, token, beats, **condition)

    monkeypatch.setattr(lease, "_put", slow)
    monkeypatch.setattr(lease, "PARTING", 0.1)
    with store.claim():
        assert asked.wait(10)
        begin = time.monotonic()
    assert time.monotonic() - begin < 5
    answered.set()


def test_a_damaged_lease_is_that_of_a_dead_holder(store: ObjectStore) -> None:
    store.write(".render.lock", b"\xff{")
    with store.claim() as claim:
        claim.check()


def test_a_store_that_cannot_be_reached_for_a_while_costs_no_lease(
    server: s3.Server, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    if store.scheme != "s3":
        pytest.skip("it is always reached")
    monkeypatch.setattr("shards.store.bucket.PATIENCE", 0.0)
    with store.claim() as claim:
        with monkeypatch.context() as patch:
            patch.setattr(server, "refuse", lambda method, path: ("403", "AccessDenied"))
            time.sleep(0.3)
        claim.check()
        assert not claim.lost
