"""The protocols of the paper's tables: what is judged, in which unit, by which columns, and by what the best is chosen.

docs/evaluation.md says what the paper leaves open in each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow.compute as pc

import shards

Unit = Literal["dataset", "median"]

UNIT_TEXTS: dict[Unit, str] = {
    "dataset": "units of the dataset",
    "median": "units of each sample's median depth",
}


@dataclass(frozen=True)
class Column:
    """A metric (a key of `metrics.judge`) as it stands above a column; `more`: whether more is better."""

    metric: str
    title: str
    more: bool = False


@dataclass(frozen=True)
class Protocol:
    """`assets` or `limit` is how many are judged where more are held out; None: all. `clips`: frames, not only one."""

    number: int
    title: str
    columns: tuple[Column, ...]
    selected_by: str
    unit: Unit
    assets: int | None = None
    limit: int | None = None
    clips: bool = False


def _depth(*names: str) -> tuple[Column, ...]:
    titles = {"mae": "MAE", "rmse": "RMSE", "absrel": "AbsRel", "delta1": "δ<1.25", "delta2": "δ<1.25²"}
    return tuple(Column(f"depth/{name}", titles[name], name.startswith("delta")) for name in names)


def _points(part: str, title: str, *names: str) -> tuple[Column, ...]:
    titles = {"cd_l1": "CD-L1", "cd_l2": "CD-L2", "f@0.01": "F@0.01", "f@0.05": "F@0.05"}
    return tuple(Column(f"{part}/{name}", f"{title} {titles[name]}", name.startswith("f@")) for name in names)


PROTOCOLS: dict[int, Protocol] = {
    1: Protocol(
        1,
        "Object geometry",
        _depth("mae", "rmse", "absrel", "delta1", "delta2")
        + _points("all", "All-L", "cd_l1", "cd_l2", "f@0.01", "f@0.05"),
        "all/cd_l1",
        "dataset",
        assets=100,
    ),
    2: Protocol(
        2,
        "Scene geometry",
        _depth("mae", "rmse", "absrel")
        + _points("visible", "L0", "cd_l1", "cd_l2", "f@0.05")
        + _points("all", "All-L", "cd_l1", "cd_l2", "f@0.05"),
        "all/cd_l1",
        "median",
        limit=50,
    ),
    3: Protocol(
        3,
        "Dynamic geometry",
        _points("all", "Global", "cd_l2", "cd_l1") + _points("visible", "L0", "cd_l2"),
        "all/cd_l2",
        "dataset",
        clips=True,
    ),
    6: Protocol(6, "Real-scene visible-surface depth", _depth("absrel", "rmse", "delta1"), "depth/absrel", "median"),
}
OF_REGIME = {"object": 1, "scene": 2, "dynamic": 3, "rgbd": 6}


def protocol_of(dataset: shards.Dataset, number: int | None = None) -> Protocol:
    """That of a table of the paper, or the one for the regime of most samples. ValueError for a table that is none, or
    one of clips where the dataset has none."""
    clips = longest(dataset) > 1
    if number is None:
        found = pc.value_counts(dataset.columns(["regime"])["regime"]).to_pylist()
        most = max(found, key=lambda entry: (entry["counts"], entry["values"]), default={"values": "object"})
        number = OF_REGIME[most["values"]]
        if number == 3 and not clips:
            number = 1
    if number not in PROTOCOLS:
        raise ValueError(f"--table {number} is none of {', '.join(map(str, PROTOCOLS))} and 5 (layers of the dataset)")
    protocol = PROTOCOLS[number]
    if protocol.clips and not clips:
        raise ValueError(
            f"--table {number} judges clips, and {dataset.directory} has none; render with --regime dynamic"
        )
    return protocol


def longest(dataset: shards.Dataset) -> int:
    """Frames of the longest clip; 1 of views."""
    return pc.max(dataset.columns(["frames"])["frames"]).as_py() or 1


def with_surfaces(columns: Sequence[Column]) -> tuple[Column, ...]:
    """All layers against points of the assets' surfaces, in place of the layers of the truth."""
    return tuple(
        Column(c.metric.replace("all/", "surface/"), c.title.replace("All-L", "Surface"), c.more)
        if c.metric.startswith("all/")
        else c
        for c in columns
    )
