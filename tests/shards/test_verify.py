"""`verify` finds every kind of damage, and `repair` makes a sound manifest of what is sound."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import shards
from shards import encode, generator, write_manifest, write_shard
from shards.verify import repair, verify
from tests.shards.scenes import spheres_view


def first_shard(root: Path) -> Path:
    return min((root / "shards").glob("*.tar"))


def rewrite(root: Path, change: Callable[[list[dict]], object], nullable: bool = False) -> None:
    """Let `change` edit the rows of the manifest, and write them without the checks of write_manifest."""
    path = root / "manifest.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    schema = pa.schema([field.with_nullable(nullable) for field in table.schema])
    pq.write_table(table.from_pylist(rows, schema=schema), path)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_sound_dataset_has_no_problem(dataset_on_disk: Path) -> None:
    seen: list[tuple[int, int]] = []
    assert verify(dataset_on_disk, lambda done, total: seen.append((done, total))) == []
    assert seen[-1] == (31, 31)


def test_any_flipped_bit_of_a_shard_is_found(dataset_copy: Path) -> None:
    path = max((dataset_copy / "shards").glob("*.tar"))
    good = path.read_bytes()
    rng = generator(0, "verify-flips")
    ends = [0, len(good) - 1, len(good) - 1024, len(good) - 1025]
    for at in [*ends, *rng.integers(0, len(good), 26)]:
        flip(path, int(at))
        problems = verify(dataset_copy)
        assert problems, f"byte {at} of {len(good)}"
        assert all(path.name in str(problem) for problem in problems)
        path.write_bytes(good)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing shard": (lambda root: first_shard(root).unlink(), "missing"),
    "truncated shard": (
        lambda root: first_shard(root).write_bytes(first_shard(root).read_bytes()[:-2000]),
        "truncated",
    ),
    "end mark lost": (lambda root: first_shard(root).write_bytes(first_shard(root).read_bytes()[:-1024]), "truncated"),
    "bytes appended": (lambda root: first_shard(root).write_bytes(first_shard(root).read_bytes() + b"x"), "added to"),
    "foreign shard": (lambda root: write_shard(root / "shards" / "x.tar", []), "x.tar: is not in the manifest"),
    "foreign file": (lambda root: (root / "shards" / "notes.txt").write_text("hello"), "notes.txt: is not a shard"),
    "stranger beside": (lambda root: (root / "notes.txt").write_text("hello"), "does not belong"),
    "leftover": (lambda root: (root / "shards" / ".a.tar.0f.tmp").write_text(""), "interrupted"),
    "leftover beside": (lambda root: (root / ".manifest.parquet.0f.tmp").write_text(""), "interrupted"),
    "row lost": (lambda root: rewrite(root, lambda rows: rows.pop(3)), "belong to no sample"),
    "last row lost": (lambda root: rewrite(root, lambda rows: rows.pop()), "after its last sample"),
    "row doubled": (lambda root: rewrite(root, lambda rows: rows.append(rows[-1])), "comes twice"),
    "wrong order": (lambda root: rewrite(root, lambda rows: rows.reverse()), "not in the order"),
    "wrong hash": (lambda root: rewrite(root, lambda rows: rows[2].update(sha256="0" * 64)), "sha256 differs"),
    "wrong key": (lambda root: rewrite(root, lambda rows: rows[2].update(key="other")), "not a member of it"),
    "wrong split": (lambda root: rewrite(root, lambda rows: rows[2].update(split="test")), "split is 'test'"),
    "wrong coverage": (lambda root: rewrite(root, lambda rows: rows[2].update(coverage=[0.5])), "coverage is"),
    "wrong depth": (lambda root: rewrite(root, lambda rows: rows[2].update(z_max=9.0)), "z_max is 9.0"),
    "empty field": (lambda root: rewrite(root, lambda rows: rows[2].update(shard=None), nullable=True), "no shard"),
    "no manifest": (lambda root: (root / "manifest.parquet").unlink(), "missing"),
    "damaged manifest": (lambda root: (root / "manifest.parquet").write_bytes(b"PAR1"), "damaged"),
    "damaged ledger": (lambda root: (root / "ledger.parquet").write_bytes(b"PAR1"), "cannot be read"),
    "no dataset.json": (lambda root: (root / "dataset.json").unlink(), "missing"),
    "damaged dataset.json": (lambda root: (root / "dataset.json").write_text("{"), "damaged"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_each_kind_of_damage_is_named(dataset_copy: Path, name: str) -> None:
    damage, words = DAMAGES[name]
    damage(dataset_copy)
    problems = [str(problem) for problem in verify(dataset_copy)]
    assert any(words in problem for problem in problems), problems


def test_a_sample_that_hashes_right_but_decodes_wrong_is_found(dataset_copy: Path) -> None:
    """A writer with a bug: manifest and shard agree, the content breaks the contract."""
    encoded = encode(spheres_view(77, 24, 28))
    meta = json.loads(encoded.members["json"])
    meta["frames"][0]["K"] = [[1.0]]
    encoded.members["json"] = json.dumps(meta).encode()
    rows = write_shard(dataset_copy / "shards" / "000009-bad.tar", [encoded])
    write_manifest(dataset_copy, [*shards.read_manifest(dataset_copy).to_pylist(), *rows])
    assert ["K is not" in str(problem) for problem in verify(dataset_copy)] == [True]


CRAFTED: dict[str, Callable[[dict], object]] = {
    "origin.sha256": lambda meta: meta["origin"].update(sha256=5),
    "origin.uid": lambda meta: meta["origin"].update(uid=["a"]),
    "origin.licence": lambda meta: meta["origin"].update(licence="\ud800"),
    "info.flags": lambda meta: meta["frames"][0]["info"].update(flags=5),
    "info.view": lambda meta: meta["frames"][0]["info"].update(view=2**40),
    "info.overflow": lambda meta: meta["frames"][0]["info"].update(overflow="x"),
    "K is not invertible": lambda meta: meta["frames"][0].update(K=[[0, 0, 0]] * 3),
    "world_from_camera": lambda meta: meta["frames"][0].update(world_from_camera=[[None] * 4] * 4),
}


def test_crafted_samples_stop_neither_verify_nor_repair(dataset_copy: Path) -> None:
    """A shard of members whose hashes are right and whose JSON is not; the sound samples beside them are kept."""
    before = shards.open(dataset_copy)
    crafted = []
    for i, change in enumerate(CRAFTED.values()):
        encoded = encode(spheres_view(i, 24, 28, key=f"crafted-{i}"))
        meta = json.loads(encoded.members["json"])
        change(meta)
        encoded.members["json"] = json.dumps(meta).encode()
        crafted.append(encoded)
    rows = write_shard(dataset_copy / "shards" / "000009-bad.tar", crafted)
    write_manifest(dataset_copy, [*shards.read_manifest(dataset_copy).to_pylist(), *rows])
    found = [str(problem) for problem in verify(dataset_copy)]
    count, left_out = repair(dataset_copy)
    assert count == len(before)
    assert shards.open(dataset_copy).hash == before.hash
    for problems in (found, [str(problem) for problem in left_out]):
        assert [words in problem for words, problem in zip(CRAFTED, problems, strict=True)] == [True] * len(CRAFTED)


def test_repair_gives_the_manifest_that_was_lost(dataset_copy: Path) -> None:
    before = shards.open(dataset_copy)
    (dataset_copy / "manifest.parquet").unlink()
    count, problems = repair(dataset_copy)
    assert (count, problems) == (31, [])
    after = shards.open(dataset_copy)
    assert after.hash == before.hash
    assert after.manifest.drop_columns(["z_min", "z_max"]) == before.manifest.drop_columns(["z_min", "z_max"])
    assert verify(dataset_copy) == []


@pytest.mark.parametrize("place", ["first header", "first content", "second header", "last header", "end"])
def test_repair_keeps_the_sound_samples_of_a_damaged_shard(dataset_copy: Path, place: str) -> None:
    dataset = shards.open(dataset_copy)
    rows = dataset.manifest.to_pylist()
    row, last = rows[5], rows[-1]
    path, cut = dataset_copy / "shards" / row["shard"], dataset_copy / "shards" / last["shard"]
    sizes = [len(data) for _, data in sorted(dataset.members(5).items())]
    second, third = (sum(512 + -(-size // 512) * 512 for size in sizes[:n]) for n in (1, 2))
    within = {"first header": 3, "first content": 600, "second header": second, "last header": third, "end": 0}[place]
    if place == "end":
        path.write_bytes(path.read_bytes()[:-1024])
    else:
        flip(path, row["offset"] + within)
    cut.write_bytes(cut.read_bytes()[: last["offset"] + last["bytes"] // 2])

    count, problems = repair(dataset_copy)
    damaged = {last["key"]} | (set() if place == "end" else {row["key"]})
    kept = shards.open(dataset_copy)
    assert kept.keys == [key for key in dataset.keys if key not in damaged]
    assert count == len(kept)
    assert [sample.key for sample in kept] == kept.keys
    assert {problem.where for problem in problems} == {f"shards/{path.name}", f"shards/{cut.name}"}
    assert {problem.where for problem in verify(dataset_copy)} == {f"shards/{path.name}", f"shards/{cut.name}"}


def test_repair_needs_shards(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no shard"):
        repair(tmp_path)
    with pytest.raises(FileNotFoundError, match="not a folder"):
        verify(tmp_path / "nothing")
