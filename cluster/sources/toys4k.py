"""`toys4k:DIR` or `toys4k:toys4k_obj_files.zip`: the toys of Toys4K, by category.

The release has .obj without materials and .blend with them. A .blend is not read: convert it to .glb (docs/assets.md);
until then it ends in the ledger. Licences come from the `..._attribution.txt` beside a model, where there is one.
"""

import re

from cluster.sources.extract import Tree
from cluster.sources.licences import UNKNOWN, normal
from cluster.sources.packs import Pack
from render import Rejected

_LICENCE = re.compile(r"under (?:an?|the) (.{1,80}?) licen[cs]e", re.I | re.S)


class Toys4kSource(Pack):
    """Every model of Toys4K."""

    name, what, animated = "toys4k", "Toys4K", False
    readable, unreadable = (".obj", ".glb"), (".blend",)
    how = "convert it to .glb with Blender (docs/assets.md, Toys4K)"

    def licence(self, tree: Tree, name: str) -> str:
        """As the attribution beside the model says, called after the model or after its folder."""
        folder, _, own = name.rpartition("/")
        stem = own.rpartition(".")[0]
        for each in (stem, folder.rpartition("/")[2] or stem):
            text = f"{folder}/{each}_attribution.txt" if folder else f"{each}_attribution.txt"
            if tree.size(text) is not None:
                return _licence(tree, text)
        return UNKNOWN


def _licence(tree: Tree, name: str) -> str:
    """ "We obtained this asset under a CC attribution license from ..." -> CC-BY."""
    try:
        said = _LICENCE.search(tree.read(name, 1 << 16).decode("utf-8", "replace"))
    except Rejected:
        return UNKNOWN
    return normal(re.sub(r"\batribution", "attribution", said[1], flags=re.I)) if said else UNKNOWN
