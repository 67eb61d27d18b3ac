"""Charts as SVG inside the page: drawn once, sharp on paper, and described in words for those who cannot see them."""

import math
from collections.abc import Sequence

import numpy as np

from ..markup import Html, join, tag

WIDTH, HEIGHT = 340, 170
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 10, 24
BINS = 40


def histogram(values: np.ndarray, title: str, unit: str = "", *, log: bool = False, counted: str = "samples") -> Html:
    """A figure of how `values` (n,) are distributed, in BINS equal steps (of the logarithm where `log`; what is not
    positive is then counted in the words alone). Under it: the ends, median, mean.
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    shown = values[values > 0] if log else values
    if not shown.size:
        words = f"none of {_count(values.size)} {counted} is above 0" if values.size else f"no {counted}"
        return tag("figure", tag("figcaption", tag("b", title), " ", words), class_="chart")
    low, median, high = np.percentile(shown, (0, 50, 100))
    words = (
        f"{number(low)} to {number(high)}{unit}, median {number(median)}, mean {number(float(shown.mean()))}; "
        f"{_count(shown.size)} {counted}"
    )
    if shown.size < values.size:
        words += f", and {_count(values.size - shown.size)} at 0"
    x = _Axis.over(float(low), float(high), log)
    counts, _ = np.histogram(x.place(shown), bins=BINS, range=(0.0, 1.0))
    top = max(int(counts.max()), 1)
    step = (WIDTH - LEFT - RIGHT) / BINS
    bars = [
        _rect(LEFT + i * step, TOP + _down(count / top), max(step - 1, 0.5), _up(count / top), "bar")
        for i, count in enumerate(counts)
        if count
    ]
    middle = LEFT + float(x.place(np.array([median]))[0]) * (WIDTH - LEFT - RIGHT)
    line = tag("line", x1=_px(middle), x2=_px(middle), y1=TOP, y2=HEIGHT - BOTTOM, class_="median")
    picture = _svg(f"{title}: {words}", *_grid(top), *bars, line, *x.labels())
    return tag("figure", picture, tag("figcaption", tag("b", title), " ", words), class_="chart")


def beside(ours: Sequence[float], theirs: Sequence[float], names: Sequence[str], title: str, legend: Html) -> Html:
    """A figure of pairs of bars; `theirs` may be shorter."""
    top = max([*ours, *theirs, 1e-9])
    group = (WIDTH - LEFT - RIGHT) / max(len(ours), 1)
    marks: list[Html] = []
    for i, name in enumerate(names):
        left = LEFT + i * group
        marks.append(_rect(left + 0.12 * group, TOP + _down(ours[i] / top), 0.36 * group, _up(ours[i] / top), "bar"))
        if i < len(theirs):
            height = _up(theirs[i] / top)
            marks.append(_rect(left + 0.52 * group, TOP + _down(theirs[i] / top), 0.36 * group, height, "other"))
        marks.append(_label(left + group / 2, HEIGHT - 8, name, "middle"))
    words = ", ".join(f"{name} {number(value)}" for name, value in zip(names, ours))
    return tag(
        "figure", _svg(f"{title}: {words}", *_grid(top), *marks), tag("figcaption", tag("b", title), " ", legend),
        class_="chart",
    )  # fmt: skip


def number(value: float) -> str:
    """Three digits that matter, with thousands marked: 0.123, 12.3, 12,300."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    if digits > 6:
        return f"{value:.2e}"
    rounded = f"{round(value, 2 - math.floor(math.log10(abs(value)))):,.{digits}f}"
    return rounded.rstrip("0").rstrip(".") if "." in rounded else rounded


class _Axis:
    """From values to 0..1 along the page, plain or by the logarithm."""

    def __init__(self, low: float, high: float, log: bool) -> None:
        self.low, self.high, self.log = low, high, log

    @classmethod
    def over(cls, low: float, high: float, log: bool) -> "_Axis":
        if log:
            low, high = math.log10(low), math.log10(high)
        if high - low < 1e-9 * max(1.0, abs(high)):  # all values are one: put it in the middle
            low, high = low - 0.5 * max(abs(low), 1e-3), high + 0.5 * max(abs(high), 1e-3)
        return cls(low, high, log)

    def place(self, values: np.ndarray) -> np.ndarray:
        at = np.log10(values) if self.log else values
        return np.clip((at - self.low) / (self.high - self.low), 0.0, 1.0)

    def labels(self) -> list[Html]:
        """Three to five marks at round values; of a logarithm over less than a decade, at round values too."""
        ticks = _decades(self.low, self.high) if self.log else _round_steps(self.low, self.high)
        out = []
        for tick in ticks:
            x = LEFT + float(self.place(np.array([tick]))[0]) * (WIDTH - LEFT - RIGHT)
            out.append(tag("line", x1=_px(x), x2=_px(x), y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM + 4, class_="tick"))
            out.append(_label(min(max(x, LEFT + 4), WIDTH - 16), HEIGHT - 8, number(tick), "middle"))
        return out


def _round_steps(low: float, high: float) -> list[float]:
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    whole = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
    if len(whole) >= 3:
        every = -(-len(whole) // 5)
        return [10.0**k for k in whole if k % every == 0]
    ticks = [m * 10.0**k for k in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    inside = [tick for tick in ticks if low - 1e-9 <= math.log10(tick) <= high + 1e-9]
    return inside if len(inside) >= 2 else [tick for tick in _round_steps(10**low, 10**high) if tick > 0]


def _grid(top: float) -> list[Html]:
    """The two axes, and what the highest bar stands for."""
    bottom = HEIGHT - BOTTOM
    return [
        tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=bottom, y2=bottom, class_="tick"),
        tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=TOP, y2=TOP, class_="grid"),
        _label(LEFT - 4, TOP + 4, _count(top) if top == int(top) else number(top), "end"),
        _label(LEFT - 4, bottom, "0", "end"),
    ]


def _svg(words: str, *marks: Html) -> Html:
    return tag("svg", *marks, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=words)


def _rect(x: float, y: float, width: float, height: float, kind: str) -> Html:
    return tag("rect", x=_px(x), y=_px(y), width=_px(width), height=_px(height), class_=kind)


def _label(x: float, y: float, words: str, anchor: str) -> Html:
    return tag("text", words, x=_px(x), y=_px(y), text_anchor=anchor)


def _up(share: float) -> float:
    return max(share * (HEIGHT - TOP - BOTTOM), 1.0 if share > 0 else 0.0)  # a bar of one sample stays visible


def _down(share: float) -> float:
    return (HEIGHT - TOP - BOTTOM) - _up(share)


def _px(value: float) -> str:
    return f"{value:.1f}"


def _count(value: float) -> str:
    """Whole numbers short enough for an axis: 999, 12.3K, 17M."""
    for unit, size in (("M", 1e6), ("K", 1e4)):
        if value >= size:
            return f"{number(value / (1e6 if unit == 'M' else 1e3))}{unit}"
    return f"{value:,.0f}"


def legend(ours: str, theirs: str) -> Html:
    """Which bar is whose."""
    return join(tag("span", ours, class_="key bar-key"), " ", tag("span", theirs, class_="key other-key"))
