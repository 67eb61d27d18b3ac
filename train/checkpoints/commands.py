"""`worldtrace checkpoint`: look into the checkpoints of a run, check them, take the weights out."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from train.weights import Weights

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Look into checkpoints, check and export them.")

RUN = typer.Argument(help="The `out` folder of a training run, or one of its checkpoints.")


@app.command()
def info(run: Annotated[Path, RUN]) -> None:
    """Say what checkpoints there are: step, size, ranks that wrote them, tensors. Hashes no file.

    Example: worldtrace checkpoint info out/run
    """
    from train.checkpoints import GROUPS, check, stored

    for path in _folders(run):
        try:
            found = check(path, ())
            groups = {group: stored(found, group) for group in GROUPS}
        except ValueError as error:
            typer.echo(f"{path.name}: damaged: {error}")
            continue
        size = sum(file.stat().st_size for group in GROUPS for file in found.files(group))
        numbers = {
            group: sum(each.metadata.size.numel() for each in tensors.values()) for group, tensors in groups.items()
        }
        counts = ", ".join(f"{group} {len(groups[group])} tensors of {numbers[group]:,} numbers" for group in GROUPS)
        world = found.state.get("world")
        by = "an earlier version" if found.old else "1 rank" if world == 1 else f"{world} ranks"
        typer.echo(f"{path.name}: {size / 1e9:.3f} GB by {by}; {counts}")


@app.command()
def verify(run: Annotated[Path, RUN]) -> None:
    """Hash every file and compare it with what was written. Ends with 1 where something is damaged.

    Example: worldtrace checkpoint verify out/run
    """
    from train.checkpoints import GROUPS, check, stored

    damaged = False
    for path in _folders(run):
        try:
            found = check(path)
            for group in GROUPS:
                stored(found, group)
            typer.echo(f"{path.name}: whole")
        except ValueError as error:
            damaged = True
            typer.echo(f"{path.name}: damaged: {error}")
    if damaged:
        raise typer.Exit(1)


@app.command()
def export(
    source: Annotated[
        str, typer.Argument(help="A run, a checkpoint, an exported file, or released weights (r75b, hf://..., .pt).")
    ],
    out: Annotated[Path, typer.Option(help="OUT.safetensors, or with --released OUT.pt: the weights, in one file.")],
    released: Annotated[
        bool, typer.Option("--released", help="With the names of the public release, for its own code.")
    ] = False,
) -> None:
    """Write the averaged weights of the newest checkpoint as one file, without the optimizer.

    The metadata of a .safetensors hold the model's config, the map of its points and
    the training's config as JSON. --released writes a model.pt that the public
    release reads: only of models that it has (objects, scenes, clips; ViT-L/14).

    \b
    worldtrace checkpoint export out/run --out wt.safetensors
    worldtrace checkpoint export out/run --released --out model.pt
    worldtrace checkpoint export r75b --out r75b.safetensors
    """
    from train import weights

    suffixes, kind = ((".pt", ".pth"), "torch's .pt") if released else ((".safetensors",), "safetensors")
    if out.suffix not in suffixes:
        raise ValueError(
            f"{out}: {'with' if released else 'without'} --released weights are written as {kind}; give a name that "
            f"ends in {suffixes[0]}"
        )
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out.parent}: no such folder to write {out.name} to")
    found = weights.find(source, typer.echo)
    licence = weights.licence_of(found)
    about = {name: found.about[name] for name in ("model", "normalisation", "config") if name in found.about}
    about |= {"licence": licence} if licence is not None else {}
    if released:
        count = _write_released(out, source, found, {**about, "step": found.step})
    else:
        tensors = found.read()
        count = len(tensors)
        _write(out, tensors, about, found.step)
    typer.echo(f"{out}: {count} tensors, {out.stat().st_size / 1e9:.3f} GB, of step {found.step} of {found.path}")
    if licence is not None:
        typer.echo(f"{out}: its weights are under {licence}")


def _folders(run: Path) -> list[Path]:
    """The checkpoint folders that a path leads to, oldest first. FileNotFoundError where there are none."""
    from train.checkpoints import steps

    if (run / "state.json").exists() or run.name.startswith("step-"):
        return [run]
    folders = steps(run.parent if run.name == "checkpoints" else run)
    if not folders:
        raise FileNotFoundError(f"{run}: no checkpoint there; give the `out` folder of a training run")
    return folders


def _write(out: Path, tensors: dict[str, Any], about: dict[str, Any], step: int) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    metadata = {"format": "pt", "step": str(step), **{name: json.dumps(value) for name, value in about.items()}}
    try:
        with _whole(out) as half:
            save_file(tensors, half, metadata)
    except SafetensorError as error:
        raise OSError(f"{out} cannot be written: {error}") from None


def _write_released(out: Path, source: str, found: "Weights", note: dict[str, Any]) -> int:
    """The number of tensors. Says where the release would read other points out of the same weights."""
    from model import released_normalisation, write_released
    from train.run import run_of

    run = run_of(found)
    if run.config.objective.kind != "flow":
        raise ValueError(
            f"{source}: trained as a {run.config.objective.kind}, and the release only samples; no --released"
        )
    state = run.model.state_dict()
    try:
        with _whole(out) as half:
            write_released(half, state, run.model.config, note)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    if run.normalisation != (theirs := released_normalisation(state)):
        typer.echo(
            f"{out}: the release's code turns the numbers of this kind of model into points by {theirs}, and this run "
            f"was trained under {run.normalisation}: there its points would come out stretched; worldtrace knows"
        )
    return len(state)


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """Where to write within the block; it then gets its name, so that no half of a file is taken for weights."""
    half = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        half.touch()
        mode = half.stat().st_mode  # what others may do with a file of this user; safetensors lets nobody read it
        yield half
        half.chmod(mode)
        half.replace(out)
    except RuntimeError as error:  # what torch says of a full disk
        raise OSError(f"{out} cannot be written: {' '.join(str(error).split())[:200]}") from None
    finally:
        half.unlink(missing_ok=True)
