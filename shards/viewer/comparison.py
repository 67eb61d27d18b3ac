"""A prediction beside its truth: aligned with it, the distance of its points, and the errors in words."""

from typing import Any, NamedTuple

import numpy as np

from ..contract import LayeredView
from ..markup import Html, table, tag
from . import predictions as predicted
from .points import Stack
from .words import small


class Compared(NamedTuple):
    """`stack`: the prediction's points, None where it has none by pixel. `distance`: of each to the truth (L,H,W), nan
    where nothing is judged; None where nothing can be. `words`: what is said of it.
    """

    stack: Stack | None
    distance: np.ndarray | None
    words: Html


NOTHING = Compared(None, None, Html(""))


def compared(
    view: LayeredView,
    prediction: predicted.Prediction | predicted.Cloud | None,
    metrics: dict[str, Any] | None,
    *,
    seed: int,
    filled: bool,
    align: bool,
) -> Compared:
    """Seed number `seed` of a prediction of `view`. `metrics`: what `worldtrace eval` found, by method; None where no
    predictions are shown at all. `filled`, `align`: as the controls say.
    """
    words = [_metrics_table(metrics)] if metrics else []
    if not isinstance(prediction, predicted.Prediction):
        if metrics is not None and prediction is None and not metrics:
            words.append(tag("p", "There is no prediction of this sample."))
        return Compared(None, None, small(*words))
    stack = predicted.stack_of(prediction, seed, filled=filled)
    grid = predicted.on_grid(view, stack.layers, prediction.valid.shape)  # type: ignore[arg-type]
    if grid is None:
        words.append(tag("p", f"The prediction has {prediction.valid.shape} pixels, which are none of the sample's."))
        return Compared(stack, None, small(*words))
    true, hits = grid
    both = prediction.valid & (hits > 0)
    if align:
        stack = Stack(predicted.aligned(stack.xyz, true, both), stack.there, stack.rgb)
    found, distance = predicted.errors(stack.xyz, both, true, hits)
    rows = [[f"L{e.layer}", f"{e.pixels:,}", f"{e.distance:.4f}", f"{e.absrel:.4f}"] for e in found]
    caption = f"Seed {prediction.seeds[seed]}{', aligned' if align else ''}"
    words.append(table(["layer", "hits", "distance", "AbsRel z"], rows, caption))
    if found:
        words.append(tag("p", f"Of the colour error, bright is {worst(distance):.3g} or more, grey is not judged."))
    return Compared(stack, distance, small(*words))


def worst(error: np.ndarray) -> float:
    """The upper end of the scale of errors, which a few outliers do not move."""
    known = error[np.isfinite(error)]
    return float(np.percentile(known, 95)) if known.size else 1.0


def _metrics_table(metrics: dict[str, Any]) -> Html:
    names = sorted({name for values in metrics.values() for name in values})
    rows = [[name, *[f"{metrics[m][name]:.4f}" if name in metrics[m] else "" for m in metrics]] for name in names]
    return table(["worldtrace eval", *metrics], rows)
