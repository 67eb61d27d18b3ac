"""Finding the rank that hangs: a thread of every rank says what its main thread does, and one judges who holds all up.

A rank that hangs stops all others, for they wait for it; with NCCL their main threads wait in C, where neither a signal
nor an exception reaches them. So it is threads that notice, and they end their processes. What a rank says of itself
(step, activity, how often it moved, how many collectives it has entered, seconds since any of that changed, and once it
is late the stack of its main thread) lies in a store that rank 0 keeps. The thread of rank 0 reads it every second.

All ranks stand still when one hangs. The one to name is the furthest behind: the least step, of these the fewest
collectives entered (the others have entered the one that it is missing from), of these the fewest moves. It has its own
patience (`LONGER`); those who wait for it need none. Ranks that are equally far (a GPU that hangs, a collective that
cannot end) are named together.

Whoever ends with an error says so too; whoever is killed falls silent. So a rank that loses its connections learns from
the store whose doing it was.
"""

import json
import multiprocessing
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, NoReturn, TypeVar, cast

import torch.distributed as dist

from train.ranks.parallel import Ranks

T = TypeVar("T")

# How much longer than `parallel.timeout` an activity may last: compilation takes minutes, a file system may stall.
LONGER: Mapping[str, float] = {
    "starts": 3.0,
    "computes its first step": 6.0,
    "evaluates": 3.0,
    "saves a checkpoint": 3.0,
    "ends": 3.0,
}
# What the groups of processes wait themselves, in units of `parallel.timeout`: where all of this fails, and longer than
# any activity, for the others sit in a collective meanwhile.
BACKSTOP = max(LONGER.values()) + 1.0
EVERY = 1.0  # seconds between two looks; a tenth of the timeout if that is less
SILENT = 3.0  # seconds without a word after which a rank is taken for dead, by those who have lost their connections
TELLING = 3.0  # seconds that a verdict is left to travel before its judge ends
GRACE = 10.0  # seconds that main threads have to end by themselves after a rank has met an error
PATIENT = 30.0  # seconds for an answer of the store

DONE, ASKS, LOST_TOUCH = "done", "asks who was lost", "lost touch"
NAMED = 3  # ranks, at most, of those that are equally far
FRAMES = 7  # of a stack
ROOT = Path(__file__).parents[2]
KILLED = "without a word, as one that was killed"
RESUMES = "the same command goes on from the newest checkpoint"


@dataclass(frozen=True)
class Word:
    """What a rank says of itself. `count` goes up with every word; `still`: seconds since the main thread last moved.

    `left`: "" while it runs, then `DONE`, the error it ended with, or where it lost its connections `ASKS` as long as
    it looks for the reason, and `LOST_TOUCH`.
    """

    host: str
    count: int = 0
    step: int = 0
    activity: str = "starts"
    moves: int = 0
    collectives: int = 0
    still: float = 0.0
    stack: str = ""
    left: str = ""

    @property
    def behind(self) -> tuple[int, int, int]:
        """Order of progress: the least is the one that is waited for."""
        return self.step, self.collectives, self.moves

    @property
    def failed(self) -> bool:
        return self.left not in ("", DONE, ASKS, LOST_TOUCH)


@dataclass(frozen=True)
class Heard:
    """A word, and the seconds for which nothing newer has come."""

    word: Word
    silent: float = 0.0

    def late(self, timeout: float) -> bool:
        return self.word.still + self.silent > timeout * LONGER.get(self.word.activity, 1.0)


def judge(heard: Sequence[Heard], timeout: float) -> str | None:
    """One sentence about who has held all others up for too long, or None.

    Only the ranks that are furthest behind are looked at: as long as one of them moves, all may.
    """
    running = [(rank, each) for rank, each in enumerate(heard) if not each.word.left]
    if not running:
        return None
    least = min(each.word.behind for _, each in running)
    last = [(rank, each) for rank, each in running if each.word.behind == least]
    if not all(each.late(timeout) for _, each in last):
        return None
    if len(last) == 1:
        return f"{_still(*last[0], len(heard))}; {RESUMES}"
    told = "; ".join(_still(rank, each, len(heard)) for rank, each in last[:NAMED])
    more = f"; and {len(last) - NAMED} more" if len(last) > NAMED else ""
    return f"ranks that are equally far wait for one another or for their devices: {told}{more}; {RESUMES}"


def lost(heard: Sequence[Heard]) -> str | None:
    """One sentence about a rank that has ended with an error, or fallen silent; None where none has."""
    for rank, each in enumerate(heard):
        if each.word.failed:
            return f"{_where(rank, each.word, len(heard))} has ended with an error: {each.word.left}; {RESUMES}"
    for rank, each in enumerate(heard):
        if not each.word.left and each.silent > SILENT:
            last = f"(last heard of at step {each.word.step}, when it {each.word.activity})"
            return f"{_where(rank, each.word, len(heard))} has ended {KILLED} {last}; {RESUMES}"
    return None


