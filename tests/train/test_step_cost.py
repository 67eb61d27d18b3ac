"""What a step of `tiny` costs in things that no machine's speed changes: operators, and bytes kept for the backward.

tests/benchmarks/train_cpu.py measures the time. Bounds are a fifth above what was found when they were written: an
operator more in every block, or one more activation kept, goes beyond them.
"""

from pathlib import Path

import pytest
import torch

from model import WTDiT, preset
from tests.benchmarks.plain_wt_dit import PlainWTDiT
from tests.benchmarks.train_cpu import Launches, Products, counts, kept_for_backward, pieces, settings_of
from train.data.stream import Schedule, batches

BATCH = 2
MOST = {"forward": 500, "backward": 1030, "update": 370}  # operators; found 413, 859, 301
MOST_KEPT = 17.5e6  # bytes a sample; found 14.5e6


def test_a_step_launches_and_keeps_no_more_than_it_did(tmp_path: Path) -> None:
    found = pieces(settings_of(tmp_path, steps=1, batch=BATCH))
    with batches(found.stream, Schedule(0, 1, BATCH)) as incoming:
        counted = counts(found, next(incoming))
    for name, most in MOST.items():
        assert 0.5 * most < counted[name] <= most, name
    assert 0.5 * MOST_KEPT < counted["kept"] / BATCH <= MOST_KEPT


def test_the_counts_are_those_of_a_known_function() -> None:
    x, w = torch.randn(8, 4), torch.nn.Linear(4, 3, bias=False)
    with Launches() as launches, Products() as products:
        (w(x).view(3, 8).t().relu() + 1).sum()
    assert launches.by_name == {"mm": 1, "relu": 1, "add": 1, "sum": 1}
    assert products.flops == 2 * 8 * 4 * 3
    products.again()()
    # the product keeps its input (the weight is not counted), ReLU its result, sum and + nothing
    assert kept_for_backward(w, lambda: (w(x).relu() + 1).sum()) == 4 * (8 * 4 + 8 * 3)
    assert kept_for_backward(w, lambda: w(x).sum() + w(x).sum()) == 4 * 8 * 4, "a tensor kept twice is one"


@pytest.mark.parametrize("film_adaln", [False, True])
def test_the_plain_twin_of_the_benchmarks_gives_the_models_numbers(film_adaln: bool) -> None:
    torch.manual_seed(0)
    model = WTDiT(preset("tiny", film_adaln=film_adaln))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    plain = PlainWTDiT(model.config)
    plain.load_state_dict(model.state_dict())
    inputs = torch.rand(2, 3, 28, 42), torch.randn(2, 6, 28, 42, 3), torch.rand(2, 6)
    with torch.no_grad():
        found, expected = model(*inputs), plain(*inputs)
    assert float((found - expected).abs().max()) < 1e-4 * float(expected.abs().max())
