"""Which keys a config has, and which of them somebody meant who wrote another."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel

from shards.order import mixture
from train.config.settings import Config, Model

Known = dict[str, "Known | None"]  # key -> the keys below it, or None for a value


def _known() -> Known:
    """The keys of a config file. The model's are those of its own `WTConfig`."""
    from model import WTConfig  # imported here, so that looking at a config's type needs no torch

    tree = _section(Config)
    tree["model"] = {**_section(Model), **_dataclass(WTConfig)}
    return tree


def _section(section: type[BaseModel]) -> Known:
    known: Known = {}
    for name, info in section.model_fields.items():
        kinds = [k for k in (info.annotation, *get_args(info.annotation)) if isinstance(k, type)]  # also `Cache | None`
        below = next((k for k in kinds if issubclass(k, BaseModel)), None)
        known[name] = None if below is None else _section(below)
    return known


def _dataclass(kind: Any) -> Known:
    """Keys of a dataclass; a field whose type is a dataclass is a section."""
    types = get_type_hints(kind)
    return {f.name: _dataclass(types[f.name]) if is_dataclass(types[f.name]) else None for f in fields(kind)}


def reject_unknown(tree: Mapping[str, Any]) -> None:
    known = _known()
    paths = list(_paths(known, ""))
    sources = tree.get("data", {}).get("path") if isinstance(tree.get("data"), Mapping) else None
    if isinstance(sources, list):
        mixture.parse(sources)
    for path in _used(tree, ""):
        if path not in paths and not path.startswith("data.path."):
            raise ValueError(f"{path}: unknown; {_suggestion(path, paths)}")


def _suggestion(path: str, known: Sequence[str]) -> str:
    """The nearest sibling; else the same name in another section; else what the section has."""
    parent, _, leaf = path.rpartition(".")
    siblings = {p.rpartition(".")[2]: p for p in known if p.rpartition(".")[0] == parent}
    leaves = {p.rpartition(".")[2]: p for p in known}
    for names, cutoff in ((siblings, 0.5), (leaves, 0.75)):
        near = difflib.get_close_matches(leaf, names, n=1, cutoff=cutoff)
        if near:
            return f"did you mean {names[near[0]]}?"
    return f"{parent or 'the top level'} has {', '.join(siblings) or 'no keys of its own'}"


def _paths(known: Known, prefix: str) -> Iterator[str]:
    for key, below in known.items():
        yield f"{prefix}{key}"
        if below is not None:
            yield from _paths(below, f"{prefix}{key}.")


def _used(tree: Any, prefix: str) -> Iterator[str]:
    """Paths of all keys, parents first; the items of a list count as keys 0, 1, ... where they are sections."""
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        if not isinstance(tree, list):
            yield f"{prefix}{key}"
        if isinstance(value, Mapping | list):
            yield from _used(value, f"{prefix}{key}.")
