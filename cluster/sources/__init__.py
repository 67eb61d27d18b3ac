"""Sources of assets: `parse("procedural:objects?count=64")` or `parse("folder/of/models")` gives a `Source`.

A source lists its assets (cheaply, in a fixed order), fetches one of them where it lies elsewhere, and loads it (both
in a worker). To add one, write a class as `base.Source` describes it, and name its scheme in `SCHEMES`.
"""

import difflib
from collections.abc import Callable, Sequence

from cluster.sources.base import AssetRef, Source, Unavailable
from cluster.sources.files import FileSource
from cluster.sources.procedural import ProceduralSource
from shards import Regime

SCHEMES: dict[str, Callable[[str], Source]] = {"procedural": ProceduralSource.parse}

__all__ = ["SCHEMES", "AssetRef", "FileSource", "ProceduralSource", "Source", "Unavailable", "common_regime", "parse"]


def parse(text: str) -> Source:
    """`scheme:rest` through `SCHEMES`; anything else is a folder or a file. ValueError, FileNotFoundError."""
    scheme, colon, _ = text.partition(":")
    if colon and scheme in SCHEMES:
        return SCHEMES[scheme](text)
    if colon and scheme.isidentifier() and len(scheme) > 1:
        near = difflib.get_close_matches(scheme, SCHEMES, n=1)
        hint = f"did you mean {near[0]}:...?" if near else f"the schemes are {', '.join(f'{s}:' for s in SCHEMES)}"
        raise ValueError(
            f"source {text!r} has an unknown scheme {scheme!r}: {hint} (a folder or file is given by its path)"
        )
    return FileSource.parse(text)


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
