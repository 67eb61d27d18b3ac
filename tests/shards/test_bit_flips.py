"""A hundred damages of a small dataset; tests/benchmarks/bit_flips.py has ten thousand."""

import shutil
from pathlib import Path

import pytest

from tests.benchmarks.bit_flips import VERSION1, Checker, check_cached, damages, write_small


def test_every_damage_is_found_and_none_reaches_training(tmp_path: Path) -> None:
    checker = Checker(write_small(tmp_path / "dataset"))
    for damage in damages(checker.root, 100, seed=1):
        checker.run(damage)
    found = checker.outcome
    assert found.cases == 100
    assert len(found.kinds) == 8, "flips and truncations of each of four kinds of files"
    assert not found.missed
    assert not found.crashed
    assert not found.trained
    assert found.slowest < 5


@pytest.mark.slow
def test_every_damage_of_a_dataset_of_version_1_is_found_where_it_could_be(tmp_path: Path) -> None:
    """Of its manifest version 1 had no digest: a bit of what no reader looks at may be missed, but harms nothing."""
    checker = Checker(Path(shutil.copytree(VERSION1, tmp_path / "dataset")))
    for damage in damages(checker.root, 300, seed=2):
        checker.run(damage)
    assert not checker.outcome.crashed
    assert not [damage for damage in checker.outcome.missed if damage.file.startswith("shards")]


def test_a_damaged_copy_in_the_cache_is_downloaded_again(tmp_path: Path) -> None:
    assert check_cached(write_small(tmp_path / "dataset"), tmp_path, 10, seed=3) == 0
