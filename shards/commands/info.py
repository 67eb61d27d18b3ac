"""`worldtrace shards info`: what is in a dataset, beside what the paper and the release state."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from .. import reader
from ..layout import LEDGER
from ..moments import RELEASED
from .arguments import Directory, SplitOption

# % of pixels with a hit in layers 0 to 5, Table 5: object renderings at 504x504
PAPER_COVERAGE = (8.14, 7.90, 2.53, 1.74, 0.72, 0.60)
PAPER_MEDIAN = (6.21, 6.01, 1.46, 0.86, 0.21, 0.15)
PAPER_P90 = (16.19, 15.82, 5.97, 4.20, 1.78, 1.44)

ROOMS = "procedural:rooms"  # the source whose clips stay in metres, as regime `scene` does
LARGEST = 3**0.5  # no two points of a normalised object, longest side 1, are further apart


def info(directory: Directory, split: SplitOption = None) -> None:
    """Counts, splits, licences, coverage per layer, bytes per sample, flags, statistics, and what was rejected."""
    dataset = reader.open(directory, split)
    table = dataset.manifest
    console = Console()
    total = int(np.sum(table["bytes"].to_numpy()))
    console.print(
        f"{directory}: {len(dataset)} samples, {_bytes(total)}, {len(set(table['shard'].to_pylist()))} shards"
    )
    console.print(f"manifest hash {dataset.hash}", highlight=False)
    if not len(dataset):
        return
    summary = Table("column", "value: samples", show_header=False)
    assets = len(set(table["asset_sha256"].to_pylist()))
    sizes = Counter(f"{h}x{w}" for h, w in zip(table["height"].to_pylist(), table["width"].to_pylist()))
    summary.add_row("assets", str(assets))
    summary.add_row("size", _counts(sizes))
    for column in ("layers", "frames", "regime", "source", "licence", "split"):
        summary.add_row(column, _counts(Counter(table[column].to_pylist())))
    summary.add_row("flags", _counts(Counter(flag for flags in table["flags"].to_pylist() for flag in flags)) or "none")
    overflow = table["overflow"].to_numpy()
    summary.add_row("overflow", f"{int((overflow > 0).sum())} samples have rays with more surfaces than were peeled")
    sizes_of = np.sort(table["bytes"].to_numpy() / table["frames"].to_numpy())
    summary.add_row(
        "bytes per frame",
        f"{_bytes(sizes_of.mean())} mean, {_bytes(np.median(sizes_of))} median, {_bytes(sizes_of[-1])} largest",
    )
    z = f"{min(table['z_min'].to_pylist()):.3f} to {max(table['z_max'].to_pylist()):.3f}"
    summary.add_row("depth", z)
    console.print(summary)
    objects = normalised(table)
    regimes = np.array(table["regime"].to_pylist())
    if objects.any():
        console.print(f"pixels with a true hit, %: {objects.sum()} samples of objects and their clips")
        console.print(_coverage(table.filter(pa.array(objects)), beside_paper=True))
    if not objects.all():
        kinds = {"dynamic": "clips in metres"}
        others = " and ".join(sorted({kinds.get(regime, regime) for regime in regimes[~objects]}))
        console.print(f"pixels with a true hit, %: {(~objects).sum()} samples of {others}")
        console.print(_coverage(table.filter(pa.array(~objects)), beside_paper=False))
    whole = (dataset if split is None else reader.open(directory)).manifest  # what the statistics are taken over
    in_metres = ~normalised(whole) & (np.array(whole["regime"].to_pylist()) != "scene")
    if objects.any() or (dataset.statistics and in_metres.any()):
        console.print(_statistics(dataset, beside_released=not in_metres.any()))
    if dataset.store.exists(LEDGER):
        with dataset.store.reading(LEDGER) as file:
            console.print(_ledger(pq.read_table(file, columns=["status", "reason", "views_rejected"])))


def normalised(table: pa.Table) -> np.ndarray:
    """Rows of a manifest -> (N,) bool: an object, or a clip of one, in a box of longest side 1; not what is in metres.

    The manifest has no column for it. Scenes are in metres, and of clips those of ROOMS; so is, whatever its source,
    a clip that is deeper than such a box can be.
    """
    regime, source = (np.array(table[name].to_pylist(), object) for name in ("regime", "source"))
    deep = table["z_max"].to_numpy() - table["z_min"].to_numpy() > 1.001 * LARGEST  # stored depths are rounded
    return (regime == "object") | ((regime == "dynamic") & (source != ROOMS) & ~deep)


def _coverage(table: pa.Table, *, beside_paper: bool) -> Table:
    """Mean, median and 90th percentile over samples; of layer l over those that know one."""
    lists = table["coverage"].to_pylist()
    out = Table("layer")
    for name in ("mean", "median", "P90"):
        out.add_column(name, justify="right")
        if beside_paper:
            out.add_column("paper", justify="right", style="dim")
    if beside_paper:
        out.add_column("mean / paper", justify="right")
    for l in range(max(map(len, lists))):
        known = 100 * np.array([coverage[l] for coverage in lists if l < len(coverage)])
        cells = [f"L{l}"]
        for value, paper in zip(
            (known.mean(), np.median(known), np.percentile(known, 90)), (PAPER_COVERAGE, PAPER_MEDIAN, PAPER_P90)
        ):
            cells.append(f"{value:.2f}")
            if beside_paper:
                cells.append(f"{paper[l]:.2f}" if l < len(paper) else "")
        if beside_paper:
            cells.append(f"{known.mean() / PAPER_COVERAGE[l]:.2f}" if l < len(PAPER_COVERAGE) else "")
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


def _ledger(ledger: object) -> Table:
    columns = ledger.to_pydict()  # type: ignore[attr-defined]
    out = Table("assets", "reason", "count", title="ledger", title_justify="left")
    for (status, reason), count in sorted(Counter(zip(columns["status"], columns["reason"])).items(), key=str):
        out.add_row(status, reason or "", str(count))
    views = Counter(view.partition(":")[2] for views in columns["views_rejected"] for view in views or ())
    for reason, count in sorted(views.items()):
        out.add_row("view rejected", reason, str(count))
    return out


def _counts(counter: Counter) -> str:
    return ", ".join(f"{value}: {count}" for value, count in counter.most_common())


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"
