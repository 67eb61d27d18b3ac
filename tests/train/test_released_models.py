"""The released models in stand-in weights that both sides can make: their numbers, their sizes, bit for bit.

Files of up to 8 GB are written page by page and removed again; of none is there a copy in memory.
"""

import importlib.util
import json
import mmap
import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from model import WTDiT, from_released, preset, release_of
from train.checkpoints.commands import app
from train.run import load_run

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "released"
needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the released fixtures are not beside this checkout")
PRESETS = {"object": "wt_o", "scene": "wt_s", "dynamic": "wt_d"}
# (blocks of decoder, head and through time; weights; millions of numbers) of the release (facts)
FULL = {"object": (42, 6, 0, 1233, 1705.05), "scene": (36, 6, 0, 1127, 1549.18), "dynamic": (42, 6, 14, 1485, 2101.80)}


def made_from_names() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stand_in_weights", FIXTURES / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reduced(kind: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the fixture's model: 6 + 3 blocks of full width."""
    return {name: tuple(s) for name, s in json.loads((FIXTURES / f"{kind}.shapes.json").read_text()).items()}


def full(kind: str) -> dict[str, tuple[int, ...]]:
    """Of the released model: each block has the weights of the fixture's first one."""
    decoder, head, temporal, _, _ = FULL[kind]
    counts = {"net.decoder_blocks.": decoder, "net.latents_projection.geo_blocks.": head, "temporal_blocks.": temporal}
    names: dict[str, tuple[int, ...]] = {}
    for name, shape in reduced(kind).items():
        start = next((start for start in counts if name.startswith(start)), None)
        if start is None:
            names[name] = shape
        elif name.startswith(f"{start}0."):
            names |= {f"{start}{i}.{name.removeprefix(f'{start}0.')}": shape for i in range(counts[start])}
    return names


def fill(tensors: Mapping[str, Tensor]) -> None:
    """With stand-in weights, in place."""
    weights = made_from_names()

    def one(name: str) -> None:
        tensors[name].copy_(torch.from_numpy(weights.tensor(name, tuple(tensors[name].shape))))

    with ThreadPoolExecutor() as pool:  # nearly all of the time goes into drawing numbers
        for _ in pool.map(one, tensors):
            pass


def write(path: Path, names: Mapping[str, tuple[int, ...]]) -> Path:
    """A checkpoint of stand-in weights. Its pages are filled in place, so that they need not all be in memory."""
    with torch.serialization.skip_data():
        torch.save({"ema_state_dict": {name: torch.empty(shape) for name, shape in names.items()}}, path)
    with torch.serialization.set_default_mmap_options(mmap.MAP_SHARED):
        there = torch.load(path, mmap=True, weights_only=True)["ema_state_dict"]
    fill(there)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Gigabytes do not stay behind."""
    yield tmp_path
    for file in tmp_path.glob("*.pt"):
        file.unlink()


@needs_fixtures
@pytest.mark.parametrize("file", [False, pytest.param(True, marks=pytest.mark.slow, id="file")])
@pytest.mark.parametrize("kind", PRESETS)
def test_stand_in_weights_give_the_released_numbers(folder: Path, kind: str, file: bool) -> None:
    """Full widths and encoder, 6 + 3 blocks, weights made from their names: the release's own forward within 1e-4."""
    shape = preset(PRESETS[kind], decoder_blocks=6, head_blocks=3)
    if file:
        model = load_run(write(folder / "model.pt", reduced(kind)), say=lambda text: None).model
    else:
        theirs = {name: torch.empty(size) for name, size in reduced(kind).items()}
        fill(theirs)
        with torch.device("meta"):
            model = WTDiT(shape)
        model.load_state_dict(from_released(theirs), assign=True)
    assert model.config == shape
    with np.load(FIXTURES / f"{kind}.npz") as fixture, torch.no_grad():
        rgb, x_t = torch.from_numpy(fixture["rgb"]), torch.from_numpy(fixture["x_t"])
        for t, x0 in zip(fixture["t"], fixture["x0"], strict=True):
            out = model(rgb, x_t, torch.full((len(rgb),), float(t)), frames=len(rgb))
            difference = out - torch.from_numpy(x0)
            assert difference.abs().max() < 1e-4


@needs_fixtures
@pytest.mark.parametrize("kind", FULL)
def test_the_full_lists_of_names_are_as_long_as_the_releases(kind: str) -> None:
    *_, count, millions = FULL[kind]
    names = full(kind)
    buffers = {"net.encoder.image_mean", "net.encoder.image_std"}
    assert len(names) == count
    assert sum(int(np.prod(s)) for n, s in names.items() if n not in buffers) / 1e6 == pytest.approx(
        millions, abs=0.006
    )


@needs_fixtures
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", FULL)
def test_a_full_model_loads_and_goes_out_again_bit_for_bit(folder: Path, kind: str) -> None:
    """r75b, r69e and r76 at their sizes: no weight missing, none too many, no copy of them in memory."""
    began = time.process_time()
    there, here = write(folder / "model.pt", full(kind)), folder / "again.pt"
    made = time.process_time()
    before = _anonymous()
    run = load_run(there, say=lambda text: None)
    loaded = time.process_time()
    assert run.model.config == preset(PRESETS[kind])
    release = release_of("model.pt", kind)
    assert (run.config.data.size, run.config.data.frames) == (release.size, release.frames)
    assert _anonymous() - before < 300e6
    result = CliRunner().invoke(app, ["export", str(there), "--released", "--out", str(here)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert _anonymous() - before < 600e6
    one, two = _content(there), _content(here)
    assert one.keys() == two.keys() == full(kind).keys()
    for name, tensor in one.items():
        assert torch.equal(tensor.view(torch.int32), two[name].view(torch.int32)), name
    written = time.process_time()
    print(
        f"{kind}: {there.stat().st_size / 1e9:.2f} GB; CPU seconds: made {made - began:.0f}, loaded "
        f"{loaded - made:.1f}, exported and compared {written - loaded:.0f}; memory {_anonymous() / 1e9:.2f} GB"
    )


def _content(path: Path) -> dict[str, Tensor]:
    return dict(torch.load(path, mmap=True, weights_only=True)["ema_state_dict"])


def _anonymous() -> int:
    """Bytes of memory of this process that no file lies behind."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
