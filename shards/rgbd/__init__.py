"""Other people's RGBD corpora as single-layer samples: `worldtrace shards from-rgbd`; see docs/rgbd.md.

`READERS` names the readers; one is imported when it is used.
"""

import difflib
import importlib
import os
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from .base import Corpus, Frame, Reason, Scene, Unreadable

READERS = {
    "scannet": "scannet:ScanNet",
    "megadepth": "megadepth:MegaDepth",
    "blendedmvs": "blendedmvs:BlendedMVS",
    "arkitscenes": "arkitscenes:ARKitScenes",
    "argoverse2": "argoverse2:Argoverse2",
    "waymo": "waymo:Waymo",
    "hypersim": "hypersim:Hypersim",
    "taskonomy": "taskonomy:Taskonomy",
    "aria_synthetic": "aria_synthetic:AriaSynthetic",
    "parallel_domain": "parallel_domain:ParallelDomain",
    "tartanair": "tartanair:TartanAir",
    "nyu": "nyu:NYU",
    "eth3d": "eth3d:ETH3D",
    "moge": "moge:MoGe",
    "folder": "folder:Folder",
}
LAYERED = {"lari": ".lari:LaRI"}  # of several layers (base.Layered), with commands of their own: `from-lari`


def open_corpus(name: str, folder: Path, options: Mapping[str, str] | None = None) -> Corpus:
    """The reader `name` over `folder`. ValueError for an unknown name or option, FileNotFoundError without a folder."""
    if name not in READERS and name not in LAYERED:
        raise ValueError(f"no corpus {name!r}: {_nearest(name, READERS)}")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: give the one that the corpus was unpacked to")
    module, attribute = (READERS | LAYERED)[name].split(":")
    reader: Any = getattr(importlib.import_module(f".{module}", __name__), attribute)
    known = {field.name: field for field in fields(reader) if field.name != "folder" and field.init}
    values: dict[str, Any] = {}
    for option, text in (options or {}).items():
        if option not in known:
            raise ValueError(f"corpus {name} has no option {option!r}: {_nearest(option, known)}")
        values[option] = _as(known[option].default, text, f"option {option} of corpus {name}")
    corpus: Corpus = reader(Path(os.path.abspath(folder)), **values)
    return corpus


def _as(default: Any, text: str, what: str) -> Any:
    """`text` as the type that the option's default has."""
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise ValueError(f"{what} is {text!r}: give true or false")
        return text == "true"
    if default is MISSING or default is None or isinstance(default, str):
        return text
    try:
        return type(default)(text)
    except ValueError:
        raise ValueError(f"{what} is {text!r}: give a number such as {default}") from None


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known) or 'none'}"


__all__ = ["READERS", "Corpus", "Frame", "Reason", "Scene", "Unreadable", "open_corpus"]
