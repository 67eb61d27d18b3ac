"""Files that list assets by their uid, for `--only` and `--without`."""

import csv
import difflib
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cluster.sources.base import AssetRef

LARGEST = 256 << 20  # bytes of such a file
MOST = 4_000_000  # uids in it; all of Objaverse are 800,000
_LINE = re.compile(r"[^\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+")  # as str.splitlines parts them


@dataclass(frozen=True)
class Uids:
    """Assets by uid, or by label ("objaverse/<uid>") where sources share uids."""

    uids: frozenset[str] = field(repr=False)

    def __len__(self) -> int:
        return len(self.uids)

    @cached_property
    def sha256(self) -> str:
        """Of what the list says, not of how it is written: order, remarks and repetitions do not matter."""
        return hashlib.sha256("".join(f"{uid}\n" for uid in sorted(self.uids)).encode()).hexdigest()

    def holds(self, ref: AssetRef) -> bool:
        return ref.uid in self.uids or ref.label in self.uids

    def spelling(self, ref: AssetRef) -> str:
        """How the list names an asset that it holds."""
        return ref.uid if ref.uid in self.uids else ref.label


def read_uids(option: str, path: Path) -> Uids:
    """A text with a uid a line (blank lines and lines that begin with # are skipped), a .csv with a column `uid`, or a
    .json list. ValueError or FileNotFoundError in one sentence that names `option`.
    """
    if not path.is_file():
        state = "is no file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"{option} {path} {state}: give a text file with one uid a line")
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"{option} {path} has {size:,} bytes, but at most {LARGEST:,} are read: split the job")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{option} {path} is not UTF-8 text (byte {error.start}): give one uid a line") from None
    suffix = path.suffix.lower()
    try:
        read = {".csv": _of_csv, ".json": _of_json}.get(suffix, _of_lines)
        uids = set[str]()
        for each in read(text):
            if uid := each.strip():
                uids.add(uid)
            if len(uids) > MOST:
                raise ValueError(f"it names more than {MOST:,} assets, which is what is read: split the job")
    except (ValueError, csv.Error, RecursionError) as error:
        raise ValueError(f"{option} {path}: {error}") from None
    if not uids:
        raise ValueError(f"{option} {path} names no asset: give one uid a line")
    return Uids(frozenset(uids))


def _of_lines(text: str) -> Iterator[str]:
    """One at a time: a list of all would be four times the file."""
    for match in _LINE.finditer(text):
        if not match[0].lstrip().startswith("#"):
            yield match[0]


def _of_csv(text: str) -> Iterator[str]:
    rows = csv.DictReader(io.StringIO(text))
    names = list(rows.fieldnames or ())
    if "uid" not in names:
        near = difflib.get_close_matches("uid", names, n=1)
        said = f"did you mean {near[0]!r}? It must be called uid" if near else f"it has {', '.join(names)[:200]}"
        raise ValueError(f"the table has no column uid: {said}")
    for row in rows:
        yield row["uid"] or ""


def _of_json(text: str) -> Iterable[str]:
    if sum(text.count(mark) for mark in ",[{") > 2 * MOST:
        raise ValueError(f"it holds more than {2 * MOST:,} values: split the job")
    values = json.loads(text)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError('the JSON is no list of texts, such as ["uid", "uid"]')
    return values
