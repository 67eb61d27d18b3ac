"""`worldtrace shards stats`: mean and standard deviation of XYZ, measured and written into dataset.json."""

import typer

from .. import reader
from ..dataset_json import write_dataset_json
from ..layout import DATASET_JSON
from ..moments import RELEASED
from ..moments import statistics as measured
from .arguments import Directory, advance, bar


def stats(directory: Directory) -> None:
    """Measure the z-score statistics over all valid layers of split train, and store them in dataset.json."""
    dataset = reader.open(directory)
    with bar("measuring") as progress:
        statistics = measured(dataset, lambda done, total: advance(progress, done, total))
    if statistics is None:
        raise ValueError(
            f"{directory}: split train has no object, clip or rgbd sample to measure; scenes need no statistics, "
            "because the log-median map scales each by its own median depth"
        )
    write_dataset_json(directory, {**dataset.config, "statistics": statistics})
    for name in ("mean", "std"):
        ours, released = (" ".join(f"{v:10.6f}" for v in which[name]) for which in (statistics, RELEASED))
        typer.echo(f"{name:<5}{ours}    released object model:{released}")
    typer.echo(
        f"over {statistics['points']} points of {statistics['samples']} samples, written to {directory}/{DATASET_JSON}"
    )
