"""`worldtrace cluster report`."""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Annotated, Any

import typer

LOOK_EVERY = 2.0  # seconds; a look at a remote dataset takes longer by itself, and then pauses as long as it took
PLAIN_EVERY = 15.0  # seconds between lines where there is no terminal
ROWS = 8  # of a table; what comes after is summed up


def report(
    dataset: Annotated[str, typer.Argument(help="Folder or address of a dataset, finished or in the making.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay until the job ends; Ctrl-C leaves.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; with --follow a line for every look.")] = False,
    failed: Annotated[int, typer.Option(min=0, help="Name so many assets of each reason, with their messages.")] = 1,
    price_core_hour: Annotated[
        float | None, typer.Option(min=0.0, help="What a core costs in an hour, in any currency.", show_default=False)
    ] = None,
    price_gpu_hour: Annotated[
        float | None, typer.Option(min=0.0, help="What a GPU costs in an hour.", show_default=False)
    ] = None,
) -> None:
    """How a render job is going, or how it went: progress, rate, rejections, stages, hosts, cost.

    Reads the ledger alone, writes nothing, and may run anywhere that can read the dataset. Rates leave out pauses of
    more than a minute in which nothing was rendered: those between two runs of the job.

    \b
    worldtrace cluster report data --follow
    worldtrace cluster report s3://bucket/objaverse-504 --failed 5 --price-core-hour 0.04
    worldtrace cluster report data --json
    """
    from rich.console import Console

    from cluster.report import Prices
    from cluster.watch import Watch

    watch = Watch(dataset, Prices(price_core_hour, price_gpu_hour), examples=failed)
    console = Console()
    try:
        if as_json:
            for seen in _looks(watch, follow, LOOK_EVERY if console.is_terminal else PLAIN_EVERY):
                typer.echo(json.dumps(asdict(seen), indent=None if follow else 2))
        elif not follow:
            console.print(page(watch.look()))
        elif console.is_terminal:
            from rich.live import Live

            with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
                for seen in _looks(watch, True, LOOK_EVERY):
                    live.update(page(seen), refresh=True)
        else:
            for seen in _looks(watch, True, PLAIN_EVERY):
                typer.echo(line(seen))
            typer.echo("")
            console.print(page(seen))
    except KeyboardInterrupt:
        if not follow:
            raise


def _looks(watch: Any, follow: bool, every: float) -> Iterator[Any]:
    """One look, or looks until the dataset is finished."""
    while True:
        began = time.monotonic()
        seen = watch.look()
        yield seen
        if seen.complete or not follow:
            return
        time.sleep(max(every, time.monotonic() - began))


def line(seen: Any) -> str:
    """A line of it, for logs."""
    parts = [
        f"{_part(seen.units)} units",
        f"{_part(seen.assets)} assets",
        f"{seen.views.done} views",
        f"{_number(seen.rate.recent)} views/s",
    ]
    if seen.rejected or seen.failed:
        parts.append(f"{seen.rejected} rejected, {seen.failed} failed")
    if seen.rate.eta_seconds is not None:
        parts.append(f"{duration(seen.rate.eta_seconds)} left")
    return " | ".join(parts)


def page(seen: Any) -> Any:
    """All of it as one rich renderable, 80 columns wide or more."""
    from rich.console import Group

    parts = [_progress(seen)]
    if seen.reasons:
        parts.append(_reasons(seen))
    parts += [_provenance(seen), _stages(seen)]
    if seen.slowest_assets:
        parts.append(_slowest(seen))
    parts += [_hosts(seen), _cost(seen)]
    spaced = [renderable for part in parts for renderable in (part, "")]
    return Group(*spaced[:-1])


def _progress(seen: Any) -> Any:
    rate = seen.rate
    rows = [
        ("units", f"{_part(seen.units)} committed" + _share(seen.units)),
        ("assets", f"{_part(seen.assets)}: {seen.done} done, {seen.rejected} rejected, {seen.failed} failed"),
        ("views", f"{seen.views.done}" + (f" of at most {seen.views.total}" if seen.views.total else "")),
    ]
    if seen.views_rejected:
        named = ", ".join(f"{reason} {count}" for reason, count in seen.views_rejected.items())
        rows.append(("", f"{sum(seen.views_rejected.values())} views of done assets rejected ({named})"))
    if rate.overall is None:
        rows.append(("rate", "not known: no unit with the times of its assets yet"))
    else:
        pauses = f", without pauses of {duration(rate.pause_seconds)} in all" if rate.pauses else ""
        overall = f"{_number(rate.overall)} views/s over {duration(rate.working_seconds)} of work{pauses}"
        if not seen.complete:
            rows.append(("rate", f"{_number(rate.recent)} views/s in the last {duration(rate.recent_seconds or 0)}"))
        rows.append(("overall", overall))
    if rate.since_last_unit is not None:
        rows.append(("last unit", f"{duration(rate.since_last_unit)} ago"))
    if not seen.complete:
        left = "not known" if rate.eta_seconds is None else duration(rate.eta_seconds)
        rows.append(("left", f"{left} at the rate of the last minutes"))
    state = "finished" if seen.complete else "unfinished"
    return _table(f"{seen.dataset}: {state}", ["", ""], rows, header=False)


