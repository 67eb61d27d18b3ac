"""`worldtrace render --preview`: one asset of a source as a picture, in this process and without Ray."""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cluster.limits import limited_memory
from cluster.sources import AssetRef, Source, Unavailable
from cluster.sources.filters import Filters, Tally
from render import Rejected, RenderSettings
from render.preview import preview
from shards import committed


def write_preview(
    sources: Sequence[Source], out: Path, settings: RenderSettings, filters: Filters, timeout: float, memory: int
) -> tuple[int, str]:
    """Draws the first asset of the one source that `filters` keep to the PNG `out` -> the views kept, and a line that
    says what is on it.

    The asset may take `timeout` seconds and `memory` bytes, as in a job, whose views these are. Raises ValueError for
    an asset that cannot become ground truth, for more than one source, and where `out` is no PNG or cannot be written.
    """
    if len(sources) != 1:
        raise ValueError(f"--preview draws one asset, but {len(sources)} sources are given: name one of them")
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out {out}: a preview is a PNG, so give a name that ends in .png")
    (source,) = sources
    first, others = _first(source, filters)
    begin = time.perf_counter()
    try:
        with limited_memory(memory), limited_time(timeout), TemporaryDirectory(prefix="worldtrace-") as folder:
            fetched = Path(folder, source.fetch(first, Path(folder))) if source.remote else None
            mesh, origin = source.load(first, fetched)
            filters.check(mesh)
            page, rendered = preview(mesh, settings, origin, {"load": time.perf_counter() - begin})
    except Rejected as error:
        raise ValueError(f"{first.label} is rejected, {error.reason}: {error.message}") from None
    except Unavailable as error:
        raise ValueError(f"{first.label} could not be fetched: {error}; try again later") from None
    except TimeUp:
        raise ValueError(f"{first.label} is rejected, timeout: took more than {timeout:g} s") from None
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):  # Warp's own word for no memory
            raise
        raise ValueError(
            f"{first.label} is rejected, out_of_memory: needs more than {memory / 2**30:.3g} GiB"
        ) from None
    try:
        with committed(out) as file:
            page.save(file, "PNG")
    except OSError as error:
        raise ValueError(
            f"--out {out} cannot be written ({error.strerror or error}): give a name in a folder of yours"
        ) from None
    name = first.label + (", the first asset of its source" if others else "")
    refused = "".join(f", view {view} rejected as {reason}" for view, reason, _ in rendered.rejected)
    kept = f"{len(rendered.samples)} of {settings.views} views kept{refused}"
    return len(rendered.samples), f"{out}: {name}; {kept}; {time.perf_counter() - begin:.1f} s"


def _first(source: Source, filters: Filters) -> tuple[AssetRef, bool]:
    """The first asset that is kept, and whether others follow."""
    tally = Tally(filters)
    kept = list(islice(tally.of(source), 2))
    if not kept:
        raise ValueError(f"{source.text} has no asset to draw: {tally.line() or 'it is empty'}")
    return kept[0], len(kept) > 1


class TimeUp(BaseException):
    """No Exception: those that an asset raises become rejections of the asset or of a view, and the work goes on."""


@contextmanager
def limited_time(seconds: float) -> Iterator[None]:
    """Raises TimeUp within the block once `seconds` have passed; only in a main thread."""

    def ring(*_: Any) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
