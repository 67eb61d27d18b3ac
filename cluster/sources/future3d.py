"""`future3d:DIR` or `future3d:3D-FUTURE-model.zip`: the furniture of 3D-FUTURE, one model each.

The folder of the models, or one that holds it or its parts (3D-FUTURE-model, 3D-FUTURE-model-part1, ...), extracted or
zipped. Categories come from model_info.json; a model that it lists and that is not there ends in the ledger.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cluster.sources.base import AssetRef
from cluster.sources.extract import Tree, open_tree
from cluster.sources.front3d import FILES, LICENCE, MODEL, NAMES, beside, size_of
from cluster.sources.trees import digest_of, json_of, on_disk, path_and_query, unchanged
from render import Mesh, Rejected
from render.front3d import plain_text
from render.front3d_room import read_model
from render.load import sound
from shards import Origin, Regime

INFO = "model_info.json"
INFO_BYTES = 256 << 20


@dataclass(frozen=True)
class Future3dSource:
    """Every model by its id, sorted."""

    text: str
    paths: tuple[str, ...]
    given: str

    regime: ClassVar[Regime] = "object"
    remote: ClassVar[bool] = False
    own_terms: ClassVar[bool] = True

    @classmethod
    def parse(cls, text: str) -> "Future3dSource":
        path, _ = path_and_query(text, ())
        if not os.path.exists(path):
            raise FileNotFoundError(
                f"source {text!r}: {path} does not exist: give the folder or zip of 3D-FUTURE-model"
            )
        paths = beside([Path(path)], NAMES["future"]) if os.path.isdir(path) else []
        return cls(text, tuple(paths or [path]), path)

    def assets(self) -> Iterable[AssetRef]:
        trees = [open_tree(path) for path in self.paths]
        where = {jid: tree for tree in reversed(trees) for jid in tree.folders(MODEL)}
        categories = self._categories(trees)
        if not where and not categories:
            raise ValueError(f"{self.given} holds no 3D-FUTURE model (a folder with {MODEL}): check the path")
        for jid in sorted({*where, *categories}):
            uid = plain_text(jid)
            sha256 = _digest(uid, where[jid], jid) if jid in where else None
            yield AssetRef(uid, "future3d", LICENCE, jid, sha256, animated=False, categories=categories.get(jid, ()))

    def fetch(self, ref: AssetRef, folder: Path) -> str:
        raise AssertionError("every node reads the archives where they lie")

    def load(self, ref: AssetRef, path: Path | None) -> tuple[Mesh, Origin]:
        jid = ref.locator
        tree = next((t for each in self.paths if (t := open_tree(each)).find(jid, MODEL) is not None), None)
        if tree is None:
            raise Rejected("missing_model", f"{ref.uid} has no {MODEL}, though {INFO} lists it")
        now = unchanged(ref, _digest(ref.uid, tree, jid))
        names = [name for file in FILES if (name := tree.find(jid, file)) is not None]
        with on_disk(tree, names) as paths:
            mesh = sound(read_model(paths[0]))
        return mesh, Origin(ref.uid, ref.source, now, ref.licence)

    def _categories(self, trees: list[Tree]) -> dict[str, tuple[str, ...]]:
        """Model id -> its super-category and category, from every model_info.json: beside the models, or above them."""
        found: dict[str, tuple[str, ...]] = {}
        above = [open_tree(self.given)] if self.given not in self.paths else []
        for tree in [*trees, *above]:
            for name in _infos(tree):
                try:
                    data = tree.read(name, INFO_BYTES)
                except Rejected as error:  # no asset's fault: the user can give another file
                    raise ValueError(
                        f"{name} of {tree.path} cannot be read ({error.message}): download it again"
                    ) from error
                entries = json_of(data, f"{name} of {tree.path}")
                for entry in entries if isinstance(entries, list) else []:
                    if isinstance(entry, dict) and isinstance(jid := entry.get("model_id"), str) and jid:
                        named = (entry.get("super-category"), entry.get("category"))
                        found[jid] = tuple(plain_text(each) for each in named if isinstance(each, str) and each)
        return found


def _infos(tree: Tree) -> list[str]:
    """Where a tree has its model_info.json: at the top, or in the folders of the models."""
    found = [tree.find(folder, INFO) for folder in tree.folders(INFO)]
    return [INFO] if tree.size(INFO) is not None else [name for name in found if name is not None]


def _digest(uid: str, tree: Tree, jid: str) -> str:
    return digest_of("future3d", uid, {file: size_of(tree, jid, file) for file in FILES})
