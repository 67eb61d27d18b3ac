"""What a stopped evaluation has kept, and when it is not gone on with."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.train.test_compare import tiny
from train.evaluation.journal import Journal
from train.evaluation.methods import Sampled


def test_a_journal_of_another_evaluation_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "j"
    first = Journal(path, {"a": 1})
    sample = {"key": "x", "each": {}, "m": {"all/cd_l1": float("inf")}}
    first.add(sample)
    first.add({"key": "y", "each": {}, "m": {"all/cd_l1": "edited"}})
    first.close()
    again = Journal(path, {"a": 1})
    assert again.done == {"x": sample}
    with pytest.raises(ValueError, match="another evaluation is judging into it"):
        Journal(path, {"a": 1})
    again.close()
    assert Journal(path, {"a": 2}).done == {}
    assert Journal(path, {"a": 1}).done == {}  # it was begun anew


def test_a_run_that_was_trained_again_is_another(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{}")
    run = replace(tiny(), path=tmp_path)
    before = Sampled("run", run).about()
    assert Sampled("run", run).about() == before
    os.utime(tmp_path / "state.json", ns=(1, 1))
    assert Sampled("run", run).about() != before
