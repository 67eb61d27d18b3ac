"""`worldtrace shards order`: the samples of any training step, from one machine, in seconds."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.table import Table

from ..order import mixture
from ..order.sequence import DATA_JSON, History, Sequence, opened
from ..printable import printable
from ..terminal import console, say
from .arguments import SplitOption, Where

Number = int | None


def order(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DIR", help="A dataset (folder or URL), a training config (.yaml), or the folder of a run."
        ),
    ],
    step: Annotated[int, typer.Option("--step", min=0, help="Optimisation step, from 0.")] = 0,
    seed: Annotated[
        Number, typer.Option("--seed", help="The run's seed. Default: that of the config or run, or 0.")
    ] = None,
    batch: Annotated[
        Number,
        typer.Option("--batch", min=1, help="Samples per step, over all ranks. Default: that of the config or run."),
    ] = None,
    count: Annotated[Number, typer.Option("--count", min=1, help="Samples to list. Default: one step.")] = None,
    split: SplitOption = "train",
    where: Where = None,
    window: Annotated[Number, typer.Option("--window", min=1, help="Shards in use at a time (data.window).")] = None,
    long: Annotated[bool, typer.Option("--long", help="Also index, epoch, source and shard, as a table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, with all of it.")] = False,
) -> None:
    """Print the keys of one step, one a line, in the order in which the ranks take them.

    Of a run's folder its mixture, seed, batch and the growth of its datasets are known; of a config all but the growth.
    The first `batch / ranks` samples of a step go to rank 0, the next to rank 1, and so on; workers do not matter.

    worldtrace shards order out/run --step 1000000 --long
    """
    given = _given(data, split, where, window)
    batch = batch or given["batch"]
    if batch is None:
        raise ValueError(f"{data} does not say how many samples a step has: give --batch")
    history, mixed = given["history"], given["mixed"]
    if history is not None and seed not in (None, history.seed):
        raise ValueError(f"--seed {seed}: {data} is a run of seed {history.seed}")
    datasets = opened(mixed) if history is None else history.without_later(opened(mixed))
    sequence = Sequence(mixed, datasets, given["seed"] if seed is None else seed, history)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("index", "epoch", "source", "shard", "key"):
        table.add_column(name, no_wrap=True, justify="right" if name in ("index", "epoch") else "left")
    for at in sequence.located(step * batch, count or batch):
        dataset, path = datasets[at.source], sequence.sources[at.source].path
        key, shard = dataset.key(at.row), dataset.shards[dataset.shard_of[at.row]]
        if as_json:
            line = {"index": at.index, "step": at.index // batch, "epoch": at.epoch, "source": path, "shard": shard}
            typer.echo(json.dumps({**line, "row": at.row, "key": key}))
        elif long:
            table.add_row(str(at.index), str(at.epoch), *map(printable, (path, shard, key)))
        else:
            say(key)
    if long and not as_json:
        console(width=1000).print(table)


def _given(data: str, split: str | None, where: str | None, window: int | None) -> dict[str, Any]:
    """What is known of a dataset, a config or a run: mixed, seed, batch, history."""
    folder = Path(data)
    if "://" not in data and (history := History.read(folder)) is not None:
        return {"mixed": history.mixed, "seed": history.seed, "batch": history.batch, "history": history}
    if folder.suffix in (".yaml", ".yml") and folder.is_file():
        return _configured(folder)
    if (folder / "config.yaml").is_file():
        raise ValueError(f"{folder} is a run without {DATA_JSON}: give its config, {folder / 'config.yaml'}")
    if "://" not in data and not folder.exists():
        raise FileNotFoundError(f"{data}: no such file or folder; give a dataset, a training config or a run's folder")
    source = mixture.source("the dataset", data, split or "all", where, window)
    return {"mixed": (source,), "seed": 0, "batch": None, "history": None}


def _configured(file: Path) -> dict[str, Any]:
    """Of a training config: its section `data` and its seed."""
    try:
        tree = yaml.load(file.read_text(), Loader=mixture.Yaml)
    except yaml.YAMLError as error:
        raise ValueError(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    section = tree.get("data") if isinstance(tree, dict) else None
    if not isinstance(section, dict) or "path" not in section:
        raise ValueError(f"{file} is no training config: it has no data.path")
    path, options = section["path"], {name: section[name] for name in ("split", "where", "window") if name in section}
    mixed = (mixture.source("data", path, **options),) if isinstance(path, str) else mixture.parse(path)
    return {"mixed": mixed, "seed": tree.get("seed", 0), "batch": section.get("batch", mixture.BATCH), "history": None}
