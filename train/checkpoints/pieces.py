"""What one rank writes of a checkpoint: which pieces of which tensors, their copy on the CPU, and their files.

The files are safetensors as torch.distributed.checkpoint writes them with `HuggingFaceStorageWriter(
save_distributed=True)`: each has pieces of tensors, and in its metadata where in the whole tensor they begin. Its
reader reads them. We do not use its writer, which builds each file in memory under the interpreter's lock, while
training wants it; nor its planning, where rank 0 hears of every piece of every rank: each rank knows from the meshes
alone what it has to write.
"""

import contextlib
import hashlib
import json
import os
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import create_default_local_save_plan
from torch.distributed.tensor import DTensor, Replicate

from train.checkpoints.layout import workers

Tensors = Mapping[str, Mapping[str, Tensor]]
PART = 256 << 20  # bytes of a file, and of a block of pinned memory, which is handed out in powers of two
STRIDE = 8 << 20  # bytes hashed and written at a time
LEAVING = 5.0  # seconds that a run which ends gives the memory that is just being pinned
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Piece:
    """A box of a tensor that this rank writes: its first corner in the whole tensor, its sizes and bytes."""

    name: str
    corner: tuple[int, ...]
    sizes: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return torch.Size(self.sizes).numel() * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class Part:
    """One file: its name, its header, and the memory that its data are copied to; `views` are of that memory."""

    file: str
    group: str
    header: bytes
    memory: Tensor
    views: dict[str, Tensor]


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor."""
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach()


def pieces(tensors: Mapping[str, Tensor], first: bool) -> list[Piece]:
    """The pieces that this rank writes. Of those that several hold, one does, such that each has about as much to do;
    plain tensors, which all hold, are written by the `first` rank. All ranks pass the same names."""
    loads: dict[int, list[int]] = {}
    mine = []
    for item in create_default_local_save_plan(dict(tensors), first).items:
        tensor, chunk = tensors[item.index.fqn], item.tensor_data.chunk  # type: ignore[union-attr]
        if isinstance(tensor, DTensor):
            number, copies = _copy(tensor)
            load = loads.setdefault(copies, [0] * copies)
            writer = load.index(min(load))
            load[writer] += tensor.numel() * tensor.dtype.itemsize
            if writer != number or (not chunk.sizes.numel() and tensor.numel()):
                continue
        elif not first:
            continue
        mine.append(Piece(item.index.fqn, tuple(chunk.offsets), tuple(chunk.sizes), tensor.dtype))
    return mine


def _copy(tensor: DTensor) -> tuple[int, int]:
    """Which of how many equal copies of its piece this rank holds."""
    place = tensor.device_mesh.get_coordinate()
    assert place is not None
    number, copies = 0, 1
    for axis, placement in enumerate(tensor.placements):
        assert not placement.is_partial(), "sums that are not finished cannot be saved"
        if isinstance(placement, Replicate):
            number = number * tensor.device_mesh.size(axis) + place[axis]
            copies *= tensor.device_mesh.size(axis)
    return number, copies


class Share:
    """This rank's share of a checkpoint, and the memory it is copied to, which serves every checkpoint of a run."""

    def __init__(self, rank: int, pin: bool) -> None:
        self.rank, self.pin = rank, pin
        self.parts: list[Part] = []
        self._of: list[Any] | None = None  # what the parts are laid out for
        self._preparing: threading.Thread | None = None
        self._leaving = False
        self._copied: torch.cuda.Event | None = None

    @property
    def bytes(self) -> int:
        return sum(len(part.header) + len(part.memory) for part in self.parts)

    def prepare(self, tensors: Tensors) -> None:
        """Begin to take pinned memory for such tensors, in a thread; does nothing where memory is not pinned.

        The system takes seconds to pin 20 GB, which the first checkpoint may not have: a signal can ask for it.
        """
        if not self.pin:
            return
        kind, files = _kind(tensors), self._files(tensors)

        def take() -> None:
            with contextlib.suppress(RuntimeError):  # too little memory: `stage` tries again, and says so
                self._take(kind, files)

        self._preparing = threading.Thread(target=take, name="checkpoint memory", daemon=True)
        self._preparing.start()

    def leave(self) -> None:
        """Take no more memory; a run that ends does not wait for it."""
        self._leaving = True
        if self._preparing is not None:
            self._preparing.join(LEAVING)

    def stage(self, tensors: Tensors) -> None:
        """Copy. On CUDA this only asks for the copies, which come before all that is asked for afterwards."""
        if self._preparing is not None:
            self._preparing.join()
            self._preparing = None
        if (kind := _kind(tensors)) != self._of:
            self._take(kind, self._files(tensors))
        cuda = False
        for part in self.parts:
            for name, view in part.views.items():
                source = local(tensors[part.group][name])
                view.copy_(source, non_blocking=self.pin)
                cuda |= source.is_cuda
        self._copied = torch.cuda.Event() if cuda else None
        if self._copied is not None:
            self._copied.record()

    def write(self, folder: Path) -> dict[str, dict[str, Any]]:
        """Write all parts under `folder`, several at a time -> file: {bytes, sha256}. The first OSError ends it.

        Called in a thread; hashing and writing leave the interpreter to training.
        """
        if self._copied is not None:
            self._copied.synchronize()
        for group in {part.group for part in self.parts}:
            (folder / group).mkdir(parents=True, exist_ok=True)
        waiting: queue.SimpleQueue[Part] = queue.SimpleQueue()
        for part in self.parts:
            waiting.put(part)
        written: dict[str, dict[str, Any]] = {}
        errors: list[Exception] = []

        def work() -> None:
            try:
                while not errors:
                    part = waiting.get_nowait()
                    written[part.file] = _write(folder / part.file, part)
            except queue.Empty:
                pass
            except Exception as error:  # of whatever kind, the one who waits for this thread has to know
                errors.append(error)

        # Not a pool of concurrent.futures: Python would wait for its threads when a run ends by an error.
        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(workers(), len(self.parts)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return written

    def _take(self, kind: list[Any], files: list[tuple[str, list[list[Piece]]]]) -> None:
        self.parts, self._of = [], None  # the old memory is given back before new is taken
        parts = []
        for group, contents in files:
            for number, held in enumerate(contents):
                if self._leaving:
                    return
                parts.append(self._part(group, number, held))
        self.parts, self._of = parts, kind

    def _files(self, tensors: Tensors) -> list[tuple[str, list[list[Piece]]]]:
        """What goes into which file of each group."""
        found = []
        for group, named in tensors.items():
            files: list[list[Piece]] = []
            size = PART
            # safetensors keeps a tensor's bytes at a multiple of its item size, so wide items come first
            for piece in sorted(pieces(named, self.rank == 0), key=lambda piece: -piece.dtype.itemsize):
                if size + piece.bytes > PART and size:
                    files.append([])
                    size = 0
                files[-1].append(piece)
                size += piece.bytes
            found.append((group, files))
        return found

    def _part(self, group: str, number: int, held: list[Piece]) -> Part:
        memory = _memory(sum(piece.bytes for piece in held), self.pin)
        views, at = {}, 0
        header: dict[str, Any] = {
            "__metadata__": {
                "DCP_SHARDING_INFO": json.dumps({piece.name: {"saved_offsets": piece.corner} for piece in held}),
                "DCP_VERSION": "1.0",
                "format": "pt",
            }
        }
        for piece in held:
            end = at + piece.bytes
            views[piece.name] = memory[at:end].view(piece.dtype).view(piece.sizes)
            header[piece.name] = {"dtype": DTYPES[piece.dtype], "shape": piece.sizes, "data_offsets": [at, end]}
            at = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return Part(
            f"{group}/{self.rank:05d}-{number:03d}.safetensors",
            group,
            len(text).to_bytes(8, "little") + text,
            memory,
            views,
        )


def _kind(tensors: Tensors) -> list[Any]:
    """All that a layout depends on."""
    return [
        (group, name, t.shape, t.dtype, t.placements if isinstance(t, DTensor) else None)
        for group, named in tensors.items()
        for name, t in named.items()
    ]


def _memory(size: int, pin: bool) -> Tensor:
    """Bytes on the CPU, pinned if asked for and if the system lets us."""
    if pin:
        try:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError:  # a limit on locked memory; copies then take longer
            pass
    return torch.empty(size, dtype=torch.uint8)


def _write(path: Path, part: Part) -> dict[str, Any]:
    digest = hashlib.sha256(part.header)
    data = memoryview(part.memory.numpy().data)
    with path.open("xb") as file:
        file.write(part.header)
        for at in range(0, len(data), STRIDE):
            piece = data[at : at + STRIDE]
            file.write(piece)
            digest.update(piece)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": len(part.header) + len(data), "sha256": digest.hexdigest()}
