"""Points of the surfaces of a dataset's assets, one asset after the other: `worldtrace cluster surfaces`.

The assets are found again in the sources that the dataset was rendered from, and must be the same to the byte. A loop
in this process, without Ray: an asset takes a second, and a benchmark has a hundred of them. What stands in the folder
stays, so the same command goes on after an interruption.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import shards
from cluster.limits import limited_memory
from cluster.preview import TimeUp, limited_time
from cluster.scratch import private_folder
from cluster.sources import AssetRef, Source, Unavailable, parse
from render import Mesh, Rejected
from render.surface_points import sample_surface
from shards import Clip, Origin, seed_of
from shards.surface_file import (
    INDEX,
    SurfacePoints,
    read_index,
    read_surface,
    surface_name,
    write_index,
    write_surface,
)


@dataclass(frozen=True)
class Wanted:
    """An asset of the dataset and the rows of its manifest that show it."""

    origin: Origin
    rows: tuple[int, ...]

    @property
    def label(self) -> str:
        return f"{self.origin.source}/{self.origin.uid}"


@dataclass
class Summary:
    """`made` were written, `stood` were there; `lost` are (asset, reason, message)."""

    out: Path
    made: int = 0
    stood: int = 0
    lost: list[tuple[str, str, str]] = field(default_factory=list)

    def lines(self) -> list[str]:
        there = f"; {self.stood} were there" if self.stood else ""
        lost = f"; {len(self.lost)} could not be sampled" if self.lost else ""
        first = [f"  {asset}: {reason}, {message}" for asset, reason, message in self.lost[:5]]
        return [f"{self.out}: points of {self.made} assets written{there}{lost}", *first]


def make_surfaces(
    dataset: shards.Dataset,
    out: Path,
    sources: Sequence[str] = (),
    splits: Sequence[str] = ("val", "test"),
    count: int = 100_000,
    seed: int = 0,
    timeout: float = 300.0,
    memory: int = 8 << 30,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Summary:
    """A file of `count` points for each asset that `splits` of the dataset show, in the folder `out`.

    `sources` as a user writes them; by default those that dataset.json names. An asset may take `timeout` seconds and
    `memory` bytes. ValueError in a sentence: no such samples, no sources, or a folder that was made otherwise.
    """
    wanted = assets_of(dataset, splits)
    named = list(sources) or list(dataset.config.get("job", {}).get("sources", ()))
    if not named:
        raise ValueError(f"{dataset.directory} does not say what it was rendered from: give --source")
    _adopt(out, {"count": count, "seed": seed})
    summary = Summary(out)
    missing: dict[str, list[Wanted]] = {}
    for asset in wanted:
        if _stands(out, asset.origin):
            summary.stood += 1
        else:
            missing.setdefault(asset.label, []).append(asset)
    done = summary.stood
    progress(done, len(wanted))
    for source, ref, asset in _found(list(map(parse, named)), missing):
        try:
            with limited_memory(memory), limited_time(timeout):
                _make(dataset, out, source, ref, asset, count, seed)
            summary.made += 1
        except Rejected as error:
            summary.lost.append((asset.label, error.reason, error.message))
        except Unavailable as error:
            summary.lost.append((asset.label, "unavailable", str(error)))
        except TimeUp:
            summary.lost.append((asset.label, "timeout", f"it took more than {timeout:g} s"))
        except MemoryError:
            summary.lost.append((asset.label, "out_of_memory", f"it needs more than {memory / 2**30:.3g} GiB"))
        done += 1
        progress(done, len(wanted))
    for label, assets in missing.items():
        why = f"no source of {', '.join(named)} has it with the bytes that were rendered"
        summary.lost += [(label, "not_found", why)] * len(assets)
    return summary


def assets_of(dataset: shards.Dataset, splits: Sequence[str]) -> list[Wanted]:
    """In the order of the manifest. ValueError where `splits` have no sample."""
    rows = sorted(int(row) for split in splits for row in dataset.rows(split))
    if not rows:
        raise ValueError(f"{dataset.directory}: no samples in split {'+'.join(splits)}; name another --split")
    columns = dataset.columns(["asset", "source", "asset_sha256"]).take(rows).to_pylist()
    found: dict[tuple[str, str, str], list[int]] = {}
    for row, values in zip(rows, columns):
        found.setdefault((values["asset"], values["source"], values["asset_sha256"]), []).append(row)
    return [Wanted(Origin(*identity), tuple(of)) for identity, of in found.items()]


def _adopt(out: Path, settings: Mapping[str, Any]) -> None:
    """Only points that were made alike lie in one folder."""
    if (out / INDEX).exists():
        before = read_index(out)
        for name, value in settings.items():
            if before.get(name) != value:
                raise ValueError(
                    f"{out} holds points made with {name} {before.get(name)}, not {value}: give another --out"
                )
        return
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty and holds no {INDEX}: give a new --out")
    write_index(out, dict(settings))


def _stands(out: Path, origin: Origin) -> bool:
    if not (out / surface_name(origin)).exists():
        return False
    try:
        read_surface(out, origin)
    except (OSError, ValueError):
        return False
    return True


def _found(sources: Sequence[Source], missing: dict[str, list[Wanted]]) -> Iterator[tuple[Source, AssetRef, Wanted]]:
    """The assets in their sources; those found leave `missing`. An asset of another sha256 is another one."""
    for source in sources:
        if not missing:
            return
        for ref in source.assets():
            for asset in [a for a in missing.get(ref.label, ()) if ref.sha256 in (None, a.origin.sha256)]:
                missing[ref.label].remove(asset)
                if not missing[ref.label]:
                    del missing[ref.label]
                yield source, ref, asset
            if not missing:
                return


def _make(
    dataset: shards.Dataset, out: Path, source: Source, ref: AssetRef, asset: Wanted, count: int, seed: int
) -> None:
    with private_folder() as folder:
        fetched = Path(folder, source.fetch(ref, folder)) if source.remote else None
        mesh, origin = source.load(ref, fetched)
    if origin.sha256 != asset.origin.sha256:
        raise Rejected("changed", f"its bytes are {origin.sha256[:12]}, those rendered were {asset.origin.sha256[:12]}")
    times = times_of(dataset, asset.rows) if mesh.pose is not None and mesh.duration > 0 else None
    points = surface_points(mesh, count, seed_of(seed, origin.sha256), times)
    try:
        write_surface(out, asset.origin, points)
    except ValueError as error:
        raise Rejected("too_large", f"{error} (--count)") from None


def times_of(dataset: shards.Dataset, rows: Sequence[int]) -> np.ndarray | None:
    """Seconds at which these samples show their asset, each once; None where it stands still in all of them."""
    found: set[float] = set()
    for row in rows:
        sample = dataset[row]
        for frame in sample.frames if isinstance(sample, Clip) else (sample,):
            if (time := frame.info.get("time")) is not None:
                found.add(float(time))
    return np.array(sorted(found)) if found else None


def surface_points(mesh: Mesh, count: int, seed: int, times: np.ndarray | None) -> SurfacePoints:
    """Points of the mesh as it stands, or in its poses at `times`."""
    if times is None:
        return SurfacePoints(sample_surface(mesh, count, seed)[None], None)
    assert mesh.pose is not None
    poses = [sample_surface(mesh, count, seed, mesh.pose(float(time))) for time in times]
    fewest = min(map(len, poses))  # cut-outs may leave one pose with fewer
    return SurfacePoints(np.stack([pose[:fewest] for pose in poses]), times)
