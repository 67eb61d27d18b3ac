"""`truebones:DIR`: animated creatures of Truebones, converted from .fbx to .glb (docs/assets.md says how).

An .fbx that has no .glb of its name beside it ends in the ledger.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cluster.sources.base import AssetRef
from cluster.sources.extract import Tree
from cluster.sources.packs import listed, loaded, parsed
from render import Mesh, Rejected
from shards import Origin, Regime

READABLE, UNREADABLE = (".glb",), (".fbx",)
HOW = "convert it to .glb with Blender (docs/assets.md, Truebones)"


@dataclass(frozen=True)
class TruebonesSource:
    """Every clip, sorted; its category is its first folder: the creature."""

    text: str
    path: str

    @classmethod
    def parse(cls, text: str) -> "TruebonesSource":
        return cls(text, parsed(text, "Truebones, converted to .glb"))

    @property
    def regime(self) -> Regime:
        return "dynamic"

    @property
    def remote(self) -> bool:
        return False

    @property
    def own_terms(self) -> bool:
        return True

    def assets(self) -> Iterable[AssetRef]:
        return listed(self.path, "truebones", READABLE, UNREADABLE, _about, animated=True)

    def fetch(self, ref: AssetRef, folder: Path) -> str:
        raise AssertionError("every node reads the files where they lie")

    def load(self, ref: AssetRef, path: Path | None) -> tuple[Mesh, Origin]:
        mesh, origin = loaded(self.path, ref, READABLE, HOW)
        if mesh.pose is None:
            raise Rejected("not_animated", f"{ref.uid} has no animation: was it exported with the .glb?")
        return mesh, origin


def _about(tree: Tree, name: str, uid: str) -> tuple[str, tuple[str, ...]]:
    return "Truebones terms", (uid.partition("/")[0],) if "/" in uid else ()
