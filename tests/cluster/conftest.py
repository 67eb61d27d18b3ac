"""One local Ray for the whole folder (it takes seconds to start), and how datasets are compared."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cluster import connection

connection.prepare()

from cluster.dataset import Means, render_dataset  # noqa: E402  (after prepare: this imports ray)
from cluster.sources import access  # noqa: E402
from tests.cluster.boxes import SETTINGS, Boxes  # noqa: E402
from tests.cluster.hub import Hub  # noqa: E402

COUNT = 9
ALONE = Means(workers=1)


@pytest.fixture(scope="session")
def local_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # Ray's workers take the environment of this moment: later on a test can still say there where its S3 server is.
    os.environ["AWS_CONFIG_FILE"] = str(tmp_path_factory.mktemp("aws") / "config")
    with connection.connected("local", workers=2):
        yield


@pytest.fixture(scope="session")
def undisturbed(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COUNT boxes in shards of three, by one renderer and without a mishap: what every other way must end in."""
    folder = tmp_path_factory.mktemp("undisturbed")
    render_dataset([Boxes(COUNT, str(folder))], folder / "out", SETTINGS, shard_views=6, means=ALONE)
    return folder / "out"


@pytest.fixture
def scratch(tmp_path: Path) -> str:
    """A folder for the marks of the Boxes source."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    return str(folder)


@pytest.fixture
def hub(shop: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The `shop` of a module that has one, as if nobody had been there, in the place of the real hub."""
    shop.asked.clear()
    shop.ills.clear()
    monkeypatch.setenv("HF_ENDPOINT", shop.url)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("objaverse.BASE_PATH", str(tmp_path / "home"))
    return shop


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between two requests to a store that fails."""
    monkeypatch.setattr(access, "PAUSE", 0.01)


def contents(folder: Path) -> dict[str, str]:
    """Relative path -> hash of every file but the ledger, which holds times."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "ledger.parquet"
    }


def ledger(folder: Path) -> list[dict]:
    return pq.read_table(folder / "ledger.parquet").to_pylist()
