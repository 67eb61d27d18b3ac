"""An evaluation as curves: error by layer, how it is spread over samples, and what more seeds buy."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from shards import committed

# What is plotted of each sample, where a report has it; of each as many as fit on a page.
SPREAD = {
    "depth/absrel": "layer-0 AbsRel",
    "visible/cd_l1": "visible CD-L1",
    "hidden/cd_l2": "hidden CD-L2",
    "all/cd_l1": "all layers CD-L1",
    "all/cd_l2": "all layers CD-L2",
    "surface/cd_l1": "surface CD-L1",
}
BASELINES = {"mean": ("training mean", "#8a8a8a", ":"), "layer0": ("true layer 0 repeated", "#4a4a4a", "--")}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6a3d9a", "#b15928")  # told apart by all
FAR = 3.0  # times as high as the curves a baseline may be to be drawn beside them
LONGEST = 34  # characters of a method's name in a legend


def write(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write layers.png, samples.png and best-of-k.png of a report (`Report.to_dict()`, or the JSON of `eval`) into
    `folder`, each where the report has what it shows; -> their paths. ValueError for what is no such report."""
    try:
        figures = {
            "layers.png": layers(report),
            "samples.png": spread(report),
            "best-of-k.png": seeds(report),
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"this is no report of `worldtrace eval --out x.json` ({error!r})") from None
    paths = []
    for name, figure in figures.items():
        if figure is not None:
            with committed(folder / name) as file:
                FigureCanvasAgg(figure).print_png(file)
            paths.append(folder / name)
    return paths


def layers(report: Mapping[str, Any]) -> Figure | None:
    """Mean pixel-aligned point error of each layer, a line for each method. None where there is only one layer."""
    methods = report["methods"]
    count = max((sum(f"layer{k}/rmse" in of for k in range(64)) for of in methods.values()), default=0)
    if count < 2:
        return None
    figure = Figure((6.4, 4.0), dpi=150, layout="constrained")
    axes = figure.subplots()
    for name, style in styles(list(methods)).items():
        values = [_number(methods[name].get(f"layer{k}/rmse")) for k in range(count)]
        axes.plot(range(count), values, marker="o", markersize=4, **style)
    axes.set_xticks(range(count))
    axes.set_xlabel("layer (0 is what is seen)")
    axes.set_ylabel("point RMSE after alignment")
    axes.set_ylim(bottom=0)
    _finish(axes, f"Error by layer, mean of {len(report['samples'])} samples")
    axes.legend(fontsize=8, frameon=False)
    return figure


def spread(report: Mapping[str, Any]) -> Figure | None:
    """Which share of the samples is at most so wrong: the distribution function of each metric, by method. None for
    fewer than two samples."""
    samples, names = report["samples"], list(report["methods"])
    metrics = [m for m in SPREAD if any(_of(samples, name, m).size for name in names)]
    if len(samples) < 2 or not metrics:
        return None
    figure, panels = _panels(len(metrics))
    style = styles(names)
    for axes, metric in zip(panels, metrics):
        exact = []
        for name in names:
            values = np.sort(_of(samples, name, metric))
            if not values.size:
                continue
            if values[-1] < 1e-6:  # a perfect layer 0, on the metrics of layer 0
                exact.append(str(style[name]["label"]))
                continue
            share = np.arange(1, len(values) + 1) / len(values)
            axes.step(np.maximum(values, 1e-6), share, where="post", **style[name])
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=9))
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(SPREAD[metric])
        _finish(axes, f"0 in all samples: {', '.join(exact)}" if exact else "")
    panels[0].set_ylabel("share of samples")
    _legend(figure, panels)
    figure.suptitle(f"How wrong {len(samples)} samples are (further left is better)", fontsize=10)
    return figure


