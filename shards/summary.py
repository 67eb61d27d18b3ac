"""What a dataset holds, in numbers: counts, bytes, coverage per layer beside the paper's. `info` prints it, `report`
draws it. All from the manifest, by whole columns: 17 million rows take seconds and a few GB.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# % of pixels with a hit in layers 0 to 5, Table 5: object renderings at 504x504
PAPER_COVERAGE = (8.14, 7.90, 2.53, 1.74, 0.72, 0.60)
PAPER_MEDIAN = (6.21, 6.01, 1.46, 0.86, 0.21, 0.15)
PAPER_P25 = (3.92, 3.80, 0.61, 0.29, 0.05, 0.04)
PAPER_P75 = (10.56, 10.25, 3.02, 1.93, 0.68, 0.50)
PAPER_P90 = (16.19, 15.82, 5.97, 4.20, 1.78, 1.44)

ROOMS = "procedural:rooms"  # the source whose clips stay in metres, as regimes `scene` and `rgbd` do
LARGEST = 3**0.5  # no two points of a normalised object, longest side 1, are further apart
BY = ("layers", "frames", "regime", "source", "licence", "split")

COLUMNS = (
    *("shard", "bytes", "asset_sha256", "height", "width", *BY),
    *("single_layer", "coverage", "z_min", "z_max", "flags", "overflow"),
)


@dataclass(frozen=True)
class Coverage:
    """Percent of an image's pixels with a true hit in layer l, over the samples that have such a layer: (L,) each."""

    samples: int
    mean: np.ndarray
    median: np.ndarray
    p90: np.ndarray
    p25: np.ndarray
    p75: np.ndarray


@dataclass(frozen=True)
class Summary:
    """`counts` maps each column of BY, and "size" ("504x504"), to value -> samples, the most frequent first.

    `objects` are samples in a box of longest side 1, `metres` maps what the others are ("scene", "rgbd", "clips in
    metres") to theirs. `bytes_a_frame` is (mean, median, largest), `depth` (nearest, farthest) of all true hits.
    """

    samples: int
    frames: int
    bytes: int
    shards: int
    assets: int
    counts: Mapping[str, Mapping[str, int]]
    flags: Mapping[str, int]
    overflowing: int
    single_layer: int
    bytes_a_frame: tuple[float, float, float]
    depth: tuple[float, float]
    objects: Coverage | None
    metres: Mapping[str, Coverage]


def summarise(table: pa.Table) -> Summary:
    """`table` has at least COLUMNS of the manifest, and a row or more."""
    if not len(table):
        raise ValueError("nothing to summarise: the selection is empty")
    column = {name: table[name] for name in COLUMNS}  # in chunks: hashes of assets are a GB of 17 million rows
    counts: dict[str, Mapping[str, int]] = {"size": _sizes(column["height"], column["width"])}
    counts |= {name: _counts(column[name]) for name in BY}
    frames = column["frames"].to_numpy()
    each = column["bytes"].to_numpy() / frames
    inside = normalised(table)
    shares = column["coverage"].combine_chunks()
    kinds = _kinds(column["regime"], inside)
    depth = column["z_min"].to_numpy(), column["z_max"].to_numpy()
    seen = depth[1] > 0
    return Summary(
        samples=len(table),
        frames=int(frames.sum()),
        bytes=int(column["bytes"].to_numpy().sum()),
        shards=len(pc.unique(column["shard"])),
        assets=len(pc.unique(column["asset_sha256"])),
        counts=counts,
        flags=_counts(pc.list_flatten(column["flags"])),
        overflowing=int(np.count_nonzero(column["overflow"].to_numpy())),
        single_layer=int(np.count_nonzero(column["single_layer"].to_numpy())),
        bytes_a_frame=(float(each.mean()), float(np.median(each)), float(each.max())),
        depth=(float(depth[0][seen].min()), float(depth[1][seen].max())) if seen.any() else (0.0, 0.0),
        objects=coverage(shares, inside) if inside.any() else None,
        metres={kind: coverage(shares, rows) for kind, rows in sorted(kinds.items())},
    )


def normalised(table: pa.Table) -> np.ndarray:
    """Rows of a manifest -> (N,) bool: an object, or a clip of one, in a box of longest side 1; not what is in metres.

    The manifest has no column for it. Scenes and captures are in metres, and of clips those of ROOMS; so is, whatever
    its source, a clip that is deeper than such a box can be.
    """
    deep = table["z_max"].to_numpy() - table["z_min"].to_numpy() > 1.001 * LARGEST  # stored depths are rounded
    return _is(table["regime"], "object") | (_is(table["regime"], "dynamic") & ~_is(table["source"], ROOMS) & ~deep)


def coverage(lists: pa.ListArray, rows: np.ndarray) -> Coverage:
    """Of the rows (N,) bool of the manifest's column `coverage`."""
    chosen = lists.filter(pa.array(rows))
    lengths = chosen.value_lengths().to_numpy()
    starts = np.cumsum(lengths) - lengths
    values = 100 * chosen.flatten().to_numpy()
    mean, percentiles = [], []
    for l in range(int(lengths.max(initial=0))):
        known = values[starts[lengths > l] + l]
        mean.append(known.mean())
        percentiles.append(np.percentile(known, (50, 90, 25, 75)))
    return Coverage(int(rows.sum()), np.array(mean), *np.array(percentiles).reshape(-1, 4).T)


def _kinds(regime: pa.ChunkedArray, inside: np.ndarray) -> dict[str, np.ndarray]:
    names = {"dynamic": "clips in metres"}
    kinds = {}
    for name in pc.unique(regime).to_pylist():
        rows = _is(regime, name) & ~inside
        if rows.any():
            kinds[names.get(name, name)] = rows
    return kinds


def _is(column: pa.Array | pa.ChunkedArray, value: str) -> np.ndarray:
    return np.asarray(pc.equal(column.cast(pa.string()), value))


def _sizes(height: pa.ChunkedArray, width: pa.ChunkedArray) -> dict[str, int]:
    both = (height.to_numpy().astype(np.int64) << 32) | width.to_numpy()
    values, counts = np.unique(both, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {f"{values[i] >> 32}x{values[i] & 0xFFFFFFFF}": int(counts[i]) for i in order}


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    found = [(str(entry["values"]), entry["counts"]) for entry in pc.value_counts(column).to_pylist()]
    return dict(sorted(found, key=lambda pair: (-pair[1], pair[0])))
