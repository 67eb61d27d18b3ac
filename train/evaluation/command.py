"""`worldtrace eval`: arguments in, one call, a table out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from train import environment

if TYPE_CHECKING:
    import shards
    from train.evaluation.methods import Method
    from train.evaluation.protocols import Protocol

environment.settle()

Device = Literal["auto", "cpu", "cuda"]
Align = Literal["ray", "similar", "none"]
Unit = Literal["dataset", "median"]
Solver = Literal["euler", "heun", "multistep"]
SUFFIXES = (".json", ".md")


def evaluate(
    data: Annotated[str, typer.Option(help="A dataset, a folder or URL; its held-out samples are judged.")],
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            help="A training run, a checkpoint, an exported or released file, r75b, hf://OWNER/REPO; or NAME=that. "
            "Repeatable."
        ),
    ] = None,
    predictions: Annotated[
        list[str] | None, typer.Option(help="A folder with a KEY.npz per sample, or NAME=FOLDER. Repeatable.")
    ] = None,
    table: Annotated[
        int | None, typer.Option(help="Protocol of the paper's table: 1, 2, 3, 6, or 5 (layers of the dataset).")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Stacks per sample, for best-of-K (paper: 8).")] = 8,
    steps: Annotated[
        list[int] | None, typer.Option(min=1, help="Steps of the ODE solver (paper: 20). Repeatable: a row for each.")
    ] = None,
    solver: Annotated[Solver, typer.Option(help="Of the ODE (paper: euler).")] = "euler",
    split: Annotated[
        str | None,
        typer.Option(help="train, val, test, or several joined by +. Default: val+test; of table 6 all."),
    ] = None,
    where: Annotated[str | None, typer.Option(help="SQL condition over the manifest, as in `shards filter`.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many samples, fixed by the manifest.")] = None,
    assets: Annotated[
        int | None, typer.Option(min=1, help="All samples of so many assets, fixed by the manifest.")
    ] = None,
    samples_list: Annotated[
        Path | None, typer.Option(help="Keys to judge, one per line; written where it does not exist.")
    ] = None,
    surfaces: Annotated[
        Path | None, typer.Option(help="Points of the assets' surfaces (`cluster surfaces`), for the whole shape.")
    ] = None,
    align: Annotated[
        Align, typer.Option(help="Scale-shift on depth: along the rays, as a similarity, or none.")
    ] = "ray",
    unit: Annotated[
        Unit | None, typer.Option(help="Of lengths: the dataset's, or each sample's median depth (scenes).")
    ] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Pixels to judge at. Default: that of the methods.")] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Of clips (table 3). Default: as many as all methods can judge.")
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines/--no-baselines", help="The training set's mean, and a perfect layer 0.")
    ] = True,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Average precomputed predictions over those that are there.")
    ] = False,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="OUT.json: everything, sample by sample; OUT.md: the table. Repeatable."),
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(help="A folder for curves, and pictures of the worst and best samples.")
    ] = None,
    device: Annotated[Device, typer.Option(help="auto is CUDA where there is one.")] = "auto",
) -> None:
    """Judge trained runs and precomputed predictions on samples they have not seen, as the paper's tables do.

    Layer-0 depth errors, Chamfer distance and F-scores (visible, hidden and all layers) and the error of each layer,
    after one scale-shift alignment per sample, beside the training set's mean and a perfect layer 0.
    With an OUT.json, an evaluation that was stopped goes on where it was when it is started again.

    Examples:

    worldtrace eval --checkpoint out/run --data out/data --seeds 8 --out report.json

    worldtrace eval --table 1 --checkpoint ours=out/run --checkpoint r75b --predictions lari=out/lari --data out/data
    """
    import json
    from dataclasses import replace

    from rich.progress import Progress

    import shards
    from train.evaluation import coverage, evaluate, protocols, samples
    from train.evaluation import table as tables
    from train.evaluation.surfaces import Surfaces

    written = _outputs(out or [], plots)
    whole = shards.open(data, where=where)
    if samples_list is not None and samples_list.exists() and (limit or assets or split):
        raise ValueError(f"{samples_list} says which samples are judged; leave out --limit, --assets and --split")
    protocol = protocols.protocol_of(whole, table) if table != 5 else None
    rows = _rows(whole, protocol if table is not None else None, table, split, limit, assets, samples_list)
    names = samples.keys_of(whole, rows)
    console = tables.plain_console()
    if protocol is None:
        if checkpoint or predictions:
            raise ValueError("--table 5 is of the dataset alone; leave out --checkpoint and --predictions")
        found = coverage.layer_validity(whole, rows)
        heading = f"Valid multilayer pixels of {len(rows)} samples, list {samples.list_hash(names)}"
        tables.show_coverage(found, heading, console)
        about = {"dataset": data, "manifest_hash": whole.hash, "list_hash": samples.list_hash(names)}
        _write(
            written,
            json.dumps({"settings": about, "layers": found}, indent=1),
            tables.coverage_markdown(found, heading),
        )
        return
    methods = _methods(checkpoint or [], predictions or [], seeds, steps or [20], solver, device)
    asked = evaluate.ask(methods, whole, rows, table, size, frames)
    asked = replace(asked, rule=align, unit=unit or asked.unit, baselines=baselines, allow_missing=allow_missing)
    columns = protocol.columns
    if surfaces is not None:
        asked = replace(asked, surfaces=Surfaces(surfaces), selected_by=asked.selected_by.replace("all/", "surface/"))
        columns = protocols.with_surfaces(columns)
    console.print(f"{len(rows)} samples, list {samples.list_hash(names)}")
    journal = next((path.with_name(path.name + ".partial") for path in written if path.suffix == ".json"), None)
    with Progress(console=console) as progress:
        task = progress.add_task("eval")

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        report = evaluate.compare(methods, whole, asked, advance, journal)
    heading = f"Table {protocol.number}: {protocol.title}"
    report.settings["table"] = protocol.number
    content = report.to_dict()
    _write(written, json.dumps(content, indent=1, allow_nan=False), tables.markdown(report, columns, heading))
    tables.show(report, columns if table is not None else None, console)
    for path in written:
        console.print(f"wrote {path}")
    if plots is not None:
        from train.evaluation import plots as curves
        from train.evaluation import showing

        for path in [*curves.write(content, plots), *showing.write(content, methods, whole, plots, asked.rule)]:
            console.print(f"wrote {path}")
    if journal is not None:  # hours of judging, which must outlast whatever goes wrong above
        journal.unlink(missing_ok=True)


def _outputs(out: list[Path], plots: Path | None) -> list[Path]:
    """The outputs, JSON first. ValueError or OSError, before anything is computed, for one that cannot be written."""
    import tempfile

    for path in out:
        if path.suffix not in SUFFIXES:
            raise ValueError(f"--out {path}: its suffix says what is written; use one of {', '.join(SUFFIXES)}")
        if path.is_dir():
            raise ValueError(f"--out {path} is a folder; name a file in it")
    if plots is not None and plots.exists() and not plots.is_dir():
        raise ValueError(f"--plots {plots} is a file; name a folder")
    for folder in {path.parent for path in out} | ({plots} if plots is not None else set()):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            error.filename = str(folder)
            raise
    return sorted(out, key=lambda path: SUFFIXES.index(path.suffix))


def _write(out: list[Path], as_json: str, as_markdown: str) -> None:
    import shards

    for path in out:
        with shards.committed(path) as file:
            file.write((as_json if path.suffix == ".json" else as_markdown).encode())


def _rows(
    dataset: "shards.Dataset",
    protocol: "Protocol | None",
    table: int | None,
    split: str | None,
    limit: int | None,
    assets: int | None,
    listed: Path | None,
) -> list[int]:
    """The rows to judge: those of a list, or of the splits, as many as are asked for or as the paper's table has."""
    from train.evaluation import samples

    if listed is not None and listed.exists():
        return samples.read_list(listed, dataset)
    if limit is None and assets is None and protocol is not None:
        limit, assets = protocol.limit, protocol.assets
    rows = samples.held_out(
        dataset, (split or ("train+val+test" if table == 6 else "val+test")).split("+"), limit, assets
    )
    if listed is not None:
        samples.write_list(listed, dataset, rows)
    return rows


