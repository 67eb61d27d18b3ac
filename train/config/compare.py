"""Where two configs differ, and whether they may."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shards.order import mixture
from train.config.file import to_dict
from train.config.settings import Config

# What may differ between the ranks of one run: where things lie on their machines, and how these read and compute.
FREE_AMONG_RANKS = ("out", "device", "log", "data.path", "data.cache", "data.workers", "data.prefetch")

# What may change between the runs that share an out folder: neither the samples nor, but for the order of sums, the
# arithmetic depend on these. (`steps` moves the end of the cosine, which is what someone who prolongs a run asks for. A
# dataset may have moved: its hash says whether it is the same.)
FREE_ON_RESUME = (*FREE_AMONG_RANKS, "steps", "accumulation", "checkpoint", "compute", "evaluation", "parallel")


def alike(config: Config) -> dict[str, Any]:
    """Path -> value of all that the ranks of one run must have in common. Of `data.path` all but where datasets lie."""
    own = {path: value for path, value in _leaves(to_dict(config), "") if not _within(path, FREE_AMONG_RANKS)}
    return {**own, "the sources of data.path": mixture.placeless(config.data.mixed)}


def differences(old: Config, new: Config) -> list[str]:
    """`path: old -> new` for every value that differs, those that may change on resume left out."""
    return differing(to_dict(old), to_dict(new), FREE_ON_RESUME)


def differing(old: Mapping[str, Any], new: Mapping[str, Any], free: Sequence[str] = ()) -> list[str]:
    """`path: old -> new` for every value that differs between two trees, but for the paths in `free`."""
    before, after = dict(_leaves(old, "")), dict(_leaves(new, ""))
    return [
        f"{path}: {before.get(path)} -> {after.get(path)}"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path) and not _within(path, free)
    ]


def _within(path: str, sections: Sequence[str]) -> bool:
    return any(path == each or path.startswith(f"{each}.") for each in sections)


def _leaves(tree: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree
