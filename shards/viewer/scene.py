"""What a client sees of a sample: clouds of points, one per layer, the camera that they are of, and from where."""

from typing import Any

import numpy as np

from ..contract import LayeredView
from ..sheet import layer_pictures
from . import predictions as predicted
from .comparison import Compared, worst
from .controls import PREDICTION, SIDE, TRUTH, Controls
from .points import Stack, bounds, colours, look_from, outline, pixel, stack_of


class Scene:
    """The scene of one client, as its `controls` say. Drawn by one thread; `look` may be called by another."""

    def __init__(self, client: Any, controls: Controls) -> None:
        self.client, self.controls = client, controls
        self.nodes: list[tuple[Any, int | str | None]] = []  # with the layer, "camera" or None
        self.view: LayeredView | None = None
        self.pixel = 1.0
        self.box = np.zeros(3), np.ones(3)

    def draw(self, view: LayeredView, other: Compared, cloud: predicted.Cloud | None) -> None:
        """Clouds of the truth and of the prediction (points by pixel, or a mere `cloud`), and the camera."""
        by = self.controls.colour.value
        truth = stack_of(view, filled=self.controls.filled.value)
        show = self.controls.show.value if other.stack is not None or cloud is not None else TRUTH
        self.view = view
        self.pixel = pixel(truth, view.K)
        low, high = bounds([truth])
        step = np.array([1.25 * float(high[0] - low[0]), 0, 0]) if show == SIDE else np.zeros(3)
        self.box = (low, high + step)
        with self.client.atomic():
            self.clear()
            if show != PREDICTION:
                self._add("truth", truth, colours(truth, "image" if by == "error" else by), np.zeros(3))
            if show != TRUTH and other.stack is not None:
                bright = 1.0 if other.distance is None else worst(other.distance)
                self._add("prediction", other.stack, colours(other.stack, by, other.distance, bright), step)
            if show != TRUTH and cloud is not None:
                self._cloud("/prediction/points", cloud.xyz + step.astype(np.float32), cloud.rgb, 0)
            if show == SIDE:
                top = np.array([(low[0] + high[0]) / 2, low[1] - 0.08 * (high[1] - low[1]), (low[2] + high[2]) / 2])
                for name, at in (("truth", np.zeros(3)), ("prediction", step)):
                    label = self.client.scene.add_label(
                        f"/{name}/label", name, position=at + top, anchor="bottom-center"
                    )
                    self.nodes.append((label, None))
            self._camera(view, high)

    def clear(self) -> None:
        for node, _ in self.nodes:
            node.remove()
        self.nodes = []

    def style(self) -> None:
        """Visibility and size: without sending a point again."""
        self.controls.legend.visible = self.controls.colour.value == "layer"
        for node, layer in self.nodes:
            if layer == "camera":
                node.visible = self.controls.frustum.value
            elif isinstance(layer, int):
                node.visible = self.controls.visible(layer)
                node.point_size = self.pixel * self.controls.size.value

    def look(self, as_camera: bool) -> None:
        """Move the client's own camera. As the sample's it stands where that is drawn, which is then not."""
        camera, view = self.client.camera, self.view
        if view is None:
            return
        self.controls.frustum.value = not as_camera
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
            point_size=self.pixel * self.controls.size.value,
            point_shape="circle",
            precision="float32",  # half floats at z = 2 are 2 mm apart: half a pixel of a 504x504 view
            visible=self.controls.visible(layer),
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
            visible=self.controls.frustum.value,
        )
        height, width = view.size
        centre = np.linalg.inv(view.K) @ np.array([width / 2, height / 2, 1.0])
        picture = self.client.scene.add_image(
            "/camera/image",
            _shrunk(layer_pictures(view)[0]),
            render_width=width / float(view.K[0, 0]) * depth,
            render_height=height / float(view.K[1, 1]) * depth,
            position=centre / centre[2] * depth,
            visible=self.controls.frustum.value,
            format="png",
            cast_shadow=False,
            receive_shadow=False,
        )
        self.nodes += [(lines, "camera"), (picture, "camera")]


def _shrunk(image: np.ndarray, most: int = 256) -> np.ndarray:
    return image[:: -(-image.shape[0] // most), :: -(-image.shape[1] // most)]
