"""The commands `worldtrace train`, `predict` and `eval`: arguments in, one call, a few lines out."""

import signal
from pathlib import Path
from typing import Annotated, Literal

import typer

from train import environment

environment.settle()

Device = Literal["auto", "cpu", "cuda"]


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


def predict(
    image: Annotated[
        str,
        typer.Argument(help="A picture (RGBA, or RGB with --mask), or DATASET#KEY: a rendered sample with its truth."),
    ],
    checkpoint: Annotated[Path, typer.Option(help="The `out` folder of a training run, or one of its checkpoints.")],
    out: Annotated[
        list[Path], typer.Option(help="OUT.glb or OUT.ply: points; OUT.png: a sheet; OUT.npz: arrays. Repeatable.")
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Stacks to sample; the one most like the others is written.")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the ODE solver (paper: 20).")] = 20,
    mask: Annotated[
        Path | None, typer.Option(help="A picture, white where the object is; else the alpha is used.")
    ] = None,
    device: Annotated[Device, typer.Option(help="auto is CUDA where there is one.")] = "auto",
) -> None:
    """Predict the layered point cloud behind an image: what is seen in its colours, what is hidden in grey.

    An object is cropped to its mask and framed at 2/3 of the image, as the models were trained. The points are in the
    camera's frame; the camera that they imply is printed. An .npz holds the stacks of all seeds.

    Examples:

    worldtrace predict photo.png --checkpoint out/run --out photo.glb --out photo-layers.png

    worldtrace predict 'out/data#heldout' --checkpoint out/run --out sample.glb    (a sample the run was not trained on)
    """
    from train.prediction import output
    from train.prediction.predict import predict as run_model
    from train.run import device_of, load_run

    output.check(out, [Path(image), *([mask] if mask else [])])
    run = load_run(checkpoint, device_of(device))
    asked = output.resolve(image, mask, run)
    prediction = run_model(run, asked.rgb, asked.valid, range(seeds), steps, asked.name)
    for line in output.write(prediction, asked, out):
        typer.echo(line)


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
