"""A dataset made sound again, as far as its shards are: the manifest from them, dataset.json from the manifest.

Where the old manifest can still be read it tells which bytes a sample had: what differs from it is not taken for data,
though it might decode. Shards are left alone unless they are to be cut: then a damaged one is written anew without its
damaged samples, and with the headers and the padding that it had.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .. import seal
from ..archive import END, split_part, walk_file
from ..dataset_json import CONVENTIONS, FORMAT, VERSION, dataset_json, is_texts, load, parse_dataset_json
from ..layers.planes import planes_in
from ..layout import DATASET_JSON, MANIFEST, SHARDS
from ..manifest import SCHEMA, ManifestWriter, members_of
from ..parallel import in_processes
from ..rewrite.inputs import digests, manifest_batches
from ..sample import decode, describe
from ..store import Store, open_store, under
from ..unfinished import is_unfinished, unfinished
from ..writer import parts_into
from .measure import UNMEASURED, is_measured, statistics
from .verify import rows_by_shard
from .verify_shard import Problem, agree, any_member, frames_of, healed, parts

Progress = Callable[[int, int], None]


def repair(
    place: str | PathLike[str], progress: Progress | None = None, workers: int | None = 1, cut: bool = False
) -> tuple[int, list[Problem]]:
    """Write the manifest anew from the shards: (samples found, what could not be used or was mended).

    dataset.json is written anew where it is damaged or missing (what a sample states is then taken from the manifest),
    or where samples are gone since its statistics were measured: these are then measured again. A repair that was
    killed is ended by the next one. With `cut` damaged shards are written anew, without what is lost. Nothing
    else is touched. `progress(shards done, in all)`. FileNotFoundError where there is no shard, ValueError where the
    dataset is not finished: its shards are not all that it was to hold.
    """
    store = open_store(place)
    with store.claim():
        if is_unfinished(store):
            raise ValueError(f"{unfinished(store)}; there is nothing to repair in it before")
        sizes = {name.rpartition("/")[2]: size for name, size in store.sizes(SHARDS).items() if name.endswith(".tar")}
        shards = sorted(sizes)
        if not shards:
            where = under(store, SHARDS)
            raise FileNotFoundError(f"{where} holds no shard: there is nothing to rebuild the manifest from")
        known, trusted, before = _old(store)
        tasks = (Task(store, shard, rows, trusted, cut) for shard, rows in _beside(shards, known))
        remarks: list[Problem] = []
        with tempfile.TemporaryFile() as spool:
            keys = [np.zeros((0, 2), np.uint64)]
            with pa.ipc.new_stream(spool, SCHEMA) as stream:
                for done, mended in enumerate(in_processes(mend_shard, tasks, workers, sum(sizes.values())), start=1):
                    remarks += mended.remarks
                    stream.write_table(mended.rows)
                    keys.append(digests(mended.rows["key"]))
                    if progress is not None:
                        progress(done, len(shards))
            first = _first(np.concatenate(keys))
            samples = int(first.sum())
            header = _Header.read(store) if samples else None
            if header is not None and header.measured and _hash_of(spool, first) != before:
                header.write_unmeasured(store)  # before the manifest: whoever dies in between is found out by it
            _write_manifest(store, spool, first, remarks)
        if header is not None:
            remarks += _mend_header(store, header, workers)
        store.sweep()
    return samples, remarks


@dataclass(frozen=True)
class Task:
    """A shard and the rows that the old manifest has of it; `trusted` where that is sealed."""

    store: Store
    shard: str
    known: pa.Table
    trusted: bool
    cut: bool

    @property
    def name(self) -> str:
        return f"{SHARDS}/{self.shard}"


@dataclass(frozen=True)
class Mended:
    """The manifest rows of a shard as it is now, and what is to be said of it."""

    rows: pa.Table
    remarks: list[Problem]


@dataclass
class _Found:
    """What a shard holds: places of sound samples with their rows, and of samples that `healed` restores."""

    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    broken: dict[int, dict[str, Any]] = field(default_factory=dict)
    remarks: list[Problem] = field(default_factory=list)


def mend_shard(task: Task) -> Mended:
    """What is sound of a shard; it is written anew where it is to be cut, and is not sound as a whole."""
    found = _by_rows(task)
    if found is None:
        found = _by_walk(task, [], {})
    rows = [found.rows[offset] for offset in sorted(found.rows)]
    end = rows[-1]["offset"] + rows[-1]["bytes"] if rows else 0
    size = task.store.size(task.name)
    tiled = all(row["offset"] == at for row, at in zip(rows, _ends(rows)))
    whole = tiled and not found.broken and size == end + len(END) and task.store.part(task.name, end, len(END)) == END
    if task.cut and not whole and (rows or found.broken):
        keep = sorted([*found.rows.values(), *found.broken.values()], key=lambda row: int(row["offset"]))
        with task.store.writing(task.name) as file:
            rows = parts_into(file, task.shard, _restored(task, keep))
        found.remarks.append(Problem(task.name, f"was written anew, with {len(rows)} sound samples"))
    else:
        for row in found.broken.values():
            what = f"left out: only the archive around {row['key']} is damaged: --cut restores it"
            found.remarks.append(Problem(task.name, what, (row["key"],)))
        if not whole and not found.remarks:
            what = "has bytes that belong to no sample, or no end: --cut mends it"
            found.remarks.append(Problem(task.name, what))
        if not rows:
            found.remarks.append(Problem(task.name, "holds no sound sample: restore it from a copy, or delete it"))
        digest = hashlib.sha256()
        for piece in task.store.pieces(task.name):
            digest.update(piece)
        of_shard = {"shard": task.shard, "shard_bytes": size, "shard_sha256": digest.hexdigest()}
        rows = [{**row, **of_shard} for row in rows]
    return Mended(pa.Table.from_pylist(rows, schema=SCHEMA), found.remarks)


def _by_rows(task: Task) -> _Found | None:
    """By the rows of the old manifest; None where it is another shard that they speak of: nothing in it is theirs."""
    size = task.store.size(task.name)
    rows = sorted(task.known.to_pylist(), key=lambda row: int(row["offset"]))
    found = _Found()
    lost: dict[str, dict[str, Any]] = {}
    ours = False
    for row, part in parts(task.store, task.name, rows):
        key, sound = row["key"], hashlib.sha256(part).hexdigest() == row["sha256"]
        ours = ours or sound or any_member(row, part)
        if sound:
            try:
                found.rows[row["offset"]] = _row(key, part, row["offset"], row if task.trusted else None)
            except ValueError as error:
                found.remarks.append(Problem(task.name, f"left out: {error}", (key,)))
        elif healed(row, part) is not None:
            found.broken[row["offset"]] = row
        else:
            lost[key] = row
    if not ours:
        return None
    places = sorted((row["offset"], row["offset"] + row["bytes"]) for row in rows if row["key"] not in lost)
    if lost or size != len(END) + sum(end - begin for begin, end in places):
        more = _by_walk(task, places, lost)  # samples that have moved, or that the old manifest does not name
        found.rows.update(more.rows)
        found.remarks += [remark for remark in more.remarks if remark.keys]
    still = {row["key"] for row in found.rows.values()}
    for key, row in lost.items():
        if key not in still:
            why = "its bytes are not those written" if row["offset"] < size else "the shard is truncated before it"
            found.remarks.append(Problem(task.name, f"left out: {key}: {why}", (key,)))
    return found


def _by_walk(task: Task, known: list[tuple[int, int]], lost: Mapping[str, Mapping[str, Any]]) -> _Found:
    """By its headers, outside of the places that are `known`. Of `lost` samples only the bytes count that they had."""
    found = _Found()
    stated = {row["sha256"]: row for row in task.known.to_pylist()} if task.trusted else {}
    try:
        with task.store.reading(task.name) as file:
            for key, offset, part in walk_file(file, task.name):
                if any(begin < offset + len(part) and offset < end for begin, end in known):
                    continue
                digest = hashlib.sha256(part).hexdigest()
                if key in lost and digest != lost[key]["sha256"]:
                    continue
                try:
                    found.rows[offset] = _row(key, part, offset, stated.get(digest))
                except ValueError as error:
                    found.remarks.append(Problem(task.name, f"left out: {error}", (key,)))
    except ValueError as error:
        found.remarks.append(Problem(task.name, str(error)))
    return found


def _row(key: str, part: bytes, offset: int, stated: Mapping[str, Any] | None) -> dict[str, Any]:
    """The manifest row of a part: the one that is stated if it agrees with what is decoded."""
    members = split_part(key, part, key)
    found = describe(key, frames_of(decode(key, members, planes_in(members))))
    found["members"] = members_of(members)
    if stated is not None and stated["members"] and all(agree(name, found[name], stated[name]) for name in found):
        return {**stated, "offset": offset}
    place = {"shard": "", "shard_bytes": 0, "shard_sha256": "", "offset": offset, "bytes": len(part)}
    return {**found, **place, "sha256": hashlib.sha256(part).hexdigest()}


def _restored(task: Task, rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], bytes]]:
    for row, part in parts(task.store, task.name, rows):
        whole = part if hashlib.sha256(part).hexdigest() == row["sha256"] else healed(row, part)
        if whole is None:
            raise OSError(f"{under(task.store, task.name)} changed while it was mended: run the command again")
        yield row, whole


def _ends(rows: list[dict[str, Any]]) -> list[int]:
    """Where each of them should begin."""
    return [0, *(row["offset"] + row["bytes"] for row in rows[:-1])]


def _old(store: Store) -> tuple[Iterator[tuple[str, pa.Table]], bool, str]:
    """(the old manifest's rows by shard, whether it is as it was written, the hash of its samples); none where it is
    missing or cannot be read to its end.
    """
    try:
        with store.reading(MANIFEST) as file:
            trusted = seal.check(file) is True
        digest = hashlib.sha256()
        last, ordered = ("", -1), True
        for table in manifest_batches(store):
            _update(digest, table)
            for place in zip(table["shard"].to_pylist(), table["offset"].to_pylist()):
                ordered, last = ordered and last < place, place
        return rows_by_shard(store, ordered), trusted, digest.hexdigest()
    except (FileNotFoundError, ValueError):
        return iter(()), False, ""


def _update(digest: Any, table: pa.Table) -> None:
    for key, sha256 in zip(table["key"].to_pylist(), table["sha256"].to_pylist()):
        digest.update(f"{key} {sha256}\n".encode())


def _beside(shards: list[str], known: Iterator[tuple[str, pa.Table]]) -> Iterator[tuple[str, pa.Table]]:
    """(shard, its old rows) of the shards that are there; both come sorted."""
    waiting = next(known, None)
    for shard in shards:
        while waiting is not None and waiting[0] < shard:
            waiting = next(known, None)
        yield shard, waiting[1] if waiting is not None and waiting[0] == shard else SCHEMA.empty_table()


def _first(keys: np.ndarray) -> np.ndarray:
    """(n,) bool: false where the key has come before."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    again = (keys[order[1:]] == keys[order[:-1]]).all(axis=1)
    first = np.ones(len(keys), bool)
    first[order[1:][again]] = False
    return first


def _batches(spool: BinaryIO, first: np.ndarray) -> Iterator[tuple[pa.Table, pa.Array]]:
    """The rows found, with whether each is the first of its key, which alone counts."""
    spool.seek(0)
    begin = 0
    for batch in pa.ipc.open_stream(spool):
        table = pa.Table.from_batches([batch])
        yield table, pa.array(first[begin : begin + len(table)])
        begin += len(table)


def _hash_of(spool: BinaryIO, first: np.ndarray) -> str:
    """The hash that the new manifest will have."""
    digest = hashlib.sha256()
    for table, fresh in _batches(spool, first):
        _update(digest, table.filter(fresh))
    return digest.hexdigest()


def _write_manifest(store: Store, spool: BinaryIO, first: np.ndarray, remarks: list[Problem]) -> None:
    with store.writing(MANIFEST) as file, ManifestWriter(file) as writer:
        for table, fresh in _batches(spool, first):
            for row in table.filter(pc.invert(fresh)).select(["key", "shard"]).to_pylist():
                what = f"left out: {row['key']} is already in another shard, or earlier in this one"
                remarks.append(Problem(f"{SHARDS}/{row['shard']}", what))
            writer.write(table.filter(fresh))


@dataclass(frozen=True)
class _Header:
    """dataset.json as it was found: `sound`, or what can be read of it."""

    config: dict[str, Any]
    sound: bool

    @classmethod
    def read(cls, store: Store) -> "_Header":
        content = b""
        try:
            content = store.read(DATASET_JSON)
            return cls(parse_dataset_json(content, under(store, DATASET_JSON)), True)
        except (FileNotFoundError, ValueError):
            return cls(_as_far_as_it_goes(content), False)

    @property
    def measured(self) -> bool:
        return self.sound and self.config.get("statistics") is not None

    def is_of(self, samples: int) -> bool:
        """Whether its statistics, if it has any, are those of so many samples."""
        found = self.config.get("statistics")
        return self.sound and not self.config.get(UNMEASURED) and (found is None or found.get("samples") == samples)

    def write_unmeasured(self, store: Store) -> None:
        """Without statistics, and with a note that they are to be measured."""
        self.config.update({"version": VERSION, "statistics": None, UNMEASURED: True})
        with store.writing(DATASET_JSON) as file:
            file.write(dataset_json(self.config))


def _mend_header(store: Store, header: _Header, workers: int | None) -> list[Problem]:
    """dataset.json, where it is damaged or its statistics are of other samples than those of the manifest."""
    shapes, samples = _shapes(store)
    if header.is_of(samples):
        return []
    if not header.sound:
        header.config.update({**shapes, "conventions": CONVENTIONS})
    header.write_unmeasured(store)
    measured = {**header.config, "statistics": statistics(store.text, workers=workers)}
    del measured[UNMEASURED]
    with store.writing(DATASET_JSON) as file:
        file.write(dataset_json(measured))
    how = "its statistics were measured anew" if header.sound else "it was written anew, as far as it could be read"
    return [Problem(DATASET_JSON, how)]


def _as_far_as_it_goes(content: bytes) -> dict[str, Any]:
    """Of a damaged dataset.json what it alone tells, such as how the dataset was made. It may hold the damage."""
    try:
        config = load(content)
    except ValueError:
        return {}
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        return {}
    told = {name: value for name, value in config.items() if name != "software" or is_texts(value)}
    return {**told, **({"complete": True} if "complete" in told else {})}


def _shapes(store: Store) -> tuple[dict[str, Any], int]:
    """(layers and size, the largest of all samples; how many samples statistics are measured of)."""
    layers = height = width = samples = 0
    for table in manifest_batches(store, ["layers", "height", "width", "split", "regime"]):
        layers = max(layers, pc.max(table["layers"]).as_py())
        height = max(height, pc.max(table["height"]).as_py())
        width = max(width, pc.max(table["width"]).as_py())
        samples += pc.sum(is_measured(table)).as_py() or 0
    return {"layers": layers, "size": [height, width]}, samples
