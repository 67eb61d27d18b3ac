"""Which samples lie in which shard: every one once, in order, and within the limits."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from shards import generator
from shards.rewrite.plan import Cut, planned, size_of


class Sizes:
    """An input of samples of these sizes, whose manifest comes in pieces of any length."""

    text = "x"

    def __init__(self, sizes: np.ndarray, first: int, rng: np.random.Generator) -> None:
        self.sizes, self.first, self.rng = sizes, first, rng

    def batches(self) -> Iterator[pa.Table]:
        begin = 0
        while begin < len(self.sizes):
            end = min(len(self.sizes), begin + int(self.rng.integers(1, 50)))
            keys = [str(self.first + number) for number in range(begin, end)]
            yield pa.table({"key": keys, "sha256": keys, "bytes": self.sizes[begin:end]})
            begin = end


@pytest.mark.parametrize("trial", range(40))
def test_any_plan_has_every_sample_once_in_order_and_within_limits(trial: int) -> None:
    rng = generator(trial, "plan")
    inputs: list[Sizes] = []
    for _ in range(rng.integers(1, 4)):
        first = sum(len(source.sizes) for source in inputs)
        inputs.append(Sizes(rng.integers(1, 5000, rng.integers(0, 200)), first, rng))
    outputs = int(rng.integers(1, 5))
    to = [rng.integers(-1, outputs, len(source.sizes)).astype(np.int16) for source in inputs]
    cut = Cut([None, int(rng.integers(1, 20))][trial % 2], [None, int(rng.integers(1, 30_000))][trial // 2 % 2])
    found: dict[int, list[int]] = {output: [] for output in range(outputs)}
    names: dict[int, list[str]] = {output: [] for output in range(outputs)}
    for plan in planned(inputs, to, cut):  # type: ignore[arg-type]
        assert plan.index == len(names[plan.output])
        names[plan.output].append(plan.stem)
        count, size = len(plan.table), int(plan.table["bytes"].to_numpy().sum()) + 1024
        assert 1 <= count <= (cut.samples or count)
        assert size <= (cut.bytes or size) or count == 1
        found[plan.output] += map(int, plan.table["key"].to_pylist())
    for output in range(outputs):
        assert found[output] == np.flatnonzero(np.concatenate(to) == output).tolist()
        assert names[output] == sorted(set(names[output]))


def test_sizes_are_read_as_people_write_them() -> None:
    assert [size_of(text) for text in ("256MB", "1 GiB", "1.5kb", "77")] == [256_000_000, 1 << 30, 1500, 77]
    with pytest.raises(ValueError, match="256MB"):
        size_of("large")
    with pytest.raises(ValueError, match="0 samples"):
        Cut(samples=0)
