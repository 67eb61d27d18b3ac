"""`worldtrace shards stats`: mean and standard deviation of XYZ, measured and written into dataset.json."""

from typing import Annotated

import typer

from .. import reader
from ..check.measure import UNMEASURED
from ..check.measure import statistics as measure
from ..dataset_json import dataset_json
from ..layout import DATASET_JSON
from ..moments import RELEASED
from ..terminal import say
from .arguments import Directory, advance, bar

Processes = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processes that share the shards [one for each core].")
]


def stats(directory: Directory, workers: Processes = None) -> None:
    """Measure the z-score statistics over all valid layers of split train, and store them in dataset.json.

    They are the same to the last bit for any number of workers.
    """
    dataset = reader.open(directory)
    with bar("measuring") as progress:
        statistics = measure(dataset, lambda done, total: advance(progress, done, total), workers)
    if statistics is None:
        raise ValueError(
            f"{directory}: split train has no object, clip or rgbd sample to measure; scenes need no statistics, "
            "because the log-median map scales each by its own median depth"
        )
    with dataset.store.writing(DATASET_JSON) as file:
        told = {name: value for name, value in dataset.config.items() if name != UNMEASURED}
        file.write(dataset_json({**told, "statistics": statistics}))
    for name in ("mean", "std"):
        ours, released = (" ".join(f"{v:10.6f}" for v in which[name]) for which in (statistics, RELEASED))
        say(f"{name:<5}{ours}    released object model:{released}")
    where = f"{directory.rstrip('/')}/{DATASET_JSON}"
    say(f"over {statistics['points']} points of {statistics['samples']} samples, written to {where}")
