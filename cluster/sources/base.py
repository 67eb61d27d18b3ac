"""What a source of assets is."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from render import Mesh
from shards import Origin, Regime


@dataclass(frozen=True, slots=True)
class AssetRef:
    """One asset of a source, before it is fetched and loaded.

    `uid` is unique within the source; `source` is what the manifest says of its provenance; `locator` is for the
    source's own `fetch` and `load` (a path, an address, an index). `sha256` is that of the main file, None where it is
    known only once the asset is fetched. What follows is for filters, and None or empty where the catalogue does not
    say: `triangles` may be the catalogue's estimate.
    """

    uid: str
    source: str
    licence: str
    locator: str
    sha256: str | None = None
    triangles: int | None = None
    animated: bool | None = None
    categories: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.source}/{self.uid}"


_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def uid_of(name: str) -> str:
    """A name as a uid: readable in a terminal, one line, and text that UTF-8 can hold. File names may be none, and
    JSON spells half of a surrogate pair. Such characters are written as \\xff or \\ud800, and a part of the name's
    SHA-256 keeps what they make of different names apart.
    """
    if not _NO_TEXT.search(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{_NO_TEXT.sub(_spelled, name)}~{digest[:8]}"


def _spelled(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name, as Python holds it
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class Unavailable(Exception):
    """An asset could not be had just now, and may be another time: its host is down, or throttles. Nothing is said of
    the asset, which is tried again; one that does not exist (any more) is `render.Rejected`.
    """


class Source(Protocol):
    """A set of assets in a fixed order. Travels to the workers, so it holds only plain values."""

    @property
    def text(self) -> str:
        """As a user would write it; goes into dataset.json. No secret: credentials come from the environment."""

    @property
    def regime(self) -> Regime:
        """What its assets are rendered as unless the user says otherwise."""

    @property
    def remote(self) -> bool:
        """Whether an asset's files must be brought to the worker first: `fetch` then runs, as a stage of its own."""

    @property
    def own_terms(self) -> bool:
        """Whether the user brought these files and knows their terms: without a word of the user about licences, those
        of unknown licence are then kept.
        """

    def assets(self) -> Iterable[AssetRef]:
        """Every asset, in the same order every time."""

    def fetch(self, ref: AssetRef, folder: Path) -> str:
        """Bring the files of the asset under `folder`, which is new, empty and private, and return the main file's
        name relative to it. `render.Rejected` where it cannot be had, `Unavailable` where it may be had later.
        """

    def load(self, ref: AssetRef, path: Path | None) -> tuple[Mesh, Origin]:
        """The asset itself, from the main file that `fetch` brought (None unless `remote`); `render.Rejected` where it
        cannot become ground truth.
        """
