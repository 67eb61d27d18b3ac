"""Saving while training goes on: all ranks copy their shares to the CPU, and a thread of each writes them.

The threads agree over a process group of their own, so what they say never meets what the ranks say to one another in
training. A checkpoint counts when all have written and rank 0 has given it its name; the outcome is the same on all.
"""

import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from train.checkpoints import layout
from train.checkpoints.pieces import Share, Tensors

if TYPE_CHECKING:
    from train.ranks.parallel import Ranks

LEAVING = 60.0  # seconds that a run which ends by an error gives a save that is under way


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is whole. `blocked`: seconds that training stood still for it; `seconds`: until it was whole;
    `bytes`: written by this rank."""

    step: int
    path: Path
    bytes: int
    blocked: float
    seconds: float


@dataclass(eq=False)
class _Pending:
    step: int
    token: str
    state: Mapping[str, Any]
    began: float
    blocked: float = 0.0
    seconds: float = 0.0
    failure: str | None = None
    cause: Exception | None = None  # of this rank alone, before its thread began
    lost: bool = False  # touch with other ranks
    notes: list[str] = field(default_factory=list)
    thread: threading.Thread | None = None


class Checkpoints:
    """The checkpoints of a run in `out`; the newest `keep` stay. All `ranks` make it, and call `save`, together.

    `say` speaks for the run, so it is called on rank 0 alone. `timeout`: seconds from its beginning after which a save
    that does not end is waited for no more, as when a file system hangs; while it hangs no other one begins.
    """

    def __init__(
        self, out: str | Path, keep: int, ranks: "Ranks", say: Callable[[str], None] = print, timeout: float = 600.0
    ) -> None:
        self.out, self.keep, self.ranks, self.timeout = Path(out), keep, ranks, timeout
        self.say = say if ranks.first else lambda _: None
        left = layout.sweep(self.out) if ranks.first else []
        if left:
            self.say(f"{len(left)} unfinished checkpoints of a run that was killed are removed from {self.out}")
        self._session = ranks.tell(secrets.token_hex(4))
        self._group = self._new_group()
        self._share = Share(ranks.rank, pin=ranks.device.type == "cuda")
        self._pending: _Pending | None = None
        self._done: list[Saved] = []  # and not asked for yet
        self._count, self._newest = 0, -1

    def prepare(self, tensors: Tensors) -> None:
        """Let the memory for the copies be taken while other work goes on: on CUDA it is pinned, which takes seconds.

        `tensors` as they will be saved; nothing is copied. Without it the first `save` does this.
        """
        self._share.prepare(tensors)

    def save(self, step: int, tensors: Tensors, state: Mapping[str, Any], wait: bool = False) -> None:
        """Begin a checkpoint; training may go on when this returns. `state` is JSON; rank 0's counts.

        One that is still under way is waited for first. `wait`: return when it is whole, and raise OSError, on all
        ranks, if it cannot be written; else `settle` says so.
        """
        asked = time.perf_counter()
        if self._pending is not None and self._alive():
            if self._pending.step != step:
                self.say(f"checkpoint {self._pending.step} is still being written; training waits for it")
            self._join(self.timeout if wait else self._left(self._pending))
        states = self.ranks.gather_objects((self._alive(), self._pending is not None and self._pending.lost))
        if any(alive for alive, _ in states):
            late = f"{self._where(step)} is not written: the one before is not done after {self.timeout:g} seconds"
            if wait:
                raise OSError(late)
            self.say(f"{late}; training goes on")
            return
        if any(lost for _, lost in states):  # a rank was too late for an answer; what it said then meets no other word
            self._group = self._new_group()
            if self.ranks.first:
                layout.sweep(self.out)  # what was written of it; no thread writes any more
        self._collect()
        if self._newest != step:
            self._begin(step, tensors, state, asked)
        if wait:
            self._collect(last=True)

    def settle(self, last: bool = False) -> Saved | None:
        """The next checkpoint that has become whole since this was last asked, if one has. Needs no other rank.

        One that failed is said; the ones before it stay. `last`: wait for what is under way, and raise OSError if it
        failed.
        """
        self._collect(last)
        return self._done.pop(0) if self._done else None

    def close(self) -> None:
        """Wait for what is under way, but not for long, and say if it failed: a run that fails is still saved."""
        self._join(min(LEAVING, self.timeout))
        self._share.leave()
        self._collect(going_on=False)
        if self._pending is not None:
            self.say(f"{self._where(self._pending.step)} was not finished; the checkpoints before it stay")

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _collect(self, last: bool = False, going_on: bool = True) -> None:
        """Hear how what was under way has ended, if it has."""
        pending = self._pending
        if pending is None:
            return
        if last:
            self._join(self.timeout)
        if self._alive():
            if last:
                raise OSError(f"{self._where(pending.step)} is not written: not done in {self.timeout:g} seconds")
            return
        self._pending = None
        for note in pending.notes:
            self.say(note)
        if pending.failure is not None:
            if last:
                raise OSError(pending.failure)
            self.say(f"{pending.failure}; {'training goes on, and ' if going_on else ''}the checkpoints before it stay")
            return
        self._newest = pending.step
        self._done.append(
            Saved(pending.step, self._where(pending.step), self._share.bytes, pending.blocked, pending.seconds)
        )

    def _where(self, step: int) -> Path:
        return layout.final(self.out, step)

    def _alive(self) -> bool:
        return self._pending is not None and self._pending.thread is not None and self._pending.thread.is_alive()

    def _join(self, seconds: float) -> None:
        if self._pending is not None and self._pending.thread is not None:
            self._pending.thread.join(seconds)

    def _left(self, pending: _Pending) -> float:
        return max(0.0, pending.began + self.timeout - time.perf_counter())

    def _new_group(self) -> dist.ProcessGroup | None:
        """Of the threads of all ranks, which make it together. It waits no longer for a rank than a save may last."""
        if self.ranks.world == 1:
            return None
        return dist.new_group(backend="gloo", timeout=timedelta(seconds=self.timeout))

    def _begin(self, step: int, tensors: Tensors, state: Mapping[str, Any], asked: float) -> None:
        self._count += 1
        pending = _Pending(step, f"{self._session}-{self._count}", state, asked)
        try:
            self._share.stage(tensors)
        except Exception as error:  # such as too little memory: the others have to hear of it
            pending.cause = error
        self._pending = pending
        # A daemon, so that a process which has to end can.
        thread = threading.Thread(target=self._run, args=(pending,), name=f"checkpoint {step}", daemon=True)
        try:
            thread.start()
            pending.thread = thread
        except RuntimeError as error:  # too many threads; the other ranks have theirs, and wait for this one's word
            pending.cause = pending.cause or error
            self._run(pending)
        pending.blocked = time.perf_counter() - asked

    def _run(self, pending: _Pending) -> None:
        try:
            self._write(pending)
        except Exception as error:
            pending.lost = isinstance(error, ConnectionError)
            pending.failure = f"{self._where(pending.step)} cannot be written: {' '.join(str(error).split())[:300]}"
        pending.seconds = time.perf_counter() - pending.began

    def _write(self, pending: _Pending) -> None:
        here = layout.temporary(self.out, pending.step, pending.token)
        written, problem = {}, None
        try:
            if pending.cause is not None:
                raise pending.cause
            written = self._share.write(here)
        except Exception as error:
            of = f"rank {self.ranks.rank} on {socket.gethostname()}: " if self.ranks.world > 1 else ""
            problem = f"{self._where(pending.step)} cannot be written: {of}{' '.join(str(error).split())}"
        parts = self._gather((written, problem))
        failure = next((problem for _, problem in parts if problem), None)
        if self.ranks.first and failure is None:
            try:
                files = {name: entry for written, _ in parts for name, entry in written.items()}
                layout.publish(self.out, pending.step, pending.token, files, pending.state, self.ranks.world)
            except Exception as error:
                failure = f"{self._where(pending.step)} cannot be written: {' '.join(str(error).split())}"
            else:
                try:
                    layout.retain(self.out, pending.step, self.keep, pending.token)
                except OSError as error:
                    pending.notes.append(f"an old checkpoint cannot be removed: {error}")
        if self.ranks.first and failure is not None:
            shutil.rmtree(here, ignore_errors=True)
        try:
            pending.failure = self._gather(failure)[0]
        except ConnectionError as error:  # a rank has ended since; rank 0 knows how it went
            pending.lost = True
            pending.failure = failure
            if not self.ranks.first:
                pending.failure = f"{self._where(pending.step)} is whole only if rank 0 could write it; {error}"

    def _gather(self, own: Any) -> list[Any]:
        if self._group is None:
            return [own]
        found: list[Any] = [None] * self.ranks.world
        try:
            dist.all_gather_object(found, own, group=self._group)
        except RuntimeError as error:
            raise ConnectionError("another rank has ended, or does not answer") from error
        return found
