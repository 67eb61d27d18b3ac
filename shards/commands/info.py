"""`worldtrace shards info`: what is in a dataset, beside what the paper and the release state."""

from collections import Counter
from collections.abc import Mapping
from typing import BinaryIO

from rich.table import Table

from .. import ledger, reader
from ..amount import counted, sized
from ..layout import LEDGER
from ..moments import RELEASED
from ..printable import printable
from ..summary import BY, COLUMNS, PAPER_COVERAGE, PAPER_MEDIAN, PAPER_P90, Coverage, Summary, summarise
from ..terminal import console, say
from ..unfinished import REMEDY
from .arguments import Directory, SplitOption, Where


def info(directory: Directory, split: SplitOption = None, where: Where = None) -> None:
    """Counts, splits, licences, coverage per layer, bytes per sample, flags, statistics, and what was rejected."""
    dataset = reader.open(directory, split, where=where)
    screen = console()
    if dataset.config.get("complete") is False:
        say(f"not finished, these are the samples that it has for now: {REMEDY}")
    if not len(dataset):
        say(f"{directory}: no samples, manifest hash {dataset.hash}")
        return
    found = summarise(dataset.columns(COLUMNS))
    held = f"{counted(found.samples, 'sample')}, {sized(found.bytes)}, {counted(found.shards, 'shard')}"
    say(f"{directory}: {held}")
    say(f"manifest hash {dataset.hash}")
    screen.print(_counts_of(found))
    if found.objects:
        say(f"pixels with a true hit, %: {found.objects.samples} samples of objects and their clips")
        screen.print(_coverage(found.objects, beside_paper=True))
    for kind, coverage in found.metres.items():
        say(f"pixels with a true hit, %: {coverage.samples} samples of {kind}")
        screen.print(_coverage(coverage, beside_paper=False))
    whole = found if split is None and where is None else summarise(reader.open(directory).columns(COLUMNS))
    in_metres = bool(whole.metres.keys() - {"scene"})  # what the statistics are taken over, scenes apart
    if found.objects or (dataset.statistics and in_metres):
        screen.print(_statistics(dataset, beside_released=not in_metres))
    if dataset.store.exists(LEDGER):
        with dataset.store.reading(LEDGER) as file:
            screen.print(_ledger(file))


def _counts_of(found: Summary) -> Table:
    out = Table("column", "value: samples", show_header=False)
    out.add_row("assets", str(found.assets))
    for column in ("size", *BY):
        out.add_row(column, _counts(found.counts[column]))
    if found.single_layer:
        out.add_row("single layer", f"{found.single_layer} samples know layer 0 alone")
    out.add_row("flags", _counts(found.flags) or "none")
    out.add_row("overflow", f"{found.overflowing} samples have rays with more surfaces than were peeled")
    mean, median, largest = map(sized, found.bytes_a_frame)
    out.add_row("bytes per frame", f"{mean} mean, {median} median, {largest} largest")
    out.add_row("depth", "{:.3f} to {:.3f}".format(*found.depth))
    return out


def _coverage(found: Coverage, *, beside_paper: bool) -> Table:
    """Mean, median and 90th percentile over samples; of layer l over those that know one."""
    out = Table("layer")
    for name in ("mean", "median", "P90"):
        out.add_column(name, justify="right")
        if beside_paper:
            out.add_column("paper", justify="right", style="dim")
    if beside_paper:
        out.add_column("mean / paper", justify="right")
    for l, mean in enumerate(found.mean):
        cells = [f"L{l}"]
        for value, paper in zip((mean, found.median[l], found.p90[l]), (PAPER_COVERAGE, PAPER_MEDIAN, PAPER_P90)):
            cells.append(f"{value:.2f}")
            if beside_paper:
                cells.append(f"{paper[l]:.2f}" if l < len(paper) else "")
        if beside_paper:
            cells.append(f"{mean / PAPER_COVERAGE[l]:.2f}" if l < len(PAPER_COVERAGE) else "")
        out.add_row(*cells)
    return out


def _statistics(dataset: reader.Dataset, *, beside_released: bool) -> Table:
    """The z-score, beside the released one of objects unless clips in metres are in it too."""
    ours = dataset.statistics
    title = "z-score of XYZ (scenes need none: log-median)"
    if not beside_released:
        title = "z-score of XYZ (clips in metres in it)"
    out = Table("", title=title, title_justify="left")
    for axis in "xyz":
        out.add_column(axis, justify="right")
    for name in ("mean", "std"):
        values = [f"{v:.6f}" for v in ours[name]] if ours else ["not measured (shards stats)", "", ""]
        out.add_row(f"{name}, here", *values)
        if beside_released:
            out.add_row(f"{name}, released", *[f"{v:.6f}" for v in RELEASED[name]], style="dim")
    if ours and beside_released:
        ratios = [f"{here / there:.3f}" for here, there in zip(ours["std"], RELEASED["std"])]
        out.add_row("std, here / released", *ratios)
        out.add_row("mean z, here / released", "", "", f"{ours['mean'][2] / RELEASED['mean'][2]:.3f}")
    return out


def _ledger(file: BinaryIO) -> Table:
    assets: Counter[tuple[str, str]] = Counter()
    views: Counter[str] = Counter()
    for batch in ledger.batches(file, ["status", "reason", "views_rejected"]):
        columns = batch.to_pydict()
        assets.update(zip(columns["status"], (reason or "" for reason in columns["reason"])))
        views.update(view.rpartition(":")[2] for rejected in columns["views_rejected"] for view in rejected or ())
    out = Table("assets", "reason", "count", title="ledger", title_justify="left")
    for (status, reason), count in sorted(assets.items()):
        out.add_row(printable(status), printable(reason), str(count))
    for reason, count in sorted(views.items()):
        out.add_row("view rejected", printable(reason), str(count))
    return out


SHOWN = 12  # values of a column; a dataset of many sources, or of as many sizes as photographs, has thousands


def _counts(counts: Mapping[str, int]) -> str:
    text = ", ".join(f"{printable(value)}: {count}" for value, count in list(counts.items())[:SHOWN])
    rest = list(counts.values())[SHOWN:]
    return text + (f", and {len(rest)} more: {sum(rest)}" if rest else "")
