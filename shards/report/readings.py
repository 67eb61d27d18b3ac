"""What only the samples themselves can tell: a few of them, chosen by the dataset alone, read and measured."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..contract import Clip, LayeredView, Sample
from ..randomness import generator
from ..reader import Dataset

THREADS = 4
DRAWN = 200  # samples for the distributions of what the manifest does not hold


@dataclass(frozen=True)
class Reading:
    """Of one sample: how far its image and its layers agree (`agreement`, over all frames), horizontal and vertical
    field of view of the first frame and elevation of its camera in degrees, nan where unknown; and the message if it
    could not be read, all others then nan.
    """

    row: int
    key: str
    agreement: float = np.nan
    horizontal: float = np.nan
    vertical: float = np.nan
    elevation: float = np.nan
    message: str = ""


def drawn(rows: int, identity: str, count: int = DRAWN) -> np.ndarray:
    """At most `count` different row numbers of `rows`, in order: a function of the dataset's hash."""
    if rows <= count:
        return np.arange(rows)
    rng = generator(0, "report", identity)
    chosen: set[int] = set()
    while len(chosen) < count:
        chosen.update(int(row) for row in rng.integers(0, rows, count - len(chosen)))
    return np.array(sorted(chosen))


def read(dataset: Dataset, row: int) -> Sample | str:
    """The sample, or why it cannot be read: one damaged sample is a line of the page, and not its end."""
    try:
        return dataset[row]
    except (ValueError, OSError) as error:
        return str(error) or type(error).__name__


def measured(dataset: Dataset, rows: Iterable[int]) -> Iterator[Reading]:
    """Readings in the order of `rows`."""

    def one(row: int) -> Reading:
        key = dataset.key(row)
        sample = read(dataset, row)
        return Reading(row, key, message=sample) if isinstance(sample, str) else reading(row, sample)

    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(one, rows)


def frames_of(sample: Sample) -> tuple[LayeredView, ...]:
    """A clip's frames; of a view, itself."""
    return sample.frames if isinstance(sample, Clip) else (sample,)


def reading(row: int, sample: Sample) -> Reading:
    """The measures of one sample."""
    frames = frames_of(sample)
    first = frames[0]
    height, width = first.size
    return Reading(
        row,
        sample.key,
        agreement(frames),
        _degrees(width, float(first.K[0, 0])),
        _degrees(height, float(first.K[1, 1])),
        _elevation(first),
    )


def agreement(frames: Iterable[LayeredView]) -> float:
    """Soft intersection over union of alpha and of where rays meet a surface: sum min(a, A) / sum max(a, A). What is
    transparent, haze and what the layers lack lower it; a silhouette of soft pixels costs a little.
    """
    common = either = 0.0
    for frame in frames:
        alpha = frame.rgba[..., 3]
        common += float(alpha[frame.valid].sum(dtype=np.int64)) / 255
        either += float(np.count_nonzero(frame.valid)) + float(alpha[~frame.valid].sum(dtype=np.int64)) / 255
    return common / either if either else float("nan")


def _degrees(pixels: int, focal: float) -> float:
    return float(np.degrees(2 * np.arctan2(pixels / 2, abs(focal))))


def _elevation(view: LayeredView) -> float:
    camera = view.info.get("camera")
    value = camera.get("elevation") if isinstance(camera, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 360:  # 10^400 is no float
        return float("nan")
    return float(value)
