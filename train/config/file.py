"""Reading settings: a YAML file or a shipped one by its name, `key=value` overrides, a dict of a checkpoint."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from shards.order import mixture
from train.config.keys import reject_unknown
from train.config.settings import Config

SHIPPED = Path(__file__).parents[1] / "configs"


def load(config: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file (or a shipped one by name: `tiny`), apply `key=value` overrides, check everything.

    Raises FileNotFoundError or ValueError, one sentence each: an unknown key names the nearest known one.
    """
    return from_dict(overridden(_read(config), overrides))


def from_dict(tree: Mapping[str, Any]) -> Config:
    """Check a nested dict, as found in YAML or in a checkpoint."""
    if not isinstance(tree, Mapping):
        raise ValueError(f"a config is a mapping of sections; found {tree!r}")
    reject_unknown(tree)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ValueError(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    """The first thing that is wrong, by its key. Of a value that may be of several kinds, each kind is named: pydantic
    has an error for every one of them, at the key's path and a name of its own for the kind.
    """
    found = [(".".join(str(part) for part in e["loc"] if not _KIND.match(str(part))), e) for e in error.errors()]
    path, first = max(found, key=lambda each: len(each[1]["loc"]))  # the kind that got furthest
    if first["type"] == "missing":
        return f"{path}: not set; put it in the file or write {path}=VALUE after it"
    if first["type"] == "value_error" or isinstance(first["input"], Mapping):
        message = first["msg"].removeprefix("Value error, ")
        # what is said of a section names its values itself
        return message if not path or isinstance(first["input"], Mapping) else f"{path}: {message}; {_found(first)}"
    kinds = dict.fromkeys(word for at, e in found if at == path for word in _wanted(e["type"], e["msg"]))
    *most, last = kinds
    return f"{path}: expected {', '.join(most)}{' or ' if most else ''}{last}; {_found(first)}"


# pydantic's names of the kinds of a union, and of the checks around one
_KIND = re.compile(r"(str|int|float|bool|none|constrained-\w+|literal\[.*|list\[.*|dict\[.*|function-.*)$")
_WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "string_type": "text",
    "string_too_short": "a name",
    "list": "a list",
    "tuple": "a list",
    "model": "a section with keys of its own",
}
_BOUNDS = {
    "greater than or equal to": "of at least",
    "less than or equal to": "of at most",
    "greater than": "above",
    "less than": "below",
}


def _wanted(kind: str, message: str) -> list[str]:
    """What a value should be, in words: of pydantic's type of error and its sentence."""
    for start, words in _WORDS.items():
        if kind.startswith(start):
            return words.split(" or ")
    words = message.removeprefix("Input should be ").replace("'", "")
    for theirs, ours in _BOUNDS.items():
        if words.startswith(theirs):
            return [f"a number {words.replace(theirs, ours)}"]
    return re.split(r", | or ", words) if kind.startswith("literal") else [words]


def _found(error: ErrorDetails) -> str:
    return f"found {error['input']!r}"


def to_dict(config: Config) -> dict[str, Any]:
    """The whole tree as plain JSON values; `from_dict` reads it back."""
    return config.model_dump(mode="json")


def save(config: Config, path: Path) -> None:
    path.write_text(yaml.safe_dump(to_dict(config), sort_keys=False))


def shipped() -> list[str]:
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def _read(config: str | Path) -> dict[str, Any]:
    path = Path(config)
    if not path.is_file() and str(config) in shipped():
        path = SHIPPED / f"{config}.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"{config}: no such file, and the shipped configs are {', '.join(shipped())}")
    try:
        tree = yaml.load(path.read_text(), Loader=mixture.Yaml)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: expected a mapping of sections, found {type(tree).__name__}")
    return tree


def overridden(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise ValueError(f"{text}: expected key=value, such as optimizer.lr=3e-4")
        *sections, leaf = path.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise ValueError(f"{text}: {section} is a value, it has no {leaf}")
        try:
            node[leaf] = yaml.load(value, Loader=mixture.Yaml)
        except yaml.YAMLError:
            raise ValueError(f"{text}: {value!r} is not a YAML value") from None
    return tree
