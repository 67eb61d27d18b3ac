"""Sources of assets: `parse("procedural:objects?count=64")` or `parse("folder/of/models")` gives a `Source`.

A source lists its assets (cheaply, in a fixed order), fetches one of them where it lies elsewhere, and loads it (both
in a worker). To add one, write a class as `base.Source` describes it, with a classmethod `parse(text)`, and name its
scheme in `SCHEMES`.
"""

import difflib
import importlib
import re
from collections.abc import Sequence
from typing import Any

from cluster.sources.base import AssetRef, Source, Unavailable
from cluster.sources.files import FileSource
from cluster.sources.procedural import ProceduralSource
from shards import Regime

# scheme -> module:class, imported when a source of it is named: some need packages that others do not
SCHEMES: dict[str, str] = {
    "procedural": "cluster.sources.procedural:ProceduralSource",
    "folder": "cluster.sources.files:FileSource",
    "objaverse": "cluster.sources.objaverse:ObjaverseSource",
    "objaverse-xl": "cluster.sources.objaverse_xl:ObjaverseXLSource",
    "front3d": "cluster.sources.front3d:Front3dSource",
    "future3d": "cluster.sources.future3d:Future3dSource",
    "gso": "cluster.sources.gso:GsoSource",
    "toys4k": "cluster.sources.toys4k:Toys4kSource",
    "truebones": "cluster.sources.truebones:TruebonesSource",
}
REMOTE = "cluster.sources.remote:RemoteSource"

__all__ = ["SCHEMES", "AssetRef", "FileSource", "ProceduralSource", "Source", "Unavailable", "common_regime", "parse"]


def parse(text: str) -> Source:
    """`scheme:rest` through `SCHEMES`, `scheme://rest` through fsspec; anything else is the path of a folder or a file.

    ValueError or FileNotFoundError in one sentence.
    """
    scheme, colon, rest = text.partition(":")
    if colon and scheme in SCHEMES:
        return _class(SCHEMES[scheme]).parse(text)
    if colon and re.fullmatch(r"[A-Za-z][A-Za-z0-9+._-]+", scheme):  # two letters or more: "C:" is a drive
        if rest.startswith("//"):
            return _class(REMOTE).parse(text)
        near = difflib.get_close_matches(scheme, SCHEMES, n=1)
        hint = f"did you mean {near[0]}:...?" if near else f"the schemes are {', '.join(f'{s}:' for s in SCHEMES)}"
        raise ValueError(f"source {text!r} has an unknown scheme {scheme!r}: {hint} (a folder of that name: ./{text})")
    return FileSource.parse(text)


def _class(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


def common_regime(sources: Sequence[Source]) -> Regime:
    """The regime of all `sources`; ValueError where they differ, since a job has one."""
    first = sources[0]
    for other in sources[1:]:
        if other.regime != first.regime:
            raise ValueError(
                f"{first.text} is rendered as {first.regime}, {other.text} as {other.regime}: "
                "render them in separate jobs, or say --regime for both"
            )
    return first.regime
