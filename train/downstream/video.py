"""Frames as MP4 (H.264, through PyAV), as any player and any video model reads it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

QUALITY = "14"  # CRF of x264: 18 is called visually lossless; depth is read by machines, and its steps are fine


@contextmanager
def mp4(path: Path, height: int, width: int, fps: int, about: str = "") -> Iterator[Any]:
    """Within the block, a function that takes the next frame: (H,W,3) uint8 sRGB, or (H,W) uint8 grey.

    An odd side is made even with a row or column of black, as H.264 with halved colour wants. The file appears when the
    block ends without an error. `about` is kept as the file's comment. ModuleNotFoundError without PyAV.
    """
    av = load_av()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        with av.open(str(partial), "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=fps, options={"crf": QUALITY})
            stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
            if about:
                container.metadata["comment"] = about

            def take(frame: np.ndarray) -> None:
                colours = np.repeat(frame[..., None], 3, axis=-1) if frame.ndim == 2 else frame
                even = np.pad(colours, ((0, height % 2), (0, width % 2), (0, 0)))
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
                container.mux(stream.encode(picture))

            yield take
            container.mux(stream.encode(None))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_av() -> Any:
    """PyAV, or a ModuleNotFoundError that says how to get it."""
    try:
        import av
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "MP4 files need PyAV, which is not installed; run `pip install worldtrace[video]`, or give --folder for "
            "single frames"
        ) from None
    return av
