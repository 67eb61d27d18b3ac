"""What part of the hardware a run uses: model FLOPs utilisation (MFU), and memory."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

FORMULA = "MFU = samples/s x FLOPs per training sample / (devices x peak)"


@dataclass(frozen=True)
class Utilisation:
    """`flops` of one training sample (forward and backward, nothing counted twice that is recomputed); `peak` of one
    device in FLOP/s, None where it is not known; `world` devices.
    """

    flops: float
    peak: float | None
    world: int = 1

    def of(self, samples_per_second: float) -> float | None:
        """The MFU of a run that takes so many samples a second over all devices; None without a peak."""
        return None if self.peak is None else samples_per_second * self.flops / (self.world * self.peak)

    def line(self) -> str:
        """The formula with its numbers, as a run says it when it opens."""
        work = _operations(self.flops)
        if self.peak is None:
            return f"{work} per training sample; no MFU is shown, because the peak of this device is not known"
        devices = f"{self.world} x " if self.world > 1 else ""
        return f"{FORMULA} = samples/s x {work} / ({devices}{_operations(self.peak)}/s)"

    def facts(self) -> dict[str, str | float | None]:
        """The same for programs."""
        return {"formula": FORMULA, "flops_per_sample": self.flops, "peak": self.peak, "devices": self.world}


def _operations(count: float) -> str:
    return f"{count / 1e12:.4g} TFLOP" if count >= 1e11 else f"{count / 1e9:.4g} GFLOP"


def memory(device: torch.device) -> dict[str, int]:
    """Bytes. Of a GPU the peaks since the last call: `memory` in tensors, `memory_reserved` by torch's allocator. Of a
    CPU what is resident now: `memory` of this process and its workers, `memory_workers` of the workers alone (pages
    that they share with this process count in both). Empty where the system does not say.
    """
    if device.type == "cuda":
        found = {
            "memory": torch.cuda.max_memory_allocated(device),
            "memory_reserved": torch.cuda.max_memory_reserved(device),
        }
        torch.cuda.reset_peak_memory_stats(device)
        return found
    own = _resident(os.getpid())
    if own is None:
        return {}
    workers = sum(_resident(child) or 0 for child in _children())
    return {"memory": own + workers, "memory_workers": workers}


def _resident(process: int) -> int | None:
    """Bytes of memory that a process has resident, None if there is no such process or no /proc."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def _children() -> list[int]:
    """The processes that the threads of this one have started."""
    found: list[int] = []
    for task in Path("/proc/self/task").glob("*/children"):
        try:
            found += map(int, task.read_text().split())
        except OSError:
            continue  # a thread that has ended
    return found
