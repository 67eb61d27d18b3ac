"""Which samples are shown, and why: some drawn at random, the best, the worst by several measures, and of each flag."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .columns import Columns
from .readings import Reading

FLAGS = 24  # galleries of flags, of the most frequent
CANDIDATES = 64  # per place of a gallery: most views of an asset look alike, and one of each is shown
OUTLIER = 3.5  # robust standard deviations: 0.05 % of a normal distribution lies beyond

Words = Callable[[int], str]


@dataclass(frozen=True)
class Gallery:
    """`why` says what was looked for. `rows` are shown in this order, each with its `values`."""

    name: str
    title: str
    why: str
    rows: list[int]
    values: list[str]


def galleries(columns: Columns, readings: Sequence[Reading], each: int) -> list[Gallery]:
    """All that have a sample: at most `each` in one, and of an asset one in each.

    `readings` are of samples drawn at random. What no manifest holds is judged among them alone.
    """
    if not len(columns):
        return []
    found = [
        _drawn(columns, readings, each),
        *_best(columns, each),
        *_by_coverage(columns, each),
        _overflow(columns, each),
        _depth(columns, each),
        _disagreement(columns, readings, each),
        _large(columns, each),
        *_flags(columns, each),
    ]
    return [gallery for gallery in found if gallery is not None]


def _drawn(columns: Columns, readings: Sequence[Reading], each: int) -> Gallery | None:
    rows = np.array([r.row for r in readings if not r.message], np.int64)
    if not rows.size:
        return None
    spread = rows[np.unique(np.linspace(0, rows.size - 1, min(rows.size, 4 * each)).round().astype(int))]
    why = "Drawn at random, by the hash of the dataset: what to expect of it."
    chosen = _spread(_one_of_each(columns, spread, rows.size), each)
    return Gallery("random", "At random", why, chosen, [_coverage(columns, row) for row in chosen])


def _best(columns: Columns, each: int) -> list[Gallery | None]:
    """Most surfaces behind the visible one."""
    behind = _hits_per_ray(columns)
    fit = ~columns.flagged & (columns.overflow == 0) & ~columns.single_layer
    why = "No flag, no overflow, and the most surfaces per pixel that meets one: where layers have the most to teach."
    return [_gallery(columns, each, "best", "The best: most layered", why, behind, fit, "{:.2f} surfaces per pixel")]


def _by_coverage(columns: Columns, each: int) -> list[Gallery | None]:
    first = columns.coverage[:, 0] if columns.layers else np.zeros(len(columns), np.float32)
    small = _gallery(
        columns, each, "small", "The worst: least of the picture",
        "The smallest share of pixels that meet a surface: little to learn from for its price.",
        -100 * first, first < 0.5 * np.nanmedian(first), "{:.2f} % of the pixels", sign=-1,
    )  # fmt: skip
    if columns.layers < 2:
        return [small]
    with np.errstate(all="ignore"):
        through = columns.coverage[:, 1] / first
    closed = columns.in_box & ~columns.single_layer & (first > 0)
    open_ = _gallery(
        columns, each, "open", "The worst: open surfaces",
        "Rays that go in and do not come out: the smallest share of visible pixels with a second surface, below 80 %. "
        "A closed object has one behind nearly every pixel. Objects and their clips only.",
        -100 * through, closed & (through < 0.8), "a second surface behind {:.0f} %", sign=-1,
    )  # fmt: skip
    return [small, open_]


def _overflow(columns: Columns, each: int) -> Gallery | None:
    share = 100 * columns.overflow / np.maximum(columns.pixels * columns.frames, 1)
    why = "The largest share of pixels with more surfaces than were peeled: what lies behind the last one is not known."
    return _gallery(
        columns, each, "overflow", "The worst: overflow", why, share, columns.overflow > 0, "{:.2f} % of the pixels"
    )


def _depth(columns: Columns, each: int) -> Gallery | None:
    """Robust z-scores of log z_min and log z_max among what is on the same scale."""
    score = np.zeros(len(columns))
    for mask in _scales(columns):
        for z in (columns.z_min, columns.z_max):
            rows = np.flatnonzero(mask & (z > 0))
            if rows.size < 8:
                continue
            logs = np.log(z[rows], dtype=np.float64)
            middle = np.median(logs)
            spread = 1.4826 * np.median(np.abs(logs - middle))
            score[rows] = np.maximum(score[rows], np.abs(logs - middle) / max(float(spread), 1e-3))
    why = (
        "Nearest or farthest surface far from what is usual in the same regime: more than "
        f"{OUTLIER} robust standard deviations of its logarithm."
    )

    def words(row: int) -> str:
        return f"depth {columns.z_min[row]:.3g} to {columns.z_max[row]:.3g}; {score[row]:.1f} deviations"

    return _gallery(columns, each, "depth", "The worst: unusual depth", why, score, score > OUTLIER, words)


def _disagreement(columns: Columns, readings: Sequence[Reading], each: int) -> Gallery | None:
    score = np.full(len(columns), np.nan)
    for reading in readings:
        score[reading.row] = -100 * reading.agreement
    why = (
        f"Of {len(readings):,} samples that were read, those whose alpha and layers agree least, below 95 %: what is "
        "transparent has surfaces that the image hardly shows, haze has none. Captured depth is left out."
    )
    fit = ~columns.single_layer & (np.nan_to_num(-score, nan=100.0) < 95)
    return _gallery(
        columns, each, "alpha", "The worst: image against layers", why, score, fit, "{:.1f} % in common", sign=-1
    )


def _large(columns: Columns, each: int) -> Gallery | None:
    bits = 8 * columns.part / np.maximum(columns.pixels * columns.frames, 1)
    why = (
        "More than twice the usual bits per pixel: a soup of triangles or a noisy texture, which no predictor foresees."
    )
    return _gallery(
        columns, each, "large", "The worst: most bytes", why, bits, bits > 2 * np.median(bits), "{:.2f} bits per pixel"
    )


def _flags(columns: Columns, each: int) -> list[Gallery | None]:
    frequent = sorted(columns.flags, key=lambda flag: (-columns.flags[flag].size, flag))[:FLAGS]
    out: list[Gallery | None] = []
    for i, flag in enumerate(frequent):
        rows = columns.flags[flag]
        chosen = _spread(_one_of_each(columns, _spread_rows(rows, CANDIDATES * each), CANDIDATES * each), each)
        why = f"{rows.size:,} of {len(columns):,} samples have this flag; these are evenly spaced among them."
        out.append(Gallery(f"flag-{i}", f"Flag: {flag}", why, chosen, [_coverage(columns, row) for row in chosen]))
    return out


def _gallery(
    columns: Columns,
    each: int,
    name: str,
    title: str,
    why: str,
    score: np.ndarray,
    fit: np.ndarray,
    words: str | Words,
    sign: int = 1,
) -> Gallery | None:
    """The `each` highest scores (n,) among the rows that `fit`; equal ones in the order of rows."""
    rows = np.flatnonzero(fit & np.isfinite(score))
    if not rows.size:
        return None
    wanted = min(rows.size, CANDIDATES * each)
    if rows.size > wanted:  # 17 million need not be sorted; ties at the threshold are cut by row
        threshold = np.partition(score[rows], rows.size - wanted)[rows.size - wanted]
        above, at = rows[score[rows] > threshold], rows[score[rows] == threshold]
        rows = np.sort(np.concatenate([above, at[: wanted - above.size]]))
    rows = rows[np.argsort(-score[rows], kind="stable")]
    chosen = _one_of_each(columns, rows, each)
    say = words if callable(words) else lambda row: words.format(sign * float(score[row]))
    return Gallery(name, title, why, chosen, [say(row) for row in chosen])


def _one_of_each(columns: Columns, rows: np.ndarray, most: int) -> list[int]:
    """The first `most` of rows with different assets."""
    _, first = np.unique(columns.asset[rows], return_index=True)
    return [int(row) for row in rows[np.sort(first)][:most]]


def _spread_rows(rows: np.ndarray, most: int) -> np.ndarray:
    return rows[np.unique(np.linspace(0, rows.size - 1, min(rows.size, most)).round().astype(np.int64))]


def _spread(rows: list[int], most: int) -> list[int]:
    """At most `most` of them, evenly spaced."""
    return [int(row) for row in _spread_rows(np.array(rows, np.int64), most)] if rows else []


def _scales(columns: Columns) -> list[np.ndarray]:
    """Masks of rows whose depths may be compared: objects and their clips, and each regime in metres."""
    masks = [columns.in_box]
    return [*masks, *((columns.regime == code) & ~columns.in_box for code in np.unique(columns.regime))]


def _hits_per_ray(columns: Columns) -> np.ndarray:
    """Mean count of hits over the pixels that have one, (n,); nan without one."""
    if not columns.layers:
        return np.full(len(columns), np.nan)
    with np.errstate(all="ignore"):
        return np.nansum(columns.coverage, axis=1, dtype=np.float64) / columns.coverage[:, 0]


def _coverage(columns: Columns, row: int) -> str:
    known = [share for share in columns.coverage[row] if np.isfinite(share)]
    if columns.single_layer[row]:
        known = known[:1]
    return "coverage " + " ".join(f"{100 * share:.1f}" for share in known) + " %"
