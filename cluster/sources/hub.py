"""The files of a Hugging Face hub: their addresses, and the catalogues that are kept on disk once they are had."""

import gzip
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from cluster.sources.base import Unavailable
from cluster.sources.download import PATIENT, Policy, download
from cluster.sources.kinds import Kind, flaw
from render import Rejected

HUB = "https://huggingface.co"
LARGEST_CATALOGUE = 8 << 30  # bytes of one catalogue file
LARGEST_JSON = 512 << 20  # bytes of one, unpacked; Objaverse lists 800,000 objects by some 90 bytes each
MOST_VALUES = 10_000_000  # in it, by its marks; 180 MB of "{}," would take 5 GB as objects
LONGER = 8  # times as long as an object may a catalogue take: it is larger, and nothing else waits for it


def endpoint() -> str:
    """The hub's address, from HF_ENDPOINT where that is set (a mirror). ValueError where it is none."""
    text = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or HUB
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"HF_ENDPOINT is {text!r}: give an address such as {HUB}, or unset it")
    if parts.username or parts.password:
        raise ValueError("HF_ENDPOINT holds a user or a password: give the address alone, and the token in HF_TOKEN")
    return text


def address(hub: str, dataset: str, name: str) -> str:
    """Of the file `name` of a dataset, in the branch main."""
    return f"{hub}/datasets/{dataset}/resolve/main/{quote(name)}"


def catalogue(hub: str, dataset: str, name: str, path: Path, kind: Kind, policy: Policy = PATIENT) -> Path:
    """The file `name` of a dataset at `path`: downloaded unless it is there. OSError in one sentence.

    What was there before is believed, as the objaverse package believes it; delete the file to have a new one.
    """
    if path.is_file():
        return path
    policy = replace(policy, deadline=policy.deadline * LONGER)
    try:
        download(address(hub, dataset, name), path, limit=LARGEST_CATALOGUE, kind=kind, hub=hub, policy=policy)
    except (Rejected, Unavailable) as error:
        said = error.message if isinstance(error, Rejected) else str(error)
        raise OSError(
            f"the catalogue {said}: check the network, HF_ENDPOINT and HF_TOKEN, or put the file at {path}"
        ) from None
    return path


def read_json(path: Path) -> Any:
    """What a .json.gz holds. ValueError in one sentence where it is damaged, or expands beyond reason."""
    try:
        with gzip.open(path, "rb") as file:
            text = file.read(LARGEST_JSON + 1)
        if len(text) > LARGEST_JSON:
            raise ValueError(f"it expands to more than {LARGEST_JSON:,} bytes")
        if sum(text.count(mark) for mark in (b",", b"[", b"{")) > MOST_VALUES:
            raise ValueError(f"it holds more than {MOST_VALUES:,} values")
        return json.loads(text)
    except (ValueError, EOFError, gzip.BadGzipFile, RecursionError) as error:
        raise ValueError(f"the catalogue {path} is damaged ({error}): delete it and start again") from None


def read_table(path: Path) -> dict[str, Any]:
    """The same, of a catalogue that is an object of JSON."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"the catalogue {path} is no table: delete it and start again")
    return found


def kept(path: Path, kind: Kind, sha256: str | None = None) -> bool:
    """Whether a download of before lies at `path`, and is what it should be, or whole by its own account."""
    try:
        if not path.is_file() or flaw(path, kind) is not None:
            return False
        with path.open("rb") as file:
            return sha256 is None or hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False
