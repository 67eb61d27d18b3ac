"""A dataset of many small shards, and a web server that shows it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.store import web
from tests.shards.conftest import write_dataset
from tests.shards.web import Server, serving


@pytest.fixture(scope="package")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """31 shards of one sample each."""
    return write_dataset(tmp_path_factory.mktemp("many"), per_shard=1)


@pytest.fixture
def server(many: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(web, "_sleep", lambda seconds: None)
    with serving(many) as server:
        yield server
