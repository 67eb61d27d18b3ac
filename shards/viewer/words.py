"""What the page says: of a sample, and of the colours of layers."""

import numpy as np

from ..contract import LayeredView
from ..markup import Html, join, tag
from .choice import Choice
from .points import LAYERS


def small(*parts: Html) -> Html:
    return (
        tag("div", *parts, style="font-size: .8em; margin: .4em .75em; overflow-wrap: anywhere") if parts else Html("")
    )


def wrong(error: str) -> Html:
    """What cannot be done, in red."""
    return tag("p", error, style="color: #ff6b5e; margin: .4em .75em; overflow-wrap: anywhere")


def describe(view: LayeredView, choice: Choice) -> Html:
    """The words beside the picture."""
    known = 1 if view.single_layer else view.layers
    coverage = ", ".join(f"{100 * float((view.hits > l).mean()):.1f}" for l in range(known))
    z = view.depth[view.hit]
    reach = f"depth {z.min():.3f} to {z.max():.3f}" if z.size else "no surface"
    origin = view.origin
    flags = ", ".join(map(str, view.info.get("flags", ()))) or "none"
    lines = [
        tag("b", view.key),
        f"number {choice.row} of {len(choice.dataset)}; {view.regime}, {view.size[0]}x{view.size[1]}, {reach}",
        f"coverage {coverage} %",
        f"flags: {flags}",
        join(origin.source, ": ", origin.uid, " (", origin.licence, ")"),
    ]
    return small(*[tag("div", line) for line in lines])


def legend(layers: int) -> Html:
    """The colour of each layer."""
    marks = [
        tag("span", f"L{l}", style=f"border-left: .8em solid rgb{LAYERS[l % len(LAYERS)]}; padding: 0 .7em 0 .3em")
        for l in range(layers)
    ]
    return small(*marks)


def enlarged(image: np.ndarray, least: int = 400) -> np.ndarray:
    """By a whole factor, so that a small image fills the panel and its pixels stay sharp."""
    factor = max(1, -(-least // max(image.shape[:2])))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)
