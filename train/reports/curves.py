"""`training.png`: how a run went, from its `metrics.jsonl`."""

from pathlib import Path
from typing import Any

import numpy as np

from train.reports.log import events, read


def draw(out: Path) -> Path | None:
    """Loss, loss per layer (log axis), learning rate, gradient norm -> out/training.png; None without metrics.

    Evaluations are points on dashed lines, the switch of the time curriculum a dotted line, steps that were refused
    ticks at the foot.
    """
    lines = read(out)
    if not lines:
        return None
    import matplotlib

    matplotlib.use("Agg")  # no display on a cluster
    from matplotlib import pyplot as plt

    step = np.array([line["step"] for line in lines])
    figure, (total, layers, rate) = plt.subplots(1, 3, figsize=(15, 4.2), constrained_layout=True)

    held_out = [line for line in events(out, "evaluation") if line["loss"] is not None]
    judged = np.array([line["step"] for line in held_out])
    _curve(total, step, _column(lines, "loss"), "tab:blue", "training")
    if held_out:
        _points(total, judged, _column(held_out, "loss"), "tab:red", f"split {held_out[-1]['split']}, averaged weights")
    total.set(title="training loss", xlabel="step", yscale="log")
    total.grid(alpha=0.3, which="both")
    skipped = [line["step"] for line in events(out, "skipped")]
    if skipped:
        along = total.get_xaxis_transform()
        foot = np.zeros(len(skipped))
        total.plot(skipped, foot, "|", color="tab:purple", markersize=14, transform=along, label=_count(skipped))
    if held_out or skipped:
        total.legend(fontsize=8, loc="lower left")
    switch = _switch(out, lines)
    for axis in (total, layers):
        if switch is not None:
            axis.axvline(switch, color="0.5", linestyle=":", linewidth=1)
            axis.annotate(
                " shared times", (switch, 1), xycoords=("data", "axes fraction"), va="top", fontsize=8, color="0.4"
            )

    per_layer, of_held_out = _layers(lines), _layers(held_out)
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, per_layer.shape[1]))
    for layer, colour in enumerate(colours):
        _curve(layers, step, per_layer[:, layer], colour, f"layer {layer}")
        if held_out and layer < of_held_out.shape[1]:
            _points(layers, judged, of_held_out[:, layer], colour)
    layers.set(title="endpoint loss per layer (normalised units²)", xlabel="step", yscale="log")
    layers.grid(alpha=0.3, which="both")
    layers.legend(fontsize=8, ncols=2)

    rate.plot(step, _column(lines, "lr"), color="tab:green", label="learning rate")
    rate.set(title="learning rate and gradient norm", xlabel="step", yscale="log")
    rate.tick_params(axis="y", labelcolor="tab:green", which="both")
    norm = rate.twinx()
    norm.plot(step, _column(lines, "grad_norm"), color="tab:orange", alpha=0.8, label="gradient norm before clipping")
    norm.set_yscale("log")
    norm.tick_params(axis="y", labelcolor="tab:orange", which="both")
    rate.legend(handles=[*rate.lines, *norm.lines], fontsize=8, loc="lower center")

    for axis in (total, layers, rate, norm):
        axis.yaxis.set_major_formatter("{x:g}")
        low, high = axis.get_ylim()
        axis.yaxis.set_minor_formatter("{x:g}" if high < 10 * low else "")

    path = out / "training.png"
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


def _curve(axis: Any, step: np.ndarray, values: np.ndarray, colour: Any, label: str) -> None:
    """The values, faint, under their running mean over about a twentieth of the run."""
    axis.plot(step, values, color=colour, alpha=0.25, linewidth=1)
    axis.plot(step, smoothed(values, max(1, len(values) // 20)), color=colour, linewidth=1.8, label=label)


def _points(axis: Any, step: np.ndarray, values: np.ndarray, colour: Any, label: str | None = None) -> None:
    axis.plot(step, values, "o--", color=colour, markersize=3.5, linewidth=1, label=label)


def _switch(out: Path, lines: list[dict[str, Any]]) -> int | None:
    """The last step before all layers share a time; None where it is not among the steps drawn."""
    told = [line["step"] for line in events(out, "phase")]
    seen = [line["step"] for line in lines if line.get("phase") == "shared"]
    switch = next(iter(told or seen), None)
    return switch if switch is not None and switch > lines[0]["step"] else None


def _count(skipped: list[int]) -> str:
    return f"{len(skipped)} skipped step" + ("s" if len(skipped) > 1 else "")


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Centred running mean over 2 window - 1 values, shorter at the ends; NaN counts as absent."""
    kernel = np.ones(2 * window - 1)
    known = np.isfinite(values)
    total = np.convolve(np.where(known, values, 0), kernel, mode="full")[window - 1 : window - 1 + len(values)]
    count = np.convolve(known, kernel, mode="full")[window - 1 : window - 1 + len(values)]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _layers(lines: list[dict[str, Any]]) -> np.ndarray:
    """(lines, L), NaN where a layer has no loss."""
    return np.array([[np.nan if x is None else x for x in line["layers"]] for line in lines], dtype=np.float64)


def _column(lines: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([np.nan if line[name] is None else line[name] for line in lines], dtype=np.float64)
