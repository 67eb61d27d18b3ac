"""Points of an asset's surfaces in a file: made by the render side, read by who judges a prediction.

A folder has `surfaces.json` and for each asset NAME.npz (`surface_name`), without pickle:

    points (N,3) or, of an animated asset, (T,N,3) float64   in the frame of the asset itself, before it was normalised
    times (T,) float64                                       seconds; only of an animated asset
    asset uint8                                              JSON text: its uid, source and sha256
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .commit import committed
from .contract import Origin
from .rgbd.base import Unreadable
from .rgbd.files import FILE_LIMIT, read_bytes, read_npz_member

FORMAT, VERSION = "worldtrace surfaces", 1
INDEX = "surfaces.json"
LARGEST = FILE_LIMIT - (1 << 20)  # bytes of points; a clip of 16 frames and 100,000 points has 38 MB
SAME = 1e-6  # seconds, by which a frame's time may differ from that of the points


@dataclass(frozen=True, eq=False)
class SurfacePoints:
    """points (T,N,3) float64 in the frame of the asset; times (T,), or None for one that does not move (T is 1)."""

    points: np.ndarray
    times: np.ndarray | None

    def at(self, time: float | None) -> np.ndarray:
        """(N,3) at `time` seconds. ValueError where an asset that moves has no points of that time."""
        if self.times is None:
            return np.asarray(self.points[0])
        if time is None:
            raise ValueError("the asset moves, and the sample does not say at what time it shows it")
        nearest = int(np.argmin(np.abs(self.times - time)))
        if not abs(self.times[nearest] - time) <= SAME:  # which NaN is not
            raise ValueError(f"no points of the time {time:.4f} s: they were made for another dataset")
        return np.asarray(self.points[nearest])


def surface_name(origin: Origin) -> str:
    """The file of an asset: a digest, since a uid may hold anything."""
    text = json.dumps([origin.source, origin.uid, origin.sha256])
    return f"{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}.npz"


def write_surface(folder: Path, origin: Origin, surface: SurfacePoints) -> None:
    """The file of the asset, which appears whole or not at all. ValueError where it would be too large to be read."""
    if surface.points.nbytes > LARGEST:
        shape = f"{len(surface.points)} times of {surface.points.shape[1]} points"
        raise ValueError(f"{shape} are more than {LARGEST >> 20} MiB: ask for fewer points")
    moving = surface.times is not None
    arrays: dict[str, Any] = {"points": surface.points if moving else surface.points[0]}
    if moving:
        arrays["times"] = surface.times
    with committed(folder / surface_name(origin)) as file:
        np.savez(file, asset=np.frombuffer(_asset(origin), np.uint8), **arrays)


def read_surface(folder: Path, origin: Origin) -> SurfacePoints:
    """FileNotFoundError where the asset has none, ValueError where the file is not what it should be."""
    path = folder / surface_name(origin)
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no points of {origin.source}/{origin.uid} ({path.name}): make them by "
            "`worldtrace cluster surfaces DATASET --out FOLDER`, of the split that is judged"
        )
    try:
        data = read_bytes(path)
        asset = read_npz_member(data, "asset", "unreadable_scene").tobytes()
        points = read_npz_member(data, "points", "unreadable_scene")
        times = read_npz_member(data, "times", "unreadable_scene") if points.ndim == 3 else None
    except Unreadable as error:
        raise ValueError(f"{path} is no file of surface points: {error.message}; make it again") from None
    shape = f"points {points.shape}, times {None if times is None else times.shape}"
    if times is None:
        points = points[None] if points.ndim == 2 else points
    if asset != _asset(origin) or points.ndim != 3 or points.shape[2] != 3 or not points.size:
        raise ValueError(f"{path} does not hold the points of {origin.source}/{origin.uid} ({shape}); make it again")
    timed = times is None or (times.shape == points.shape[:1] and np.isfinite(times).all())
    if not timed or not np.isfinite(points).all():
        raise ValueError(f"{path} holds points or times that are not finite, or do not fit ({shape}); make it again")
    return SurfacePoints(points.astype(np.float64), times)


def write_index(folder: Path, values: dict[str, Any]) -> None:
    """`surfaces.json`: how the points of a folder were made."""
    with committed(folder / INDEX) as file:
        text = json.dumps({"format": FORMAT, "version": VERSION, **values}, indent=2, sort_keys=True)
        file.write(text.encode() + b"\n")


def read_index(folder: Path) -> dict[str, Any]:
    """FileNotFoundError or ValueError where the folder is none of surface points."""
    path = folder / INDEX
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {INDEX}: give a folder that `worldtrace cluster surfaces DATASET --out FOLDER` has made"
        )
    try:
        with path.open("rb") as file:
            values = json.loads(file.read(1 << 20))
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or values.get("format") != FORMAT or values.get("version") != VERSION:
        raise ValueError(f"{path} is not of {FORMAT}, version {VERSION}: make the points again")
    return values


def _asset(origin: Origin) -> bytes:
    return json.dumps({"uid": origin.uid, "source": origin.source, "sha256": origin.sha256}, sort_keys=True).encode()
