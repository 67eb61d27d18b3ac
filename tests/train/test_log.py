"""The file of a run's reports is read whatever lies in it."""

from pathlib import Path

import pytest
from rich.console import Console

from tests.train.test_reports import CPU
from train.data.stream import Damage
from train.reports import log
from train.reports.reports import Reports

SOUND = b'{"step": 1, "loss": 2.0}\n{"event": "phase", "step": 2}\n'


@pytest.mark.parametrize(
    "line", [b"null", b"[]", b"3", b'{"loss": 1}', b'{"step": "4"}', b'{"step": true}', b"\xff\xfe", b"[" * 10**5, b""]
)
def test_a_line_that_is_no_report_is_left_out_and_hides_none_after_it(tmp_path: Path, line: bytes) -> None:
    (tmp_path / log.METRICS).write_bytes(line + b"\n" + SOUND + line + b'\n{"step": 3}\n{"ste')
    assert [each["step"] for each in log.read(tmp_path)] == [1, 3]
    assert [each["step"] for each in log.events(tmp_path)] == [2]
    with Reports(tmp_path, 2, 3, 1, Console(quiet=True), CPU):  # the start of a run that goes on after step 2
        assert (tmp_path / log.METRICS).read_bytes() == SOUND


def test_a_line_that_names_no_sample_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "damaged.jsonl"
    path.write_bytes(b'\xff\n[]\n{"step": 1}\n{"index": 4, "reason": "empty"}\n{"index": 9}\n')
    assert Damage(path, 5).lines == [{"index": 4, "reason": "empty"}]
    assert path.read_bytes() == b'{"index": 4, "reason": "empty"}\n'
