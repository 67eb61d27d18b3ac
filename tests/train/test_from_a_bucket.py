"""Training reads a bucket through the cache of its machine, and gets the same samples as from a folder."""

from pathlib import Path

import pytest

from shards.store import open_store
from tests import s3
from tests.shards.conftest import write_dataset
from train.config import Augment, Data
from train.data.stream import Schedule, Stream, batches


def numbers(path: str, **more: object) -> list[list[float]]:
    """Index and valid pixels of the samples of ten steps."""
    data = Data.model_validate({"path": path, "split": "all", "size": 28, "batch": 4, "window": 3, **more})
    with batches(Stream(data, Augment(), 6, seed=3), Schedule(0, 10, 4)) as found:
        return [[*batch.index.tolist(), *batch.valid.flatten(1).sum(1).tolist()] for batch in found]


def test_a_bucket_trains_as_a_folder_does(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", per_shard=2)
    with s3.serving() as server:
        store = open_store(f"s3://{s3.BUCKET}/data")
        for path in folder.rglob("*"):
            if path.is_file():
                with store.writing(path.relative_to(folder).as_posix()) as file:
                    file.write(path.read_bytes())
        cache = {"folder": str(tmp_path / "cache"), "limit": "1 MB"}
        expected = numbers(str(folder), workers=0)
        server.requests.clear()
        assert numbers(f"s3://{s3.BUCKET}/data", workers=2, cache=cache) == expected
        fetched = [path for method, path in server.requests if method == "GET" and "/shards/" in path]
        assert len(fetched) == len(set(fetched)) > 10
        server.requests.clear()
        assert numbers(f"s3://{s3.BUCKET}/data", workers=2, cache=cache) == expected  # all of it is here now
        assert not [path for method, path in server.requests if path in fetched]
        with pytest.raises(ValueError, match=r"the cache .* may take 2 KB, but the shards that are read at a time"):
            numbers(f"s3://{s3.BUCKET}/data", cache={**cache, "limit": "2 KB"})
