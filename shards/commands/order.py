"""`worldtrace shards order`: the keys of any training step, from one machine, in seconds."""

from typing import Annotated

import typer

from .. import reader
from ..order import Order
from .arguments import Directory, SplitOption


def order(
    directory: Directory,
    seed: Annotated[int, typer.Option("--seed", help="The seed of the training run.")] = 0,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples per step, over all ranks.")] = 1,
    step: Annotated[int, typer.Option("--step", min=0, help="Optimisation step, from 0.")] = 0,
    split: SplitOption = "train",
) -> None:
    """Print the keys of one step, one a line, in the order in which the ranks take them."""
    dataset = reader.open(directory, split)
    if not len(dataset):
        raise ValueError(f"{directory}: split {split} is empty, so it has no order")
    for row in Order(len(dataset), seed, dataset.hash).batch(step, batch):
        typer.echo(dataset.manifest["key"][int(row)].as_py())
