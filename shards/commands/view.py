"""`worldtrace shards view`: a dataset in the browser, sample by sample, with its layers as point clouds."""

import time
from typing import Annotated, Any

import numpy as np
import typer

from .. import reader
from ..contract import Clip, LayeredView
from ..pointcloud import HIDDEN
from ..reader import Dataset
from ..sheet import over_checkerboard
from .arguments import Directory, SplitOption, Where, narrowed


def view(
    directory: Directory,
    port: Annotated[int, typer.Option("--port", help="Port of the page.")] = 8080,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at; 0.0.0.0 admits other machines.")
    ] = "127.0.0.1",
    split: SplitOption = None,
    where: Where = None,
) -> None:
    """Look at a dataset in the browser: choose a sample, switch layers on and off, see the image in its frustum."""
    dataset = narrowed(reader.open(directory, split), where)
    if not len(dataset):
        raise ValueError(f"{directory}: the selection is empty")
    server = serve(dataset, host, port)
    typer.echo(f"{len(dataset)} samples at http://{host}:{server.get_port()} (Ctrl-C ends it)")
    try:
        while True:
            time.sleep(3600)
    finally:
        server.stop()


def serve(dataset: Dataset, host: str, port: int) -> Any:
    """Start the viewer and return its `viser.ViserServer`. ValueError if the extra `view` is not installed."""
    try:
        import viser
    except ModuleNotFoundError:
        raise ValueError("the viewer needs viser: pip install 'worldtrace[view]'") from None
    server = viser.ViserServer(host=host, port=port, verbose=False)
    server.gui.configure_theme(dark_mode=True)
    server.scene.set_up_direction("-y")  # camera frame: +y is down
    layers = max(dataset.manifest["layers"].to_pylist())
    with server.gui.add_folder("Sample"):
        number = server.gui.add_slider("number", 0, max(1, len(dataset) - 1), 1, 0)
        frames = max(dataset.manifest["frames"].to_pylist())
        frame = server.gui.add_slider("frame", 0, max(1, frames - 1), 1, 0, visible=frames > 1)
        words = server.gui.add_markdown("")
        picture = server.gui.add_image(np.zeros((8, 8, 3), np.uint8))
    with server.gui.add_folder("Layers"):
        shown = [server.gui.add_checkbox(f"L{l}", True) for l in range(layers)]
        size = server.gui.add_slider("point size", 0.25, 4.0, 0.25, 1.0, hint="In pixels of the image, at mid depth.")

    clouds: list[Any] = []
    pixel = 0.0

    def draw(_: Any = None) -> None:
        sample = dataset[min(int(number.value), len(dataset) - 1)]
        view = sample.frames[min(int(frame.value), len(sample.frames) - 1)] if isinstance(sample, Clip) else sample
        nonlocal pixel
        words.content = describe(view)
        image = over_checkerboard(view.rgba)
        picture.image = image
        middle = np.median(view.xyz()[view.hit], axis=0) if view.hits.any() else np.array([0.0, 0.0, 1.0])
        pixel = float(middle[2] / view.K[1, 1])
        for cloud in clouds:  # the sample before may have had more layers
            cloud.remove()
        clouds[:] = [_cloud(server, view, l, pixel * size.value, shown[l].value) for l in range(view.layers)]
        height, width = view.size
        field_of_view = 2 * np.arctan(height / 2 / view.K[1, 1])
        server.scene.add_camera_frustum(
            "/camera", field_of_view, width / height, scale=0.15, color=(200, 200, 200), image=image
        )
        # where a new page, and its "Reset View", look from: aside of the camera, so that hidden layers show
        server.initial_camera.position = middle + middle[2] * np.array([0.45, -0.3, -0.75])
        server.initial_camera.look_at = middle

    def switch(_: Any = None) -> None:
        for l, cloud in enumerate(clouds):
            cloud.visible = shown[l].value
            cloud.point_size = pixel * size.value

    number.on_update(draw)
    frame.on_update(draw)
    controls: list[Any] = [*shown, size]
    for control in controls:
        control.on_update(switch)
    draw()
    return server


def describe(view: LayeredView) -> str:
    """The words beside the picture, as Markdown."""
    coverage = ", ".join(f"{100 * float((view.hits > l).mean()):.1f}" for l in range(view.layers))
    z = view.depth[view.hit]
    reach = f"{z.min():.3f} to {z.max():.3f}" if z.size else "no surface"
    origin = view.origin
    return (
        f"**{view.key}**\n\n{view.regime}, {view.size[0]}x{view.size[1]}, coverage {coverage} %\n\n"
        f"depth {reach}\n\n{origin.source}: {origin.uid} ({origin.licence})"
    )


def _cloud(server: Any, view: LayeredView, l: int, size: float, visible: bool) -> Any:
    hit = view.hit[l]
    colors = view.rgba[..., :3][hit] if l == 0 else np.tile(np.array(HIDDEN, np.uint8), (int(hit.sum()), 1))
    return server.scene.add_point_cloud(
        f"/layers/L{l}",
        view.xyz()[l][hit],
        colors,
        point_size=size,
        point_shape="circle",
        precision="float32",  # half floats at z = 2 are 2 mm apart: half a pixel of a 504x504 view
        visible=visible,
    )
