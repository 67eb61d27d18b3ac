"""Which sample is shown, against going through the keys by hand."""

from pathlib import Path

import pytest

import shards
from shards.viewer.choice import ALL, Choice


@pytest.fixture
def choice(dataset_on_disk: Path) -> Choice:
    return Choice(shards.open(dataset_on_disk))


def test_next_and_previous_go_round(choice: Choice) -> None:
    keys = choice.dataset.keys
    seen = []
    for _ in range(len(keys) + 1):
        seen.append(choice.key)
        choice.step(1)
    assert seen == [*keys, keys[0]]
    choice.go(0)
    choice.step(-1)
    assert choice.key == keys[-1]


def test_keys_and_numbers_lead_there(choice: Choice) -> None:
    keys = choice.dataset.keys
    for to in (7, "7", " 7 ", keys[7], f" {keys[7]} "):
        choice.go(0)
        choice.go(to)
        assert choice.key == keys[7]
    for wrong in ("nothing", 31, "99"):
        with pytest.raises(ValueError, match=r"nothing|31|99"):
            choice.go(wrong)
        assert choice.key == keys[7]


def test_narrowing_keeps_the_sample_that_is_still_there(choice: Choice) -> None:
    whole = choice.dataset
    clip = whole.keys.index("clip-40-c000")
    choice.go(clip)
    choice.narrow(ALL, "frames > 1")
    assert (choice.key, len(choice.dataset)) == ("clip-40-c000", 1)
    choice.narrow("train", "frames = 1")
    assert choice.row == 0
    expected = [k for k, f, s in zip(whole.keys, *(whole.manifest[n].to_pylist() for n in ("frames", "split")))
                if f == 1 and s == "train"]  # fmt: skip
    assert choice.dataset.keys == expected
    choice.narrow(ALL, "  ")
    assert len(choice.dataset) == len(whole)


def test_what_selects_nothing_changes_nothing(choice: Choice) -> None:
    choice.go(5)
    key = choice.key
    for split, where in ((ALL, "frames > 99"), (ALL, "no such column > 1"), ("trian", "")):
        with pytest.raises(ValueError, match=r"no sample|not understood|none of"):
            choice.narrow(split, where)
        assert (choice.key, len(choice.dataset)) == (key, 31)
