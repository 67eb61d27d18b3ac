"""`worldtrace shards split`: one dataset becomes several, by a column of the manifest or by its assets' hashes."""

from typing import Annotated, Any

import typer

from ..rewrite import choice
from ..rewrite.inputs import open_input
from ..rewrite.rewrite import Output, rewrite
from ..store import open_store
from .arguments import Directory
from .rewriting import Bytes, Measure, Out, Samples, SkipDamaged, Threads, copying, cut_of, measured, tell


def split(
    directory: Directory,
    out: Out,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="COLUMN", help="A dataset for each value: split, regime, source, licence, ..."),
    ] = None,
    parts: Annotated[int | None, typer.Option("--parts", min=2, help="So many datasets with equal shares.")] = None,
    fractions: Annotated[
        str | None, typer.Option("--fractions", metavar="A,B,...", help="Datasets with these shares, of sum 1.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw of --parts and --fractions.")] = 0,
    samples: Samples = None,
    size: Bytes = None,
    skip_damaged: SkipDamaged = False,
    measure: Measure = False,
    workers: Threads = None,
) -> None:
    """Split a dataset into OUT/VALUE (--by) or OUT/0, OUT/1, ... (--parts, --fractions).

    Shares are drawn by asset: all views of one asset end in the same dataset.
    """
    if [by, parts, fractions].count(None) != 2:
        raise ValueError("a split goes either --by a column, or into --parts N, or into --fractions A,B,...: give one")
    source = open_input(directory)
    cut = cut_of(samples, size)
    if by is not None:
        names, to = choice.by_column(source, by)
        options: list[dict[str, Any]] = [{"by": by, "value": name} for name in names]
    else:
        shares = [1 / parts] * parts if parts is not None else _shares(fractions or "")
        names, to = [str(number) for number in range(len(shares))], choice.by_asset(source, shares, seed)
        options = [{"fractions": shares, "seed": seed, "part": number} for number in range(len(shares))]
    outputs = [
        Output(open_store(f"{out.rstrip('/')}/{name}"), choice.header("split", [source], cut, **option))
        for name, option in zip(names, options)
    ]
    with copying() as advance:
        made = rewrite([source], [to], outputs, cut, skip_damaged=skip_damaged, workers=workers, advance=advance)
    for each in made:
        tell(each)
    measured(made, measure)


def _shares(text: str) -> list[float]:
    try:
        return [float(share) for share in text.split(",")]
    except ValueError:
        raise ValueError(f"--fractions {text}: write numbers with commas between them, such as 0.8,0.1,0.1") from None
