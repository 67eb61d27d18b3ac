"""What catalogues say of licences, in one form and two classes.

The form is the SPDX identifier (https://spdx.org/licenses/) where there is one. The classes are "redistributable": what
is made from the asset may be given to others, and "commercial": also for money. A rendering is an adaptation, so
NoDerivatives licences are in neither class. Terms such as attribution and share-alike remain the user's to keep: the
manifest carries the licence of every sample. None of this is legal advice.
"""

import difflib
import re
from collections.abc import Callable
from functools import lru_cache

UNKNOWN = "unknown"
LONGEST = 120  # characters kept of a text that is not recognised

# Words that change nothing in the name of a licence.
_NOISE = frozenset(
    ["a", "the", "license", "licence", "licenses", "licences", "licensed", "under", "version", "v", "deed", "txt"]
)
_PORTS = frozenset(["international", "intl", "unported", "generic", "us", "usa", "igo"])

# Identifier -> what else it is called; punctuation, case and the words of _NOISE do not matter.
_NAMES: dict[str, tuple[str, ...]] = {
    "CC0-1.0": ("cc0", "cc 0", "cc zero", "cc0 1.0 universal", "cc0 public domain", "cc0 public domain dedication",
                "cc0 1.0 universal public domain dedication", "creative commons 0", "creative commons cc0",
                "creative commons zero", "creative commons zero cc0", "creative commons zero v1.0 universal",
                "creative commons public domain dedication"),
    "CC-PDM-1.0": ("public domain", "publicdomain", "public domain mark", "public domain mark 1.0", "pdm", "pd",
                   "cc pdm", "creative commons public domain", "creative commons public domain mark 1.0"),
    "MIT": ("mit", "expat", "the mit license mit"),
    "MIT-0": ("mit no attribution",),
    "Apache-2.0": ("apache 2", "apache", "apache license version 2.0", "apache software license 2.0", "asl 2.0"),
    "BSD-2-Clause": ("bsd 2 clause simplified", "simplified bsd", "freebsd", "bsd 2"),
    "BSD-3-Clause": ("bsd 3 clause new or revised", "new bsd", "modified bsd", "bsd 3"),
    "BSD-4-Clause": ("bsd 4 clause original or old",),
    "BSD-3-Clause-Clear": ("bsd 3 clause clear",),
    "0BSD": ("bsd zero clause",),
    "BSD": (),  # as Thingiverse says it, which clauses is left open
    "ISC": (),
    "Zlib": ("zlib libpng",),
    "BSL-1.0": ("boost software 1.0", "boost"),
    "Unlicense": ("unlicense", "unlicence"),
    "WTFPL": ("do what the f*ck you want to public", "do what the fuck you want to public"),
    "Beerware": ("beerware",),
    "NCSA": ("university of illinois ncsa open source",),
    "PostgreSQL": (),
    "AFL-3.0": ("academic free v3.0",),
    "Artistic-2.0": (),
    "ECL-2.0": ("educational community v2.0",),
    "MS-PL": ("microsoft public",),
    "MS-RL": ("microsoft reciprocal",),
    "MulanPSL-2.0": ("mulan permissive software v2",),
    "OSL-3.0": ("open software 3.0",),
    "UPL-1.0": ("universal permissive v1.0",),
    "Vim": (),
    "GPL": ("gnu gpl", "gnu general public"),
    "GPL-2.0": ("gnu general public v2.0", "gnu gpl v2", "gplv2", "gnu gplv2", "gpl 2"),
    "GPL-2.0-only": ("gnu general public v2.0 only",),
    "GPL-2.0-or-later": ("gpl 2.0+", "gnu general public v2.0 or later"),
    "GPL-3.0": ("gnu general public v3.0", "gnu gpl v3", "gplv3", "gnu gplv3", "gpl 3"),
    "GPL-3.0-only": ("gnu general public v3.0 only",),
    "GPL-3.0-or-later": ("gpl 3.0+", "gnu general public v3.0 or later"),
    "LGPL": ("gnu lgpl", "gnu lesser general public"),
    "LGPL-2.1": ("gnu lesser general public v2.1", "lgplv2.1"),
    "LGPL-2.1-only": (),
    "LGPL-2.1-or-later": (),
    "LGPL-3.0": ("gnu lesser general public v3.0", "lgplv3", "lgpl 3"),
    "LGPL-3.0-only": (),
    "LGPL-3.0-or-later": (),
    "AGPL-3.0": ("gnu affero general public v3.0", "agplv3", "agpl 3", "agpl"),
    "AGPL-3.0-only": (),
    "AGPL-3.0-or-later": (),
    "GFDL-1.3": ("gnu free documentation v1.3",),
    "MPL-2.0": ("mozilla public 2.0", "mpl 2", "mozilla public 2.0 no copyleft exception"),
    "EPL-1.0": ("eclipse public 1.0",),
    "EPL-2.0": ("eclipse public 2.0",),
    "EUPL-1.1": ("european union public 1.1",),
    "EUPL-1.2": ("european union public 1.2",),
    "CDDL-1.0": (),
    "CECILL-2.1": ("cecill free software agreement v2.1",),
    "LPPL-1.3c": ("latex project public v1.3c",),
    "OFL-1.1": ("sil open font 1.1", "ofl"),
    "CERN-OHL-P-2.0": ("cern open hardware 2 permissive", "cern open hardware licence version 2 permissive"),
    "CERN-OHL-W-2.0": ("cern open hardware 2 weakly reciprocal",),
    "CERN-OHL-S-2.0": ("cern open hardware 2 strongly reciprocal",),
    "ODbL-1.0": ("open data commons open database v1.0", "odbl"),
    "ODC-By-1.0": ("open data commons attribution v1.0", "odc by"),
    "PDDL-1.0": ("open data commons public domain dedication and 1.0", "pddl"),
    # Known, and in neither class: what Sketchfab and Thingiverse call licences without the right to pass anything on.
    "All-Rights-Reserved": ("all rights reserved", "proprietary"),
    "Sketchfab-Standard": ("st", "standard", "free st", "free standard", "sketchfab standard", "royalty free"),
    "Sketchfab-Editorial": ("ed", "editorial", "sketchfab editorial"),
    "3D-FRONT Terms of Use": (),  # of a dataset that every user asks for, and signs for
}  # fmt: skip
SIGNED = frozenset({"3D-FRONT Terms of Use"})  # who has the files has agreed to these
_CLOSED = frozenset({"All-Rights-Reserved", "Sketchfab-Standard", "Sketchfab-Editorial"}) | SIGNED
_NOTHING = frozenset(["", "unknown", "none", "null", "nan", "na", "n a", "other", "noassertion", "no", "not specified",
                      "unspecified", "not found"])  # fmt: skip

