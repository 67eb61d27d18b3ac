"""From sources to a finished dataset: claim the place, plan, compare, connect, render what is missing, sum up."""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from os import PathLike
from typing import Any

import ray
from rich.console import Console

import shards
from cluster import output, tables
from cluster.connection import connected
from cluster.crew import Means, render_units
from cluster.ledger import Folding, Ledger
from cluster.progress import Summary, counting
from cluster.software import versions
from cluster.sources import Source
from cluster.sources.filters import Filters, Tally
from cluster.units import Unit, digest_of_assets, plan
from render import RenderSettings
from shards import layout
from shards.dataset_json import VERSION
from shards.store import Claim, Store, open_store, under

DEFAULTS = Means()

__all__ = ["Means", "images_per_asset", "render_dataset"]


def render_dataset(
    sources: Sequence[Source],
    out: str | PathLike[str],
    settings: RenderSettings,
    shard_views: int = 64,
    means: Means = DEFAULTS,
    console: Console | None = None,
    filters: Filters | None = None,
    retry: Collection[str] = (),
) -> Summary:
    """Render the assets of `sources` that `filters` keep into the dataset at `out`, a folder or a URL, or what an
    earlier run left undone. Units in which an asset ended for a reason in `retry` are made again.

    ValueError or OSError in one sentence where `out` belongs to another job or config, cannot be written, or the
    cluster cannot do it.
    """
    console = console or Console(stderr=True)
    began = time.monotonic()
    store = open_store(out)
    if store.text.startswith("memory:"):
        raise ValueError(f"{store.text} lies in this process, and the workers are others: give a folder or a bucket")

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    with store.claim(say) as claim, ExitStack() as connection:
        stored = _stored(store)
        if settings.backend == "auto":
            if stored is None:
                connection.enter_context(connected(means.address, means.workers, means.debug))
            settings = settings.model_copy(update={"backend": _backend(stored)})
        tally = Tally(filters) if filters is not None else None
        job, units = _planned(sources, settings, shard_views, tally, console)
        for remark in tally.remarks() if tally else ():
            say(remark)
        names = [unit.name for unit in units]
        claim.check()  # to list millions of assets takes a while
        header = _adopt(store, stored, job, settings, names, tally)
        store.sweep()
        ledger = Ledger(store)
        summary = _as_it_stands(store, ledger, header, retry)
        if summary is None:
            try:
                fresh = _render_missing(
                    sources, settings, filters, store, claim, units, ledger, header, means, console, connection
                )
            except (Exception, KeyboardInterrupt):
                if stored is None:
                    _undo(claim, ledger)
                raise
            _finish(claim, ledger, names, header, console)
            summary = Summary.of(tables.attempts(store))
            summary.fresh_views, summary.seconds = fresh, time.monotonic() - began
        summary.filtered = tally.line() if tally else ""
        return summary


def _planned(
    sources: Sequence[Source], settings: RenderSettings, shard_views: int, tally: Tally | None, console: Console
) -> tuple[dict[str, Any], list[Unit]]:
    """What dataset.json says of the job, and its units."""
    with counting(console, "listing assets") as advance:
        listed = tally.of if tally is not None else None
        units = plan(sources, settings.stated(), images_per_asset(settings), shard_views, advance, listed)
    if not units:
        why = f": {tally.line()}" if tally is not None and tally.line() else ""
        raise ValueError(f"{', '.join(source.text for source in sources)}: no asset to render{why}")
    job: dict[str, Any] = {
        "sources": [source.text for source in sources],
        "assets": sum(len(unit.tasks) for unit in units),
        "assets_digest": digest_of_assets(units),
        "shard_views": shard_views,
        "render": settings.stated(),
    }
    if tally is not None:
        job["filters"] = tally.filters.to_json()
    return job, units


def images_per_asset(settings: RenderSettings) -> int:
    return settings.views * (settings.frames if settings.regime == "dynamic" else 1)


def _stored(store: Store) -> dict[str, Any] | None:
    try:
        return shards.parse_dataset_json(store.read(layout.DATASET_JSON), under(store, layout.DATASET_JSON))
    except FileNotFoundError:
        return None


def _write(store: Store, header: Mapping[str, Any]) -> None:
    with store.writing(layout.DATASET_JSON) as file:
        file.write(shards.dataset_json(header))


def _backend(stored: Mapping[str, Any] | None) -> str:
    """What `auto` stands for: that which a job began with, else CUDA where Ray has a GPU.

    A dataset must not change its renderer half way, and a worker without a GPU of its own cannot know of the others.
    """
    if stored is not None:
        return str(stored.get("job", {}).get("render", {}).get("backend", "cpu"))
    return "cuda" if ray.cluster_resources().get("GPU", 0) else "cpu"


