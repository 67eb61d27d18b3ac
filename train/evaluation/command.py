"""`worldtrace eval`: arguments in, one call, a table out."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from train import environment

environment.settle()

Device = Literal["auto", "cpu", "cuda"]


def evaluate(
    checkpoint: Annotated[Path, typer.Option(help="The `out` folder of a training run, or one of its checkpoints.")],
    data: Annotated[Path, typer.Option(help="A dataset folder; its held-out samples are judged.")],
    seeds: Annotated[int, typer.Option(min=1, help="Stacks per sample, for best-of-K (paper: 8).")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the ODE solver (paper: 20).")] = 20,
    split: Annotated[str, typer.Option(help="train, val, test, or several joined by +.")] = "val+test",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many samples, fixed by the manifest.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write everything, sample by sample, as JSON.")] = None,
    device: Annotated[Device, typer.Option(help="auto is CUDA where there is one.")] = "auto",
) -> None:
    """Judge a trained run on samples it has not seen, beside the training set's mean and a perfect layer 0.

    Layer-0 depth errors, Chamfer distance and F-scores (visible, hidden and all layers) and the error of each layer,
    after one scale-shift alignment per sample, as in the paper's tables.

    Example: worldtrace eval --checkpoint out/run --data out/data --seeds 8 --out report.json
    """
    import json

    from rich.progress import Progress

    import shards
    from train.evaluation import table
    from train.evaluation.evaluate import evaluate as judge
    from train.run import device_of, load_run

    dataset = shards.open(data)
    run = load_run(checkpoint, device_of(device))
    with Progress() as progress:
        task = progress.add_task("eval")

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        report = judge(run, dataset, tuple(split.split("+")), seeds, steps, limit, advance)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report.to_dict(), indent=1))
    table.show(report)
