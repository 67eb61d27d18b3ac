"""The table that `worldtrace eval` ends with."""

from rich.console import Console
from rich.table import Table

from train.evaluation.evaluate import Report

HEADERS = {"model_best": "best\nof K", "model": "one\nseed", "mean": "train\nmean", "layer0": "true layer 0\nrepeated"}

# metric -> (how it is called, whether more is better)
ROWS: dict[str, tuple[str, bool]] = {
    "depth/mae": ("layer-0 depth MAE", False),
    "depth/rmse": ("layer-0 depth RMSE", False),
    "depth/absrel": ("layer-0 depth AbsRel", False),
    "depth/delta1": ("layer-0 depth δ < 1.25", True),
    **{
        f"{part}/{metric}": (f"{name} {label}", metric.startswith("f@"))
        for part, name in (("visible", "visible"), ("hidden", "hidden"), ("all", "all layers"))
        for metric, label in (("cd_l1", "CD-L1"), ("cd_l2", "CD-L2"), ("f@0.01", "F@0.01"), ("f@0.05", "F@0.05"))
    },
}


def show(report: Report, console: Console | None = None) -> None:
    """Print a row per metric and a column per method, then which layers the model wins against the mean."""
    console = console or Console()
    settings, methods = report.settings, report.methods
    seen = "SEEN IN TRAINING" if settings["seen_in_training"] else "not trained on"
    table = Table(
        title=f"{settings['samples']} samples of {'+'.join(settings['splits'])} ({seen}), "
        f"{settings['steps']} steps, K = {settings['seeds']} seeds"
    )
    table.add_column("", no_wrap=True)
    for method in methods:
        table.add_column(HEADERS[method], justify="right", no_wrap=True)
    layers = sum(1 for name in methods["model"] if name.startswith("layer"))
    rows = {**ROWS, **{f"layer{k}/rmse": (f"layer {k} point RMSE", False) for k in range(layers)}}
    for metric, (name, more) in rows.items():
        if metric not in methods["model"]:
            continue
        if metric in ("visible/cd_l1", "hidden/cd_l1", "all/cd_l1", "layer0/rmse"):
            table.add_section()
        table.add_row(f"{name} {'↑' if more else '↓'}", *(f"{methods[m][metric]:.4f}" for m in methods))
    console.print(table)
    if "mean" in methods:
        beaten = [k for k in range(layers) if methods["model"][f"layer{k}/rmse"] < methods["mean"][f"layer{k}/rmse"]]
        verdict = "every layer" if len(beaten) == layers else f"layers {beaten} of {layers}" if beaten else "no layer"
        console.print(f"One seed of the model is nearer to the truth than the mean of the split train on {verdict}.")
    console.print(
        "All columns after one scale-shift alignment per sample on layer-0 depth. Best of K is chosen with the truth "
        f"in hand ({settings['best_of_k_selected_by']}); `hidden` is layers 1 and up, each true surface once."
    )
