"""The examples of docs/reading.md run as they stand, against a bucket and a web server of this machine."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.store import open_store
from tests import s3
from tests.shards.web import Server, serving

PAGE = Path(__file__).parents[2] / "docs" / "reading.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def places(dataset_on_disk: Path) -> Iterator[Server]:
    with s3.serving(), serving(dataset_on_disk) as server:
        store = open_store(f"s3://{s3.BUCKET}/data")
        for path in dataset_on_disk.rglob("*"):
            if path.is_file():
                with store.writing(path.relative_to(dataset_on_disk).as_posix()) as file:
                    file.write(path.read_bytes())
        yield server


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs(number: int, places: Server, tmp_path: Path) -> None:
    code = EXAMPLES[number].replace("https://host/data", places.url).replace("/local/cache", str(tmp_path / "cache"))
    found: dict[str, object] = {"__name__": "example"}
    exec(compile(code, f"{PAGE.name}, example {number}", "exec"), found)
    if "samples" in found:
        assert len(found["samples"]) == len(found["dataset"])  # type: ignore[arg-type]
    if "xyz" in found:
        assert found["xyz"].shape == (4, 6, 24, 28, 3)  # type: ignore[attr-defined]
    assert len(EXAMPLES) == 5
