"""`worldtrace shards stats`: mean and standard deviation of XYZ, measured and written into dataset.json."""

import typer

from .. import reader
from ..dataset_json import write_dataset_json
from ..layout import DATASET_JSON
from ..moments import RELEASED, Moments, as_json, measure
from .arguments import Directory, advance, bar


def stats(directory: Directory) -> None:
    """Measure the z-score statistics over all valid layers of split train, and store them in dataset.json."""
    dataset = reader.open(directory)
    last: tuple[int, int, Moments] | None = None
    with bar("measuring") as progress:
        for last in measure(dataset):
            advance(progress, *last[:2])
    if last is None or not last[2].count:
        raise ValueError(
            f"{directory}: split train has no object, clip or rgbd sample to measure; scenes need no statistics, "
            "because the log-median map scales each by its own median depth"
        )
    samples, _, moments = last
    statistics = as_json(moments, samples)
    write_dataset_json(directory, {**dataset.config, "statistics": statistics})
    for name in ("mean", "std"):
        ours, released = (" ".join(f"{v:10.6f}" for v in which[name]) for which in (statistics, RELEASED))
        typer.echo(f"{name:<5}{ours}    released object model:{released}")
    typer.echo(f"over {moments.count} points of {samples} samples, written to {directory / DATASET_JSON}")
