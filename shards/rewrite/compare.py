"""In what two datasets differ: samples, settings, statistics. Where their samples lie does not count."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ..archive import split_part
from ..check.verify_shard import frames_of, parts
from ..layers.planes import planes_in
from ..layout import SHARDS
from ..manifest import digest_of
from ..sample import decode, read_meta
from .inputs import Input, digests

BINDING = ("layers", "size", "conventions")  # settings that readers rely on
ORIGIN = ("job", "derived", "software", "filtered", "lost")  # how it was made: told, and no difference of datasets
CLOSE = 1e-9  # relative: statistics of one set of samples agree to this, however they are cut into shards
ABSENT = "absent"


@dataclass(frozen=True)
class Side:
    """What there is of one dataset."""

    text: str
    samples: int
    bytes: int
    hash: str
    counts: dict[str, int]  # "split train" -> samples

    @classmethod
    def of(cls, source: Input) -> "Side":
        counts: Counter[str] = Counter()
        for table in source.batches(["split", "regime"]):
            for name in ("split", "regime"):
                for entry in table[name].value_counts().to_pylist():
                    counts[f"{name} {entry['values']}"] += entry["counts"]
        return cls(source.text, source.samples, source.bytes, source.hash, dict(sorted(counts.items())))


@dataclass(frozen=True)
class Changed:
    """A sample that both have, with other bytes: the members that differ, and if it was decoded by how much.

    `depth` is the largest relative difference over the hits of both, `hits` the share of pixels whose count of surfaces
    differs, `colour` the largest difference of a channel (0 to 255) where both are visible, `json` the fields that
    differ; `error` says why a side could not be read.
    """

    key: str
    members: tuple[str, ...] = ()
    depth: float | None = None
    hits: float | None = None
    colour: int | None = None
    json: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Comparison:
    """`only_a`, `only_b` and `changed` name at most as many as was asked for; the counts are of all."""

    a: Side
    b: Side
    only_a: list[str]
    only_b: list[str]
    changed: list[Changed]
    count_a: int
    count_b: int
    count_changed: int
    settings: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    statistics: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    origin: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether the two hold the same samples, under the same settings and statistics, in whatever order."""
        counts = self.count_a or self.count_b or self.count_changed
        return not (counts or self.settings or self.statistics)

    @property
    def same_order(self) -> bool:
        return self.a.hash == self.b.hash


