"""The dataset that all of these tests rewrite: 31 samples of 40 assets, with a ledger."""

from pathlib import Path

import pytest

from shards import ledger
from shards.ledger import LedgerWriter
from tests.shards.conftest import write_dataset


def with_ledger(root: Path) -> Path:
    with (root / "ledger.parquet").open("wb") as file, LedgerWriter(file) as writer:
        for index in range(40):
            status, views = ("done", 1) if index < 31 else ("rejected", 0)
            row = ledger.row(
                unit="000000-unit", asset=f"a{index}", source="test", licence="l", status=status, views=views
            )
            writer.write([row])
    return root


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_ledger(write_dataset(tmp_path_factory.mktemp("source")))
