"""`worldtrace cluster train`: the trainer on a Ray cluster."""

import signal
from typing import Annotated

import typer

from train import environment

environment.settle()  # as in train/cli.py, before anything imports torch


def train(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped config, such as `small`.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, such as optimizer.lr=3e-4 data.path=DIR out=RUN.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Ranks; data.batch is shared out among them.")] = 1,
    gpu: Annotated[
        bool | None,
        typer.Option(
            "--gpu/--cpu", help="A GPU for each worker, or none. Default: where there are any.", show_default=False
        ),
    ] = None,
    cpus_per_worker: Annotated[
        int, typer.Option(min=1, help="CPUs that Ray sets aside for a worker: its threads and its data.workers.")
    ] = 1,
    max_failures: Annotated[
        int, typer.Option(min=-1, help="How often lost workers are made good before the run ends; -1: always.")
    ] = 3,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for nodes that an autoscaler has yet to add.")] = False,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="local|auto|HOST:PORT",
            help="Ray to work on. Default: one of its own here, or inside `ray job submit` that job's cluster.",
            show_default=False,
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show what Ray and its workers log.")] = False,
) -> None:
    """Train a WT-DiT on a Ray cluster: what `worldtrace train` does, on several workers, through the loss of some.

    Samples, times and noise do not depend on the number of workers. `out` and `data.path` lie on storage that all nodes
    share. A worker or a node that dies costs the steps since the newest checkpoint in `out`; SIGTERM and Ctrl-C save
    one first, and the same command goes on from it, with any number of workers.

    \b
    worldtrace cluster train small data.path=/shared/data out=/shared/run --workers 8
    ray job submit --working-dir . -- worldtrace cluster train small data.path=/shared/data out=/shared/run --workers 8
    """
    from cluster.training import Workers, train_on_cluster
    from train.config import load

    settings = load(config, overrides or [])
    asked = Workers(workers, gpu, cpus_per_worker, max_failures, wait)
    ended = train_on_cluster(settings, asked, address, typer.echo, debug)
    typer.echo(ended.line)
    if ended.stopped_by == signal.SIGINT:
        raise typer.Exit(130)
