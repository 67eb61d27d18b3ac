"""`training.png`: how a run went, from its `metrics.jsonl`."""

from pathlib import Path
from typing import Any

import numpy as np

from train.log import read


def draw(out: Path) -> Path | None:
    """Loss, loss per layer (log axis), learning rate, gradient norm -> out/training.png; None without metrics."""
    lines = read(out)
    if not lines:
        return None
    import matplotlib

    matplotlib.use("Agg")  # no display on a cluster
    from matplotlib import pyplot as plt

    step = np.array([line["step"] for line in lines])
    figure, (total, layers, rate) = plt.subplots(1, 3, figsize=(15, 4.2), constrained_layout=True)

    _curve(total, step, _column(lines, "loss"), "tab:blue", "loss")
    total.set(title="training loss", xlabel="step", yscale="log")
    total.grid(alpha=0.3, which="both")
    switch = next((line["step"] for line in lines if line["phase"] == "shared"), None)
    for axis in (total, layers):
        if switch is not None and switch > step[0]:
            axis.axvline(switch, color="0.5", linestyle=":", linewidth=1)
            axis.annotate(
                " shared times", (switch, 1), xycoords=("data", "axes fraction"), va="top", fontsize=8, color="0.4"
            )

    per_layer = np.array([[np.nan if x is None else x for x in line["layers"]] for line in lines])
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, per_layer.shape[1]))
    for layer, colour in enumerate(colours):
        _curve(layers, step, per_layer[:, layer], colour, f"layer {layer}")
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


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Centred running mean over 2 window - 1 values, shorter at the ends; NaN counts as absent."""
    kernel = np.ones(2 * window - 1)
    known = np.isfinite(values)
    total = np.convolve(np.where(known, values, 0), kernel, mode="full")[window - 1 : window - 1 + len(values)]
    count = np.convolve(known, kernel, mode="full")[window - 1 : window - 1 + len(values)]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _column(lines: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([np.nan if line[name] is None else line[name] for line in lines], dtype=np.float64)
