"""MANIFEST.csv: what is stated of the files below a folder.

Columns `path` (relative to the table) and `licence`; where there are `triangles` (a number), `animated` (y or n) and
`category` (several are parted by ";"), filters use them before a file is read. A table that cannot be understood is an
error: to pass over it would be to render what it forbids.
"""

import codecs
import csv
import difflib
import io
import posixpath
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from cluster.sources import licences
from cluster.sources.base import AssetRef

NAME = "MANIFEST.csv"
LARGEST = 256 << 20  # bytes
PARENTS = 3  # folders above the one given, in which the table may lie

_TRUTH = {"y": True, "yes": True, "true": True, "1": True, "n": False, "no": False, "false": False, "0": False}
_NEEDED = ("path", "licence")
_PARTED_BY = (",", ";", "\t")  # as Excel writes it in English, in German, and by "text"

_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class Stated:
    licence: str = licences.UNKNOWN
    triangles: int | None = None
    animated: bool | None = None
    categories: tuple[str, ...] = ()


NOTHING = Stated()


@dataclass
class Listed(Iterable[AssetRef]):
    """The assets of a source; once they are all taken, `remarks` says what the user should know of the table."""

    refs: Iterator[AssetRef]
    remarks: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[AssetRef]:
        return self.refs


def read_stated(data: bytes, where: str) -> dict[str, Stated]:
    """Path, with "/" for each "\\", -> what the table states of it; of several rows for a path the stricter licence.

    UTF-8 (a byte order mark may begin it) or UTF-16 with one; columns are parted by commas, semicolons or tabs, their
    names in any case, `license` among them. A number or a word that is none is not stated. ValueError in one sentence
    that names `where`, and the line, for all else.
    """
    if len(data) > LARGEST:
        raise ValueError(f"{where} has more than {LARGEST:,} bytes: split it by folder")
    try:
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is no UTF-8 text (byte {error.start}): save it as CSV in UTF-8") from None
    delimiter, columns = _columns(text, where)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    found: dict[str, Stated] = {}
    try:
        next(rows)
        for cells in rows:
            if len(cells) > len(columns) and any(cells[len(columns) :]):
                raise ValueError(
                    f"it has {len(cells)} fields, the header {len(columns)}: quote a text with {delimiter!r}"
                )
            row = dict(zip(columns, (cell.strip() for cell in cells)))
            path = row.get("path", "").replace("\\", "/")
            if "\n" in path + row.get("licence", ""):
                raise ValueError("a path or a licence goes over several lines: close its quotes")
            if path:
                put(found, posixpath.normpath(path), _stated(row))
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{where}, line {rows.line_num}, cannot be understood ({error})") from None
    return found


def put(table: dict[_Key, Stated], key: _Key, what: Stated) -> None:
    """`what` under `key`, by the stricter of the licences where something is stated already."""
    if (before := table.get(key)) is not None:
        what = replace(what, licence=licences.stricter(before.licence, what.licence))
    table[key] = what


def unmatched(where: str, rows: Iterable[_Key], met: Callable[[_Key], bool]) -> list[str]:
    """What to say of the rows that name a 3D file which is none of the assets: nothing, or one sentence."""
    count, example = 0, None
    for row in rows:
        if not met(row):
            count, example = count + 1, example or row
    return [f"{where} names {count:,} files that are not there, such as {example}"] if count else []


def _columns(text: str, where: str) -> tuple[str, list[str]]:
    """What parts the columns, and their names."""
    header = text.splitlines()[0][:100_000] if text.strip() else ""
    best: list[str] = []
    for delimiter in _PARTED_BY:
        try:
            cells = next(csv.reader([header], delimiter=delimiter, skipinitialspace=True), [])
        except csv.Error:
            continue
        names = [{"license": "licence"}.get(name, name) for name in (cell.strip().casefold() for cell in cells)]
        if all(names.count(needed) == 1 for needed in _NEEDED):
            return delimiter, names
        best = max(best, names, key=len)
    absent = next(needed for needed in _NEEDED if best.count(needed) != 1)
    if absent in best:
        raise ValueError(f"{where} has several columns {absent!r}: leave one")
    near = difflib.get_close_matches(absent, best, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(best)[:100] or 'none'}"
    raise ValueError(
        f"{where} has no column {absent!r} ({hint}): it states licences by path and licence, or is renamed"
    )


def _stated(row: dict[str, str]) -> Stated:
    count = row.get("triangles", "")
    return Stated(
        licence=licences.normal(row.get("licence")),
        triangles=int(count) if count.isascii() and count.isdigit() and len(count) <= 12 else None,
        animated=_TRUTH.get(row.get("animated", "").lower()),
        categories=tuple(word.strip() for word in row.get("category", "").split(";") if word.strip()),
    )
