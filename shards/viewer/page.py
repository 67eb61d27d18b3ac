"""One open page of the viewer: what its controls do, and the thread that draws what they say.

A callback only wakes the thread, which draws the newest state: whoever drags a slider does not wait for every sample on
its way. What goes wrong is said on the page, and the next sample is drawn as if nothing had been.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from ..contract import LayeredView, Sample
from ..markup import tag
from ..randomness import generator
from ..reader import Dataset
from ..report.readings import frames_of
from ..sheet import layer_pictures
from . import predictions as predicted
from .choice import ALL, Choice
from .comparison import NOTHING, compared
from .controls import Controls
from .scene import Scene
from .words import describe, enlarged, small, wrong

LATE = 1.0  # seconds: a browser sends Enter at once, and what was typed before it a little later
_log = logging.getLogger(__name__)
NO_RENDERING = (ValueError, OSError, LookupError, MemoryError)  # of a sample or a prediction, not of this program


class Page:
    """Controls and scene of one client. `close` ends its thread."""

    def __init__(
        self, client: Any, dataset: Dataset, key: str | None, predictions: predicted.Predictions | None
    ) -> None:
        self.choice = Choice(dataset)
        if key is not None:
            self.choice.go(key)
        self.predictions = predictions
        self.sample: Sample | None = None
        self.prediction: predicted.Prediction | predicted.Cloud | None = None
        self.shown: tuple[Any, ...] = ()
        self._narrowed = (ALL, "")
        self._went = ""
        self._jumps = 0
        self._until = 0.0
        self._pictured: tuple[str, str] | None = None
        self._wake = threading.Event()
        self._closed = threading.Event()
        self.controls = Controls(
            client.gui,
            samples=len(dataset),
            row=self.choice.row,
            layers=int(dataset.config.get("layers", 6)),
            predictions=predictions is not None,
        )
        self.scene = Scene(client, self.controls)
        self._bind()
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """The client has gone."""
        self._closed.set()
        self._wake.set()

    # ---------------------------------------------------------------- controls

    def _bind(self) -> None:
        c = self.controls
        c.submit.on_click(self._guarded(self._chosen))
        c.form.on_submit(self._guarded(self._chosen))
        for control in (c.key, c.split, c.where):
            control.on_update(self._guarded(self._late))
        c.move.on_click(self._guarded(lambda: self._move(c.move.value)))
        c.look.on_click(self._guarded(lambda: self.scene.look(c.look.value == "as the camera")))
        c.number.on_update(self._guarded(self._numbered))
        for control in c.drawing:
            control.on_update(lambda _: self._wake.set())

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
        self.controls.number.value = self.choice.row

    def _numbered(self) -> None:
        number = int(self.controls.number.value)
        if number != self.choice.row:
            self.choice.go(number)

    def _chosen(self) -> None:
        self._until = time.monotonic() + LATE
        self._choose()

    def _late(self) -> None:
        if time.monotonic() < self._until:
            self._choose()

    def _choose(self) -> None:
        c = self.controls
        asked, key = (c.split.value, c.where.value), c.key.value.strip()
        anew = asked != self._narrowed
        if anew:
            self.choice.narrow(*asked)
            self._narrowed = asked
            c.number.max = len(self.choice.dataset) - 1
        if key and not (anew and key == self._went):  # a key that was asked for before is not asked of every choice
            self.choice.go(key)
            self._went = key
        c.number.value = self.choice.row

    def _say(self, error: str) -> None:
        self.controls.message.content = str(wrong(error))

    # ---------------------------------------------------------------- drawing

    def _run(self) -> None:
        c = self.controls
        while not self._closed.is_set():
            try:
                self._draw()
            except Exception as error:  # whatever a sample holds, the page goes on with the next one
                if not isinstance(error, NO_RENDERING):
                    _log.exception("%s cannot be drawn", self.choice.key)
                self.scene.clear()
                self._say(str(error) or type(error).__name__)
            playing = c.play.value and self.sample is not None and len(frames_of(self.sample)) > 1
            if not self._wake.wait(1 / c.rate.value if playing else None) and playing:
                c.frame.value = (int(c.frame.value) + 1) % len(frames_of(self.sample))  # type: ignore[arg-type]
            self._wake.clear()

    def _draw(self) -> None:
        """From the state of the controls to the scene; only what has changed."""
        c = self.controls
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
        t = min(int(c.frame.value), len(frames) - 1)
        what = (place, t, c.filled.value, c.colour.value, c.show.value, c.align.value, c.seed.value)
        if self.shown != what:
            self._scene(frames[t], t)
            self.shown = what
        self.scene.style()
        self._pictures(frames[t])
        if first:
            self.scene.look(as_camera=False)

    def _load(self) -> None:
        """The sample and its prediction, and the controls that depend on what they hold."""
        c, key = self.controls, self.choice.key
        c.words.content = str(small(tag("b", key)))
        c.errors.content = ""
        self.prediction = None
        self.sample = self.choice.dataset[self.choice.row]
        c.message.content = ""
        frames = frames_of(self.sample)
        c.clip.visible = len(frames) > 1
        if len(frames) > 1 and c.frame.max != len(frames) - 1:
            c.frame.value = 0
            c.frame.max = len(frames) - 1
        if self.predictions is not None:
            try:
                self.prediction = self.predictions.of(key)
            except NO_RENDERING as error:
                self._say(str(error))
        stack = isinstance(self.prediction, predicted.Prediction)
        seeds = len(self.prediction.seeds) if isinstance(self.prediction, predicted.Prediction) else 1
        c.seed.visible = seeds > 1
        c.seed.value = min(int(c.seed.value), seeds - 1)
        c.seed.max = max(seeds - 1, 1)
        c.align.visible = stack
        options = ("image", "layer", "depth", "error") if stack else ("image", "layer", "depth")
        if c.colour.options != options:
            c.colour.options = options
        known = frames[0].layers
        names = ("image", *[f"L{l}" for l in range(known)])
        if c.picture_of.options != names:
            c.picture_of.options = names

    def _scene(self, view: LayeredView, t: int) -> None:
        """Clouds of the truth and of the prediction, which of a clip is of its first frame."""
        c, other = self.controls, NOTHING
        if t == 0:
            metrics = self.predictions.metrics(self.choice.key) if self.predictions is not None else None
            seed, filled, align = int(c.seed.value), c.filled.value, c.align.value
            other = compared(view, self.prediction, metrics, seed=seed, filled=filled, align=align)
        c.errors.content = str(other.words)
        cloud = self.prediction if isinstance(self.prediction, predicted.Cloud) else None
        self.scene.draw(view, other, cloud)

    def _pictures(self, view: LayeredView) -> None:
        c = self.controls
        state = (view.key, c.picture_of.value)
        if self._pictured == state:
            return
        names = ("image", *[f"L{l}" for l in range(view.layers)])
        number = names.index(c.picture_of.value) if c.picture_of.value in names else 0
        c.picture.image = enlarged(layer_pictures(view)[number])
        c.words.content = str(describe(view, self.choice))
        self._pictured = state
