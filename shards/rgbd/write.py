"""An RGBD corpus -> a dataset of single-layer samples: what is missing is made, then the tables are written.

Every unit leaves its shard and then a record beside it (`units/`), so an import that was killed goes on where it was.
At the end the records become manifest.parquet and ledger.parquet. A corpus that has grown adds shards to its dataset:
units that are there already stay as they are, byte by byte.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .. import layout, ledger, manifest
from ..archive import END
from ..dataset_json import dataset_json, parse_dataset_json
from ..store import Claim, Store, naming, open_store, under
from .convert import Done, convert, record_name, shard_name
from .plan import Selection, Settings, Unit, plan
from .workers import PATIENCE, Task, in_processes

Progress = Callable[[int, int], None]


@dataclass
class Summary:
    """What an import came to: `frames` samples in `shards` shards, of them `fresh` made by this run."""

    out: str
    scenes: int = 0
    frames: int = 0
    shards: int = 0
    fresh: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    example: str = ""

    def line(self) -> str:
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.rejected.most_common())
        lost = f"; {self.rejected.total()} rejected ({reasons}; see ledger.parquet)" if reasons else ""
        made = "nothing was left to do" if not self.fresh else f"{self.fresh} of them new"
        return f"{self.out}: {self.frames} frames of {self.scenes} scenes in {self.shards} shards, {made}{lost}"


def import_corpus(
    folder: Path,
    out: str,
    settings: Settings,
    selection: Selection | None = None,
    workers: int = 1,
    retry: bool = False,
    progress: Progress = lambda done, total: None,
    say: Callable[[str], None] = lambda line: None,
    patience: float = PATIENCE,
) -> Summary:
    """Import what `selection` names of the corpus in `folder` into the dataset `out` (a folder or a URL).

    `workers` 0 reads in this process, without protection from files that crash or hang a library. `retry` makes units
    with rejected frames again. ValueError, FileNotFoundError and OSError say in one sentence what the user is to mend.
    """
    corpus = settings.open(folder)
    store = open_store(out)
    units = plan(corpus, settings, selection or Selection(), lambda scenes: say(f"{scenes} scenes listed"))
    with store.claim(say) as claim:
        header = _adopt(store, settings)
        store.sweep()
        known = _known(store)
        missing = [unit for unit in units if not _stands(known.get(unit.name), unit, retry)]
        fresh = 0
        if missing:
            read, total = 0, sum(unit.count for unit in missing)
            task = Task(store.text, folder, settings)
            for frames, done in _converted(task, missing, workers, patience):
                read += frames
                progress(min(read, total), total)
                if done is not None:
                    known[done.unit] = _Entry(len(done.rows), done.frames, done)
                    fresh += len(done.rows)
        summary = _summary(store, known, fresh)
        if not summary.frames:
            _discard(store, claim)
            raise ValueError(f"none of the {sum(u.count for u in units)} frames of {folder} can be used: {_why(known)}")
        if missing or not {layout.MANIFEST, layout.LEDGER} <= set(store.top()):
            _finish(store, claim, header, known)
        return summary


@dataclass
class _Entry:
    """What is known of a unit: from its record, or (`done` None) from the tables of the dataset as it stands."""

    views: int
    frames: int
    done: Done | None
    rejected: dict[str, int] = field(default_factory=dict)
    asset: str = ""

    def __post_init__(self) -> None:
        if self.done is not None:
            self.rejected, self.asset = self.done.rejected, self.done.entry["asset"]


def _converted(task: Task, units: Sequence[Unit], workers: int, patience: float) -> Iterator[tuple[int, Done | None]]:
    if workers:
        yield from in_processes(task, units, workers, patience)
        return
    store, corpus = open_store(task.out), task.settings.open(task.folder)
    for unit in units:
        yield unit.count, convert(store, corpus, unit, task.settings)


def _adopt(store: Store, settings: Settings) -> dict[str, Any]:
    """What dataset.json is to hold, written where the place is new. ValueError where the place is not ours."""
    header = {"layers": settings.layers, "size": [settings.size, settings.size], "job": settings.as_job()}
    try:
        stored = parse_dataset_json(store.read(layout.DATASET_JSON), under(store, layout.DATASET_JSON))
    except FileNotFoundError:
        known = layout.FINISHED | layout.UNFINISHED
        strangers = [name for name in store.top() if name not in known and not naming.is_left_over(name)]
        if strangers or store.sizes(layout.SHARDS):
            what = strangers[0] if strangers else layout.SHARDS
            raise ValueError(f"{store.text} holds {what!r} and no dataset: give an empty or a new place") from None
        with store.writing(layout.DATASET_JSON) as file:
            file.write(dataset_json(header))
        return header
    theirs = stored.get("job", {}).get("from_rgbd")
    if not isinstance(theirs, Mapping):
        raise ValueError(f"{store.text} holds a dataset that from-rgbd did not write: give another --out")
    for name, ours in settings.as_job()["from_rgbd"].items():
        if theirs.get(name) != ours:
            raise ValueError(
                f"{store.text} was imported with {name} {theirs.get(name)!r} and not {ours!r}: give another --out"
            )
    return header


def _known(store: Store) -> dict[str, _Entry]:
    """Units of which a record or the tables speak, and whose shard is there in the size that it must have."""
    sizes = store.sizes(layout.SHARDS)
    known: dict[str, _Entry] = {}
    if {layout.MANIFEST, layout.LEDGER} <= set(store.top()):
        with store.reading(layout.MANIFEST) as file:
            table = manifest.parsed(file, under(store, layout.MANIFEST), ["shard", "offset", "bytes"])
        ends = table.append_column("end", pc.add(table["offset"], table["bytes"])).group_by("shard")
        found = {
            row["shard"]: (row["end_max"], row["end_count"])
            for row in ends.aggregate([("end", "max"), ("end", "count")]).to_pylist()
        }
        with store.reading(layout.LEDGER) as file:
            for row in ledger.rows(file, ["unit", "asset", "views", "views_rejected"]):
                end, views = found.get(shard_name(row["unit"]), (0, 0))
                size = sizes.get(f"{layout.SHARDS}/{shard_name(row['unit'])}", 0)
                if row["views"] == views and size == (end + len(END) if views else 0):
                    lost = Counter(text.rpartition(":")[2] for text in row["views_rejected"] or ())
                    whole = "*" in {text.rpartition(":")[0] for text in row["views_rejected"] or ()}
                    frames = 0 if whole else views + lost.total()
                    known[row["unit"]] = _Entry(views, frames, None, dict(lost), row["asset"])
    for name in store.sizes(layout.UNITS):
        if naming.is_record(name) and (done := Done.of_bytes(store.read(name))) is not None:
            end = max((row["offset"] + row["bytes"] for row in done.rows), default=-len(END))
            if sizes.get(f"{layout.SHARDS}/{shard_name(done.unit)}", 0) == end + len(END):
                known[done.unit] = _Entry(len(done.rows), done.frames, done)
    return known


def _stands(entry: _Entry | None, unit: Unit, retry: bool) -> bool:
    """Whether the unit needs no work: it is there, of as many frames, and nothing of it is to be tried again."""
    return entry is not None and entry.frames == unit.count and not (retry and entry.rejected)


def _finish(store: Store, claim: Claim, header: Mapping[str, Any], known: Mapping[str, _Entry]) -> None:
    """The tables of all units that are known, those of before included; then the records go."""
    kept = [unit for unit, entry in known.items() if entry.done is None]
    tables = [manifest.SCHEMA.empty_table()]
    entries: list[dict[str, Any]] = []
    if kept:
        with store.reading(layout.MANIFEST) as file:
            before = manifest.parsed(file, under(store, layout.MANIFEST))
        of_kept = pc.is_in(before["shard"], pa.array([shard_name(unit) for unit in kept], pa.string()))
        tables.append(before.filter(of_kept).cast(manifest.SCHEMA))
        wanted = set(kept)
        with store.reading(layout.LEDGER) as file:
            entries += [row for row in ledger.rows(file) if row["unit"] in wanted]
    fresh = [entry.done for entry in known.values() if entry.done is not None]
    for done in fresh:
        tables.append(pa.Table.from_pylist(done.rows, schema=manifest.SCHEMA))
        entries.append(done.entry)
    table = pa.concat_tables(tables)
    table = table.take(pc.sort_indices(table, [("shard", "ascending"), ("offset", "ascending")]))
    claim.check()
    store.sweep()  # what workers left that were stopped
    with store.writing(layout.MANIFEST) as file, manifest.ManifestWriter(file) as writer:
        writer.write(table)
    with store.writing(layout.LEDGER) as file, ledger.LedgerWriter(file) as written:
        written.write(sorted(entries, key=lambda row: str(row["unit"])))
    with store.writing(layout.DATASET_JSON) as file:
        file.write(dataset_json(header))
    store.delete(record_name(done.unit) for done in fresh)
    _delete_all(store, layout.UNITS)


def _discard(store: Store, claim: Claim) -> None:
    """Nothing could be used: leave nothing, so that the next import looks at every frame again."""
    claim.check()
    _delete_all(store, layout.UNITS)
    store.delete([layout.DATASET_JSON])


def _delete_all(store: Store, folder: str) -> None:
    store.delete([name for name in store.sizes(folder) if naming.is_record(name)])
    if (path := Path(store.text) / folder).is_dir():
        with suppress(OSError):
            path.rmdir()


def _summary(store: Store, known: Mapping[str, _Entry], fresh: int) -> Summary:
    summary = Summary(store.text, fresh=fresh)
    summary.scenes = len({entry.asset for entry in known.values() if entry.views})
    for entry in known.values():
        summary.frames += entry.views
        summary.shards += bool(entry.views)
        summary.rejected.update(entry.rejected)
    return summary


def _why(known: Mapping[str, _Entry]) -> str:
    """The first reason, in words."""
    entries: Iterable[Done | None] = (entry.done for entry in known.values())
    return next((f"{d.entry['reason']}, {d.entry['message']}" for d in entries if d is not None), "no reason is known")
