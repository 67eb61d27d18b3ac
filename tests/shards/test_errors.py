"""What a user reads when something outside of us goes wrong: one line that names the file and the remedy."""

import errno
import os
from pathlib import Path
from typing import BinaryIO

import pytest

import worldtrace
from shards.commit import committed


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as left:
        worldtrace.main([str(a) for a in arguments])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_a_full_disk_is_named_with_what_was_to_be_written(
    dataset_on_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    for command, name in (("export", "a.npz"), ("export", "a.exr"), ("export", "a.ply"), ("show", "a.png")):
        said = fails(capsys, "shards", command, dataset_on_disk, "0", "--out", tmp_path / name)
        assert f"{tmp_path / name}: No space left on device: make room" in said
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_system_keep_their_number_for_who_asks(tmp_path: Path) -> None:
    def write(file: BinaryIO) -> None:
        raise OSError(errno.EDQUOT, "quota")

    with pytest.raises(OSError, match="quota") as caught, committed(tmp_path / "a") as file:
        write(file)
    assert (caught.value.errno, caught.value.filename) == (errno.EDQUOT, str(tmp_path / "a"))


def test_escape_sequences_in_an_error_are_spelled_out(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = fails(capsys, "shards", "info", tmp_path / "\x1b]0;gone\x07")
    assert r"\x1b]0;gone\x07 is not a folder" in said
    assert "\x1b" not in said


def test_without_a_terminal_no_bar_leaves_an_empty_line(
    dataset_on_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        worldtrace.main(["shards", "verify", str(dataset_on_disk), "--workers", "1"])
    said = capsys.readouterr()
    assert (left.value.code, said.err) == (0, "")
    assert said.out.endswith("sound\n")
