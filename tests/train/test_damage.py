"""Whatever happens to a shard, training goes on with substitutes that no one who reads can change, and says so."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import shards
from tests.shards.scenes import spheres_view
from tests.shards.web import serving
from tests.train.conftest import Settings
from train.data.stream import Damage, Schedule, Stream, batches

SHARDS, ROWS = 6, 4
VICTIM = "000002-spheres.tar"


def write_shards(directory: Path, first: int, count: int, rows: int = ROWS) -> list[dict[str, object]]:
    """Shards `first` to `first + count` - 1 of `rows` views each -> their manifest rows."""
    (directory / "shards").mkdir(parents=True, exist_ok=True)
    found: list[dict[str, object]] = []
    for s in range(first, first + count):
        views = [spheres_view(rows * s + k, 16, 16) for k in range(rows)]
        path = directory / "shards" / f"{s:06d}-spheres.tar"
        found += shards.write_shard(path, [shards.encode(view) for view in views])
    return found


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six shards of four views of 16x16."""
    directory = tmp_path_factory.mktemp("many") / "dataset"
    shards.write_manifest(directory, write_shards(directory, 0, SHARDS))
    shards.write_dataset_json(directory, {"layers": 6, "size": [16, 16]})
    return directory


def stream_of(settings: Settings, **changes: object) -> Stream:
    c = settings(**{"data__size": 14, **changes})
    return Stream(c.data, c.augment, 6, c.seed)


def flipped(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    for begin in range(1000, len(content) - 1024, 500):  # in every sample
        content[begin] ^= 4
    shard.write_bytes(content)


def truncated(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:512])


def foreign(shard: Path) -> None:
    shutil.copyfile(shard.with_name("000003-spheres.tar"), shard)


def random_bytes(shard: Path) -> None:
    shard.write_bytes(np.random.default_rng(0).bytes(shard.stat().st_size))


def emptied(shard: Path) -> None:
    shard.write_bytes(b"")


def missing(shard: Path) -> None:
    shard.unlink()


@pytest.mark.parametrize("window", [None, 1, 2])
@pytest.mark.parametrize("harm", [flipped, truncated, foreign, random_bytes, emptied, missing])
def test_a_harmed_shard_is_replaced_in_its_places_alone(
    settings: Settings, many: Path, tmp_path: Path, harm: Callable[[Path], None], window: int | None
) -> None:
    hurt = tmp_path / "hurt"
    shutil.copytree(many, hurt)
    harm(hurt / "shards" / VICTIM)
    whole = stream_of(settings, data__path=str(many), data__window=window)
    ours = stream_of(settings, data__path=str(hurt), data__window=window)
    assert ours.hash == whole.hash, "what the manifest says decides, not what is left of the shards"
    lost = {view.key for view in (spheres_view(ROWS * 2 + k, 16, 16) for k in range(ROWS))}
    met = 0
    for i in range(SHARDS * ROWS):
        expected, (view, lines) = whole.view(i)[0], ours.view(i)
        assert view.key not in lost
        if expected.key in lost:
            met += 1
            assert {line.index for line in lines} == {i}
            assert {line.reason for line in lines} == {"missing" if harm is missing else "damaged"}
            assert VICTIM in lines[0].message
            assert "\n" not in lines[0].message
        else:
            assert (view.key, lines) == (expected.key, ())
    assert met == ROWS


def test_substitutes_do_not_depend_on_workers(settings: Settings, many: Path, tmp_path: Path) -> None:
    hurt = tmp_path / "hurt"
    shutil.copytree(many, hurt)
    flipped(hurt / "shards" / VICTIM)
    read = {}
    for workers in (0, 1, 2):
        stream = stream_of(settings, data__path=str(hurt), data__window=2, data__workers=workers)
        with batches(stream, Schedule(0, 6, 4)) as found:
            read[workers] = [(b.index.tolist(), b.rgb.numpy().tobytes(), b.damaged) for b in found]
    assert read[0] == read[1] == read[2]
    assert sum(len({line.index for line in damaged}) for _, _, damaged in read[0]) == ROWS


