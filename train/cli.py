"""`worldtrace train`: arguments in, one call, a few lines out."""

import signal
from typing import Annotated

import typer

from train import environment

environment.settle()


def train(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped config, such as `tiny`.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, such as optimizer.lr=3e-4 data.path=DIR out=RUN.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Train nothing: say what the run would take, on which GPUs.")
    ] = False,
    gpus: Annotated[int | None, typer.Option(min=1, help="With --dry-run: how many.", show_default="1")] = None,
    gpu: Annotated[
        str | None, typer.Option(help="With --dry-run: which, such as h100, a100 or b200.", show_default="h100")
    ] = None,
    mfu: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=1.0, help="With --dry-run: the part of the peak that is assumed.", show_default="0.4"
        ),
    ] = None,
) -> None:
    """Train a WT-DiT on rendered shards, or go on with a run that was interrupted.

    Start the same command again and it continues from the newest checkpoint in
    `out`; SIGTERM and Ctrl-C save one first. `out` then holds config.yaml,
    metrics.jsonl, tensorboard/, checkpoints/, training.png and, where the run
    is evaluated on the way, pictures/ of held-out samples.

    Shipped configs: wt_o, wt_o_504 (objects, the paper's two stages), wt_s,
    wt_s_mix (scenes), wt_d (clips), small (one GPU), tiny (a CPU).

    \b
    worldtrace train tiny data.path=out/data out=out/run steps=600
    torchrun --nproc-per-node 8 -m worldtrace train small data.path=/shared/data
        out=/shared/run    (a rank per GPU)
    worldtrace train wt_o accumulation=8 --dry-run --gpus 8    (memory, time and
        data rates; no GPU, no data needed; exit code 1 where it does not fit)

    data.batch is the batch of all ranks together, so the number of ranks changes
    how fast a run goes, and nothing else.
    """
    from train.config import load

    if not dry_run:
        for name, given in (("--gpus", gpus), ("--gpu", gpu), ("--mfu", mfu)):
            if given is not None:
                raise ValueError(
                    f"{name} is of --dry-run; a training takes the GPU it finds, and N of them as "
                    "`torchrun --nproc-per-node N -m worldtrace train ...`"
                )
    settings = load(config, overrides or [])
    if dry_run:
        from train.plan.plan import MFU
        from train.plan.table import show

        if not show(settings, gpus or 1, gpu or "h100", mfu=mfu or MFU).fits:
            raise typer.Exit(1)
        return
    from train.loop import train as run

    outcome = run(settings)
    if outcome.reports:
        typer.echo(outcome.line(settings.out))
    if outcome.stopped_by == signal.SIGINT:
        raise typer.Exit(130)  # whoever pressed Ctrl-C also wants the script around this to end
