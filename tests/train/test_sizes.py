"""A run says where it enlarges its samples."""

from typing import Any

import pyarrow as pa
import pytest

from train.data.sizes import enlarged


class Sized:
    """The manifest of a dataset, as far as sizes go."""

    def __init__(self, *sizes: tuple[int, int]) -> None:
        self.sizes = sizes

    def columns(self, names: list[str]) -> pa.Table:
        return pa.table({name: [size[i] for size in self.sizes] for i, name in enumerate(names)})


@pytest.mark.parametrize(
    ("datasets", "said"),
    [
        ([Sized((504, 504), (720, 504))], None),
        ([Sized((112, 112)), Sized((112, 200))], "samples are 112 pixels along their shorter side and are enlarged"),
        ([Sized((504, 504), (480, 640)), Sized((600, 100))], "2 of 3 samples are from 100 to 480 pixels"),
        ([Sized((504, 504)), Sized((200, 200))], "1 of 2 samples are from 200 to 200 pixels"),
    ],
)
def test_samples_below_the_size_are_counted(datasets: list[Any], said: str | None) -> None:
    found = enlarged(datasets, 504)
    assert found is None if said is None else found is not None and found.startswith(said)
    assert found is None or found.endswith("enlarged to data.size, 504")
