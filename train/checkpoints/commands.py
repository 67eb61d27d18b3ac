"""`worldtrace checkpoint`: look into the checkpoints of a run, check them, take the weights out."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

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
    run: Annotated[Path, RUN],
    out: Annotated[Path, typer.Option(help="OUT.safetensors: the averaged weights, in one file.")],
) -> None:
    """Write the averaged weights of the newest checkpoint as one file, without the optimizer.

    The file's metadata hold the model's config, the map of its points and the training's config as JSON.

    Example: worldtrace checkpoint export out/run --out wt.safetensors
    """
    from train.checkpoints import find, weights

    if out.suffix != ".safetensors":
        raise ValueError(f"{out}: weights are written as safetensors; give a name that ends so")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out.parent}: no such folder to write {out.name} to")
    found = find(run, ("model", "ema"), typer.echo)
    tensors = weights(found)
    _write(
        out,
        tensors,
        {name: found.state[name] for name in ("model", "normalisation", "config") if name in found.state},
        found.step,
    )
    typer.echo(
        f"{out}: {len(tensors)} tensors, {out.stat().st_size / 1e9:.3f} GB, of step {found.step} of {found.path}"
    )


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
    """Under another name first, so that no half of a file is taken for weights."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    half = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        half.touch()
        mode = half.stat().st_mode  # what others may do with a file of this user; safetensors lets nobody read it
        save_file(tensors, half, {"format": "pt", "step": str(step), **{k: json.dumps(v) for k, v in about.items()}})
        half.chmod(mode)
        half.replace(out)
    except SafetensorError as error:
        raise OSError(f"{out} cannot be written: {error}") from None
    finally:
        half.unlink(missing_ok=True)