def _adopt(
    store: Store,
    stored: Mapping[str, Any] | None,
    job: dict[str, Any],
    settings: RenderSettings,
    names: Sequence[str],
    tally: Tally | None,
) -> dict[str, Any]:
    """What dataset.json is to hold, once it is sure that the place is new or this very job's; written if it is new."""
    if stored is not None:
        theirs, ours = dict(stored.get("job", {})), json.loads(json.dumps(job))
        if theirs.get("assets_digest") == ours["assets_digest"]:
            ours["sources"] = theirs.get("sources")  # the same assets by another path are the same
        if difference := output.first_difference(theirs, ours):
            raise ValueError(
                f"{store.text} holds the dataset of another config: {difference}; give another --out "
                "(a dataset does not grow: other counts make another one)"
            )
        job = ours
    output.refuse_strangers(store, {f"{name}.tar" for name in names})
    header: dict[str, Any] = {
        "version": stored["version"] if stored else VERSION,
        "layers": settings.layers,
        "size": [settings.height, settings.width],
        "job": job,
        "software": stored.get("software", {}) if stored else versions(),
        "statistics": None,
        "complete": bool(stored and stored.get("complete")),
    }
    if tally is not None:
        header["filtered"] = stored.get("filtered", {}) if stored else dict(sorted(tally.dropped.items()))
    if stored is None:
        Ledger(store).discard()  # of a dataset.json that was removed: what made these units is not known any more
        _write(store, header)
    return header


def _as_it_stands(store: Store, ledger: Ledger, header: dict[str, Any], retry: Collection[str]) -> Summary | None:
    """The summary of a dataset that is finished; None where something is to be done, and then the records count."""
    if header["complete"] and tables.stand(store):
        summary = Summary.of(tables.attempts(store))
        if not set(retry) & {*summary.rejected, *summary.failed}:
            ledger.discard()  # of a run that was killed while it did so
            return summary
    if header["version"] != VERSION:
        raise ValueError(
            f"{store.text} was begun in version {header['version']} of the format, and this worldtrace writes version "
            f"{VERSION}: finish it with the worldtrace that began it, or give another --out"
        )
    if header["complete"]:
        tables.reopen(store)
        # From here on the records count: a run that is killed must not find the tables to stand again.
        header["complete"] = False
        _write(store, header)
    if retry:
        ledger.forget(retry)
    return None


def _render_missing(
    sources: Sequence[Source],
    settings: RenderSettings,
    filters: Filters | None,
    store: Store,
    claim: Claim,
    units: Sequence[Unit],
    ledger: Ledger,
    header: Mapping[str, Any],
    means: Means,
    console: Console,
    connection: ExitStack,
) -> int:
    """Commit the units that are not committed; returns the number of samples rendered."""
    names = [unit.name for unit in units]
    standing = ledger.done(names)
    missing = [unit for unit in units if unit.name not in standing]
    if not missing:
        return 0
    _refuse_other_software(store, header["software"])
    connection.enter_context(connected(means.address, means.workers, means.debug))
    claim.check()
    _clear(store, ledger, [unit.name for unit in missing])
    folding = Folding(ledger, names, standing)

    def committed(name: str) -> None:
        if claim.lost:
            claim.check()
        folding.committed(name)

    try:
        assets = header["job"]["assets"]
        return render_units(sources, settings, filters, store, missing, assets, means, console, committed)
    finally:
        folding.close()


def _clear(store: Store, ledger: Ledger, names: Sequence[str]) -> None:
    """Nothing may be left of units that are made again: their assets may end otherwise this time, and then a record
    would speak of another shard, or a shard lie there of which no record speaks. Records first: alone they mislead.
    """
    ledger.drop(names)
    there = store.sizes(layout.SHARDS)
    store.delete([shard for name in names if (shard := f"{layout.SHARDS}/{name}.tar") in there])


def _undo(claim: Claim, ledger: Ledger) -> None:
    """A job that could not begin leaves nothing: the next one may be another. One that was followed by another touches
    nothing: dataset.json is that one's now.
    """
    with suppress(OSError, ValueError):
        if not ledger.units():
            claim.check()
            ledger.store.delete([layout.DATASET_JSON])


def _finish(claim: Claim, ledger: Ledger, names: Sequence[str], header: dict[str, Any], console: Console) -> None:
    """Tables, then dataset.json, then no more records: killed in between, it is done again."""
    store = ledger.store
    claim.check()
    if unsound := sorted(set(names) - ledger.done(names)):
        raise ValueError(
            f"{store.text} holds another shard of unit {unsound[0]} than its record speaks of ({len(unsound)} such "
            "units; two jobs wrote here at once): run the same command again, which makes them anew"
        )
    with counting(console, "tables") as advance:
        statistics = tables.finish(ledger, names, claim.check, advance)
    claim.check()
    _write(store, {**header, "statistics": statistics, "complete": True})
    store.sweep()
    claim.check()
    ledger.discard()


def _refuse_other_software(store: Store, stored: Mapping[str, str]) -> None:
    """ValueError where more shards would be made by other versions than dataset.json states for all of them."""
    for name, here in versions().items():
        if (there := stored.get(name, "absent")) != here:
            raise ValueError(
                f"{store.text} was begun with {name} {there}, but {here} is installed: install {name}=={there} and go "
                "on, or give another --out"
            )
