"""`?key=value&key=value` at the end of a source's text, strictly."""

import difflib
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl, quote


def read(text: str, keys: Iterable[str]) -> tuple[str, dict[str, str]]:
    """("chairs", {"count": "3"}) of "scheme:chairs?count=3". ValueError for what is unknown, empty or given twice."""
    name, _, query = text.partition(":")[2].partition("?")
    keys = tuple(keys)
    values: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(keys)}"
            raise ValueError(f"source {text!r} has an unknown key {key!r}: {hint}")
        if key in values:
            raise ValueError(f"source {text!r} gives {key!r} twice: keep one")
        if not value.strip():
            raise ValueError(f"source {text!r} leaves {key!r} empty: give a value, or leave it out")
        values[key] = value
    return name, values


def word(text: str, given: str, known: Iterable[str], what: str) -> str:
    """`given`, which must be among `known`."""
    known = tuple(known)
    if given not in known:
        near = difflib.get_close_matches(given, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise ValueError(f"source {text!r} has an unknown {what} {given!r}: {hint}")
    return given


def number(text: str, values: Mapping[str, str], key: str, minimum: int) -> int | None:
    """A whole number, or None where it is not given."""
    value = values.get(key)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 16 and int(value) >= minimum):
        raise ValueError(f"source {text!r}: {key} is {value!r}, but must be a whole number of at least {minimum}")
    return int(value)


def words(text: str, values: Mapping[str, str], key: str) -> tuple[str, ...]:
    """ "chair,armchair" in its order, each once; () where it is not given."""
    found = tuple(dict.fromkeys(each.strip() for each in values.get(key, "").split(",") if each.strip()))
    if key in values and not found:
        raise ValueError(f"source {text!r} leaves {key!r} empty: give words with commas between them")
    return found


def written(name: str, values: Mapping[str, str | int | None]) -> str:
    """ "scheme:chairs?count=3" again, without what is None; `read` gives the same back."""
    pairs = "&".join(
        f"{key}={quote(str(value), safe='/,()._-~')}" for key, value in values.items() if value is not None
    )
    return f"{name}?{pairs}" if pairs else name
