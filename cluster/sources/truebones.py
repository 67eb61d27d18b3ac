"""`truebones:DIR`: animated creatures of Truebones, converted from .fbx to .glb (docs/assets.md says how).

An .fbx that has no .glb of its name beside it ends in the ledger.
"""

from pathlib import Path
from typing import ClassVar

from cluster.sources.base import AssetRef
from cluster.sources.extract import Tree
from cluster.sources.packs import Pack
from render import Mesh, Rejected
from shards import Origin, Regime


class TruebonesSource(Pack):
    """Every clip of Truebones; the category is the creature."""

    regime: ClassVar[Regime] = "dynamic"
    name, what, animated = "truebones", "Truebones, converted to .glb", True
    readable, unreadable = (".glb",), (".fbx",)
    how = "convert it to .glb with Blender (docs/assets.md, Truebones)"

    def licence(self, tree: Tree, name: str) -> str:
        """Its own terms, of no known class."""
        return "Truebones terms"

    def load(self, ref: AssetRef, path: Path | None) -> tuple[Mesh, Origin]:
        mesh, origin = super().load(ref, path)
        if mesh.pose is None:
            raise Rejected("not_animated", f"{ref.uid} has no animation: was it exported with the .glb?")
        return mesh, origin
