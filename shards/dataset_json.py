"""`dataset.json`: what every reader must know before the first sample: version, conventions, size, statistics,
provenance.

From version 2 on it states its own digest: a flipped bit of the statistics must not reach training.
"""

import hashlib
import importlib.metadata
import json
import re
import sys
from collections.abc import Mapping
from os import PathLike
from typing import Any

from .layout import DATASET_JSON
from .store import Store, open_store, under

FORMAT = "worldtrace"
VERSION = 2  # of the format; 1 is read as well (docs/format.md)
LARGEST = 2**31 - 1  # number of layers or pixels

CONVENTIONS = {
    "camera": "OpenCV: +x right, +y down, +z forward; world_from_camera is 4x4, a rigid motion",
    "pixels": "centres at (u + 0.5, v + 0.5); K is 3x3 in pixels; a centred camera has cx = W/2, cy = H/2",
    "depth": "z along the optical axis, float32, units of the normalised scene; scenes stay in metres",
    "layers": "front to back; hits counts the true ones; at l >= hits depth repeats the last; 0 where hits = 0",
    "validity": "hits > 0, sampled at the pixel centre",
    "rgba": "straight (not premultiplied) sRGB uint8 with soft alpha; the reader chooses the background",
    "objects": "one float64 bounding box of the vertices in use, longest side 1, centred; "
    "x_normalised = (x_asset - offset) * scale",
    "split": "by the asset's sha256: 90 % train, 5 % val, 5 % test",
}
_DIGEST = re.compile(rb'\n  "digest": "([0-9a-f]{64})"')  # two spaces before it: at the top level
_NO_DIGEST = "0" * 64
_SOFTWARE = ("worldtrace", "numpy", "pillow", "pyarrow", "zstandard")


def write_dataset_json(place: Store | str | PathLike[str], config: Mapping[str, Any]) -> None:
    """dataset.json = `dataset_json(config)`, under a path or URL."""
    store = open_store(place) if isinstance(place, str | PathLike) else place
    try:
        content = dataset_json(config)
    except ValueError as error:
        raise ValueError(f"{under(store, DATASET_JSON)}: {error}") from None
    with store.writing(DATASET_JSON) as file:
        file.write(content)


def dataset_json(config: Mapping[str, Any]) -> bytes:
    """`config` plus format, version, conventions and software versions (a given value stands), as the file holds it.

    `config` needs "layers" (L) and "size" ([H, W]), else ValueError; "job" holds the job's configuration, "statistics"
    those of shards/moments.py. Keys are sorted and nothing depends on the time, so the bytes are a function of
    `config`. "digest" is the sha256 of these bytes with 64 zeros in its place.
    """
    if flaw := _flaw(config):
        raise ValueError(f"the configuration is none of a dataset: {flaw}")
    whole = {
        "format": FORMAT,
        "version": VERSION,
        "conventions": CONVENTIONS,
        "software": {name: _version(name) for name in _SOFTWARE},
        **config,
        "digest": _NO_DIGEST,
    }
    try:
        text = json.dumps(whole, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n"
        return text.replace(_digest_line(_NO_DIGEST), _digest_line(hashlib.sha256(text).hexdigest()), 1)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the configuration is not plain JSON: {error}") from None


def read_dataset_json(place: Store | str | PathLike[str]) -> dict[str, Any]:
    """The dictionary, from a path or URL. FileNotFoundError / ValueError where it is missing, damaged, foreign or of a
    later version; OSError where it cannot be reached.
    """
    store = open_store(place) if isinstance(place, str | PathLike) else place
    path = under(store, DATASET_JSON)
    try:
        content = store.read(DATASET_JSON)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise FileNotFoundError(
            f"{path} is missing: give the folder or URL that `worldtrace render --out` wrote"
        ) from None
    return parse_dataset_json(content, path)


def parse_dataset_json(content: bytes, path: str) -> dict[str, Any]:
    """What the bytes of a dataset.json say; ValueError, naming `path`, where it is damaged, foreign or too new.

    What is returned has `layers` and `size`, and of statistics, conventions and versions none or such as are.
    """
    try:
        config = load(content)
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}): restore it from a copy, or remove it and run the same render command again"
        ) from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{path} is not that of a worldtrace dataset")
    if type(config.get("version")) is not int or not 1 <= config["version"] <= VERSION:
        raise ValueError(f"{path} has version {config.get('version')}, this reader knows {VERSION}: update worldtrace")
    if config["version"] >= 2 and not _is_sealed(content):
        raise ValueError(
            f"{path} is damaged, or was edited (its digest differs): restore it from a copy, or take it as it is with "
            "`worldtrace shards verify DIR --repair`"
        )
    if flaw := _flaw(config):
        raise ValueError(
            f"{path} is damaged ({flaw}): restore it from a copy, or write it anew with `worldtrace shards verify DIR "
            "--repair`"
        )
    return config


def load(content: bytes) -> Any:
    """JSON from anywhere. ValueError where it is none, holds NaN or infinity, or is nested without end."""
    try:
        return json.loads(content, parse_constant=_refused)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _flaw(config: Mapping[str, Any]) -> str | None:
    """What readers rely on, and is not so."""
    layers, size, statistics = config.get("layers"), config.get("size"), config.get("statistics")
    if type(layers) is not int or not 0 < layers <= LARGEST:
        return f"layers is {_brief(layers)}, and not a number from 1 on"
    if not (isinstance(size, list) and len(size) == 2 and all(type(n) is int and 0 < n <= LARGEST for n in size)):
        return f"size is {_brief(size)}, and not height and width in pixels"
    for name in ("conventions", "software"):
        told = config.get(name, {})
        if not is_texts(told):
            return f"{name} is {_brief(told)}, and not a map of texts"
    if statistics is None:
        return None
    if not isinstance(statistics, Mapping):
        return f"statistics is {_brief(statistics)}, and not a map"
    for name in ("mean", "std"):
        values = statistics.get(name)
        if not isinstance(values, list) or len(values) != 3 or not all(map(_is_finite, values)):
            return f"statistics.{name} is {_brief(values)}, and not three numbers"
    for name in ("points", "samples"):
        if type(count := statistics.get(name, 0)) is not int or count < 0:
            return f"statistics.{name} is {_brief(count)}, and not a number from 0 on"
    if min(statistics["std"]) < 0:
        return f"statistics.std is {_brief(statistics['std'])}, and deviations are not negative"
    return None


def is_texts(value: Any) -> bool:
    """Whether it is a map of texts."""
    return isinstance(value, Mapping) and all(isinstance(text, str) for text in value.values())


def _is_finite(value: Any) -> bool:
    """Also of a whole number that is too large for a float."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _brief(value: Any) -> str:
    text = repr(value) if not isinstance(value, Mapping | list) or len(value) < 10 else type(value).__name__
    return "missing" if value is None else text if len(text) <= 60 else f"{text[:57]}..."


def _is_sealed(content: bytes) -> bool:
    """Whether the bytes are those of `dataset_json`."""
    found = _DIGEST.findall(content)
    if len(found) != 1:
        return False
    blank = content.replace(_digest_line(found[0].decode()), _digest_line(_NO_DIGEST), 1)
    return hashlib.sha256(blank).hexdigest().encode() == found[0]


def _digest_line(digest: str) -> bytes:
    return b'\n  "digest": "%s"' % digest.encode()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