def _methods(
    checkpoints: list[str], folders: list[str], seeds: int, steps: list[int], solver: Solver, device: Device
) -> "list[Method]":
    """The columns: every checkpoint at every number of steps, and every folder. One checkpoint alone is `model`.

    ValueError where there is none, or where two have one name.
    """
    from train.evaluation.methods import Precomputed, Sampled
    from train.run import device_of, load_run

    alone = len(checkpoints) + len(folders) == 1
    methods: list[Sampled | Precomputed] = []
    for text in checkpoints:
        name, source = _named(text)
        run = load_run(source, device_of(device), lambda line: typer.echo(line))
        name = name or ("model" if alone else _short(source))
        for count in steps:
            called = name if len(steps) == 1 else f"{name} {count} steps"
            methods.append(Sampled(called, run, seeds, count, solver))
    for text in folders:
        name, source = _named(text)
        methods.append(Precomputed(name or _short(source), Path(source)))
    if not methods:
        raise ValueError("nothing to judge: give --checkpoint, --predictions, or --table 5 for the dataset's layers")
    return list(methods)


def _named(text: str) -> tuple[str | None, str]:
    """NAME=SOURCE -> (NAME, SOURCE); a path that has a = in it, and exists, is a source."""
    name, equals, source = text.partition("=")
    if not equals or Path(text).exists() or "/" in name or not name or not source:
        return None, text
    return name, source


def _short(source: str) -> str:
    """The last part of a path or address."""
    return Path(source.rstrip("/")).name or source
