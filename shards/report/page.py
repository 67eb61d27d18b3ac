"""The page: which sections it has, in which order, and how large it may become."""

from collections.abc import Callable
from os import PathLike
from pathlib import Path

from ..commit import committed
from ..markup import Html, join, tag
from ..reader import Dataset
from ..summary import COLUMNS, summarise
from . import sections
from .columns import Columns, columns_of
from .galleries import Gallery, galleries
from .pictures import address_of, picture_of
from .readings import Reading, drawn, measured, read
from .style import STYLE

PAGE = "index.html"
EACH = 8  # samples of a gallery
LARGEST = 9_000_000  # bytes of all pictures; what comes after is shown without one

# nothing is loaded or run, whatever came through into the page
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(
    dataset: Dataset,
    out: str | PathLike[str],
    name: str,
    *,
    chosen: str = "",
    each: int = EACH,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Path, list[Reading]]:
    """Write OUT/index.html and return its path, and the samples among those read that are damaged.

    `name` is the dataset's title, `chosen` says in words which of its samples are meant where not all are. The bytes
    are a function of the dataset, these arguments and the versions of numpy, Pillow and libwebp. ValueError where `out`
    holds something else than such a page.
    """
    folder = Path(out)
    _check(folder)
    table = dataset.columns(COLUMNS)
    columns = columns_of(table)
    summary = summarise(table) if len(table) else None
    splits = sections.by_split(table)
    del table  # some gigabytes, of 17 million rows
    identity = dataset.hash
    rows = drawn(len(columns), identity)
    readings = []
    for reading in measured(dataset, rows):
        readings.append(reading)
        progress(len(readings), len(rows))
    shown = galleries(columns, readings, each)
    cards, damaged = _cards(dataset, columns, shown, progress)
    bad = {reading.key: reading for reading in [*(r for r in readings if r.message), *damaged]}
    overview = sections.overview(name, chosen, identity, summary, columns)
    body = [("overview", "Overview", overview)]
    if summary is not None:
        body += [
            ("counts", "What it holds", sections.counts(summary, splits)),
            ("coverage", "Coverage per layer", sections.coverage(summary)),
            ("distributions", "Distributions", sections.distributions(columns, readings)),
            ("galleries", "Samples", sections.samples(shown, cards)),
        ]
    if bad:
        body.append(("damaged", "Damaged samples", sections.damaged(list(bad.values()))))
    body += [
        ("losses", "What was lost", sections.losses(dataset, narrowed=bool(chosen))),
        ("statistics", "Statistics", sections.statistics(dataset.statistics)),
        ("settings", "Settings", sections.settings(dataset.config)),
    ]
    path = folder / PAGE
    with committed(path) as file:
        file.write(_document(name, body).encode())
    return path, list(bad.values())


def _check(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder} is a file: give the folder that the page shall lie in")
    page = folder / PAGE
    if page.exists() and b"worldtrace shards report" not in page.read_bytes()[:1000]:
        raise ValueError(f"{page} is there and is no report of a dataset: give another folder")


def _cards(
    dataset: Dataset, columns: Columns, shown: list[Gallery], progress: Callable[[int, int], None]
) -> tuple[dict[int, Html], list[Reading]]:
    """Row -> its card, without what the gallery says of it. A sample is read once, and its picture made once."""
    rows = list(dict.fromkeys(row for gallery in shown for row in gallery.rows))
    cards: dict[int, Html] = {}
    damaged: list[Reading] = []
    bytes_left = LARGEST
    for done, row in enumerate(rows, start=1):
        key = dataset.key(row)
        sample = read(dataset, row)
        if isinstance(sample, str):
            damaged.append(Reading(row, key, message=sample))
            cards[row] = sections.broken_card(key, sample)
        else:
            picture = picture_of(sample)
            address = address_of(picture)
            bytes_left -= len(address) * sum(gallery.rows.count(row) for gallery in shown)
            cards[row] = sections.card(sample, address if bytes_left >= 0 else None, picture.size)
        progress(done, len(rows))
    return cards, damaged


def _document(name: str, body: list[tuple[str, str, Html]]) -> str:
    links = [tag("li", tag("a", title, href=f"#{anchor}")) for anchor, title, _ in body]
    content = [
        tag("section", tag("h2", title, id=anchor), html) if anchor != "overview" else tag("section", html, id=anchor)
        for anchor, title, html in body
    ]
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", name_="generator", content="worldtrace shards report"),
        tag("meta", http_equiv="Content-Security-Policy", content=Html(POLICY)),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{name}: a dataset of layered views"),
        Html(f"<style>{STYLE}</style>"),
    )
    page = join(
        tag("a", "Skip to the samples", href="#galleries", class_="skip"),
        tag("main", content[0], tag("nav", tag("ul", *links[1:]), aria_label="Sections"), *content[1:]),
        tag("footer", "Made by ", tag("code", "worldtrace shards report"), ". DIR stands for where the dataset lies."),
    )
    return f"<!doctype html>\n{tag('html', tag('head', head), tag('body', page), lang='en')}\n"
