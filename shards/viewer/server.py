"""The server of the viewer: a page for every client."""

import threading
from typing import Any

from ..reader import Dataset
from .choice import Choice
from .page import Page
from .predictions import Predictions


def serve(
    dataset: Dataset, host: str, port: int, *, key: str | None = None, predictions: Predictions | None = None
) -> Any:
    """Start the viewer and return its `viser.ViserServer`; it takes the next free port if `port` is taken.

    Pages open at sample `key` (or a number as text), else at the first. ValueError for an unknown key, an empty
    dataset, or if the extra `view` is not installed.
    """
    try:
        import viser
    except ModuleNotFoundError:
        raise ValueError("the viewer needs viser: pip install 'worldtrace[view]'") from None
    choice = Choice(dataset)
    if key is not None:
        choice.go(key)
    server = viser.ViserServer(host=host, port=port, verbose=False)
    server.gui.configure_theme(dark_mode=True, control_layout="collapsible", control_width="large")
    server.scene.set_up_direction("-y")  # camera frame: +y is down
    pages: dict[int, Page] = {}
    lock = threading.Lock()

    def arrived(client: Any) -> None:
        page = Page(client, dataset, key, predictions)
        with lock:
            pages[client.client_id] = page
        if client.client_id not in server.get_clients():  # it left while its page was made
            gone(client)

    def gone(client: Any) -> None:
        with lock:
            page = pages.pop(client.client_id, None)
        if page is not None:
            page.close()

    server.on_client_connect(arrived)
    server.on_client_disconnect(gone)
    return server
