"""A run that is killed at any moment, as a process or as an exception, and is gone on with."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import shards
from shards.rewrite import choice, rewrite
from shards.rewrite.inputs import open_input
from shards.rewrite.plan import Cut
from shards.rewrite.rewrite import Output
from shards.store import open_store
from tests.shards.rewrite.rewriting import Killed, contents, made


@pytest.mark.parametrize("last", [0, 1, 3, 6])
def test_a_killed_run_is_gone_on_with(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    one = open_input(source)
    to = [choice.everything(one)]
    made("reshard", [one], to, tmp_path / "whole", workers=1)
    written: list[str] = []
    real = rewrite.parts_into

    def parts_into(file: object, name: str, parts: Iterator) -> list[dict]:
        if len(written) == last:
            raise Killed
        written.append(name)
        return real(file, name, parts)

    monkeypatch.setattr(rewrite, "parts_into", parts_into)
    with pytest.raises(Killed):
        made("reshard", [one], to, tmp_path / "out", workers=1)
    with pytest.raises((ValueError, FileNotFoundError)):
        shards.open(tmp_path / "out")
    with pytest.raises(ValueError, match="not finished"):
        open_input(tmp_path / "out")
    again: list[str] = []
    monkeypatch.setattr(rewrite, "parts_into", lambda f, name, p: again.append(name) or real(f, name, p))
    made("reshard", [one], to, tmp_path / "out", workers=2)
    assert not set(written) & set(again)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    again.clear()
    made("reshard", [one], to, tmp_path / "out")  # finished: nothing to do
    assert again == []
    with pytest.raises(ValueError, match="holds another dataset"):
        made("reshard", [one], to, tmp_path / "out", cut=Cut(4, None))


SLOWLY = """
import sys, time
from shards.rewrite import rewrite
from shards.commands.reshard import reshard
real = rewrite.parts_into
def parts_into(file, name, parts):
    time.sleep(0.1)
    return real(file, name, parts)
rewrite.parts_into = parts_into
reshard(sys.argv[1], sys.argv[2], samples=3, workers=1)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_what_the_next_one_finishes(source: Path, tmp_path: Path) -> None:
    one = open_input(source)
    whole, out = tmp_path / "whole", tmp_path / "out"
    header = {**choice.header("reshard", [one], Cut(3, None)), "statistics": None}
    rewrite.rewrite([one], [choice.everything(one)], [Output(open_store(whole), header)], Cut(3, None))
    for wanted in (1, 4, 7, 99):
        process = subprocess.Popen(
            [sys.executable, "-c", SLOWLY, str(source), str(out)], cwd=Path(shards.__file__).parents[1]
        )
        while process.poll() is None and len(list((out / "shards").glob("*.tar"))) < wanted:
            time.sleep(0.01)
        process.kill()
        process.wait()
    assert shards.open(out).hash == one.hash
    assert contents(out) == contents(whole)
