"""Whether samples are smaller than what a run makes of them."""

from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc

from shards import Dataset


def enlarged(datasets: Sequence[Dataset], size: int) -> str | None:
    """What to say where samples have fewer than `size` pixels along their shorter side, from the manifests; else None.

    Such samples cost what larger ones cost, and show no more than they have.
    """
    tables = [dataset.columns(["height", "width"]) for dataset in datasets]
    sides = np.concatenate([pc.min_element_wise(t["height"], t["width"]).to_numpy() for t in tables])
    small = sides[sides < size]
    if not len(small):
        return None
    all_of_them = len(small) == len(sides) and small.min() == small.max()
    which = "samples are" if all_of_them else f"{len(small)} of {len(sides)} samples are from"
    found = f"{small[0]}" if all_of_them else f"{small.min()} to {small.max()}"
    return f"{which} {found} pixels along their shorter side and are enlarged to data.size, {size}"
