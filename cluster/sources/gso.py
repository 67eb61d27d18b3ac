"""`gso:DIR`: Google Scanned Objects, a folder or a zip for each object, as they are downloaded.

An object has meshes/model.obj, meshes/model.mtl and materials/textures/texture.png; its .mtl names the texture as if it
lay beside, so it is put there by hand. The scans are z-up, as Gazebo has it: they are turned to +y up.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

import render
from cluster.sources.base import AssetRef
from cluster.sources.extract import Tree, open_tree
from cluster.sources.trees import digest_of, hidden, on_disk, path_and_query, unchanged
from render import Mesh, Rejected
from render.folder import Folder
from render.front3d import plain_text
from render.front3d_room import dressed
from render.limits import DEFAULT
from render.textures import Textures
from shards import Origin, Regime

MODEL, LIBRARY, METADATA = "meshes/model.obj", "meshes/model.mtl", "metadata.pbtxt"
TEXTURES = "materials/textures/"
LICENCE = "CC-BY-4.0"
METADATA_BYTES = 1 << 20
_CATEGORY = re.compile(r'categor(?:y|ies)\s*[:{]\s*(?:first\s*:\s*)?"([^"\n]{1,80})"')
_UPRIGHT = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])  # z up -> y up


@dataclass(frozen=True)
class GsoSource:
    """Every object by its name, sorted. Of an object that is there as a folder and as a zip the folder counts."""

    text: str
    path: str

    regime: ClassVar[Regime] = "object"
    remote: ClassVar[bool] = False
    own_terms: ClassVar[bool] = True

    @classmethod
    def parse(cls, text: str) -> "GsoSource":
        path, _ = path_and_query(text, ())
        if not os.path.isdir(path):
            raise FileNotFoundError(f"source {text!r}: {path} is no folder: give the one that holds the objects")
        return cls(text, path)

    def assets(self) -> Iterable[AssetRef]:
        found = False
        for name, path in self._objects():
            found, uid = True, plain_text(name)
            try:
                tree, top = _object(path)
                sha256, categories = _digest(uid, tree, top), _categories(tree, top)
            except (Rejected, ValueError):  # listed all the same, so that the ledger says so
                sha256, categories = None, ()
            yield AssetRef(uid, "gso", LICENCE, path.name, sha256, animated=False, categories=categories)
        if not found:
            raise ValueError(f"{self.path} holds no scanned object (a folder with {MODEL}, or its zip): check the path")

    def fetch(self, ref: AssetRef, folder: Path) -> str:
        raise AssertionError("every node reads the files where they lie")

    def load(self, ref: AssetRef, path: Path | None) -> tuple[Mesh, Origin]:
        try:
            tree, top = _object(Path(self.path) / ref.locator)
        except ValueError as error:
            raise Rejected("unreadable", str(error)) from None
        now = unchanged(ref, _digest(ref.uid, tree, top))
        names = [name for name in (f"{top}{MODEL}", f"{top}{LIBRARY}") if tree.size(name) is not None]
        with on_disk(tree, names) as paths:
            mesh = render.load(paths[0])
        pixels = None
        lost: set[str] = set()
        if (image := _texture(tree, top)) is not None:
            textures = Textures(Folder(Path(), DEFAULT), DEFAULT)  # of bytes that are given: it looks up no name
            pixels = textures.from_bytes(image, lambda: tree.read(image))
            lost = textures.flags
        mesh = dressed(mesh, pixels)
        normals = None if mesh.normals is None else mesh.normals @ _UPRIGHT.T.astype(np.float32)
        mesh = replace(mesh, vertices=mesh.vertices @ _UPRIGHT.T, normals=normals, flags=mesh.flags | lost)
        return mesh, Origin(ref.uid, ref.source, now, ref.licence)

    def _objects(self) -> Iterator[tuple[str, Path]]:
        """Name and path of every folder and zip in the folder, sorted by name."""
        found: dict[str, Path] = {}
        for path in sorted(Path(self.path).iterdir(), key=lambda path: (path.suffix == ".zip", path.name)):
            if hidden(path.name):
                continue
            if path.is_dir() and (path / MODEL).exists():
                found.setdefault(path.name, path)
            elif path.suffix.lower() == ".zip":
                found.setdefault(path.stem, path)
        yield from sorted(found.items())


def _object(path: Path) -> tuple[Tree, str]:
    """The tree of an object, and the folder in it that holds meshes/: "" unless an archive has one around."""
    tree = open_tree(path)
    model = tree.find("meshes", "model.obj") if path.suffix.lower() == ".zip" else MODEL
    if model is None or tree.size(model) is None:
        raise Rejected("missing_model", f"{path.name} has no {MODEL}")
    return tree, model.removesuffix(MODEL)


def _texture(tree: Tree, top: str) -> str | None:
    """texture.png, else the first image in the folder of the textures."""
    images = [
        name
        for name in tree.names()
        if name.startswith(f"{top}{TEXTURES}") and name.lower().endswith((".png", ".jpg", ".jpeg"))
    ]
    return min(images, key=lambda name: (not name.endswith("/texture.png"), name), default=None)


def _digest(name: str, tree: Tree, top: str) -> str:
    files = [f"{top}{MODEL}", f"{top}{LIBRARY}", *([image] if (image := _texture(tree, top)) else [])]
    return digest_of("gso", name, {file.removeprefix(top): tree.size(file) for file in files})


def _categories(tree: Tree, top: str) -> tuple[str, ...]:
    if tree.size(f"{top}{METADATA}") is None:
        return ()
    text = tree.read(f"{top}{METADATA}", METADATA_BYTES).decode("utf-8", "replace")
    return tuple(dict.fromkeys(plain_text(each) for each in _CATEGORY.findall(text)))