# The parts of a Creative Commons licence in the order of its name, and what they are called.
_PARTS = {
    "BY": ("attribution", "by"),
    "NC": ("non commercial", "noncommercial", "nc"),
    "SA": ("share alike", "sharealike", "sa"),
    "ND": ("no derivatives", "noderivatives", "no derivs", "noderivs", "no derivative works", "nd"),
}
_CC = re.compile(r"CC(?=-[BNS])(-BY)?(-NC)?(-SA|-ND)?(-(1\.0|2\.0|2\.1|2\.5|3\.0|4\.0))?")


def _words(text: str) -> list[str]:
    """ "GNU General Public License v3.0" -> gnu general public 3.0: lower case, without punctuation and noise."""
    text = re.sub(r"\bv(?:ersion)?[.\s]*(?=\d)", " ", text.lower())
    words = re.sub(r"(?<!\d)\.|\.(?!\d)|[^\w.*+]|_", " ", text).split()
    return [word for word in words if word not in _NOISE]


_KEYS = {
    " ".join(_words(spelling)): name
    for name, others in _NAMES.items()
    for spelling in (name.replace("-", " "), *others)
}


@lru_cache(maxsize=4096)
def normal(text: str | None) -> str:
    """The SPDX identifier of what a catalogue says; "unknown" where it says nothing, else its own words in one line.

    Sketchfab's short names ("by", "by-nc-sa"; Objaverse uses them) are those of version 4.0. Words that are not
    accounted for leave a text unrecognised: no remark appended to a licence may open what it closes. Idempotent.
    """
    text = text if isinstance(text, str) else ""  # a missing value of a table may be NaN
    text = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    words = _words(text)
    key = " ".join(words)
    if key in _NOTHING:
        return UNKNOWN
    if key in _KEYS:
        return _KEYS[key]
    if name := _creative_commons(text):
        return name
    # "etc" is not accounted for: what is cut off cannot turn the rest into a licence.
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 5].rstrip()} etc."


