"""Which of the assets that a source lists are rendered: a pure function of the `AssetRef`, and of the mesh once loaded.

What the catalogue says is judged at listing, and what it says is enough to drop an asset unseen. What the mesh is like
is judged again after loading, for all: the mesh has the last word on triangles and animation, whatever was said of it.
So no mesh outside of the range is ever rendered, and an asset whose catalogue is wrong about it may be missed.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cluster.sources import licences
from cluster.sources.base import AssetRef, Source
from cluster.sources.stated import Listed
from cluster.sources.uid_lists import Uids, read_uids
from render import Mesh, Rejected

NAMES = ("only", "without", "licence", "category", "animated", "triangles")  # in the order in which they are asked
DEFAULT, REDISTRIBUTABLE, COMMERCIAL, ANY = "default", "redistributable", "commercial", "any"
UNRECOGNISED = "unrecognised"  # something is stated, and this program does not know what it allows
_CLASSES = (DEFAULT, REDISTRIBUTABLE, COMMERCIAL, ANY, licences.UNKNOWN, UNRECOGNISED)
_MULTIPLES = {"": 1, "k": 1000, "m": 1_000_000}


@dataclass(frozen=True)
class Filters:
    """An asset is kept if every filter keeps it; None and () filter nothing.

    `licences`: classes and names of `cluster.sources.licences`, any of which is enough. "default" is "redistributable",
    and of a source with `own_terms` also what nothing is stated of, or what the user has signed for. What is stated and
    not recognised may forbid anything: it takes "unrecognised" or "any" to keep it. `fewest` and `most` triangles, both
    included.
    """

    licences: tuple[str, ...] = (DEFAULT,)
    categories: tuple[str, ...] = ()
    animated: bool | None = None
    fewest: int | None = None
    most: int | None = None
    only: Uids | None = None
    without: Uids | None = None

    @classmethod
    def parse(
        cls,
        licence: str | None = None,
        category: Sequence[str] | str | None = None,
        animated: bool | None = None,
        triangles: str | None = None,
        only: Path | str | None = None,
        without: Path | str | None = None,
    ) -> "Filters":
        """From the texts of a command line. `category` may be one text with commas, or several.

        ValueError or FileNotFoundError in one sentence, which names the nearest word that is known.
        """
        fewest, most = _range(triangles) if triangles is not None else (None, None)
        given = [category] if isinstance(category, str) else list(category or ())
        return cls(
            licences=_licences(licence) if licence is not None else (DEFAULT,),
            categories=tuple(dict.fromkeys(_category(word) for word in _split("--category", ",".join(given)))),
            animated=animated,
            fewest=fewest,
            most=most,
            only=read_uids("--only", Path(only)) if only is not None else None,
            without=read_uids("--without", Path(without)) if without is not None else None,
        )

    def excludes(self, ref: AssetRef, own_terms: bool) -> str | None:
        """The first of `NAMES` that drops the asset, or None. Where the catalogue does not say, the mesh will, but an
        asset without a category is of none.
        """
        if self.only is not None and not self.only.holds(ref):
            return "only"
        if self.without is not None and self.without.holds(ref):
            return "without"
        if not self._licensed(licences.normal(ref.licence), own_terms):
            return "licence"
        if self.categories and not {_category(each) for each in ref.categories} & set(self.categories):
            return "category"
        if self.animated is not None and ref.animated is not None and ref.animated != self.animated:
            return "animated"
        if ref.triangles is not None and not self._in_range(ref.triangles):
            return "triangles"
        return None

    def check(self, mesh: Mesh) -> None:
        """Rejected("filtered", ...) where the mesh itself is not what was asked for."""
        count = len(mesh.faces)
        if not self._in_range(count):
            raise Rejected("filtered", f"triangles: the mesh has {count}; asked for are {self._range_text()}")
        if self.animated is not None and (mesh.pose is not None) != self.animated:
            found, asked = ("still", "animated") if self.animated else ("animated", "still")
            raise Rejected("filtered", f"animated: the asset is {found}; asked for are {asked} ones")

    def for_workers(self) -> "Filters":
        """What `check` needs, without lists of a million uids."""
        return replace(self, licences=(ANY,), categories=(), only=None, without=None)

    def to_json(self) -> dict[str, Any]:
        """For dataset.json: the same for the same filters, however they were written down. Lists of uids by content."""
        said: dict[str, Any] = {"licence": sorted(self.licences)}
        if self.categories:
            said["category"] = sorted(self.categories)
        if self.animated is not None:
            said["animated"] = self.animated
        if self.fewest is not None or self.most is not None:
            said["triangles"] = [self.fewest, self.most]
        for name, uids in (("only", self.only), ("without", self.without)):
            if uids is not None:
                said[name] = {"uids": len(uids), "sha256": uids.sha256}
        return said

    def _licensed(self, name: str, own_terms: bool) -> bool:
        for word in self.licences:
            if word == ANY or (word == COMMERCIAL and licences.commercial(name)):
                return True
            if word in (DEFAULT, REDISTRIBUTABLE) and licences.redistributable(name):
                return True
            if word == licences.UNKNOWN and name == licences.UNKNOWN:
                return True
            if word == DEFAULT and own_terms and (name == licences.UNKNOWN or name in licences.SIGNED):
                return True
            if word == UNRECOGNISED and not licences.known(name) and name != licences.UNKNOWN:
                return True
        named = tuple(word for word in self.licences if word not in _CLASSES)  # a catalogue may write "default"
        return licences.known(name) and licences.is_one_of(name, named)

    def _in_range(self, count: int) -> bool:
        return (self.fewest is None or count >= self.fewest) and (self.most is None or count <= self.most)

    def _range_text(self) -> str:
        if self.fewest is None:
            return f"{self.most} at most"
        return f"{self.fewest} to {self.most}" if self.most is not None else f"{self.fewest} at least"


@dataclass
class Tally:
    """What the filters kept and dropped of the sources of a job, for the person in front of it."""

    filters: Filters
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)  # of what was dropped for its licence
    categories: Counter[str] = field(default_factory=Counter)  # of what was dropped for its category
    met: set[str] = field(default_factory=set)  # uids of --only that a source has
    said: list[str] = field(default_factory=list)  # by the sources

    def of(self, source: Source) -> Iterator[AssetRef]:
        """The assets of `source` that are kept, in its order; the rest is counted."""
        refs = source.assets()
        yield from self.among(refs, source.own_terms)
        self.said += refs.remarks if isinstance(refs, Listed) else ()

    def among(self, refs: Iterable[AssetRef], own_terms: bool) -> Iterator[AssetRef]:
        for ref in refs:
            name = self.filters.excludes(ref, own_terms)
            if self.filters.only is not None and name != "only":
                self.met.add(self.filters.only.spelling(ref))
            if name is None:
                self.kept += 1
                yield ref
                continue
            self.dropped[name] += 1
            if name == "licence":
                _count(self.licences, licences.normal(ref.licence))
            elif name == "category":
                for each in ref.categories:
                    _count(self.categories, _category(each))

    def line(self) -> str:
        """ "1,204 of 1,300 assets filtered out: licence 1,200 (unknown 1,200), triangles 4"; "" where none was."""
        total = sum(self.dropped.values())
        if not total:
            return ""
        parts = []
        for name in NAMES:
            if count := self.dropped[name]:
                most = ", ".join(f"{each} {times:,}" for each, times in self.licences.most_common(3))
                parts.append(f"{name} {count:,} ({most})" if name == "licence" else f"{name} {count:,}")
        return f"{total:,} of {total + self.kept:,} assets filtered out: {', '.join(parts)}"

    def remarks(self) -> list[str]:
        """What was asked for and no source has, and what sources say: sentences, none where all was met."""
        said = list(self.said)
        if self.filters.only is not None and (absent := len(self.filters.only) - len(self.met)):
            example = next(uid for uid in sorted(self.filters.only.uids) if uid not in self.met)
            said.append(
                f"{absent:,} of the {len(self.filters.only):,} uids of --only are in no source, such as {example}"
            )
        if self.kept == 0 and self.dropped["category"]:
            for word in self.filters.categories:
                near = difflib.get_close_matches(word, self.categories, n=1, cutoff=0.5)
                common = ", ".join(each for each, _ in self.categories.most_common(5))
                hint = f"did you mean {near[0]!r}?" if near else f"there are {common}" if common else "none is stated"
                said.append(f"no asset has the category {word!r}: {hint}")
        return said


def _count(counter: Counter[str], word: str) -> None:
    if word in counter or len(counter) < 10_000:  # what is stated by catalogues of millions is bounded here
        counter[word] += 1


def _split(option: str, text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _category(word: str) -> str:
    """ "Alarm Clock", "alarm-clock" -> alarm_clock."""
    return re.sub(r"[\s_-]+", "_", word.strip().casefold())


def _licences(text: str) -> tuple[str, ...]:
    words = _split("--licence", text)
    if not words:
        raise ValueError(
            f"--licence {text!r} is empty: give {', '.join(_CLASSES[1:])}, or SPDX names such as CC-BY-4.0"
        )
    found = []
    for word in words:
        if word.lower() in _CLASSES:
            found.append(word.lower())
            continue
        near = difflib.get_close_matches(word.lower(), _CLASSES, n=1, cutoff=0.75)
        if near and licences.normal(word) == word:
            raise ValueError(f"--licence {word!r} is unknown: did you mean {near[0]}?")
        try:
            found.append(licences.chosen(word))
        except ValueError as error:
            raise ValueError(f"--licence: {error}") from None
    return tuple(dict.fromkeys(found))


def _range(text: str) -> tuple[int | None, int | None]:
    match = re.fullmatch(r"(?:([\d_,]+)([kKmM]?))?\s*(?:-|–|\.\.)\s*(?:([\d_,]+)([kKmM]?))?", text.strip())
    if not match or (match[1] is None and match[3] is None):
        raise ValueError(f"--triangles {text!r} is no range: give MIN-MAX, MIN- or -MAX, such as 500-200000 or -200k")
    bounds = []
    for digits, multiple in ((match[1], match[2]), (match[3], match[4])):
        plain = re.sub("[_,]", "", digits or "")
        if digits is not None and not (plain.isascii() and plain.isdigit() and len(plain) <= 12):
            raise ValueError(f"--triangles {text!r} holds {digits!r}, which is no whole number")
        bounds.append(int(plain) * _MULTIPLES[multiple.lower()] if plain else None)
    fewest, most = bounds
    if fewest is not None and most is not None and fewest > most:
        raise ValueError(f"--triangles {text!r} has its larger number first: give {most}-{fewest}")
    return fewest, most
