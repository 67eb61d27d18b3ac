"""`verify` finds every kind of damage, and `repair` makes a sound manifest of what is sound."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

import shards
from shards import encode, generator, ledger, parallel, write_manifest, write_shard
from shards.check.repair import repair
from shards.check.verify import as_json, inspect, verify
from shards.commands.verify import verify as command
from shards.ledger import LedgerWriter
from shards.store import lease, open_store
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


class Killed(BaseException):
    """As by SIGKILL."""


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
    "no shard's size": (lambda root: rewrite(root, lambda rows: rows[2].update(shard_bytes=0)), "shard_bytes is 0"),
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
    assert "no sound sample" in str(left_out.pop())
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


def test_the_member_that_is_damaged_is_named(dataset_copy: Path) -> None:
    """Of every byte of a sample, header, content and padding: the sample is lost, or healed where no content is."""
    dataset = shards.open(dataset_copy)
    row = dataset.manifest.to_pylist()[5]
    path = dataset_copy / "shards" / row["shard"]
    good = path.read_bytes()
    here = row["offset"]
    for member in row["members"]:
        content = here + 512
        places = {here + 100: "archive", content: member["name"], content + member["bytes"] - 1: member["name"]}
        here = content + -(-member["bytes"] // 512) * 512
        if member["bytes"] % 512:
            places[here - 1] = "archive"
        for at, name in places.items():
            flip(path, at)
            (problem,) = verify(dataset_copy)
            assert (problem.where, problem.keys, problem.member) == (f"shards/{row['shard']}", (row["key"],), name)
            path.write_bytes(good)


def test_a_missing_shard_and_a_truncated_one_say_which_samples_they_cost(dataset_copy: Path) -> None:
    rows = shards.open(dataset_copy).manifest.to_pylist()
    names = sorted({row["shard"] for row in rows})
    (dataset_copy / "shards" / names[0]).unlink()
    last = [row for row in rows if row["shard"] == names[1]][-2:]
    cut = dataset_copy / "shards" / names[1]
    cut.write_bytes(cut.read_bytes()[: last[0]["offset"] + 600])
    verdict = inspect(dataset_copy)
    gone = {row["key"] for row in rows if row["shard"] == names[0]} | {row["key"] for row in last}
    assert set(verdict.lost) == gone
    assert set(inspect(dataset_copy, quick=True).lost) == gone
    told = as_json("x", verdict)
    assert (told["sound"], set(told["lost"]), told["samples"]) == (False, gone, 31)


@pytest.mark.parametrize("name", ["dataset.json", "manifest.parquet", "ledger.parquet"])
def test_any_flipped_bit_beside_the_shards_is_found(dataset_copy: Path, name: str) -> None:
    path = dataset_copy / name
    with (dataset_copy / "ledger.parquet").open("wb") as file, LedgerWriter(file) as writer:
        writer.write([ledger.row(unit="000000-unit", asset="a", source="s", licence="l", status="done")])
    assert verify(dataset_copy) == []
    good = path.read_bytes()
    rng = generator(1, "verify-flips", name)
    for at in {0, len(good) - 1, *map(int, rng.integers(0, len(good), 30))}:
        flip(path, at)
        assert any(problem.where == name for problem in inspect(dataset_copy, quick=True).problems), at
        path.write_bytes(good)


def test_a_quick_look_finds_what_sizes_tell_and_reads_no_sample(dataset_copy: Path) -> None:
    assert inspect(dataset_copy, quick=True).problems == []
    path = first_shard(dataset_copy)
    flip(path, 3000)
    assert inspect(dataset_copy, quick=True).problems == []
    path.write_bytes(path.read_bytes() + b"x")
    assert [problem.where for problem in inspect(dataset_copy, quick=True).problems] == [f"shards/{path.name}"]


def test_stale_statistics_are_found_and_measured_anew(dataset_copy: Path) -> None:
    config = shards.read_dataset_json(dataset_copy)
    measured = shards.statistics(dataset_copy)
    assert measured is not None
    shards.write_dataset_json(dataset_copy, {**config, "statistics": {**measured, "samples": 3}})
    assert ["statistics" in str(problem) for problem in verify(dataset_copy)] == [True]
    shards.write_dataset_json(dataset_copy, {**config, "statistics": measured})
    assert verify(dataset_copy) == []
    first_shard(dataset_copy).unlink()
    _, remarks = repair(dataset_copy)
    assert any("measured anew" in str(remark) for remark in remarks)
    assert verify(dataset_copy) == []
    assert shards.open(dataset_copy).statistics == shards.statistics(dataset_copy) != measured


@pytest.mark.parametrize(
    "content", [None, b"{", b'{"format": "worldtrace", "version": 2, "layers": 6, "size": [24, 28]}']
)
def test_a_lost_dataset_json_is_written_anew(dataset_copy: Path, content: bytes | None) -> None:
    path = dataset_copy / "dataset.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    repair(dataset_copy)
    assert verify(dataset_copy) == []
    config = shards.read_dataset_json(dataset_copy)
    assert (config["layers"], config["size"]) == (6, [24, 28])
    assert config["statistics"] == shards.statistics(dataset_copy)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"layers": 6', b'"layers": 4'),
        (b'"size": [\n    24', b'"size": [\n    20'),
        (b"+z forward", b"-z forward"),
        (b'"numpy": "', b'"numpy": 2, "x": "'),
        (b'"statistics": {', b'"statistics": 3, "x": {'),
        (b'"mean": [', b'"mean": [1e999,'),
    ],
)
def test_damaged_facts_are_not_sealed_as_true(dataset_copy: Path, old: bytes, new: bytes) -> None:
    config = shards.read_dataset_json(dataset_copy)
    shards.write_dataset_json(dataset_copy, {**config, "statistics": shards.statistics(dataset_copy)})
    path = dataset_copy / "dataset.json"
    good = path.read_bytes()
    assert old in good
    path.write_bytes(good.replace(old, new, 1))
    assert any(problem.where == "dataset.json" for problem in verify(dataset_copy))
    repair(dataset_copy)
    assert verify(dataset_copy) == []
    after = shards.read_dataset_json(dataset_copy)
    wanted = json.loads(good)
    for name in ("layers", "size", "conventions", "software", "statistics", "job"):
        assert after[name] == wanted[name], name


@pytest.mark.parametrize("lost", [True, False])
def test_a_repair_that_was_killed_is_ended_by_the_next(
    dataset_on_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    """At each step of the disk; a sample is lost, or dataset.json."""
    damaged, done = tmp_path / "damaged", tmp_path / "done"
    shutil.copytree(dataset_on_disk, damaged)
    config = shards.read_dataset_json(damaged)
    shards.write_dataset_json(damaged, {**config, "statistics": shards.statistics(damaged)})
    if lost:
        row = next(row for row in shards.open(damaged).manifest.to_pylist() if row["split"] == "train")
        flip(damaged / "shards" / row["shard"], row["offset"] + 600)
    else:
        flip(damaged / "dataset.json", 300)
    shutil.copytree(damaged, done)
    repair(done, cut=True)
    assert verify(done) == []
    wanted = {path.relative_to(done): path.read_bytes() for path in done.rglob("*") if path.is_file()}
    kills, steps = 0, 0

    def dying(sound: Callable[..., object]) -> Callable[..., object]:
        def step(*args: object, **options: object) -> object:
            nonlocal steps
            steps += 1
            if steps > kills:
                raise Killed
            return sound(*args, **options)

        return step

    while True:
        place = tmp_path / str(kills)
        shutil.copytree(damaged, place)
        steps = 0
        with monkeypatch.context() as patch:
            for name in ("replace", "fsync"):
                patch.setattr(os, name, dying(getattr(os, name)))
            patch.setattr(Path, "unlink", lambda *args, **options: None)  # who is killed removes nothing
            with suppress(Killed):
                repair(place, cut=True)
        if steps <= kills:
            break
        kills += 1
        repair(place, cut=True)
        found = {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()}
        assert found == wanted, kills
        shutil.rmtree(place)
    assert kills > 5


def test_a_repair_of_what_is_sound_changes_no_byte(dataset_copy: Path) -> None:
    before = {path: path.read_bytes() for path in dataset_copy.rglob("*") if path.is_file()}
    assert repair(dataset_copy, cut=True) == (31, [])
    assert {path: path.read_bytes() for path in dataset_copy.rglob("*") if path.is_file()} == before


def test_what_differs_from_the_old_manifest_is_no_data_even_if_it_decodes(dataset_copy: Path) -> None:
    """A flipped bit may leave a sample that decodes: only the manifest knows that it is another one."""
    row = shards.open(dataset_copy).manifest.to_pylist()[5]
    path = dataset_copy / "shards" / row["shard"]
    content = path.read_bytes()
    at = content.index(b'"light":[0.1', row["offset"])
    path.write_bytes(content[:at] + b'"light":[0.5' + content[at + 12 :])
    count, remarks = repair(dataset_copy)
    assert count == 30
    assert any(row["key"] in remark.keys for remark in remarks)
    (dataset_copy / "manifest.parquet").unlink()
    assert repair(dataset_copy)[0] == 31


@pytest.mark.parametrize("place", ["content", "header", "padding", "end", "gap", "truncated"])
def test_cut_leaves_a_sound_dataset_without_what_is_lost(dataset_copy: Path, place: str) -> None:
    dataset = shards.open(dataset_copy)
    rows = dataset.manifest.to_pylist()
    row = rows[5]
    path = dataset_copy / "shards" / row["shard"]
    good = path.read_bytes()
    at = {"content": 600, "header": 3, "padding": row["bytes"] - 1}
    if place in at:
        flip(path, row["offset"] + at[place])
    elif place == "end":
        path.write_bytes(good[:-1024] + b"x" * 700)
    elif place == "gap":
        path.write_bytes(good[: row["offset"]] + bytes(512) + good[row["offset"] :])
    else:
        path.write_bytes(good[: row["offset"] + 700])
    repair(dataset_copy, cut=True)
    assert verify(dataset_copy) == []
    kept = shards.open(dataset_copy)
    lost = {"content": [row], "truncated": [each for each in rows if each["shard"] == row["shard"]][5:]}.get(place, [])
    assert kept.keys == [each["key"] for each in rows if each not in lost]
    assert (
        not lost
        or dict(zip(kept.keys, kept.manifest["sha256"].to_pylist())).items()
        <= {each["key"]: each["sha256"] for each in rows}.items()
    )
    if not lost:
        assert path.read_bytes() == good
        assert kept.hash == dataset.hash


@pytest.mark.slow
def test_the_verdict_does_not_depend_on_the_number_of_processes(
    dataset_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "WORTH", 0)
    flip(first_shard(dataset_copy), 3000)
    max((dataset_copy / "shards").iterdir()).unlink()
    assert inspect(dataset_copy, workers=2) == inspect(dataset_copy, workers=1)
    copy = Path(shutil.copytree(dataset_copy, dataset_copy.parent / "other"))
    assert repair(dataset_copy, workers=2, cut=True) == repair(copy, workers=1, cut=True)
    for path in copy.rglob("*.*"):
        assert path.read_bytes() == (dataset_copy / path.relative_to(copy)).read_bytes()
    assert shards.statistics(copy, workers=2) == shards.statistics(copy, workers=1) is not None


def test_a_dataset_in_a_bucket_is_verified_and_repaired(dataset_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SETTLE", 0.0)
    store = open_store("memory://verified")
    for path in dataset_copy.rglob("*"):
        if path.is_file():
            with store.writing(str(path.relative_to(dataset_copy))) as file:
                file.write(path.read_bytes())
    assert verify("memory://verified") == []
    name = f"shards/{first_shard(dataset_copy).name}"
    damaged = bytearray(store.read(name))
    damaged[3000] ^= 4
    with store.writing(name) as file:
        file.write(damaged)
    with store.writing("shards/notes.txt") as file:
        file.write(b"hello")
    assert {problem.where for problem in verify("memory://verified")} == {name, "shards/notes.txt"}
    store.delete(["shards/notes.txt"])
    repair("memory://verified", cut=True)
    assert verify("memory://verified") == []


def one_command() -> typer.Typer:
    app = typer.Typer()
    app.command()(command)
    return app


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(one_command(), [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stdout


def test_the_command_says_it_to_people_and_programs(dataset_copy: Path) -> None:
    assert run(dataset_copy, "--quick").endswith("tables, sizes and ends are right\n")
    row = shards.open(dataset_copy).manifest.to_pylist()[5]
    flip(dataset_copy / "shards" / row["shard"], row["offset"] + 600)
    assert f"{row['key']}: the bytes are not those" in run(dataset_copy, code=1)
    told = json.loads(run(dataset_copy, "--json", code=1))
    assert (told["lost"], told["problems"][0]["member"]) == ([row["key"]], "json")
    told = CliRunner().invoke(one_command(), [str(dataset_copy)]).output
    assert told.endswith("1 problem, 1 of 31 samples is damaged\n")
    text = run(dataset_copy, "--repair", "--cut")
    assert "the manifest now lists the 30 sound samples" in text
    assert text.endswith("30 samples in 3 shards, sound\n")
    with pytest.raises(ValueError, match="belongs to --repair"):
        command(str(dataset_copy), cut=True)


def dies(task: int) -> int:
    os._exit(9)


@pytest.mark.slow
def test_a_worker_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "WORTH", 0)
    with pytest.raises(OSError, match="fewer --workers"):
        list(parallel.in_processes(dies, range(3), 2, 1))
