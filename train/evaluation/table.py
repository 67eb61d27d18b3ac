"""The tables that `worldtrace eval` ends with: on the screen, and in Markdown as the paper has them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from train.evaluation.coverage import COLUMNS, PAPER, PAPER_VIEWS
from train.evaluation.evaluate import Report
from train.evaluation.protocols import Column

HEADERS = {"model_best": "best\nof K", "model": "one\nseed", "mean": "train\nmean", "layer0": "true layer 0\nrepeated"}
BASELINES = {"mean": "train mean", "layer0": "true layer 0 repeated"}

# metric -> (how it is called, whether more is better)
ROWS: dict[str, tuple[str, bool]] = {
    "depth/mae": ("layer-0 depth MAE", False),
    "depth/rmse": ("layer-0 depth RMSE", False),
    "depth/absrel": ("layer-0 depth AbsRel", False),
    "depth/delta1": ("layer-0 depth δ < 1.25", True),
    **{
        f"{part}/{metric}": (f"{name} {label}", metric.startswith("f@"))
        for part, name in (("visible", "visible"), ("hidden", "hidden"), ("all", "all layers"), ("surface", "surface"))
        for metric, label in (("cd_l1", "CD-L1"), ("cd_l2", "CD-L2"), ("f@0.01", "F@0.01"), ("f@0.05", "F@0.05"))
    },
}
SECTIONS = ("visible/cd_l1", "hidden/cd_l1", "all/cd_l1", "surface/cd_l1", "layer0/rmse")


def plain_console() -> Console:
    """For names of methods and files as they are: [a] is no markup in them."""
    return Console(markup=False, emoji=False)


def show(report: Report, columns: Sequence[Column] | None = None, console: Console | None = None) -> None:
    """Print a row per metric and a column per method: all metrics and which layers the model wins against the mean, or
    those that a table of the paper has as `columns`."""
    console = console or plain_console()
    settings, methods = report.settings, _shown(report)
    table = Table(title=title(settings))
    table.add_column("", no_wrap=True)
    for method in methods:
        table.add_column(HEADERS.get(method, name_of(method, report, "\n")), justify="right", no_wrap=True)
    there = dict.fromkeys(name for metrics in methods.values() for name in metrics)
    layers = sum(1 for name in there if name.startswith("layer"))
    rows = {**ROWS, **{f"layer{k}/rmse": (f"layer {k} point RMSE", False) for k in range(layers)}}
    if columns is not None:
        rows = {column.metric: (column.title, column.more) for column in columns}
    for metric, (name, more) in rows.items():
        if metric not in there:
            continue
        if metric in SECTIONS:
            table.add_section()
        cells = [_number(metrics.get(metric)) for metrics in methods.values()]
        table.add_row(f"{name} {'↑' if more else '↓'}", *cells)
    console.print(table)
    if columns is None and {"mean", "model"} <= methods.keys():
        beaten = [k for k in range(layers) if methods["model"][f"layer{k}/rmse"] < methods["mean"][f"layer{k}/rmse"]]
        verdict = "every layer" if len(beaten) == layers else f"layers {beaten} of {layers}" if beaten else "no layer"
        console.print(f"One seed of the model is nearer to the truth than the mean of the split train on {verdict}.")
    console.print(footnote(settings))


def markdown(report: Report, columns: Sequence[Column], heading: str) -> str:
    """A row per method and the columns of a table of the paper; the best of each column that a method reached is bold
    (baselines that have seen the truth are not judged)."""
    lines = [
        f"### {heading}",
        "",
        "| method | " + " | ".join(f"{c.title} {'↑' if c.more else '↓'}" for c in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    best = _best(report, columns)
    for method, metrics in _shown(report).items():
        cells = []
        for column in columns:
            cell = _number(metrics.get(column.metric))
            cells.append(f"**{cell}**" if method in best[column.metric] else cell)
        name = name_of(method, report).replace("|", "\\|")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", title(report.settings) + ". " + footnote(report.settings), ""]
    return "\n".join(lines)


def name_of(method: str, report: Report, separator: str = ", ") -> str:
    """ "ours, best of 8" for "ours_best", "ours, one seed" for "ours"; without either where there is one seed alone."""
    if method in BASELINES and method not in report.settings["judged"]:
        return BASELINES[method]
    name = method.removesuffix("_best") if method not in report.settings["judged"] else method
    count = seeds_of(report, name)
    if count == 1:
        return name
    return f"{name}{separator}{'one seed' if name == method else f'best of {count}'}"


def seeds_of(report: Report, name: str) -> int:
    """The most seeds that a method has for a sample."""
    return max((len(sample["each"].get(name, ())) for sample in report.samples), default=0)


def title(settings: Mapping[str, Any]) -> str:
    seen = " (not trained on)"
    if settings["seen_in_training"]:
        by = f" by {', '.join(settings['trained_on_these'])}" if len(settings["judged"]) > 1 else ""
        seen = f" (SEEN IN TRAINING{by})"
    elif not any("run" in about for about in settings["judged"].values()):
        seen = ""  # of stored predictions nobody knows
    how = f", {settings['steps']} steps, K = {settings['seeds']} seeds" if settings["steps"] is not None else ""
    frames = f" of {settings['frames']} frames" if settings["frames"] > 1 else ""
    return f"{settings['samples']} samples{frames} of {'+'.join(settings['splits'])}{seen}{how}"


def footnote(settings: Mapping[str, Any]) -> str:
    lost = {name: about["missing"] for name, about in settings["judged"].items() if about.get("missing")}
    missing = "".join(f" {name} lacks {count} of them and is averaged over the rest." for name, count in lost.items())
    missing += "".join(
        f" {name} has a visible point at {about['coverage']:.1%} of the pixels, and its depth is judged there."
        for name, about in settings["judged"].items()
        if about.get("coverage", 1) < 0.9995
    )
    return (
        f"All after one alignment per {'clip' if settings['frames'] > 1 else 'sample'} ({settings['alignment']}), in "
        f"{settings['unit']}. Best of K is chosen with the truth in hand ({settings['best_of_k_selected_by']}); "
        f"`hidden` is layers 1 and up, each true surface once. List {settings['list_hash']} of the dataset with "
        f"manifest hash {settings['manifest_hash'][:16]}, at {settings['size']} px.{missing}"
    )


def coverage_markdown(found: Sequence[Mapping[str, Any]], heading: str) -> str:
    """Table 5, the paper's numbers in brackets."""
    lines = [f"### {heading}", "", "| layer | mean % | median % | P25 % | P75 % | P90 % | valid views |"]
    lines.append("|---|" + "---:|" * 6)
    for row in found:
        lines.append("| " + " | ".join(_coverage_cells(row)) + " |")
    note = "Percent of all pixels of the image, over the views that have the layer; in brackets the paper's objects."
    return "\n".join([*lines, "", note, ""])


