"""The controls of a page, as they stand in its panel. What happens when one is moved is the page's affair."""

from typing import Any

import numpy as np

from ..split import SPLITS
from .choice import ALL
from .words import legend

TRUTH, PREDICTION, SIDE, BOTH = "truth", "prediction", "side by side", "on top of each other"


class Controls:
    """Handles of one client's panel, which is made here.

    `samples`: of the dataset; `row`: the one that is shown first; `layers`: the most that a sample may have;
    `predictions`: there are some to show.
    """

    def __init__(self, gui: Any, *, samples: int, row: int, layers: int, predictions: bool) -> None:
        self.message = gui.add_html("")
        with gui.add_folder("Sample"):
            self.move = gui.add_button_group("go to", ("previous", "next", "random"))
            self.number = gui.add_number("number", row, min=0, max=samples - 1, step=1)
            self.words = gui.add_html("")
            self.picture = gui.add_image(np.zeros((8, 8, 3), np.uint8))
            self.picture_of = gui.add_dropdown("picture", ("image",))
        with gui.add_form("Choose", expand_by_default=False) as self.form:
            self.key = gui.add_text("key", "", hint="A key or a number; Enter goes there.")
            self.split = gui.add_dropdown("split", (ALL, *SPLITS))
            self.where = gui.add_text("where", "", hint="SQL over the manifest: L3 > 0.01 and regime = 'object'")
            self.submit = gui.add_button("choose")
        with gui.add_folder("Frames", visible=False) as self.clip:
            self.frame = gui.add_slider("frame", 0, 1, 1, 0)
            self.play = gui.add_checkbox("play", False)
            self.rate = gui.add_slider("per second", 1, 15, 1, 4)
        with gui.add_folder("Prediction", visible=predictions):
            self.show = gui.add_dropdown("show", (SIDE, TRUTH, PREDICTION, BOTH))
            self.align = gui.add_checkbox(
                "aligned", True, hint="By one scale and shift of depth, as `worldtrace eval` judges."
            )
            self.seed = gui.add_slider("seed", 0, 1, 1, 0)
            self.errors = gui.add_html("")
        with gui.add_folder("Layers"):
            self.layers = [gui.add_checkbox(f"L{l}", True) for l in range(layers)]
            self.filled = gui.add_checkbox(
                "filled", False, hint="What training sees: behind the last surface it is repeated. Else true hits only."
            )
            self.colour = gui.add_dropdown("colour", ("image", "layer", "depth"))
            self.legend = gui.add_html(str(legend(layers)), visible=False)
            self.size = gui.add_slider("point size", 0.25, 4.0, 0.25, 1.0, hint="In pixels of the image, at mid depth.")
        with gui.add_folder("Camera"):
            self.look = gui.add_button_group("look", ("from aside", "as the camera"))
            self.frustum = gui.add_checkbox("show the camera", True)

    @property
    def drawing(self) -> list[Any]:
        """Those after which the scene is drawn anew, and nothing else happens."""
        of_scene = [*self.layers, self.frame, self.play, self.rate, self.filled, self.colour, self.size, self.frustum]
        return [*of_scene, self.picture_of, self.show, self.align, self.seed]

    def visible(self, layer: int) -> bool:
        return layer >= len(self.layers) or bool(self.layers[layer].value)
