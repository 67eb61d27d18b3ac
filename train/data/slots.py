"""How a batch gets from a worker to the trainer: memory that both share, used again for every batch.

torch moves every tensor through a new file of shared memory, whose pages the system clears and maps one by one: at 504
x 504 that takes longer than decoding the sample. Here a worker has a few slots that stay mapped in both processes. A
slot is free again when the last tensor that lies in it is gone, wherever that tensor went. A worker that finds none
free hands the batch over as torch does. The memory is anonymous: it does not count against the size of /dev/shm, which
is 64 MB in a container.
"""

import mmap
import multiprocessing
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from train.data.batch import Batch, Form, Unusable, joined, placed, size_of


@dataclass(frozen=True)
class Parcel:
    """A batch in a slot, as it goes through the queue."""

    pool: int
    slot: int
    count: int
    damaged: tuple[Unusable, ...]

    def open(self) -> Batch:
        """The batch, in the memory of its slot."""
        return _POOLS[self.pool].open(self)

    def pin_memory(self) -> Batch:
        """Called by the DataLoader's thread: the batch in pinned memory of its own."""
        return self.open().pin_memory()


_POOLS: "weakref.WeakValueDictionary[int, Slots]" = weakref.WeakValueDictionary()  # of this process, by their number


class Slots:
    """`each` slots for each of `workers` processes, for batches of at most `count` samples of a form.

    Make it before the workers are forked, and keep it until they have ended. Pages take memory once they are used.
    """

    def __init__(self, workers: int, each: int, count: int, form: Form) -> None:
        self.each, self.count, self.form = each, count, form
        self.memory = [mmap.mmap(-1, size_of(count, form)) for _ in range(workers * each)]
        self.free = [multiprocessing.Semaphore(1) for _ in self.memory]
        self.number = id(self)
        _POOLS[self.number] = self

    def joined(self, items: Sequence[Batch], worker: int) -> Batch | Parcel:
        """In a worker: `items` in a free slot of its own, or as a plain batch if it has none or they do not fit."""
        if len(items) <= self.count and all(item.form == self.form for item in items):
            for slot in range(worker * self.each, (worker + 1) * self.each):
                if self.free[slot].acquire(block=False):
                    batch = joined(items, torch.frombuffer(self.memory[slot], dtype=torch.uint8))
                    return Parcel(self.number, slot, len(batch.index), batch.damaged)
        return joined(items)

    def open(self, parcel: Parcel) -> Batch:
        """In the process that made the slots: the batch. Its tensors lie in the slot, free once they are gone."""
        content = np.frombuffer(self.memory[parcel.slot], np.uint8)
        weakref.finalize(content, self.free[parcel.slot].release).atexit = False
        memory: Tensor = torch.from_numpy(content)  # its storage holds on to `content`, and every view to the storage
        return Batch(**placed(memory, parcel.count, self.form), damaged=parcel.damaged)


def can_share() -> bool:
    """Whether workers inherit memory: where they are forked, as the DataLoader's are on Linux."""
    return multiprocessing.get_start_method() == "fork"
