"""`worldtrace shards diff`: in what two datasets differ."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from ..rewrite.compare import ABSENT, Changed, Comparison, compare
from ..rewrite.inputs import open_input
from ..terminal import say
from .arguments import advance, bar
from .rewriting import shown


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A dataset: folder or URL.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    deep: Annotated[
        bool, typer.Option("--deep", help="Decode samples with other bytes, and say by how much they differ.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Name, and look into, so many samples of a kind.")] = 20,
    output_json: Annotated[bool, typer.Option("--json", help="For other programs.")] = False,
) -> None:
    """List the samples that only one of two datasets has, those with other bytes and which members differ, and settings
    and statistics that differ; exit with code 1 if there is any. Order and places of samples do not count.
    """
    with bar("comparing") as progress:
        found = compare(open_input(a), open_input(b), limit, deep, lambda done, total: advance(progress, done, total))
    if output_json:
        told = {"same": found.same, "same_order": found.same_order, **asdict(found)}
        typer.echo(json.dumps(told, indent=2))
    else:
        for line in _lines(found):
            say(line)
    if not found.same:
        raise typer.Exit(1)


def _lines(found: Comparison) -> list[str]:
    lines = [f"{name} {shown(side.text)}: {side.samples} samples, {side.bytes} bytes" for name, side in _sides(found)]
    for name in {**found.a.counts, **found.b.counts}:
        left, right = found.a.counts.get(name, 0), found.b.counts.get(name, 0)
        if left != right:
            lines.append(f"{name}: {left} in A, {right} in B")
    for which, keys, count in (("A", found.only_a, found.count_a), ("B", found.only_b, found.count_b)):
        lines += [f"only in {which}: {key}" for key in keys]
        lines += _more(f"only in {which}", len(keys), count)
    lines += [_changed(each) for each in found.changed]
    lines += _more("other bytes", len(found.changed), found.count_changed)
    for what, values in (("setting", found.settings), ("statistics", found.statistics)):
        lines += [f"{what} {name}: {_brief(left)} in A, {_brief(right)} in B" for name, (left, right) in values.items()]
    for name, (left, right) in found.origin.items():
        alone = [side for side, value in (("A", left), ("B", right)) if value != ABSENT]
        told = f"only {alone[0]} has it" if len(alone) == 1 else f"{_brief(left)} in A, {_brief(right)} in B"
        lines.append(f"made otherwise, {name}: {told}")
    if found.same:
        order = "in the same order" if found.same_order else "in another order"
        lines.append(f"the same {found.a.samples} samples, {order}")
    return lines


def _sides(found: Comparison) -> tuple[tuple[str, Any], ...]:
    return ("A", found.a), ("B", found.b)


def _more(what: str, shown: int, count: int) -> list[str]:
    return [f"{what}: {count} in all, of which {shown} are named (--limit)"] if count > shown else []


def _changed(each: Changed) -> str:
    text = f"other bytes: {each.key}: .{', .'.join(each.members)}" if each.members else f"other bytes: {each.key}"
    if each.depth is not None:
        text += f"; depth by up to {each.depth:.3g} of itself, hits of {100 * (each.hits or 0):.3g} % of the pixels"
        text += f", colour by up to {each.colour} of 255"
    if each.json:
        text += f"; json {', '.join(each.json)}"
    return f"{text}; {each.error}" if each.error else text


def _brief(value: object) -> str:
    if isinstance(value, list) and all(isinstance(each, float) for each in value):
        return f"[{', '.join(f'{each:.7g}' for each in value)}]"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
