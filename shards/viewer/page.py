"""One open page of the viewer: its controls, and the thread that draws what they say.

A callback only wakes the thread, which draws the newest state: whoever drags a slider does not wait for every sample on
its way. What goes wrong is said on the page, and the next sample is drawn as if nothing had been.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..contract import LayeredView, Sample
from ..markup import Html, join, table, tag
from ..randomness import generator
from ..reader import Dataset
from ..report.readings import frames_of
from ..sheet import layer_pictures
from ..split import SPLITS
from . import predictions as predicted
from .choice import ALL, Choice
from .points import LAYERS, Stack, bounds, colours, look_from, outline, pixel, stack_of

TRUTH, PREDICTION, SIDE, BOTH = "truth", "prediction", "side by side", "on top of each other"
LATE = 1.0  # seconds: a browser sends Enter at once, and what was typed before it a little later
_log = logging.getLogger(__name__)
NO_RENDERING = (ValueError, OSError, LookupError, MemoryError)  # of a sample or a prediction, not of this program


class Page:
    """Controls and scene of one client. `close` ends its thread."""

    def __init__(
        self, client: Any, dataset: Dataset, key: str | None, predictions: predicted.Predictions | None
    ) -> None:
        self.client = client
        self.choice = Choice(dataset)
        if key is not None:
            self.choice.go(key)
        self.predictions = predictions
        self.sample: Sample | None = None
        self.prediction: predicted.Prediction | predicted.Cloud | None = None
        self.shown: tuple[Any, ...] = ()
        self.nodes: list[tuple[Any, int | str | None]] = []  # with the layer, "camera" or None
        self.view: LayeredView | None = None
        self.pixel = 1.0
        self.box = np.zeros(3), np.ones(3)
        self._narrowed = (ALL, "")
        self._went = ""
        self._jumps = 0
        self._until = 0.0
        self._pictured: tuple[str, str] | None = None
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._controls()
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """The client has gone."""
        self._closed.set()
        self._wake.set()

    # ---------------------------------------------------------------- controls

    def _controls(self) -> None:
        gui = self.client.gui
        self.message = gui.add_html("")
        with gui.add_folder("Sample"):
            move = gui.add_button_group("go to", ("previous", "next", "random"))
            self.number = gui.add_number("number", self.choice.row, min=0, max=len(self.choice.dataset) - 1, step=1)
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
        with gui.add_folder("Prediction", visible=self.predictions is not None):
            self.show = gui.add_dropdown("show", (SIDE, TRUTH, PREDICTION, BOTH))
            self.align = gui.add_checkbox(
                "aligned", True, hint="By one scale and shift of depth, as `worldtrace eval` judges."
            )
            self.seed = gui.add_slider("seed", 0, 1, 1, 0)
            self.errors = gui.add_html("")
        with gui.add_folder("Layers"):
            most = 1 + max(self._layers())
            self.layers = [gui.add_checkbox(f"L{l}", True) for l in range(most)]
            self.filled = gui.add_checkbox(
                "filled", False, hint="What training sees: behind the last surface it is repeated. Else true hits only."
            )
            self.colour = gui.add_dropdown("colour", ("image", "layer", "depth"))
            self.legend = gui.add_html(str(_legend(most)), visible=False)
            self.size = gui.add_slider("point size", 0.25, 4.0, 0.25, 1.0, hint="In pixels of the image, at mid depth.")
        with gui.add_folder("Camera"):
            look = gui.add_button_group("look", ("from aside", "as the camera"))
            self.frustum = gui.add_checkbox("show the camera", True)
        self.submit.on_click(self._guarded(self._chosen))
        self.form.on_submit(self._guarded(self._chosen))
        for control in (self.key, self.split, self.where):
            control.on_update(self._guarded(self._late))
        move.on_click(self._guarded(lambda: self._move(move.value)))
        look.on_click(self._guarded(lambda: self._look(look.value == "as the camera")))
        self.number.on_update(self._guarded(self._numbered))
        controls = [*self.layers, self.frame, self.play, self.rate, self.filled, self.colour, self.size, self.frustum]
        for control in [*controls, self.picture_of, self.show, self.align, self.seed]:
            control.on_update(lambda _: self._wake.set())

    def _layers(self) -> list[int]:
        """Numbers of the layers that there may be: of the dataset, and of the predictions once they are read."""
        return list(range(int(self.choice.whole.config.get("layers", 6))))

    def _guarded(self, change: Callable[[], None]) -> Callable[[Any], None]:
        """A callback: what is wrong with what was asked is said on the page."""

        def call(_: Any) -> None:
            try:
                change()
            except NO_RENDERING as error:
                self._say(str(error))
            else:
                self._wake.set()

        return call

    def _move(self, to: str) -> None:
        if to == "random":
            self._jumps += 1
            count = len(self.choice.dataset)
            self.choice.step(int(generator(self._jumps, "view").integers(1, max(count, 2))))  # any but this one
        else:
            self.choice.step(1 if to == "next" else -1)
        self.number.value = self.choice.row

    def _numbered(self) -> None:
        number = int(self.number.value)
        if number != self.choice.row:
            self.choice.go(number)

    def _chosen(self) -> None:
        self._until = time.monotonic() + LATE
        self._choose()

    def _late(self) -> None:
        if time.monotonic() < self._until:
            self._choose()

    def _choose(self) -> None:
        asked, key = (self.split.value, self.where.value), self.key.value.strip()
        anew = asked != self._narrowed
        if anew:
            self.choice.narrow(*asked)
            self._narrowed = asked
            self.number.max = len(self.choice.dataset) - 1
        if key and not (anew and key == self._went):  # a key that was asked for before is not asked of every choice
            self.choice.go(key)
            self._went = key
        self.number.value = self.choice.row

    def _say(self, error: str) -> None:
        self.message.content = str(tag("p", error, style="color: #ff6b5e; margin: .4em .75em; overflow-wrap: anywhere"))

    # ---------------------------------------------------------------- drawing

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._draw()
            except Exception as error:  # whatever a sample holds, the page goes on with the next one
                if not isinstance(error, NO_RENDERING):
                    _log.exception("%s cannot be drawn", self.choice.key)
                self._clear()
                self._say(str(error) or type(error).__name__)
            playing = self.play.value and self.sample is not None and len(frames_of(self.sample)) > 1
            if not self._wake.wait(1 / self.rate.value if playing else None) and playing:
                self.frame.value = (int(self.frame.value) + 1) % len(frames_of(self.sample))  # type: ignore[arg-type]
            self._wake.clear()

    def _draw(self) -> None:
        """From the state of the controls to the scene; only what has changed."""
        place = (self.choice.dataset, self.choice.row)  # the object itself: the id of one that is gone may come again
        if self.shown[:1] != (place,):
            self.shown = (place,)
            self.sample = None
            self._load()
            first = True
        else:
            first = False
        if self.sample is None:
            return
        frames = frames_of(self.sample)
        t = min(int(self.frame.value), len(frames) - 1)
        what = (place, t, self.filled.value, self.colour.value, self.show.value, self.align.value, self.seed.value)
        if self.shown != what:
            self._scene(frames[t], t)
            self.shown = what
        self._style()
        self._pictures(frames[t])
        if first:
            self._look(as_camera=False)

    def _load(self) -> None:
        key = self.choice.key
        self.words.content = str(_small(tag("b", key)))
        self.errors.content = ""
        self.prediction = None
        self.sample = self.choice.dataset[self.choice.row]
        self.message.content = ""
        frames = frames_of(self.sample)
        self.clip.visible = len(frames) > 1
        if len(frames) > 1 and self.frame.max != len(frames) - 1:
            self.frame.value = 0
            self.frame.max = len(frames) - 1
        if self.predictions is not None:
            try:
                self.prediction = self.predictions.of(key)
            except NO_RENDERING as error:
                self._say(str(error))
        stack = isinstance(self.prediction, predicted.Prediction)
        seeds = len(self.prediction.seeds) if isinstance(self.prediction, predicted.Prediction) else 1
        self.seed.visible = seeds > 1
        self.seed.value = min(int(self.seed.value), seeds - 1)
        self.seed.max = max(seeds - 1, 1)
        self.align.visible = stack
        options = ("image", "layer", "depth", "error") if stack else ("image", "layer", "depth")
        if self.colour.options != options:
            self.colour.options = options
        known = frames[0].layers
        names = ("image", *[f"L{l}" for l in range(known)])
        if self.picture_of.options != names:
            self.picture_of.options = names

    def _scene(self, view: LayeredView, t: int) -> None:
        """Clouds of the truth and of the prediction, and the camera."""
        filled, by = self.filled.value, self.colour.value
        truth = stack_of(view, filled=filled)
        other, error, words = self._compared(view) if t == 0 else (None, None, Html(""))
        self.errors.content = str(words)
        show = self.show.value if other is not None or isinstance(self.prediction, predicted.Cloud) else TRUTH
        self.view = view
        self.pixel = pixel(truth, view.K)
        low, high = bounds([truth])
        step = np.array([1.25 * float(high[0] - low[0]), 0, 0]) if show == SIDE else np.zeros(3)
        self.box = (low, high + step)
        with self.client.atomic():
            self._clear()
            if show != PREDICTION:
                self._add("truth", truth, colours(truth, "image" if by == "error" else by), np.zeros(3))
            if show != TRUTH and other is not None:
                worst = 1.0 if error is None else _worst(error)
                self._add("prediction", other, colours(other, by, error, worst), step)
            if show != TRUTH and isinstance(self.prediction, predicted.Cloud):
                cloud = self.prediction
                self._cloud("/prediction/points", cloud.xyz + step.astype(np.float32), cloud.rgb, 0)
            if show == SIDE:
                for name, at in (("truth", np.zeros(3)), ("prediction", step)):
                    top = np.array([(low[0] + high[0]) / 2, low[1] - 0.08 * (high[1] - low[1]), (low[2] + high[2]) / 2])
                    self.nodes.append(
                        (
                            self.client.scene.add_label(
                                f"/{name}/label", name, position=at + top, anchor="bottom-center"
                            ),
                            None,
                        )
                    )
            self._camera(view, high)

    def _compared(self, view: LayeredView) -> tuple[Stack | None, np.ndarray | None, Html]:
        """The prediction's stack, the distance of its points to the truth, and the errors in words."""
        key = self.choice.key
        metrics = self.predictions.metrics(key) if self.predictions is not None else {}
        words = [_metrics_table(metrics)] if metrics else []
        prediction = self.prediction
        if not isinstance(prediction, predicted.Prediction):
            if self.predictions is not None and prediction is None and not metrics:
                words.append(tag("p", "There is no prediction of this sample."))
            return None, None, _small(*words)
        seed = int(self.seed.value)
        stack = predicted.stack_of(prediction, seed, filled=self.filled.value)
        grid = predicted.on_grid(view, stack.layers, prediction.valid.shape)  # type: ignore[arg-type]
        if grid is None:
            words.append(
                tag("p", f"The prediction has {prediction.valid.shape} pixels, which are none of the sample's.")
            )
            return stack, None, _small(*words)
        true, hits = grid
        both = prediction.valid & (hits > 0)
        if self.align.value:
            stack = Stack(predicted.aligned(stack.xyz, true, both), stack.there, stack.rgb)
        found, distance = predicted.errors(stack.xyz, both, true, hits)
        rows = [[f"L{e.layer}", f"{e.pixels:,}", f"{e.distance:.4f}", f"{e.absrel:.4f}"] for e in found]
        caption = f"Seed {prediction.seeds[seed]}{', aligned' if self.align.value else ''}"
        words.append(table(["layer", "hits", "distance", "AbsRel z"], rows, caption))
        if found:
            words.append(
                tag("p", f"Of the colour error, bright is {_worst(distance):.3g} or more, grey is not judged.")
            )
        return stack, distance, _small(*words)

    def _add(self, name: str, stack: Stack, rgb: np.ndarray, at: np.ndarray) -> None:
        for l in range(stack.layers):
            there = stack.there[l]
            self._cloud(f"/{name}/L{l}", stack.xyz[l][there] + at.astype(np.float32), rgb[l][there], l)

    def _cloud(self, name: str, xyz: np.ndarray, rgb: np.ndarray, layer: int) -> None:
        if not len(xyz):
            return
        node = self.client.scene.add_point_cloud(
            name,
            xyz,
            rgb,
            point_size=self.pixel * self.size.value,
            point_shape="circle",
            precision="float32",  # half floats at z = 2 are 2 mm apart: half a pixel of a 504x504 view
            visible=self._visible(layer),
        )
        self.nodes.append((node, layer))

    def _camera(self, view: LayeredView, high: np.ndarray) -> None:
        depth = 0.2 * float(max(high[2], 1e-6))
        lines = self.client.scene.add_line_segments(
            "/camera/outline",
            outline(view.K, view.size, depth),
            (150, 150, 150),
            thickness=2.0,
            thickness_units="screen",
            visible=self.frustum.value,
        )
        height, width = view.size
        centre = np.linalg.inv(view.K) @ np.array([width / 2, height / 2, 1.0])
        picture = self.client.scene.add_image(
            "/camera/image",
            _shrunk(layer_pictures(view)[0]),
            render_width=width / float(view.K[0, 0]) * depth,
            render_height=height / float(view.K[1, 1]) * depth,
            position=centre / centre[2] * depth,
            visible=self.frustum.value,
            format="png",
            cast_shadow=False,
            receive_shadow=False,
        )
        self.nodes += [(lines, "camera"), (picture, "camera")]

    def _clear(self) -> None:
        for node, _ in self.nodes:
            node.remove()
        self.nodes = []

    def _style(self) -> None:
        """Visibility and size: without sending a point again."""
        self.legend.visible = self.colour.value == "layer"
        for node, layer in self.nodes:
            if layer == "camera":
                node.visible = self.frustum.value
            elif isinstance(layer, int):
                node.visible = self._visible(layer)
                node.point_size = self.pixel * self.size.value

    def _visible(self, layer: int) -> bool:
        return layer >= len(self.layers) or bool(self.layers[layer].value)

    def _pictures(self, view: LayeredView) -> None:
        state = (view.key, self.picture_of.value)
        if self._pictured == state:
            return
        names = ("image", *[f"L{l}" for l in range(view.layers)])
        number = names.index(self.picture_of.value) if self.picture_of.value in names else 0
        self.picture.image = _enlarged(layer_pictures(view)[number])
        self.words.content = str(describe(view, self.choice))
        self._pictured = state

    def _look(self, as_camera: bool) -> None:
        """Move the client's own camera. As the sample's it stands where that is drawn, which is then not."""
        camera, view = self.client.camera, self.view
        if view is None:
            return
        self.frustum.value = not as_camera
        low, high = self.box
        middle = (low + high) / 2
        with self.client.atomic():
            camera.up_direction = np.array([0.0, -1.0, 0.0])
            if as_camera:
                # not from the origin itself: an eye has to be some way off from what it looks at
                camera.fov = float(2 * np.arctan(view.size[0] / 2 / view.K[1, 1]))
                camera.position, camera.look_at = np.zeros(3), np.array([0.0, 0.0, max(float(middle[2]), 1e-3)])
            else:
                camera.fov = float(np.pi / 3)
                camera.position, camera.look_at = look_from(low, high)


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
    return _small(*[tag("div", line) for line in lines])