def _creative_commons(text: str) -> str | None:
    if url := re.fullmatch(r"https?://(?:www\.)?creativecommons\.org/(licenses|publicdomain)/(.+)", text.strip(), re.I):
        text = url[2] if url[1].lower() == "licenses" else f"cc {url[2]}"
        text = re.sub(r"/(deed|legalcode)[.\w-]*/?$", "", text.lower())
        if text.startswith("cc "):
            return {"zero": "CC0-1.0", "mark": "CC-PDM-1.0"}.get(text[3:].split("/")[0])
        text = f"cc {text}"
    words = _words(text)
    named = "cc" in words or " creative commons " in f" {' '.join(words)} "
    short = re.fullmatch(r"by(-nc)?(-sa|-nd)?", text.lower()) is not None
    rest = f" {' '.join(words)} "
    for prefix in (" creative commons ", " cc "):
        rest = rest.replace(prefix, " ", 1)
    number = "4.0" if short else None
    if version := re.search(r" (\d\.\d|\d) ", rest):
        number = version[1] if "." in version[1] else f"{version[1]}.0"
        rest = rest.replace(version[0], " ")
    found = []
    for part, spellings in _PARTS.items():
        for spelling in spellings:
            if f" {spelling} " in rest:
                rest = rest.replace(f" {spelling} ", " ")  # a name and its short form: "Attribution (CC BY 4.0)"
                found += [] if part in found else [part]
    if not named and "BY" not in found:  # "non-commercial" alone is what people say of terms that forbid much more
        return None
    if not found or {"SA", "ND"} <= set(found) or set(rest.split()) - _PORTS - {"cc", "creative", "commons"}:
        return None
    name = "-".join(["CC", *found, *([number] if number else [])])
    return name if _CC.fullmatch(name) else None


def redistributable(name: str) -> bool | None:
    """Of a normal name: whether renderings of the asset may be passed on; None where the licence is not known. Of
    "MIT OR Apache-2.0" one is enough; of "CC0-1.0 (model) AND CC-BY-4.0 (animation)" all count.
    """
    return _judged(name, _redistributable)


def commercial(name: str) -> bool | None:
    """Of a normal name: whether renderings may be passed on for money; None where the licence is not known."""
    return _judged(name, _commercial)


# what of an asset a licence is said to be for
_SCOPE = re.compile(r"\s*\((?:(?:model|mesh|geometry|textures?|rig|animations?|sounds?)(?:, | and |))+\)\s*$")


def _judged(name: str, judge: Callable[[str], bool | None]) -> bool | None:
    """Over an SPDX expression; AND binds more tightly, and parentheses that hold more than a part of an asset are not
    understood.
    """
    for joint, open_one in ((" OR ", True), (" AND ", False)):
        if joint in name:
            parts = [_SCOPE.sub("", part) for part in name.split(joint)]
            if any("(" in part or ")" in part for part in parts):
                return None
            found = [_judged(normal(part), judge) for part in parts]
            if open_one in found:
                return open_one
            return None if None in found else not open_one
    return judge(name)


def _redistributable(name: str) -> bool | None:
    if name in _NAMES:
        return name not in _CLOSED
    if _CC.fullmatch(name):
        return "-ND" not in name
    return None


def _commercial(name: str) -> bool | None:
    allowed = _redistributable(name)
    return allowed and "-NC" not in name if allowed is not None else None


def stricter(one: str, other: str) -> str:
    """Of two normal names for one asset that which allows less; one that is stated, where the other is unknown."""
    if UNKNOWN in (one, other):
        return other if one == UNKNOWN else one
    return min(one, other, key=lambda name: (bool(redistributable(name)), bool(commercial(name))))


def known(name: str) -> bool:
    return redistributable(name) is not None


def chosen(text: str) -> str:
    """The normal name of a licence that a user names, one of any version ("CC-BY") included.

    ValueError that names the nearest one where it is not known.
    """
    name = normal(text)
    if known(name):
        return name
    names = [*_NAMES, *(f"CC-{parts}-4.0" for parts in ("BY", "BY-SA", "BY-NC", "BY-NC-SA", "BY-ND", "BY-NC-ND"))]
    by_case = {each.lower(): each for each in names}
    near = difflib.get_close_matches(text.strip().lower(), by_case, n=1, cutoff=0.5)
    hint = f"did you mean {by_case[near[0]]}?" if near else "give SPDX identifiers, such as CC-BY-4.0 or CC0-1.0"
    raise ValueError(f"{text.strip()[:80]!r} is no licence that is known here: {hint}")


def is_one_of(name: str, names: frozenset[str] | tuple[str, ...]) -> bool:
    """Whether the normal `name` is among `names`, of which those without a version stand for each: "CC-BY", "GPL"."""
    return name in names or re.sub(r"-\d\.\d(-only|-or-later)?$", "", name) in names
