"""Which steps an asset goes through, and who takes them."""

from dataclasses import dataclass
from typing import Literal

Crew = Literal["fetchers", "workers", "renderers"]

ON_GPU = ("cuda", "nvdiffrast")  # backends that need one


@dataclass(frozen=True)
class Stage:
    """One step: the method `name` of the actors of `crew`, for at most `limit` seconds, which `option` sets.

    `seconds` is the column of the ledger that an attempt's time goes to where it is lost on the way.
    """

    name: str
    crew: Crew
    limit: float
    option: str
    seconds: str


def chain(remote: bool, parted: bool, asset_timeout: float, fetch_timeout: float) -> tuple[Stage, ...]:
    """The stages of a job, in order.

    `remote`: files are fetched first, by many light actors, since that is waiting for a network. On a CPU the rest is
    one step: a boundary would cost copies and buy nothing. `parted`, for GPUs: processes without one load and encode,
    those with one only render, so that it waits for no disk, codec or decoder.
    """
    fetch = (Stage("fetch", "fetchers", fetch_timeout, "--fetch-timeout", "seconds_fetch"),)
    limit = (asset_timeout, "--asset-timeout")
    whole = (Stage("render", "workers", *limit, "seconds_render"),)
    parts = (
        Stage("load", "workers", *limit, "seconds_load"),
        Stage("draw", "renderers", *limit, "seconds_render"),
        Stage("encode", "workers", *limit, "seconds_encode"),
    )
    return (fetch if remote else ()) + (parts if parted else whole)