def seeds(report: Mapping[str, Any]) -> Figure | None:
    """Expected error of the best of k seeds, k = 1 .. K, chosen as in the table. None where no method has two seeds."""
    samples = report["samples"]
    selected_by = report["settings"].get("best_of_k_selected_by", "all/cd_l1")
    named = dict.fromkeys(name for s in samples for name, each in s.get("each", {}).items() if len(each) > 1)
    there = {m for s in samples for name in named for row in s["each"].get(name, ()) for m in row}
    metrics = [m for m in SPREAD if m in there]
    if not metrics:
        return None
    figure, panels = _panels(len(metrics))
    style = styles([*named, *(name for name in BASELINES if name in report["methods"])])
    for axes, metric in zip(panels, metrics):
        highest = 0.0
        for name in named:
            curve = best_of_k([s["each"].get(name, ()) for s in samples], metric, selected_by)
            if curve.size:
                axes.plot(_to(len(curve)), curve, marker="o", markersize=3, **style[name])
                highest = max(highest, float(curve.max()))
        of_methods = highest
        for name in BASELINES:  # one that is far above would press the curves to the ground
            values = _of(samples, name, metric)
            if values.size and 1e-6 < values.mean() < FAR * of_methods:
                axes.axhline(values.mean(), **style[name])
                highest = max(highest, float(values.mean()))
        axes.set_xlabel("best of k seeds")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.set_ylim(0, 1.1 * highest or 1.0)
        _finish(axes, SPREAD[metric])
    _legend(figure, panels)
    figure.suptitle(f"The seed with the least {selected_by}, chosen with the truth in hand", fontsize=10)
    return figure


def best_of_k(each: Sequence[Sequence[Mapping[str, float | None]]], metric: str, selected_by: str) -> np.ndarray:
    """(K,): the mean over samples of `metric` of the seed with the least `selected_by` among k seeds, expected over all
    choices of k of the K; K is the least number of seeds that a sample has.

    Of K seeds in the order of `selected_by` the i-th (from 0) is the best of k in C(K-1-i, k-1) of C(K, k) choices. A
    sample of which `selected_by` is not known is judged by depth/absrel (single layers), one without `metric` not at
    all. Empty without samples.
    """
    curves: list[np.ndarray] = []
    for rows in each:
        known = selected_by if rows and selected_by in rows[0] else "depth/absrel"
        pairs = [(_number(row.get(known)), _number(row.get(metric))) for row in rows]
        if not pairs or not np.isfinite(pairs).all():
            continue
        ordered = np.array([value for _, value in sorted(pairs)])
        count = len(ordered)
        weights = [[math.comb(count - 1 - i, k - 1) / math.comb(count, k) for i in range(count)] for k in _to(count)]
        curves.append(np.array(weights) @ ordered)
    shortest = min(map(len, curves), default=0)
    return np.mean([curve[:shortest] for curve in curves], axis=0) if curves else np.zeros(0)


def styles(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How each method is drawn: a colour of its own, the best of its seeds solid and their mean pale."""
    found: dict[str, dict[str, Any]] = {}
    families = list(dict.fromkeys(name.removesuffix("_best") for name in methods if name not in BASELINES))
    for name in methods:
        if name in BASELINES:
            label, colour, line = BASELINES[name]
            found[name] = {"label": label, "color": colour, "linestyle": line, "linewidth": 1.2}
            continue
        family = name.removesuffix("_best")
        colour = COLOURS[families.index(family) % len(COLOURS)]
        paired = f"{family}_best" in methods
        best = name.endswith("_best")
        label = family if len(family) <= LONGEST else family[: LONGEST - 1] + "…"
        text = f"{label}, best seed" if best else f"{label}, one seed" if paired else label
        found[name] = {"label": text, "color": colour, "linewidth": 1.8, "alpha": 1.0 if best or not paired else 0.55}
    return found


def _of(samples: Sequence[Mapping[str, Any]], method: str, metric: str) -> np.ndarray:
    """The metric of each sample that has it; infinite where a set of points was empty (None in JSON)."""
    return np.array([_number(s[method][metric], math.inf) for s in samples if metric in s.get(method, ())], np.float64)


def _number(value: float | None, missing: float = math.nan) -> float:
    return missing if value is None else float(value)


def _to(count: int) -> range:
    return range(1, count + 1)


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = Figure((max(3.6 * columns, 5.2), 3.0 * rows + 0.7), dpi=150, layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in panels[count:]:
        spare.remove()
    return figure, panels[:count]


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.grid(True, which="major", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One for all panels, below them, without doubles."""
    lines = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(
        list(lines.values()),
        list(lines),
        loc="outside lower center",
        ncols=min(len(lines), 4),
        fontsize=8,
        frameon=False,
    )