def test_a_missing_shard_of_many_is_borne_and_of_few_ends_the_run(
    settings: Settings, many: Path, tmp_path: Path
) -> None:
    hurt = tmp_path / "hurt"
    shutil.copytree(many, hurt)
    missing(hurt / "shards" / VICTIM)
    stream = stream_of(settings, data__path=str(hurt))
    lines = [line for i in range(SHARDS * ROWS) for line in stream.view(i)[1]]
    damage = Damage(tmp_path / "damaged.jsonl", before=0)
    damage.note(lines, seen=100_000)
    assert [json.loads(text)["index"] for text in (tmp_path / "damaged.jsonl").read_text().splitlines()] == [
        line.index for line in lines
    ]
    with pytest.raises(ValueError, match=rf"more than 0\.1%.*{VICTIM} is missing"):
        damage.note(lines, seen=1000)


def test_a_dataset_that_is_gone_is_an_error_of_the_system(settings: Settings, many: Path, tmp_path: Path) -> None:
    """A file system may come back, so whoever started the run may try again; nothing is written off."""
    gone = tmp_path / "gone"
    shutil.copytree(many, gone)
    stream = stream_of(settings, data__path=str(gone))
    shutil.rmtree(gone / "shards")
    with pytest.raises(OSError, match="8 samples in a row cannot be used") as error:
        stream.view(0)
    assert not isinstance(error.value, FileNotFoundError)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_reads_a_server_through_a_cache(settings: Settings, many: Path, tmp_path: Path, workers: int) -> None:
    local = stream_of(settings, data__path=str(many), data__window=2)
    keys = [local.view(i)[0].key for i in range(SHARDS * ROWS)]
    most = max(path.stat().st_size for path in (many / "shards").iterdir())
    with serving(many) as server:
        remote = stream_of(
            settings,
            data__path=server.url,
            data__window=2,
            data__workers=workers,
            data__cache={"folder": str(tmp_path / "cache"), "limit": 5 * most},
        )
        assert remote.hash == local.hash
        with batches(remote, Schedule(0, 6, 4)) as found:
            indices = [i for batch in found for i in batch.index.tolist()]
        assert indices == list(range(SHARDS * ROWS))
        if not workers:
            assert [remote.view(i)[0].key for i in range(SHARDS * ROWS)] == keys
        assert sum(f.stat().st_size for f in (tmp_path / "cache").rglob("*.tar*")) <= 5 * most


@pytest.mark.parametrize("harm", [flipped, missing])
def test_harm_in_a_bucket_gives_the_same_samples_as_on_disk(
    settings: Settings, many: Path, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    hurt = tmp_path / "hurt"
    shutil.copytree(many, hurt)
    harm(hurt / "shards" / VICTIM)
    local = stream_of(settings, data__path=str(hurt), data__window=2)
    with serving(hurt) as server:
        cache = {"folder": str(tmp_path / "cache"), "limit": "1 MB"}
        remote = stream_of(settings, data__path=server.url, data__window=2, data__cache=cache)
        for i in range(SHARDS * ROWS):
            (here, noted), (there, also) = local.view(i), remote.view(i)
            assert (here.key, [line.index for line in noted]) == (there.key, [line.index for line in also])


def test_a_cache_that_cannot_hold_two_windows_is_refused(settings: Settings, many: Path, tmp_path: Path) -> None:
    most = max(path.stat().st_size for path in (many / "shards").iterdir())
    cache = {"folder": str(tmp_path / "cache"), "limit": 3 * most}
    with serving(many) as server:
        with pytest.raises(ValueError, match=r"2 windows of 2 shards\) needs .* smaller windows") as error:
            stream_of(settings, data__path=server.url, data__window=2, data__cache=cache)
        assert server.url in str(error.value)
        with pytest.raises(ValueError, match=r"\(whole\) needs"):
            stream_of(settings, data__path=server.url, data__cache=cache)
        stream_of(settings, data__path=server.url, data__window=1, data__cache=cache)
