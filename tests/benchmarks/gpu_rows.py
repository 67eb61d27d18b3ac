"""What the benchmarks of a GPU share: rows that are written as they are found, a clock, inputs of the true shapes."""

import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model import WTConfig, ZScore, preset
from train import config
from train.config import Config
from train.data.batch import Batch
from train.ranks.parallel import Ranks

RELEASED = ZScore((-0.002366, -0.004008, 1.904278), (0.280865, 0.315927, 0.706423))
MICRO = {
    "width": 64,
    "heads": 2,
    "decoder_blocks": 3,
    "head_blocks": 1,
    "encoder": {"width": 64, "heads": 2, "depth": 2, "taps": 2, "grid": 4},
}


@dataclass
class Bench:
    """The machine, the time that is left, and the rows so far."""

    command: str
    device: torch.device
    small: bool
    peak: float | None
    until: float
    out: Path | None
    only: Sequence[str] = ()
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ranks(self) -> Ranks:
        return Ranks(0, 1, self.device)

    def settings(self, size: int, batch: int, **changes: Any) -> Config:
        """`wt_o` (or the micro model) on micro-batches of `batch`; `changes` are sections."""
        tree: dict[str, Any] = {
            "data": {"path": "none", "size": size, "batch": batch, "workers": 0},
            "model": {"preset": "wt_o", **(MICRO if self.small else {})},
            "objective": {"shared_times_from": 0},
            "precision": "bf16",
            "out": "none",
        }
        for section, values in changes.items():
            tree[section] = {**tree.get(section, {}), **values}
        return config.from_dict(tree)

    def shape(self) -> WTConfig:
        return preset("wt_o", **(MICRO if self.small else {}))

    def wanted(self, name: str) -> bool:
        return not self.only or any(text in name for text in self.only)

    def due(self, name: str) -> bool:
        """Whether to measure it now: it was asked for, and there is time; a row says where there is none."""
        if not self.wanted(name):
            return False
        if time.monotonic() > self.until:
            self.row(name, not_run="out of time")
            return False
        return True

    def row(self, name: str, **values: Any) -> None:
        """Note a row, print it at once and write all of them."""
        self.rows.append({"name": name, **values})
        print("   ".join([f"{name:34}", *(f"{key} {_text(value)}" for key, value in values.items())]), flush=True)
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            about = {"device": self.name, "torch": torch.__version__, "peak": self.peak, "small": self.small}
            (self.out / f"{self.command}.json").write_text(json.dumps({**about, "rows": self.rows}, indent=1))

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    def attempt(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """A row of what `measure` finds, or of why there is none; None then, and where it was not asked for."""
        if not self.due(name):
            return None
        try:
            values = measure()
        except torch.OutOfMemoryError:
            values = {"not_run": "out of memory"}
        except RuntimeError as error:  # a kernel that this device or this shape has not
            values = {"not_run": " ".join(str(error).split())[:60]}
        self.clear()
        self.row(name, **values)
        return None if "not_run" in values else values

    def close(self, name: str, found: Tensor, expected: Tensor, bound: float) -> None:
        """A row of the relative error |found - expected| / |expected|; wrong where it exceeds the bound, or is NaN."""
        if not self.wanted(name):
            return
        found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
        error = float((found - expected).norm() / expected.norm())
        self.row(name, error=error, bound=bound, **verdict(error, bound))

    def table(self) -> None:
        """All rows again, one below the other."""
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        columns.sort(key=lambda key: key in ("wrong", "not_run"))  # sentences last
        cells = [columns, *([_text(row[key]) if key in row else "" for key in columns] for row in self.rows)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
        print(f"\n{self.command} on {self.name}, torch {torch.__version__}{', MICRO SHAPES' if self.small else ''}")
        for first, *others in cells:
            line = [f"{first:{widths[0]}}", *(f"{text:>{width}}" for text, width in zip(others, widths[1:]))]
            print("  ".join(line).rstrip())

    def clear(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def allocated(self) -> float:
        """The most bytes that tensors took since `clear`, in GB."""
        return torch.cuda.max_memory_allocated(self.device) / 1e9 if self.device.type == "cuda" else 0.0

    def seconds(self, run: Callable[[], Any], most: int = 50, budget: float = 6.0) -> float:
        """Median seconds of one call after one or two that are not counted, in about `budget` seconds of calls that
        follow each other without a wait. Of calls that take longer there is only one."""
        run()  # compiles, and finds its kernels
        single = self._once(run)
        if single > budget:
            return single
        count = 2 if self.small else max(1, min(most, int(budget / max(single, 1e-6))))
        if self.device.type != "cuda":
            taken = []
            for _ in range(count):
                began = time.perf_counter()
                run()
                taken.append(time.perf_counter() - began)
            return statistics.median(taken)
        events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        events[0].record()
        for event in events[1:]:
            run()
            event.record()
        self.wait()
        return statistics.median(a.elapsed_time(b) for a, b in itertools.pairwise(events)) / 1000

    def _once(self, run: Callable[[], Any]) -> float:
        self.wait()
        began = time.perf_counter()
        run()
        self.wait()
        return time.perf_counter() - began

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def verdict(error: float, bound: float) -> dict[str, bool]:
    """What a row says of an error beyond its bound, or of NaN."""
    return {} if error <= bound else {"wrong": True}


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def batch_on(device: torch.device, size: int, samples: int, layers: int, seed: int = 0) -> Batch:
    """Random images and layered depths about 1.9 behind a disc that covers a third of the image."""
    generator = torch.Generator(device).manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    v, u = torch.meshgrid(*2 * [torch.linspace(-1, 1, size, device=device)], indexing="ij")
    valid = (u**2 + v**2 < 0.42).expand(samples, size, size).contiguous()
    depth = (1.5 + 0.8 * uniform(samples, layers, size, size)).sort(dim=1).values * valid[:, None]
    K = torch.tensor([[size, 0, size / 2], [0, size, size / 2], [0, 0, 1]], dtype=torch.float64, device=device)
    return Batch(
        uniform(samples, 3, size, size),
        depth,
        K.expand(samples, 3, 3).contiguous(),
        valid,
        valid.float(),
        torch.zeros(samples, dtype=torch.bool, device=device),
        torch.arange(seed * samples, (seed + 1) * samples),
    )


@contextmanager
def exact_products() -> Iterator[None]:
    """float32 products and convolutions in float32, whatever the machine would rather do."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def autocast(device: torch.device, half: bool) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if half else nullcontext()
