"""The sections of the page, each a function from what was found to markup."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from .. import ledger
from .. import summary as numbers
from ..amount import sized
from ..contract import Clip, Sample
from ..layout import LEDGER
from ..markup import Html, join, table, tag
from ..moments import RELEASED
from ..reader import Dataset
from ..split import SPLITS
from .charts import beside, histogram, legend, number
from .columns import Columns
from .galleries import Gallery
from .readings import Reading, frames_of

VALUES = 30  # rows of a table of values; the rest is counted together
REASONS = 100
EXAMPLES = 3
JOB = 60_000  # characters of the settings
AXES = "xyz"


def overview(name: str, chosen: str, identity: str, summary: numbers.Summary | None, columns: Columns) -> Html:
    """The title and what a reader asks first."""
    head = [
        tag("h1", name),
        tag("p", "Images and the ordered surfaces behind each of their pixels: a worldtrace dataset."),
        tag("p", "Only samples ", chosen, ".") if chosen else None,
        tag("p", "Hash of these samples ", tag("code", identity), class_="soft"),
    ]
    if summary is None:
        return join(*head, tag("p", "There is no sample in it."))
    flagged = int(np.count_nonzero(columns.flagged))
    facts = {
        "samples": f"{summary.samples:,}",
        "assets": f"{summary.assets:,}",
        "images": f"{summary.frames:,}",
        "size": sized(summary.bytes),
        "shards": f"{summary.shards:,}",
        "a frame, median": sized(summary.bytes_a_frame[1]),
        "a frame, largest": sized(summary.bytes_a_frame[2]),
        "flagged": _percent(flagged, summary.samples),
        "overflow": _percent(summary.overflowing, summary.samples),
        "single layer": _percent(summary.single_layer, summary.samples),
        "depth": f"{number(summary.depth[0])} to {number(summary.depth[1])}",
    }
    tiles = [tag("div", tag("dt", what), tag("dd", value)) for what, value in facts.items()]
    return join(*head, tag("dl", *tiles, class_="tiles"))


def by_split(whole: pa.Table) -> Html:
    """Samples of each regime in each split."""
    if not len(whole):
        return Html("")
    grouped = whole.group_by(["regime", "split"]).aggregate([([], "count_all")]).to_pylist()
    found = {(str(row["regime"]), str(row["split"])): int(row["count_all"]) for row in grouped}
    regimes = sorted({regime for regime, _ in found})
    rows = []
    for regime in [*regimes, "all"] if len(regimes) > 1 else regimes:
        counts = [sum(n for (r, s), n in found.items() if s == split and regime in (r, "all")) for split in SPLITS]
        rows.append([regime, *[f"{count:,}" for count in counts], f"{sum(counts):,}"])
    return table(["regime", *SPLITS, "samples"], rows, "Regimes and splits")


def counts(summary: numbers.Summary, splits: Html) -> Html:
    """Tables of the values of each column, and of the flags."""
    titles = {"source": "Sources", "licence": "Licences", "size": "Height x width", "layers": "Layers"}
    titles["frames"] = "Frames of a sample"
    tables = [splits]
    tables += [_values(summary.counts[name], title, summary.samples) for name, title in titles.items()]
    if summary.flags:
        tables.append(_values(summary.flags, "Flags (a sample may have several)", summary.samples))
    return tag("div", *tables, class_="tables")


def coverage(summary: numbers.Summary) -> Html:
    """Share of the pixels of a view with a hit in each layer, beside Table 5 for what the paper states it of."""
    parts: list[Html] = [
        tag("p", "Percent of the pixels of an image with a true surface in each layer, front to back, over samples.")
    ]
    if summary.objects is not None:
        parts.append(_beside_paper(summary.objects))
    for kind, found in summary.metres.items():
        deepest = 1 + int(np.flatnonzero(found.mean)[-1]) if found.mean.any() else 1  # captures have one layer of six
        rows = [[f"L{l}", *[f"{share[l]:.2f}" for share in _shares(found)]] for l in range(deepest)]
        caption = f"{kind}: {found.samples:,} samples"
        parts.append(table(["layer", "mean", "median", "P25", "P75", "P90"], rows, caption))
    return join(*parts)


def distributions(columns: Columns, readings: Sequence[Reading]) -> Html:
    """Histograms: of all samples by the manifest, and of those that were read."""
    met = columns.coverage[:, 0] if columns.layers else np.zeros(len(columns), np.float32)
    charts = [histogram(100 * met, "Coverage of the image", " %")]
    layered = ~columns.single_layer & (met > 0)
    if columns.layers > 1 and layered.any():
        shares = columns.coverage[layered]
        charts.append(histogram(np.nansum(shares, 1) / shares[:, 0], "Surfaces per pixel that meets one"))
        charts.append(
            histogram(100 * np.nansum(shares[:, 2:], 1) / np.nansum(shares, 1), "Share of hits in L2 and deeper", " %")
        )
    for inside, words in ((columns.in_box, "objects"), (~columns.in_box, "in metres")):
        if inside.any():
            charts.append(histogram(columns.z_min[inside], f"Nearest surface, {words}", log=True))
            charts.append(histogram(columns.z_max[inside], f"Farthest surface, {words}", log=True))
    charts.append(histogram(columns.part / columns.frames / 1000, "Size of a frame", " KB", log=True))
    charts.append(histogram(columns.views_per_asset, "Samples per asset", counted="assets"))
    if columns.frames.max() > 1:
        charts.append(histogram(columns.frames[columns.frames > 1], "Frames of a clip", counted="clips"))
    overflow = 100 * columns.overflow / (columns.pixels * columns.frames)
    if overflow.any():
        charts.append(histogram(overflow, "Pixels that overflow", " %", log=True))
    read = [r for r in readings if not r.message]
    layered_too = np.array([r.agreement for r in read if not columns.single_layer[r.row]])
    sampled = [histogram(100 * layered_too, "Alpha and layers in common", " %")] if layered_too.size else []
    sampled += [
        histogram(np.array([r.horizontal for r in read]), "Horizontal field of view", "°"),
        histogram(np.array([r.vertical for r in read]), "Vertical field of view", "°"),
    ]
    elevation = np.array([r.elevation for r in read])
    if np.isfinite(elevation).any():
        sampled.append(histogram(elevation, "Elevation of the camera", "°"))
    return join(
        tag("p", "Of every sample. The dashed line is the median."),
        tag("div", *charts, class_="charts"),
        tag("p", f"Of {len(read):,} samples that were drawn at random, by the hash of the dataset, and read."),
        tag("div", *sampled, class_="charts"),
    )


def samples(shown: Sequence[Gallery], cards: Mapping[int, Html]) -> Html:
    """The galleries, with a list of them first."""
    links = [tag("li", tag("a", gallery.title, href=f"#{gallery.name}")) for gallery in shown]
    parts = [
        tag("p", "Each picture: the image; its layers front to back, cut to the frame drawn on the image, bright is "
            "near, forward-filled copies are dim and what meets nothing is dark; last the number of surfaces behind "
            "each pixel, more is lighter. Of an asset at most one sample is shown in each group. Open one with ",
            tag("code", "worldtrace shards view DIR --key KEY"), "."),
        tag("nav", tag("ul", *links), aria_label="Groups of samples"),
    ]  # fmt: skip
    for gallery in shown:
        entries = [
            tag("li", cards[row], tag("p", value)) for row, value in zip(gallery.rows, gallery.values) if row in cards
        ]
        parts += [tag("h3", gallery.title, id=gallery.name), tag("p", gallery.why, class_="soft")]
        parts.append(tag("ul", *entries, class_="cards"))
    return join(*parts)


def card(sample: Sample, address: str | None, size: tuple[int, int]) -> Html:
    """One sample: picture, key, what it shows, and how to open it. `address` None: the page is full."""
    frames = frames_of(sample)
    first, origin = frames[0], sample.origin
    known = 1 if first.single_layer else first.layers
    shares = ", ".join(f"L{l} {100 * float((first.hits > l).mean()):.1f} %" for l in range(known))
    words = f"{sample.key}: image and layers; {shares}"
    if address is None:
        picture = tag("p", "No picture: the page has reached its size.", class_="soft")
    else:
        picture = tag("img", src=Html(address), alt=words, width=size[0], height=size[1], decoding="async")
    z = first.depth[first.hit]
    facts = [first.regime, f"{first.size[0]}x{first.size[1]}"]
    facts += [f"{len(frames)} frames"] if isinstance(sample, Clip) else []
    facts += [f"depth {z.min():.3g} to {z.max():.3g}" if z.size else "no surface"]
    flags = sorted({str(flag) for frame in frames for flag in frame.info.get("flags", ())})
    return join(
        picture,
        tag("p", tag("code", sample.key)),
        tag("p", tag("bdi", origin.uid), " (", tag("bdi", origin.source), ", ", tag("bdi", origin.licence), ")"),
        tag("p", ", ".join(facts), class_="soft"),
        tag("p", *[tag("span", flag, class_="flag") for flag in flags[:12]]) if flags else None,
    )


def broken_card(key: str, message: str) -> Html:
    return join(tag("p", tag("code", key)), tag("p", "Cannot be read: ", message, class_="bad"))


def damaged(found: Sequence[Reading]) -> Html:
    """Those among the samples read for this page; `verify` looks at all."""
    rows = [[tag("code", reading.key), reading.message] for reading in found[:REASONS]]
    return join(
        tag("p", f"{len(found):,} of the samples that were read for this page are damaged. See all with ",
            tag("code", "worldtrace shards verify DIR"), "."),
        table(["key", "message"], rows, words=[1]),
    )  # fmt: skip


def losses(dataset: Dataset, *, narrowed: bool) -> Html:
    """What the ledger says of assets and views that did not become samples, by reason, with a few in words."""
    entries = _ledger_rows(dataset)
    if entries is None:
        return tag("p", "The dataset has no ledger: it does not say what was left out of it.")
    try:
        attempts, views, examples = _tally(entries)
    except ValueError as error:
        return tag("p", str(error), class_="bad")
    total = sum(attempts.values())
    done = sum(count for (status, _), count in attempts.items() if status == "done")
    rows = [
        [status, reason or "", f"{count:,}", _percent(count, total), tag("div", *examples.get((status, reason), ()))]
        for (status, reason), count in _most(attempts)
    ]
    parts = [
        tag("p", f"{done:,} of {total:,} assets (or frame groups) became samples"
            f"{'; this is of the whole dataset, whatever was selected' if narrowed else ''}."),
        table(["status", "reason", "count", "share", "for instance"], rows, "Assets", words=[1, 4]),
    ]  # fmt: skip
    if views:
        rows = [[reason, f"{count:,}"] for reason, count in _most(views)]
        parts.append(table(["reason", "views"], rows, "Views of other assets that were rejected"))
    return join(*parts)


def statistics(ours: Mapping[str, Any] | None) -> Html:
    """The z-score map beside that of the released model."""
    words = tag(
        "p", "Mean and standard deviation of X, Y, Z in the camera frame, over all layers of the valid pixels of split "
        "train, scenes left out. The z-score map of objects and clips takes them; scenes need none (log-median)."
    )  # fmt: skip
    if not ours:
        return join(words, tag("p", "Not measured: ", tag("code", "worldtrace shards stats DIR"), " does."))
    rows = []
    for name in ("mean", "std"):
        rows.append([f"{name}, here", *_three(ours.get(name))])
        rows.append([f"{name}, released objects", *_three(RELEASED[name])])
    taken = f"{ours.get('points', 0):,} points of {ours.get('samples', 0):,} samples"
    return join(words, table(["", *AXES], rows, taken))


def settings(config: Mapping[str, Any]) -> Html:
    """What made it: the whole of dataset.json but the conventions, which are the same everywhere."""
    kept = {name: value for name, value in config.items() if name not in ("conventions", "statistics")}
    words = json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False)
    if len(words) > JOB:
        words = f"{words[:JOB]}\n… {len(words) - JOB:,} more characters: see dataset.json"
    lines = [join(line, "\n") for line in words.split("\n")]
    return tag("pre", *lines, tabindex="0", aria_label="dataset.json without its conventions")


def _values(found: Mapping[str, int], title: str, total: int) -> Html:
    entries = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    rows: list[list[Any]] = [[value, f"{n:,}", _percent(n, total)] for value, n in entries[:VALUES]]
    if rest := entries[VALUES:]:
        n = sum(count for _, count in rest)
        rows.append([f"{len(rest):,} others", f"{n:,}", _percent(n, total)])
    return table([title, "samples", ""], rows)


def _beside_paper(found: numbers.Coverage) -> Html:
    paper = (numbers.PAPER_COVERAGE, numbers.PAPER_MEDIAN, numbers.PAPER_P25, numbers.PAPER_P75, numbers.PAPER_P90)
    rows = []
    for l in range(len(found.mean)):
        row: list[Any] = [f"L{l}"]
        for here, there in zip(_shares(found), paper):
            row += [f"{here[l]:.2f}", tag("span", f"{there[l]:.2f}" if l < len(there) else "", class_="soft")]
        row.append(f"{found.mean[l] / paper[0][l]:.2f}" if l < len(paper[0]) else "")
        rows.append(row)
    head = ["layer"]
    for name in ("mean", "median", "P25", "P75", "P90"):
        head += [name, "paper"]
    names = [f"L{l}" for l in range(len(found.mean))]
    chart = beside(
        list(found.mean), list(paper[0][: len(names)]), names, "Mean coverage, %", legend("here", "paper, Table 5")
    )
    caption = f"objects and their clips: {found.samples:,} samples, beside Table 5 of the paper"
    return join(tag("div", chart, class_="charts"), table([*head, "mean / paper"], rows, caption))


def _shares(found: numbers.Coverage) -> tuple[np.ndarray, ...]:
    return found.mean, found.median, found.p25, found.p75, found.p90


def _percent(count: int, total: int) -> str:
    share = 100 * count / max(total, 1)
    return f"{share:.0f} %" if share in (0, 100) else f"{max(share, 0.01):.2g} %" if share < 10 else f"{share:.1f} %"


def _most(counter: Counter[Any]) -> list[tuple[Any, int]]:
    """The REASONS most frequent; equal ones by name, and not by the order of a ledger that differs from run to run."""
    return sorted(counter.items(), key=lambda pair: (-pair[1], str(pair[0])))[:REASONS]


def _three(values: Any) -> list[str]:
    return [f"{float(value):.6f}" for value in values] if values else ["", "", ""]


def _ledger_rows(dataset: Dataset) -> Iterable[dict[str, Any]] | None:
    if not dataset.store.exists(LEDGER):
        return None
    names = ["asset", "status", "reason", "message", "views_rejected"]

    def rows() -> Iterable[dict[str, Any]]:
        with dataset.store.reading(LEDGER) as file:
            yield from ledger.rows(file, names)

    return rows()


def _tally(
    entries: Iterable[dict[str, Any]],
) -> tuple[Counter[tuple[str, str | None]], Counter[str], dict[tuple[str, str | None], list[Html]]]:
    """Attempts by (status, reason), rejected views by reason, and examples of what was lost, the first by name."""
    attempts: Counter[tuple[str, str | None]] = Counter()
    views: Counter[str] = Counter()
    lost: dict[tuple[str, str | None], list[tuple[str, str]]] = {}
    for row in entries:
        what = (str(row["status"]), row["reason"])
        attempts[what] += 1
        views.update(view.rpartition(":")[2] for view in row["views_rejected"] or ())
        if what[0] != "done":
            kept = lost.setdefault(what, [])
            kept.append((str(row["asset"]), str(row["message"] or "")))
            kept.sort()
            del kept[EXAMPLES:]
    examples = {
        what: [tag("div", tag("bdi", tag("code", asset)), " ", tag("bdi", message)) for asset, message in kept]
        for what, kept in lost.items()
    }
    return attempts, views, examples