def show_coverage(found: Sequence[Mapping[str, Any]], heading: str, console: Console | None = None) -> None:
    table = Table("layer", title=heading)
    for name in ("mean %", "median %", "P25 %", "P75 %", "P90 %", "views"):
        table.add_column(name, justify="right", min_width=len(name))
    for row in found:
        table.add_row(*_coverage_cells(row)[:-1], f"{row['views']:,}")
    (console or plain_console()).print(table, "Over the views that have the layer; in brackets the paper's objects.")


def _coverage_cells(row: Mapping[str, Any]) -> list[str]:
    layer = row["layer"]
    known = layer < len(PAPER_VIEWS)
    cells = [f"{row[name]:.2f}" + (f" ({PAPER[name][layer]:.2f})" if known else "") for name in COLUMNS]
    return [f"L{layer}", *cells, f"{row['views']:,}" + (f" ({PAPER_VIEWS[layer]:,})" if known else "")]


def _shown(report: Report) -> dict[str, dict[str, float]]:
    """The methods without the best of one."""
    single = {f"{name}_best" for name in report.settings["judged"] if seeds_of(report, name) == 1}
    return {name: metrics for name, metrics in report.methods.items() if name not in single}


def _best(report: Report, columns: Sequence[Column]) -> dict[str, set[str]]:
    """Metric -> the methods that are best in it, baselines aside; none where there is one method."""
    judged = {m: v for m, v in _shown(report).items() if m not in BASELINES or m in report.settings["judged"]}
    best = {}
    for column in columns:
        values = {m: v[column.metric] for m, v in judged.items() if math.isfinite(v.get(column.metric, math.nan))}
        top = (max if column.more else min)(values.values(), default=None)
        best[column.metric] = {m for m, value in values.items() if value == top} if len(judged) > 1 else set()
    return best


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "inf"
    return f"{value:.4f}" if abs(value) >= 0.01 or value == 0 else f"{value:.3g}"