def _small(*parts: Html) -> Html:
    return (
        tag("div", *parts, style="font-size: .8em; margin: .4em .75em; overflow-wrap: anywhere") if parts else Html("")
    )


def _legend(layers: int) -> Html:
    """The colour of each layer."""
    marks = [
        tag("span", f"L{l}", style=f"border-left: .8em solid rgb{LAYERS[l % len(LAYERS)]}; padding: 0 .7em 0 .3em")
        for l in range(layers)
    ]
    return _small(*marks)


def _worst(error: np.ndarray) -> float:
    """The upper end of the scale of errors, which a few outliers do not move."""
    known = error[np.isfinite(error)]
    return float(np.percentile(known, 95)) if known.size else 1.0


def _metrics_table(metrics: dict[str, Any]) -> Html:
    names = sorted({name for values in metrics.values() for name in values})
    rows = [[name, *[f"{metrics[m][name]:.4f}" if name in metrics[m] else "" for m in metrics]] for name in names]
    return table(["worldtrace eval", *metrics], rows)


def _enlarged(image: np.ndarray, least: int = 400) -> np.ndarray:
    """By a whole factor, so that a small image fills the panel and its pixels stay sharp."""
    factor = max(1, -(-least // max(image.shape[:2])))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _shrunk(image: np.ndarray, most: int = 256) -> np.ndarray:
    return image[:: -(-image.shape[0] // most), :: -(-image.shape[1] // most)]
