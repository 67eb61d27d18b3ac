"""A dataset on disk: deterministic, atomic, read by our reader and by plain tar, webdataset, pandas."""

import copy
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas
import pyarrow as pa
import pytest
import webdataset
from PIL import Image

import shards
from shards import CorruptSample, EncodedSample, LayeredView, encode, write_dataset_json, write_manifest, write_shard
from shards.layers.codec import decode_layers
from tests.shards.conftest import samples
from tests.shards.scenes import spheres_view
from tests.shards.test_sample import assert_same


def _tree(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()
    }


def test_every_file_is_the_same_in_a_fresh_process(dataset_on_disk: Path, tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from tests.shards.conftest import write_dataset; write_dataset(pathlib.Path(sys.argv[1]))"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=root, env={"PYTHONHASHSEED": "3"}, check=True)
    assert _tree(tmp_path) == _tree(dataset_on_disk)


def test_samples_come_back_by_number_by_key_and_in_order(dataset_on_disk: Path) -> None:
    dataset = shards.open(dataset_on_disk)
    written = samples()
    assert len(dataset) == len(written) == 31
    assert dataset.keys == [sample.key for sample in written]
    for row, (sample, again) in enumerate(zip(written, dataset, strict=True)):
        if isinstance(sample, LayeredView):
            assert isinstance(again, LayeredView)
            assert_same(sample, again)
        assert dataset[row].key == dataset[sample.key].key == sample.key
    assert dataset[-1].key == written[-1].key
    for missing in (31, -32):
        with pytest.raises(IndexError):
            dataset[missing]
    with pytest.raises(KeyError, match="shards ls"):
        dataset["nothing"]


def test_a_dataset_may_be_copied_to_a_worker(dataset_on_disk: Path) -> None:
    dataset = shards.open(dataset_on_disk)
    assert copy.deepcopy(dataset)[5].key == dataset[5].key


def test_splits_partition_the_dataset(dataset_on_disk: Path) -> None:
    whole = shards.open(dataset_on_disk)
    parts = {split: shards.open(dataset_on_disk, split) for split in shards.SPLITS}
    assert sorted(key for part in parts.values() for key in part.keys) == sorted(whole.keys)
    for split, part in parts.items():
        assert [whole.keys[row] for row in whole.rows(split)] == part.keys
        for sample in part:
            origin = sample.origin
            assert shards.split_of(origin.sha256) == split
    assert len(parts["train"]) > 20
    assert parts["train"].hash != whole.hash
    with pytest.raises(ValueError, match="train, val, test"):
        shards.open(dataset_on_disk, "dev")


def test_the_hash_is_that_of_keys_and_contents(dataset_on_disk: Path) -> None:
    dataset = shards.open(dataset_on_disk)
    rows = dataset.manifest.to_pylist()
    text = "".join(f"{row['key']} {row['sha256']}\n" for row in rows)
    assert dataset.hash == hashlib.sha256(text.encode()).hexdigest()


def test_plain_tar_reads_it(dataset_on_disk: Path) -> None:
    names = []
    for path in sorted((dataset_on_disk / "shards").iterdir()):
        with tarfile.open(path) as archive:
            for info in archive:
                assert (info.mtime, info.uid, info.gid, info.mode, info.uname) == (0, 0, 0, 0o644, "")
                names.append(info.name)
    assert f"{samples()[0].key}.rgba.webp" in names
    assert "clip-40-c000.002.layers.zst" in names
    assert len(names) == 3 * 30 + 1 + 2 * 3


def test_the_system_tar_reads_it(dataset_on_disk: Path) -> None:
    path = min((dataset_on_disk / "shards").iterdir())
    listed = subprocess.run(["tar", "-tf", str(path)], check=True, capture_output=True, text=True)
    assert listed.stderr == ""
    assert listed.stdout.split()[0] == f"{samples()[0].key}.json"


def test_plain_webdataset_reads_it(dataset_on_disk: Path) -> None:
    paths = [str(path) for path in sorted((dataset_on_disk / "shards").iterdir())]
    found = list(webdataset.WebDataset(paths, shardshuffle=False).decode("rgba8"))
    written = samples()
    assert [sample["__key__"] for sample in found] == [sample.key for sample in written]
    for sample, original in zip(found[:30], written[:30], strict=True):
        assert isinstance(original, LayeredView)
        assert sample["json"]["frames"][0]["K"] == original.K.tolist()
        visible = original.rgba[..., 3] > 0
        np.testing.assert_array_equal(sample["rgba.webp"][visible], original.rgba[visible])
        np.testing.assert_array_equal(decode_layers(sample["layers.zst"])[0], original.hits)
    assert {"000.rgba.webp", "002.layers.zst", "json"} < set(found[30])


def test_pandas_reads_the_manifest(dataset_on_disk: Path) -> None:
    frame = pandas.read_parquet(dataset_on_disk / "manifest.parquet")
    assert list(frame["key"]) == [sample.key for sample in samples()]
    row = frame.iloc[7]
    part = (dataset_on_disk / "shards" / row["shard"]).read_bytes()[row["offset"] : row["offset"] + row["bytes"]]
    assert hashlib.sha256(part).hexdigest() == row["sha256"]
    with tarfile.open(fileobj=io.BytesIO(part)) as archive:
        image = archive.extractfile(f"{row['key']}.rgba.webp")
        assert image is not None
        assert Image.open(image).size == (28, 24)


def test_an_interrupted_shard_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> Iterator[EncodedSample]:
        yield encode(spheres_view(0))
        raise KeyboardInterrupt

    path = tmp_path / "shards" / "a.tar"
    with pytest.raises(KeyboardInterrupt):
        write_shard(path, interrupted())
    assert list(path.parent.iterdir()) == []
    write_shard(path, [encode(spheres_view(0))])
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_shard(path, interrupted())
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_an_empty_shard_is_an_archive(tmp_path: Path) -> None:
    assert write_shard(tmp_path / "a.tar", []) == []
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert archive.getnames() == []


def test_keys_are_unique_in_a_shard_and_in_a_dataset(tmp_path: Path) -> None:
    one = encode(spheres_view(0))
    with pytest.raises(ValueError, match="comes twice"):
        write_shard(tmp_path / "a.tar", [one, one])
    rows = write_shard(tmp_path / "a.tar", [one]) + write_shard(tmp_path / "b.tar", [one])
    with pytest.raises(ValueError, match="more than once"):
        write_manifest(tmp_path, rows)


def test_the_manifest_does_not_depend_on_the_order_of_its_rows(dataset_on_disk: Path, tmp_path: Path) -> None:
    rows = shards.read_manifest(dataset_on_disk).to_pylist()
    write_manifest(tmp_path, reversed(rows))
    assert (tmp_path / "manifest.parquet").read_bytes() == (dataset_on_disk / "manifest.parquet").read_bytes()


def test_an_empty_dataset_opens(tmp_path: Path) -> None:
    write_manifest(tmp_path, [])
    write_dataset_json(tmp_path, {"layers": 6, "size": [24, 28]})
    dataset = shards.open(tmp_path)
    assert len(dataset) == 0
    assert list(dataset) == []
    assert shards.statistics(dataset) is None


@pytest.mark.parametrize("change", [{"shard": None}, {"bytes": "many"}, {"coverage": 3}])
def test_a_row_that_does_not_fit_is_refused(dataset_on_disk: Path, tmp_path: Path, change: dict[str, object]) -> None:
    row = shards.read_manifest(dataset_on_disk).to_pylist()[0]
    with pytest.raises(ValueError, match=r"manifest\.parquet"):
        write_manifest(tmp_path, [{**row, **change}])


def test_damage_is_found_before_it_is_decoded(dataset_copy: Path) -> None:
    dataset = shards.open(dataset_copy)
    row = dataset.manifest.to_pylist()[3]
    path = dataset_copy / "shards" / row["shard"]
    whole = path.read_bytes()
    for at in range(row["offset"], row["offset"] + row["bytes"], 97):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(CorruptSample, match=r"sha256 differs.*delete it \(.*run the same render command"):
            dataset[3]
        assert dataset[2].key == dataset.keys[2]  # the neighbours are as readable as before
    path.write_bytes(whole[: row["offset"] + row["bytes"] - 1])
    with pytest.raises(CorruptSample, match=r"truncated.*delete it \(.*run the same render command"):
        dataset[3]
    path.unlink()
    with pytest.raises(FileNotFoundError, match="verify"):
        dataset[3]


def test_a_manifest_cannot_point_outside_its_folder(dataset_copy: Path) -> None:
    whole = shards.read_manifest(dataset_copy)
    rows = whole.to_pylist()
    rows[0]["shard"] = "../dataset.json"
    with pytest.raises(CorruptSample, match="plain name"):
        shards.Dataset(dataset_copy, {}, pa.Table.from_pylist(rows, whole.schema))[rows[0]["key"]]
    write_manifest(dataset_copy, rows)
    with pytest.raises(ValueError, match=r"manifest.parquet is damaged \(shard is '../dataset.json'\): rebuild it"):
        shards.open(dataset_copy)[rows[0]["key"]]


@pytest.mark.parametrize(
    ("column", "value"),
    [("shard", "a\0b"), ("shard", ""), ("shard", ".a"), ("shard", "a/b"), ("shard", 200 * "a"), ("offset", -5)]
    + [("bytes", -1), ("shard_bytes", 0), ("shard_bytes", -1), ("shard_sha256", "../../a"), ("sha256", "AB" * 32)],
)
def test_what_no_manifest_says_is_refused_in_one_sentence(column: str, value: object, dataset_copy: Path) -> None:
    rows = shards.read_manifest(dataset_copy).to_pylist()
    rows[7][column] = value
    write_manifest(dataset_copy, rows)
    with pytest.raises(ValueError, match=rf"manifest.parquet is damaged \({column} is .*\): rebuild it with"):
        shards.open(dataset_copy, cache=shards.Cache(dataset_copy.parent / "cache", 1 << 20)).load()


def test_what_is_not_a_dataset_is_refused_in_one_sentence(dataset_copy: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not a folder"):
        shards.open(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"dataset\.json"):
        shards.open(tmp_path / "empty")
    path = dataset_copy / "dataset.json"
    good = json.loads(path.read_text())
    for text, match in (
        ("{", "damaged.*restore it from a copy, or remove it"),
        ("[]", "not that of a worldtrace dataset"),
        (json.dumps({**good, "version": 99}), "update worldtrace"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=match):
            shards.open(dataset_copy)
    path.write_bytes(shards.dataset_json(good))
    (dataset_copy / "manifest.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="--repair"):
        shards.open(dataset_copy)
    (dataset_copy / "manifest.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="--repair"):
        shards.open(dataset_copy)


def test_dataset_json_states_conventions_and_keeps_what_it_is_given(tmp_path: Path) -> None:
    write_dataset_json(tmp_path, {"layers": 6, "size": [8, 8], "job": {"seed": 3}})
    config = shards.read_dataset_json(tmp_path)
    assert config["job"] == {"seed": 3}
    assert "+y down" in config["conventions"]["camera"]
    assert config["software"]["numpy"] == np.__version__
    before = (tmp_path / "dataset.json").read_bytes()
    write_dataset_json(tmp_path, config)
    assert (tmp_path / "dataset.json").read_bytes() == before
    with pytest.raises(ValueError, match="size is missing"):
        write_dataset_json(tmp_path, {"layers": 6})
    with pytest.raises(ValueError, match="plain JSON"):
        write_dataset_json(tmp_path, {"layers": 6, "size": [8, 8], "job": {"a": object()}})
