"""For all tests."""

from pathlib import Path

import pytest

from train import environment

# Before torch is imported, as in train/cli.py: threads that spin while they wait slow each other down.
environment.settle()

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What shares costly fixtures stays in one process of `pytest -n`: the cluster's Ray, else the file's.

    Training has a Ray of its own, of which it takes all CPUs.
    """
    for item in items:
        place = item.path.relative_to(HERE)
        together = "cluster" if place.parts[0] == "cluster" and place.stem != "test_training" else str(place)
        item.add_marker(pytest.mark.xdist_group(together))
