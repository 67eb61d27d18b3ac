"""Which samples are judged: fixed by the manifest, so that two people judge the same ones, or listed in a file."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import shards

LARGEST_LIST = 64 << 20  # bytes; a million keys


def held_out(
    dataset: shards.Dataset, splits: Sequence[str], limit: int | None = None, assets: int | None = None
) -> list[int]:
    """Rows to evaluate, fixed by the manifest: all of `splits`, or those of `assets` of their assets (Table 1: 100 with
    all their views), or `limit` of them; which ones, the manifest's own hash decides.

    ValueError where the dataset has none.
    """
    rows = np.unique(np.concatenate([dataset.rows(split) for split in splits]))
    if not len(rows):
        counts = ", ".join(f"{s} {len(dataset.rows(s))}" for s in shards.SPLITS)
        raise ValueError(
            f"{dataset.directory}: no samples in split {'+'.join(splits)} (it has {counts}); render more assets, or "
            "name another --split"
        )
    if assets is not None:
        of_rows = np.array(dataset.columns(["asset_sha256"])["asset_sha256"].take(rows).to_pylist())
        unique = np.unique(of_rows)
        if assets < len(unique):
            order = shards.Order(len(unique), 0, dataset.hash)
            rows = rows[np.isin(of_rows, unique[order.rows(np.arange(assets))])]
    if limit is not None and limit < len(rows):
        order = shards.Order(len(rows), 0, dataset.hash)
        rows = np.sort(rows[order.rows(np.arange(limit))])
    return [int(row) for row in rows]


def keys_of(dataset: shards.Dataset, rows: Sequence[int]) -> list[str]:
    return [dataset.key(row) for row in rows]


def list_hash(keys: Sequence[str]) -> str:
    """16 hexadecimal digits that are the same if and only if the same samples are judged, in whatever order."""
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()[:16]


def write_list(path: Path, dataset: shards.Dataset, rows: Sequence[int]) -> None:
    """A key per line, below a remark on what they are of."""
    keys = keys_of(dataset, rows)
    head = f"# {len(keys)} samples, list {list_hash(keys)}, of the dataset of manifest hash {dataset.hash}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + "".join(f"{key}\n" for key in keys))


def read_list(path: Path, dataset: shards.Dataset) -> list[int]:
    """The rows of the keys in a file, one per line; lines that begin with # are remarks.

    ValueError where it has none, one twice, or one that the dataset lacks.
    """
    if path.stat().st_size > LARGEST_LIST:
        raise ValueError(f"{path}: {path.stat().st_size} bytes are no list of samples; a key per line is expected")
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text; a key per line is expected") from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys or len(set(keys)) < len(keys):
        raise ValueError(f"{path} lists {'a sample twice' if keys else 'no sample'}; a key per line is expected")
    rows, missing = [], []
    for key in keys:
        try:
            rows.append(dataset.row_of(key))
        except KeyError:
            missing.append(key)
    if missing:
        raise ValueError(
            f"{path}: {len(missing)} of its {len(keys)} samples are not in {dataset.directory}, {missing[0]!r} among "
            "them; it was written for another dataset (manifest hash in its first line)"
        )
    return sorted(rows)
