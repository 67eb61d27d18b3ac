"""An RGBD corpus -> a dataset of single-layer samples: what is missing is made, then the tables are written.

Every unit leaves its shard and then a record beside it (`units/`), so an import that was killed goes on where it was.
At the end the records become manifest.parquet and ledger.parquet. A corpus that has grown adds shards to its dataset:
units that are there already stay as they are, byte by byte.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .. import layout, ledger, manifest
from ..amount import counted
from ..archive import END
from ..dataset_json import dataset_json, parse_dataset_json
from ..store import Claim, Store, naming, open_store, under
from .convert import Done, convert, of_record, record_name, shard_name
from .plan import Selection, Settings, Unit, plan
from .workers import PATIENCE, Crew, Task

Progress = Callable[[int, int], None]
READ_AHEAD = 64  # records, each with the manifest rows of a shard


@dataclass
class Summary:
    """What an import came to: `frames` samples in `shards` shards, of them `fresh` that were not there before; `made`
    shards were written by this run.
    """

    out: str
    scenes: int = 0
    frames: int = 0
    shards: int = 0
    fresh: int = 0
    made: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    remarks: list[str] = field(default_factory=list)

    def line(self) -> str:
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.rejected.most_common())
        lost = f"; {self.rejected.total()} rejected ({reasons}; see ledger.parquet)" if reasons else ""
        made = f"{self.fresh} of them new" if self.made else "nothing was left to do"
        of = f"{counted(self.frames, 'frame')} of {counted(self.scenes, 'scene')} in {counted(self.shards, 'shard')}"
        return f"{self.out}: {of}, {made}{lost}"


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
    task = Task(store.text, folder.absolute(), settings)
    with ExitStack() as stack:
        crew = stack.enter_context(Crew(task, workers, patience)) if workers else None
        counting = crew.count if crew else None
        remarks: list[str] = []
        units = plan(
            corpus,
            settings,
            selection or Selection(),
            counting,
            advance=lambda scenes: say(f"{scenes} scenes listed"),
            remark=remarks.append,
        )
        claim = stack.enter_context(store.claim(say))
        if crew:
            stack.callback(crew.stop)  # before the claim ends: nobody writes without it
        header = _adopt(store, settings)
        store.sweep()
        known = _known(store)
        missing = [unit for unit in units if not _stands(known.get(unit.name), unit, retry)]
        if missing:  # from here on it is not what it says, until its tables are written
            _write_header(store, header, complete=False)
        fresh = made = read = 0
        total = sum(unit.count for unit in missing)
        for frames, done in crew.convert(missing) if crew else _here(task, missing):
            read += frames
            progress(min(read, total), total)
            if done is not None:
                before = known.get(done.unit)
                known[done.unit] = _Entry.of(done)
                fresh += max(0, done.views - (before.views if before else 0))
                made += 1
        summary = _summary(store, known)
        summary.fresh, summary.made, summary.remarks = fresh, made, remarks
        if not summary.frames:
            _discard(store, claim)
            raise ValueError(f"none of the {sum(u.count for u in units)} frames of {folder} can be used: {_why(known)}")
        if missing or not {layout.MANIFEST, layout.LEDGER} <= set(store.top()) or not _complete(store):
            _finish(store, claim, header, known)
        return summary


@dataclass
class _Entry:
    """What is known of a unit: from its record, or (`recorded` false) from the tables of the dataset as it stands."""

    views: int
    frames: int
    asset: str
    rejected: dict[str, int]
    recorded: bool
    why: str = ""

    @classmethod
    def of(cls, done: Done) -> "_Entry":
        why = f"{done.entry['reason']}, {done.entry['message']}" if not done.views else ""
        return cls(done.views, done.frames, done.entry["asset"], done.rejected, True, why)


def _here(task: Task, units: Sequence[Unit]) -> Iterator[tuple[int, Done]]:
    """Crew.convert in this process."""
    store, corpus = open_store(task.out), task.settings.open(task.folder)
    for unit in units:
        yield unit.count, convert(store, corpus, unit, task.settings)


def _adopt(store: Store, settings: Settings) -> dict[str, Any]:
    """What dataset.json is to hold. ValueError where the place is not ours."""
    header = {"layers": settings.layers, "size": [settings.size, settings.size], "job": settings.as_job()}
    try:
        stored = parse_dataset_json(store.read(layout.DATASET_JSON), under(store, layout.DATASET_JSON))
    except FileNotFoundError:
        known = layout.FINISHED | layout.UNFINISHED
        strangers = [name for name in store.top() if name not in known and not naming.is_left_over(name)]
        if strangers or store.sizes(layout.SHARDS):
            what = strangers[0] if strangers else layout.SHARDS
            raise ValueError(f"{store.text} holds {what!r} and no dataset: give an empty or a new place") from None
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
                    known[row["unit"]] = _Entry(views, frames, row["asset"], dict(lost), False)
    for done, _ in _records(store, sorted(filter(naming.is_record, store.sizes(layout.UNITS)))):
        if sizes.get(f"{layout.SHARDS}/{shard_name(done.unit)}", 0) == (done.end + len(END) if done.views else 0):
            known[done.unit] = _Entry.of(done)
    return known


def _records(store: Store, names: Sequence[str]) -> Iterator[tuple[Done, list[dict[str, Any]]]]:
    """Records and their manifest rows, in the order of `names`, without damaged ones; some hundred in memory."""
    with ThreadPoolExecutor(store.concurrency) as pool:
        for begin in range(0, len(names), READ_AHEAD):
            for content in pool.map(store.read, names[begin : begin + READ_AHEAD]):
                if (found := of_record(content)) is not None:
                    yield found


def _stands(entry: _Entry | None, unit: Unit, retry: bool) -> bool:
    """Whether the unit needs no work: it is there, of as many frames, or of more where a limit is asked for now, and
    nothing of it is to be tried again.
    """
    return entry is not None and entry.frames >= unit.count and not (retry and entry.rejected)


def _finish(store: Store, claim: Claim, header: Mapping[str, Any], known: Mapping[str, _Entry]) -> None:
    """The tables of all units that are known, those of before included, as streams; then the records go."""
    kept: dict[str, pa.Table] = {}
    entries: dict[str, dict[str, Any]] = {}
    if not all(entry.recorded for entry in known.values()):
        with store.reading(layout.MANIFEST) as file:
            before = manifest.parsed(file, under(store, layout.MANIFEST)).cast(manifest.SCHEMA)
        kept = {f"{shard}": before.slice(begin, count) for shard, begin, count in _runs(before["shard"])}
        with store.reading(layout.LEDGER) as file:
            entries = {row["unit"]: row for row in ledger.rows(file) if row["unit"] in known}
    order = sorted(known)
    records = _records(store, [record_name(unit) for unit in order if known[unit].recorded])
    claim.check()
    store.sweep()  # what workers left that were stopped
    with ExitStack() as stack:
        samples = stack.enter_context(manifest.ManifestWriter(stack.enter_context(store.writing(layout.MANIFEST))))
        attempts = stack.enter_context(ledger.LedgerWriter(stack.enter_context(store.writing(layout.LEDGER))))
        for unit in order:
            if known[unit].recorded:
                done, rows = next(records)
                samples.write(pa.Table.from_pylist(rows, schema=manifest.SCHEMA))
                attempts.write([done.entry])
            else:
                if known[unit].views:
                    samples.write(kept[shard_name(unit)])
                attempts.write([entries[unit]])
    _write_header(store, header, complete=True)
    _delete_records(store)


def _complete(store: Store) -> bool:
    stored = parse_dataset_json(store.read(layout.DATASET_JSON), under(store, layout.DATASET_JSON))
    return bool(stored.get("complete"))


def _write_header(store: Store, header: Mapping[str, Any], complete: bool) -> None:
    with store.writing(layout.DATASET_JSON) as file:
        file.write(dataset_json({**header, "complete": complete}))


def _runs(column: pa.ChunkedArray) -> Iterator[tuple[str, int, int]]:
    """(value, first row, rows) of every run of equal values."""
    runs = pc.run_end_encode(column.combine_chunks().cast(pa.string()))
    begin = 0
    for value, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist()):
        yield value, begin, end - begin
        begin = end


def _discard(store: Store, claim: Claim) -> None:
    """Nothing could be used: leave nothing, so that the next import looks at every frame again."""
    claim.check()
    _delete_records(store)
    store.delete([layout.DATASET_JSON])


def _delete_records(store: Store) -> None:
    store.delete(filter(naming.is_record, store.sizes(layout.UNITS)))


def _summary(store: Store, known: Mapping[str, _Entry]) -> Summary:
    summary = Summary(store.text)
    summary.scenes = len({entry.asset for entry in known.values() if entry.views})
    for entry in known.values():
        summary.frames += entry.views
        summary.shards += bool(entry.views)
        summary.rejected.update(entry.rejected)
    return summary


def _why(known: Mapping[str, _Entry]) -> str:
    """The first reason, in words."""
    return next((entry.why for entry in known.values() if entry.why), "no reason is known")
