"""A prediction as a picture: the input, the predicted layers and, where it is known, the truth below them."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

BACKGROUND = "#16161d"


def prediction_sheet(
    path: Path, rgb: np.ndarray, valid: np.ndarray, xyz: np.ndarray, true_xyz: np.ndarray | None = None, title: str = ""
) -> None:
    """Write a PNG: rgb (H,W,3) float in [0,1]; xyz, true_xyz (L,H,W,3). Depth in magma, one range for the whole sheet.

    The range is that of the truth where there is one, so that a wrong depth shows as a wrong colour.
    """
    rows = [("predicted", xyz)] + ([("true", true_xyz)] if true_xyz is not None else [])
    shown = (true_xyz if true_xyz is not None else xyz)[..., 2][:, valid]
    low, high = np.percentile(shown, [1, 99])
    margin = 0.05 * max(high - low, 1e-6)
    layers = len(xyz)
    fig, axes = plt.subplots(
        len(rows),
        layers + 1,
        figsize=(1.75 * (layers + 1), 1.9 * len(rows) + 0.35),
        squeeze=False,
        facecolor=BACKGROUND,
    )
    colours = plt.get_cmap("magma_r").with_extremes(bad=BACKGROUND)
    for row, (name, stack) in enumerate(rows):
        axes[row, 0].imshow(rgb if row == 0 else np.where(valid[..., None], rgb, 0.09))
        axes[row, 0].set_ylabel(name, color="w")
        for layer in range(layers):
            depth = np.where(valid, stack[layer, ..., 2], np.nan)
            axes[row, layer + 1].imshow(
                depth, cmap=colours, vmin=low - margin, vmax=high + margin, interpolation="nearest"
            )
            if row == 0:
                axes[row, layer + 1].set_title(f"layer {layer}", color="w", fontsize=9)
    axes[0, 0].set_title("input", color="w", fontsize=9)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_facecolor(BACKGROUND)
        for spine in axis.spines.values():
            spine.set_visible(False)
    fig.suptitle(title, color="w", fontsize=9)
    fig.tight_layout(pad=0.4)
    fig.savefig(path, dpi=130, facecolor=BACKGROUND)
    plt.close(fig)
