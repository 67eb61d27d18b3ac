"""Reading settings: a YAML file or a shipped one by its name, `key=value` overrides, a dict of a checkpoint."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

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
    reject_unknown(tree)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        first = max(error.errors(), key=lambda e: len(e["loc"]))  # of a union, the branch that got furthest
        path = ".".join(str(part) for part in first["loc"] if part != "str" and not str(part).startswith("list["))
        if first["type"] == "missing":
            raise ValueError(f"{path}: not set; put it in the file or write {path}=VALUE after it") from None
        message = first["msg"].removeprefix("Value error, ")
        names = not path or isinstance(first["input"], Mapping)  # what is said of a section names its values itself
        raise ValueError(message if names else f"{path}: {message}; found {first['input']!r}") from None


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
