"""The manifest as arrays of numbers: some sixty bytes a row, so that 17 million rows fit the memory of a laptop."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..contract import REGIMES
from ..summary import normalised

BATCH = 1 << 18  # rows
MOST_LAYERS = 255  # docs/format.md
NEEDED = ["regime", "source", "z_min", "z_max"]  # by `normalised`


@dataclass(frozen=True, eq=False)
class Columns:
    """Of n rows: coverage (n,L) float32, a share of the pixels, nan where a sample has no such layer; z_min, z_max
    float32; frames, pixels (of a frame) and overflow int64; part, the bytes of a sample, int64; asset uint64, a digest;
    regime int8, the number in REGIMES; in_box and single_layer bool. `flags` has the rows of each flag.
    """

    coverage: np.ndarray
    z_min: np.ndarray
    z_max: np.ndarray
    frames: np.ndarray
    pixels: np.ndarray
    part: np.ndarray
    overflow: np.ndarray
    asset: np.ndarray
    regime: np.ndarray
    in_box: np.ndarray
    single_layer: np.ndarray
    flags: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.part)

    @property
    def layers(self) -> int:
        return self.coverage.shape[1]

    @cached_property
    def views_per_asset(self) -> np.ndarray:
        """(assets,) samples of each asset."""
        return np.unique(self.asset, return_counts=True)[1]

    @cached_property
    def flagged(self) -> np.ndarray:
        """(n,) bool: the sample has a flag."""
        mask = np.zeros(len(self), bool)
        for rows in self.flags.values():
            mask[rows] = True
        return mask


def columns_of(table: pa.Table) -> Columns:
    """Of the columns summary.COLUMNS of a manifest. A batch at a time is Python's or twice in memory."""
    parts: dict[str, list[np.ndarray]] = {}
    flags: dict[str, list[np.ndarray]] = {}
    begin = 0
    for batch in table.to_batches(max_chunksize=BATCH):
        for name, array in _arrays(batch).items():
            parts.setdefault(name, []).append(array)
        for flag, rows in _flag_rows(batch["flags"]):
            flags.setdefault(flag, []).append(rows + begin)
        begin += batch.num_rows
    if not parts:
        parts = {name: [array] for name, array in _arrays(pa.RecordBatch.from_pylist([], table.schema)).items()}
    layers = max(part.shape[1] for part in parts["coverage"])
    parts["coverage"] = [_widened(part, layers) for part in parts["coverage"]]
    joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return Columns(**joined, flags={flag: np.concatenate(flags[flag]) for flag in sorted(flags)})


def _arrays(batch: pa.RecordBatch) -> dict[str, np.ndarray]:
    """The fields of Columns but flags, of some rows."""
    regime = batch["regime"].cast(pa.string())
    return {
        "coverage": _coverage(batch["coverage"]),
        "z_min": _numbers(batch["z_min"], np.float32),
        "z_max": _numbers(batch["z_max"], np.float32),
        "frames": np.maximum(_numbers(batch["frames"], np.int64), 1),
        "pixels": np.maximum(_numbers(batch["height"], np.int64) * _numbers(batch["width"], np.int64), 1),
        "part": _numbers(batch["bytes"], np.int64),
        "overflow": _numbers(batch["overflow"], np.int64),
        "asset": _digests(batch["asset_sha256"]),
        "regime": _numbers(pc.fill_null(pc.index_in(regime, pa.array(REGIMES)), len(REGIMES)), np.int8),
        "in_box": normalised(pa.table([batch[name] for name in NEEDED], NEEDED)),
        "single_layer": _numbers(batch["single_layer"], bool),
    }


def _numbers(column: pa.Array, kind: type) -> np.ndarray:
    return np.asarray(column.to_numpy(zero_copy_only=False)).astype(kind)


def _coverage(column: pa.Array) -> np.ndarray:
    """Lists -> (n, longest) float32, nan where a list is shorter."""
    length = _numbers(pc.list_value_length(column), np.int64)
    if length.max(initial=0) > MOST_LAYERS:
        raise ValueError(
            f"the manifest is damaged: a sample has {length.max()} layers: rebuild it with "
            "`worldtrace shards verify DIR --repair`"
        )
    out = np.full((len(column), int(length.max(initial=0))), np.nan, np.float32)
    out[np.arange(out.shape[1]) < length[:, None]] = _numbers(pc.list_flatten(column), np.float32)
    return out


def _widened(coverage: np.ndarray, layers: int) -> np.ndarray:
    missing = layers - coverage.shape[1]
    return np.pad(coverage, ((0, 0), (0, missing)), constant_values=np.nan) if missing else coverage


def _digests(column: pa.Array) -> np.ndarray:
    """Hashes of assets as uint64: of a million assets two share one with a probability of 3e-8."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    each = b"".join(hashlib.blake2b(v.encode(), digest_size=8).digest() for v in encoded.dictionary.to_pylist())
    return np.frombuffer(each, "<u8")[encoded.indices.to_numpy(zero_copy_only=False)]


def _flag_rows(column: pa.Array) -> Iterator[tuple[str, np.ndarray]]:
    """(flag, rows of the batch that have it) of each flag in it."""
    flat = pc.list_flatten(column).dictionary_encode()
    parents = _numbers(pc.list_parent_indices(column), np.int64)
    codes = flat.indices.to_numpy(zero_copy_only=False)
    for code, flag in enumerate(flat.dictionary.to_pylist()):
        yield flag, np.unique(parents[codes == code])
