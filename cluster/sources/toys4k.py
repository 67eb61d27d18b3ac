"""`toys4k:DIR` or `toys4k:toys4k_obj_files.zip`: the toys of Toys4K, by category.

The release has .obj without materials and .blend with them. A .blend is not read: convert it to .glb (docs/assets.md);
until then it ends in the ledger. Licences come from the `..._attribution.txt` beside a model, where there is one.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cluster.sources.base import AssetRef
from cluster.sources.extract import Tree
from cluster.sources.licences import UNKNOWN, normal
from cluster.sources.packs import listed, loaded, parsed
from render import Mesh, Rejected
from shards import Origin, Regime

READABLE, UNREADABLE = (".obj", ".glb"), (".blend",)
HOW = "convert it to .glb with Blender (docs/assets.md, Toys4K)"
_LICENCE = re.compile(r"under (?:an?|the) (.{1,80}?) licen[cs]e", re.I | re.S)


@dataclass(frozen=True)
class Toys4kSource:
    """Every model, sorted; its category is its first folder."""

    text: str
    path: str

    @classmethod
    def parse(cls, text: str) -> "Toys4kSource":
        return cls(text, parsed(text, "Toys4K"))

    @property
    def regime(self) -> Regime:
        return "object"

    @property
    def remote(self) -> bool:
        return False

    @property
    def own_terms(self) -> bool:
        return True

    def assets(self) -> Iterable[AssetRef]:
        return listed(self.path, "toys4k", READABLE, UNREADABLE, _about, animated=False)

    def fetch(self, ref: AssetRef, folder: Path) -> str:
        raise AssertionError("every node reads the archive where it lies")

    def load(self, ref: AssetRef, path: Path | None) -> tuple[Mesh, Origin]:
        return loaded(self.path, ref, READABLE, HOW)


def _about(tree: Tree, name: str, uid: str) -> tuple[str, tuple[str, ...]]:
    category = uid.partition("/")[0] if "/" in uid else ""
    folder, _, own = name.rpartition("/")
    stem = folder.rpartition("/")[2] or own.rpartition(".")[0]
    for each in (own.rpartition(".")[0], stem):
        text = f"{folder}/{each}_attribution.txt" if folder else f"{each}_attribution.txt"
        if tree.size(text) is not None:
            return _licence(tree, text), (category,) if category else ()
    return UNKNOWN, (category,) if category else ()


def _licence(tree: Tree, name: str) -> str:
    """ "We obtained this asset under a CC attribution license from ..." -> CC-BY."""
    try:
        said = _LICENCE.search(tree.read(name, 1 << 16).decode("utf-8", "replace"))
    except Rejected:
        return UNKNOWN
    return normal(re.sub(r"\batribution", "attribution", said[1], flags=re.I)) if said else UNKNOWN