def compare(
    a: Input,
    b: Input,
    limit: int | None = None,
    deep: bool = False,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Two datasets by their manifests; of samples with other bytes the members are compared, and decoded if `deep`.

    At most `limit` samples of each kind are named and looked into. Holds 40 bytes for each sample of both. `advance` is
    called for each sample that is looked into.
    """
    only_a, only_b, pairs = _matched(a, b)
    kept = pairs[:limit]
    rows_a, rows_b = _rows(a, kept[:, 0]), _rows(b, kept[:, 1])
    changed = []
    for done, (left, right) in enumerate(zip(rows_a, rows_b, strict=True), start=1):
        changed.append(_changed(a, left, b, right, deep))
        advance(done, len(kept))
    return Comparison(
        Side.of(a),
        Side.of(b),
        [row["key"] for row in _rows(a, only_a[:limit], ["key"])],
        [row["key"] for row in _rows(b, only_b[:limit], ["key"])],
        changed,
        len(only_a),
        len(only_b),
        len(pairs),
        _between(a.config, b.config, BINDING),
        _statistics(a.config.get("statistics"), b.config.get("statistics")),
        _between(a.config, b.config, ORIGIN),
    )


def _matched(a: Input, b: Input) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows only in a, rows only in b, and (n, 2) rows of a and b with one key and other bytes; in the order of a, b."""
    empty = np.zeros((0, 2), np.uint64)
    keys, contents = [empty], [empty]
    for source in (a, b):
        for table in source.batches(["key", "sha256"]):
            keys.append(digests(table["key"]))
            contents.append(digests(table["sha256"]))
    key, content = np.concatenate(keys), np.concatenate(contents)
    order = np.lexsort((key[:, 1], key[:, 0]))
    same = np.zeros(len(order), bool)  # as the one before
    same[1:] = (key[order[1:]] == key[order[:-1]]).all(axis=1)
    left, right = order[:-1][same[1:]], order[1:][same[1:]]  # stable: a comes first
    alone = np.setdiff1d(np.arange(len(key)), np.concatenate([left, right]))
    differ = (content[left] != content[right]).any(axis=1)
    pairs = np.stack([left[differ], right[differ] - a.samples], axis=1)
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    return alone[alone < a.samples], alone[alone >= a.samples] - a.samples, pairs


def _rows(source: Input, wanted: np.ndarray, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Manifest rows by their numbers, in the order given."""
    if not len(wanted):
        return []
    columns = columns or ["key", "shard", "offset", "bytes", "sha256", "members"]
    ascending = np.sort(wanted)
    found: list[dict[str, Any]] = []
    begin = 0
    for table in source.batches(columns):
        here = ascending[(ascending >= begin) & (ascending < begin + len(table))] - begin
        found += table.take(pa.array(here)).to_pylist()
        begin += len(table)
    return [found[place] for place in np.searchsorted(ascending, wanted)]


def _changed(a: Input, left: dict[str, Any], b: Input, right: dict[str, Any], deep: bool) -> Changed:
    key = left["key"]
    sides = [{member["name"]: member["digest"] for member in row["members"]} for row in (left, right)]
    if all(sides) and not deep:
        return Changed(key, _differing(*sides))
    try:
        members = [_members(source, row) for source, row in ((a, left), (b, right))]
        sides = [{name: digest_of(content) for name, content in each.items()} for each in members]
        differing = _differing(*sides)
        return _measured(key, differing, *members) if deep else Changed(key, differing)
    except (ValueError, OSError) as error:
        return Changed(key, _differing(*sides) if all(sides) else (), error=str(error))


def _members(source: Input, row: dict[str, Any]) -> dict[str, bytes]:
    (_, part) = next(parts(source.store, f"{SHARDS}/{row['shard']}", [row]))
    return split_part(row["key"], part, f"{row['key']} in {source.text}")


def _differing(left: Mapping[str, bytes], right: Mapping[str, bytes]) -> tuple[str, ...]:
    return tuple(name for name in sorted({*left, *right}) if left.get(name) != right.get(name))


def _measured(key: str, differing: tuple[str, ...], left: Mapping[str, bytes], right: Mapping[str, bytes]) -> Changed:
    """By how much, of two samples that decode."""
    fields = tuple(_between(read_meta(key, left), read_meta(key, right)))
    frames = [frames_of(decode(key, members, planes_in(members))) for members in (left, right)]
    shapes = [[frame.depth.shape for frame in each] for each in frames]
    if shapes[0] != shapes[1]:
        told = " and ".join(f"{len(each)} frames of {'x'.join(map(str, each[0]))}" for each in shapes)
        return Changed(key, differing, json=fields, error=f"they have {told}")
    depth, hits, colour = 0.0, 0.0, 0
    for one, other in zip(*frames):
        both = one.hit & other.hit
        if both.any():
            z = one.depth[both].astype(np.float64)
            depth = max(depth, float((np.abs(other.depth[both] - z) / z).max()))
        hits += float((one.hits != other.hits).mean()) / len(frames[0])
        visible = (one.rgba[..., 3] > 0) & (other.rgba[..., 3] > 0)
        difference = np.abs(one.rgba.astype(np.int16) - other.rgba)
        difference[~visible, :3] = 0  # what is transparent has no colour
        colour = max(colour, int(difference.max(initial=0)))
    return Changed(key, differing, depth, hits, colour, fields)


def _statistics(a: Any, b: Any) -> dict[str, tuple[Any, Any]]:
    """Where both are measured, and differ by more than rounding."""
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return {}
    left, right = ([value.get(name, ()) for name in ("mean", "std", "points", "samples")] for value in (a, b))
    close = all(np.shape(x) == np.shape(y) and np.allclose(x, y, CLOSE, CLOSE) for x, y in zip(left, right) if x != y)
    return {} if close else _between(a, b)


def _between(a: Any, b: Any, names: Sequence[str] | None = None, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Path -> (value in a, value in b), of nested maps and lists of maps."""
    return dict(_walk(a, b, names, prefix))


def _walk(a: Any, b: Any, names: Sequence[str] | None, prefix: str) -> Iterator[tuple[str, tuple[Any, Any]]]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for name in names if names is not None else sorted({*a, *b}):
            yield from _walk(a.get(name, ABSENT), b.get(name, ABSENT), None, f"{prefix}.{name}" if prefix else name)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b) and any(isinstance(x, Mapping) for x in a):
        for place, (left, right) in enumerate(zip(a, b)):
            yield from _walk(left, right, None, f"{prefix}[{place}]")
    elif a != b:
        yield prefix, (a, b)