class Heartbeat:
    """Collective; to be used in a `with` block around all that a run does, by its main thread.

    `timeout`: seconds without a move after which the rank that holds all others up is named by every rank (`LONGER`
    says for what it may take longer). `end` is given the sentence, in another thread, and must not return.

    An error that leaves the block is told to the others. A ConnectionError, which says only that somebody is gone,
    leaves it as one that names who and why, where that can be known.
    """

    def __init__(self, ranks: Ranks, timeout: float, end: Callable[[str], Any] | None = None) -> None:
        self.ranks, self.timeout, self.end = ranks, timeout, end or say_and_end
        self.host = socket.gethostname()
        self.every = min(EVERY, timeout / 10)
        self._main = threading.get_ident()
        self._now: tuple[int, str, int] = (0, "starts", 0)  # step, activity, moves: replaced as one
        self._left = ""
        self._wake = threading.Event()
        self._count = 0
        self._moved, self._seen = time.monotonic(), (self._now, 0)
        self._thread: threading.Thread | None = None
        if ranks.world > 1:
            self._store, self._hosts = self._open()
            self._thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)

    def at(self, step: int, activity: str) -> None:
        """The main thread is about to do this. Costs nothing; call it as often as there is something to tell.

        A verb that a sentence can take ("computes"), those in `LONGER` for what may last. All ranks tell the same steps
        in the same order. A long activity that tells once per batch or file has the whole patience for each of them.
        """
        self._now = step, activity, self._now[2] + 1

    def __enter__(self) -> "Heartbeat":
        if self._thread is not None:
            self._moved = time.monotonic()
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._thread is None:
            return
        alone = isinstance(error, ConnectionError)
        self._left = DONE if error is None else ASKS if alone else _brief(error)
        self._wake.set()
        named = self._who_was_lost() if alone else None
        if alone:
            self._left = LOST_TOUCH
        # Rank 0 keeps the store until the others have left, or for as long as they may need to see that it has.
        self._thread.join(PATIENT if error is None else GRACE + TELLING)
        if named is not None:
            raise ConnectionError(f"rank {self.ranks.rank} of {self.ranks.world}, on {self.host}: {named}") from error

    def _open(self) -> tuple[Any, list[str]]:
        """The store, and the hosts of all ranks. Rank 0 keeps it on a free port, where the others know it to be."""
        server = None
        common: dict[str, Any] = {"timeout": timedelta(seconds=PATIENT), "wait_for_workers": False}
        with self.ranks.answering():
            if self.ranks.first:
                server = dist.TCPStore("127.0.0.1", 0, is_master=True, **common)
            port = self.ranks.tell(server.port if server else 0)
            hosts = self.ranks.gather_objects(self.host)
            if server is not None:
                server.set("verdict", "")
                for rank, host in enumerate(hosts):
                    server.set(_key(rank), _packed(Word(host)))
            self.ranks.gather_objects(None)
            address = os.environ.get("MASTER_ADDR") or hosts[0]
            return server or dist.TCPStore(address, port, is_master=False, **common), hosts

    # The thread.

    def _watch(self) -> None:
        """Ends when the main thread has left, or with the process."""
        try:
            verdict = _unless_it_stalls(self._look_on, self.timeout + PATIENT, self.every, lambda: self._count)
        except Exception as error:  # of the store, which goes with rank 0
            time.sleep(GRACE)
            verdict = f"rank 0 of {self.ranks.world}, on {self._hosts[0]}, cannot be reached any more"
            verdict += f" ({_brief(error)}); {RESUMES}"
        if verdict is None:
            return
        if self.ranks.first or verdict.startswith(f"rank {self.ranks.rank} of "):
            time.sleep(TELLING)  # the store stays until the others have read it, and they are the first to say it
        if not self._left:  # else the main thread is on its way out, with an error of its own
            self.end(verdict)

    def _look_on(self) -> str | None:
        """Tell and listen until the run must end, and say why; None where the main thread has left."""
        ears = _Ears(self._store)
        looked, failed = time.monotonic(), 0.0
        while True:
            if self._left:
                time.sleep(self.every / 10)
            else:
                self._wake.wait(self.every)
            now = time.monotonic()
            if now - looked > self.every + self.timeout / 2:  # this process was stopped, perhaps with all others
                self._moved += now - looked
                ears = _Ears(self._store)
            looked = now
            self._tell()
            if not self.ranks.first:
                if self._left not in ("", ASKS):
                    return None
                verdict: str = self._store.get("verdict").decode()
                (first,) = ears.listen([0])
                if not verdict and first.silent > self.timeout * LONGER.get(first.word.activity, 1.0):
                    verdict = f"{_still(0, first, self.ranks.world)}; {RESUMES}"
                if verdict:
                    return verdict
                continue
            heard = ears.listen(range(self.ranks.world))
            gone = [each.word.left not in ("", ASKS) or each.silent > SILENT for each in heard[1:]]
            if self._left not in ("", ASKS) and all(gone):
                return None
            said = lost([replace(each, silent=0.0) for each in heard])
            failed = (failed or now) if said else 0.0
            found = judge(heard, self.timeout) or (said if failed and now - failed > GRACE else None)
            if found is not None:
                self._store.set("verdict", found)
                return found

    def _tell(self) -> None:
        """Put this rank's word into the store."""
        if (seen := (self._now, _collectives())) != self._seen:
            self._seen, self._moved = seen, time.monotonic()
        (step, activity, moves), collectives = self._seen
        still = time.monotonic() - self._moved
        stack = _stack(self._main) if still > self.timeout * LONGER.get(activity, 1.0) / 2 else ""
        self._count += 1
        word = Word(self.host, self._count, step, activity, moves, collectives, still, stack, self._left)
        self._store.set(_key(self.ranks.rank), _packed(word))

    def _who_was_lost(self) -> str | None:
        """After a lost connection: wait a moment until it is known who has ended."""
        first = f"rank 0 of {self.ranks.world}, on {self._hosts[0]},"
        try:
            return _unless_it_stalls(self._ask_who_was_lost, SILENT + 4 * EVERY, EVERY / 2, lambda: 0)
        except TimeoutError:
            return f"{first} does not answer any more; {RESUMES}"
        except RuntimeError:
            return f"{first} has ended {KILLED}; {RESUMES}"

    def _ask_who_was_lost(self) -> str | None:
        ears = _Ears(self._store)
        until = time.monotonic() + SILENT + 2 * EVERY
        others = [rank for rank in range(self.ranks.world) if rank != self.ranks.rank]
        while time.monotonic() < until:
            if verdict := self._store.get("verdict").decode():
                return str(verdict)
            heard = [Heard(Word(self.host, left=LOST_TOUCH)) for _ in self._hosts]
            for rank, each in zip(others, ears.listen(others)):
                heard[rank] = each
            if (named := lost(heard)) is not None:
                return named
            time.sleep(EVERY / 2)
        return None


class _Ears:
    """What the ranks have said, and since when they have said nothing newer."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._last: dict[int, tuple[bytes, float]] = {}

    def listen(self, who: Sequence[int]) -> list[Heard]:
        heard = []
        for rank, raw in zip(who, self._store.multi_get([_key(rank) for rank in who])):
            before, since = self._last.get(rank, (b"", 0.0))
            since = since if raw == before else time.monotonic()
            self._last[rank] = raw, since
            heard.append(Heard(Word(**json.loads(raw)), time.monotonic() - since))
        return heard


def say_and_end(sentence: str) -> None:
    print(f"worldtrace train: {sentence}", file=sys.stderr, flush=True)
    leave()


def leave() -> NoReturn:
    """End this process, whatever its main thread waits for, and those that decode samples for it: one of them may be
    what it waits for, and nobody else would ever end that.
    """
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(2)


def _unless_it_stalls(do: Callable[[], T], seconds: float, every: float, progress: Callable[[], int]) -> T:
    """What `do` returns or raises, in a thread; TimeoutError where `progress` has stood still for so long.

    Whoever asks the store of a machine that went without closing its connections is kept in C for ever. Looks are
    counted rather than a clock, which also goes while this process is stopped.
    """
    answer: SimpleQueue[tuple[T | None, Exception | None]] = SimpleQueue()

    def work() -> None:
        try:
            answer.put((do(), None))
        except Exception as error:
            answer.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    looks, before = 0, progress()
    while True:
        try:
            value, error = answer.get(timeout=every)
        except Empty:
            looks, before = (looks + 1, before) if progress() == before else (0, progress())
            if looks * every > seconds:
                raise TimeoutError(f"no answer for {seconds:.0f} s") from None
            continue
        if error is not None:
            raise error
        return cast(T, value)


def _where(rank: int, word: Word, world: int) -> str:
    return f"rank {rank} of {world}, on {word.host},"


def _still(rank: int, heard: Heard, world: int) -> str:
    word = heard.word
    place = f"in {word.stack}" if word.stack else "where its process does not say"
    where, seconds = _where(rank, word, world), word.still + heard.silent
    return f"{where} has not moved for {seconds:.0f} s: at step {word.step} it {word.activity}, {place}"


def _key(rank: int) -> str:
    return f"rank {rank}"


def _packed(word: Word) -> str:
    return json.dumps(asdict(word))


def _brief(error: BaseException) -> str:
    return " ".join(f"{error}".split())[:300] or type(error).__name__


def _collectives() -> int:
    """How many this process has entered, in all of its groups together."""
    entered = 0
    try:
        for group in list(dist.distributed_c10d._world.pg_map):
            for device in group._device_types:
                backend: Any = group._get_backend(device)
                entered += backend._get_sequence_number_for_group()
    except (RuntimeError, AttributeError):  # a backend that does not count
        return 0
    return entered


def _stack(thread: int) -> str:
    """Where a thread is, from the inside out: two frames, and those of this project."""
    frame = sys._current_frames().get(thread)
    places: list[str] = []
    while frame is not None and len(places) < FRAMES:
        path = Path(frame.f_code.co_filename)
        if len(places) < 2 or (path.is_relative_to(ROOT) and ".venv" not in path.parts):
            places.append(f"{'/'.join(path.parts[-2:])}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return " < ".join(places)