def _reasons(seen: Any) -> Any:
    rows: list[tuple[str, ...]] = []
    for reason in seen.reasons:
        rows.append((reason.status, reason.reason, str(reason.assets), ""))
        rows += [("", "", "", f"{example.asset}: {example.message}") for example in reason.examples]
    merged: list[tuple[str, ...]] = []
    for row in rows:  # the first example stands beside the count
        if merged and not row[0] and merged[-1][0] and not merged[-1][3]:
            merged[-1] = (*merged[-1][:3], row[3])
        else:
            merged.append(row)
    return _table("what gave no view", ["", "reason", "assets", "for example"], merged, right=(2,))


def _provenance(seen: Any) -> Any:
    rows: list[tuple[str, ...]] = [
        (p.source, p.licence, str(p.assets), str(p.done), str(p.views)) for p in seen.provenance
    ]
    if len(rows) > ROWS:
        rest = seen.provenance[ROWS:]
        sums = [sum(values) for values in zip(*((p.assets, p.done, p.views) for p in rest))]
        rows[ROWS:] = [(f"{len(rest)} others", "", *map(str, sums))]
    return _table("sources", ["source", "licence", "assets", "done", "views"], rows, right=(2, 3, 4))


def _stages(seen: Any) -> Any:
    slowest = max(seen.stages, key=lambda stage: stage.seconds)
    rows = [
        (
            stage.stage + (" <- slowest" if stage is slowest and stage.seconds else ""),
            duration(stage.seconds),
            f"{100 * stage.share:.1f} %",
            _seconds(stage.median),
            _seconds(stage.p95),
        )
        for stage in seen.stages
        if stage.seconds
    ]
    title = "stages (median and p95 of an asset; commit: of a unit)"
    return _table(title, ["stage", "in all", "share", "median", "p95"], rows, right=(1, 2, 3, 4))


def _slowest(seen: Any) -> Any:
    rows = [
        (slow.asset, slow.source, _seconds(slow.seconds), slow.slowest_stage, str(slow.views))
        for slow in seen.slowest_assets
    ]
    return _table("slowest assets", ["asset", "source", "seconds", "most of it", "views"], rows, right=(2, 4))


def _hosts(seen: Any) -> Any:
    rows: list[tuple[str, ...]] = [
        (host.host, str(host.nodes or ""), str(host.attempts), str(host.views), duration(host.seconds), str(host.lost))
        for host in seen.hosts[:ROWS]
    ]
    if len(seen.hosts) > ROWS:
        rest = seen.hosts[ROWS:]
        sums = [str(sum(values)) for values in zip(*((h.attempts, h.views) for h in rest))]
        busy, lost = sum(host.seconds for host in rest), sum(host.lost for host in rest)
        rows.append((f"{len(rest)} others", "", *sums, duration(busy), str(lost)))
    return _table("hosts", ["host", "nodes", "attempts", "views", "busy", "lost"], rows, right=(1, 2, 3, 4, 5))


def _cost(seen: Any) -> Any:
    cost, retries = seen.cost, seen.retries
    rows = [("cores", f"{duration(cost.core_seconds)} busy, {_number(cost.core_seconds_per_view)} core-seconds a view")]
    if cost.gpu_seconds:
        each = _number(cost.gpu_seconds_per_view)
        rows.append(("GPUs", f"at most {duration(cost.gpu_seconds)} busy, {each} GPU-seconds a view"))
    if cost.money is not None:
        each = _number(cost.money_per_million_views)
        rows.append(("money", f"{cost.money:.2f} for what was busy, {each} for a million views"))
    if seen.memory is not None:
        peak, median = seen.memory.peak / 2**30, seen.memory.median / 2**30
        rows.append(("memory", f"{peak:.2f} GiB at most ({seen.memory.asset}), {median:.2f} GiB in the median"))
    if retries.attempts:
        named = ", ".join(f"{reason} {count}" for reason, count in retries.reasons.items())
        rows.append(
            ("retries", f"{retries.attempts} attempts were repeated ({named}), {duration(retries.seconds)} lost")
        )
    return _table("cost", ["", ""], rows, header=False)


def _table(title: str, names: list[str], rows: Iterable[tuple[str, ...]], right: Any = (), header: bool = True) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title, style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD if header else None,
        show_header=header,
        pad_edge=False,
        show_edge=False,
    )
    for index, name in enumerate(names):
        table.add_column(name, justify="right" if index in right else "left", overflow="fold", no_wrap=index in right)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: names of assets are no markup
    return table


def duration(seconds: float) -> str:
    """8.2 s, 4 min 10 s, 3 h 12 min, 2 d 4 h."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def _seconds(value: float) -> str:
    return f"{value:.3g} s"


def _number(value: float | None) -> str:
    return "no" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _part(part: Any) -> str:
    return str(part.done) if part.total is None else f"{part.done} of {part.total}"


def _share(part: Any) -> str:
    return f" ({100 * part.done / part.total:.1f} %)" if part.total else ""
