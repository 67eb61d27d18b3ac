"""MANIFEST.csv: what is stated of the files below a folder.

Columns `path` (relative to the table) and `licence`; where there are `triangles` (a number), `animated` (y or n) and
`category` (several are parted by ";"), filters use them before a file is read.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass

from cluster.sources import licences

NAME = "MANIFEST.csv"
LARGEST = 256 << 20  # bytes
PARENTS = 3  # folders above the one given, in which the table may lie

_TRUTH = {"y": True, "yes": True, "true": True, "1": True, "n": False, "no": False, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Stated:
    licence: str = licences.UNKNOWN
    triangles: int | None = None
    animated: bool | None = None
    categories: tuple[str, ...] = ()


NOTHING = Stated()


def read_stated(lines: Iterable[str]) -> dict[str, Stated] | None:
    """Path as the table writes it -> what it states; None where it is no such table. Damaged rows are skipped."""
    rows = csv.DictReader(lines)
    try:
        if not rows.fieldnames or not {"path", "licence"} <= set(rows.fieldnames):
            return None
        return {row["path"]: _stated(row) for row in rows if row.get("path")}
    except csv.Error:
        return None


def _stated(row: dict[str, str | None]) -> Stated:
    count = (row.get("triangles") or "").strip()
    return Stated(
        licence=licences.normal(row["licence"]),
        triangles=int(count) if count.isascii() and count.isdigit() and len(count) <= 12 else None,
        animated=_TRUTH.get((row.get("animated") or "").strip().lower()),
        categories=tuple(word.strip() for word in (row.get("category") or "").split(";") if word.strip()),
    )
