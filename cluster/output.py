"""Does this place belong to this job? Its files, and its config, compared with what they should be."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from shards import layout
from shards.store import Store, naming


def refuse_strangers(store: Store, shards: set[str]) -> None:
    """ValueError where the place holds what no run of this job can have left. `shards` are the plan's names."""
    there = store.top()
    found = {PurePosixPath(name).name for name in store.sizes(layout.SHARDS) if name.endswith(".tar")}
    if layout.DATASET_JSON not in there:
        known = layout.FINISHED | layout.UNFINISHED
        if not found & shards:  # its dataset.json was damaged and removed; else these tables are not of this job
            known -= {layout.MANIFEST, layout.LEDGER}
        strangers = [name for name in there if name not in known and not naming.is_left_over(name)]
        strangers += [
            name
            for name in sorted(store.sizes(layout.UNITS))
            if not (naming.is_record(name) or naming.is_segment(name) or naming.is_left_over(name))
        ]
        if strangers:
            raise ValueError(
                f"{store.text} holds {strangers[0]!r} and no dataset: give an empty or a new place as --out"
            )
    if strangers := sorted(found - shards):
        raise ValueError(f"{store.text} holds the shard {strangers[0]} of another job: give another --out")


def first_difference(stored: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> str | None:
    """The first setting in which two configs differ, for people: "render.views is 4 there and 8 here"; None if none."""
    for key in [*asked, *(key for key in stored if key not in asked)]:
        there, here = stored.get(key), asked.get(key)
        if isinstance(there, Mapping) and isinstance(here, Mapping):
            if nested := first_difference(there, here, f"{prefix}{key}."):
                return nested
        elif there != here:
            return f"{prefix}{key} is {_brief(there)} there and {_brief(here)} here"
    return None


def _brief(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
