"""`front3d:DIR` or `front3d:3D-FRONT.zip?future=3D-FUTURE-model.zip&textures=3D-FRONT-texture.zip`: rooms of houses.

The three are archives as downloaded, or folders extracted from them; a folder that holds them all is enough. `future`
may be given more than once, as the models come in parts. `skip` names a file of rooms that are not to be rendered:
a line `house/room` each (or `house`, all of it), as the ledger and the manifest write them; `#` begins a remark.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cluster.sources.base import AssetRef
from cluster.sources.extract import Tree, open_tree
from cluster.sources.trees import below, digest_of, hidden, path_and_query, scratch, unchanged
from render import Mesh, Rejected
from render.front3d import House, RoomEntry, plain_text, read_house
from render.front3d_room import build_room
from render.limits import Limits
from shards import Origin, Regime

MODEL = "raw_model.obj"
FILES = (MODEL, "model.mtl", "texture.png")
TEXTURE = "texture.png"
NAMES = {"houses": "3D-FRONT", "future": "3D-FUTURE-model", "textures": "3D-FRONT-texture"}
LICENCE = "3D-FRONT Terms of Use"


@dataclass(frozen=True)
class Front3dSource:
    """Every room of every house, in the order of the houses' names and of the rooms in their house.

    A room's uid is `house/instanceid`, its category the room's type. Its sha256 is over the house's JSON (content), the
    room, and the names and sizes of the models and textures that it uses (see `trees`). A house that cannot be read
    is listed as one asset without a sha256, so that it ends in the ledger as rejected.
    """

    text: str
    houses: str
    future: tuple[str, ...]
    textures: str
    skip: str = ""

    regime: ClassVar[Regime] = "scene"
    remote: ClassVar[bool] = False
    own_terms: ClassVar[bool] = True

    @classmethod
    def parse(cls, text: str) -> "Front3dSource":
        path, given = path_and_query(text, ("future", "textures", "skip"))
        if not os.path.exists(path):
            raise FileNotFoundError(f"source {text!r}: {path} does not exist: give the folder or the zip of 3D-FRONT")
        for key in ("textures", "skip"):
            if len(given[key]) > 1:
                raise ValueError(f"source {text!r} gives {key} twice: keep one")
        here = Path(path)
        places = [here, here.parent] if here.is_dir() else [here.parent]
        houses = path if here.is_file() else (beside([here], NAMES["houses"], exact=True) or [path])[0]
        future = given["future"] or beside(places, NAMES["future"])
        textures = given["textures"] or beside(places, NAMES["textures"])[:1]
        for key, found in (("future", future), ("textures", textures)):
            if not found:
                raise ValueError(
                    f"source {text!r}: there is no {NAMES[key]} (a folder or a .zip) beside {path}: add ?{key}=PATH"
                )
        skip = given["skip"][0] if given["skip"] else ""
        for each in (*future, *textures, *([skip] if skip else [])):
            if not os.path.exists(each):
                raise FileNotFoundError(f"source {text!r}: {each} does not exist")
        return cls(text, houses, tuple(future), textures[0], skip)

    def assets(self) -> Iterable[AssetRef]:
        houses = open_tree(self.houses)
        names = [name for name in houses.names() if name.endswith(".json") and not hidden(name)]
        if not names:
            raise ValueError(f"{self.houses} holds no house (*.json): give the folder or the zip of 3D-FRONT")
        top, skipped = below(houses, names), _skipped(self.skip)
        stock = _Stock(self)
        for name in names:
            uid = plain_text(name.removeprefix(top).removesuffix(".json"))
            if uid not in skipped:
                yield from _rooms(houses, name, uid, skipped, stock)

    def fetch(self, ref: AssetRef, folder: Path) -> str:
        raise AssertionError("every node reads the archives where they lie")

    def load(self, ref: AssetRef, path: Path | None) -> tuple[Mesh, Origin]:
        name, number = json.loads(ref.locator)
        data = open_tree(self.houses).read(name, Limits().json_bytes)
        house = read_house(data)
        if number is None or number >= len(house.rooms):
            raise Rejected("changed", f"{name} is not the house that was listed when the job started")
        stock = _Stock(self)
        now = unchanged(ref, _digest(ref.uid, hashlib.sha256(data).hexdigest(), house, house.rooms[number], stock))
        with stock.opened():
            mesh = build_room(house, number, stock.model, stock.texture)
        return mesh, Origin(ref.uid, ref.source, now, ref.licence)


def _rooms(houses: Tree, name: str, uid: str, skipped: set[str], stock: "_Stock") -> Iterator[AssetRef]:
    try:
        data = houses.read(name, Limits().json_bytes)
        house = read_house(data, shapes=False)
    except Rejected:
        yield AssetRef(uid, "front3d", LICENCE, json.dumps([name, None]))
        return
    content = hashlib.sha256(data).hexdigest()  # once: a house may have many rooms
    seen: dict[str, int] = {}
    for room in house.rooms:
        count = seen[room.instance] = seen.get(room.instance, 0) + 1
        own = f"{uid}/{room.instance}" + (f"#{count}" if count > 1 else "")
        if own in skipped:
            continue
        try:
            sha256 = _digest(own, content, house, room, stock)
        except Rejected:
            sha256 = None
        locator = json.dumps([name, room.number])
        yield AssetRef(own, "front3d", LICENCE, locator, sha256, animated=False, categories=(room.kind,))


def _digest(uid: str, content: str, house: House, room: RoomEntry, stock: "_Stock") -> str:
    models, textures = house.jids(room.number)
    files: dict[str, int | None] = {}
    for jid in models:
        files |= stock.sizes_of_model(jid)
    for jid in textures:
        files[f"texture/{jid}"] = stock.size_of_texture(jid)
    return digest_of("front3d", uid, files, content)


class _Stock:
    """The models and textures of a source, found by the names of their folders."""

    def __init__(self, source: Front3dSource) -> None:
        self.models = [open_tree(path) for path in source.future]
        self.images = open_tree(source.textures)
        self.folder: Path | None = None
        self._sizes: dict[str, dict[str, int | None]] = {}

    def sizes_of_model(self, jid: str) -> dict[str, int | None]:
        if jid not in self._sizes:
            tree = self._tree(jid)
            self._sizes[jid] = {f"{jid}/{file}": None if tree is None else size_of(tree, jid, file) for file in FILES}
        return self._sizes[jid]

    def size_of_texture(self, jid: str) -> int | None:
        return size_of(self.images, jid, TEXTURE)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """`model` works within the block: models that are packed lie on disk for its time."""
        size = sum(size or 0 for sizes in self._sizes.values() for size in sizes.values())
        with scratch(self.models, size) as self.folder:
            yield

    def model(self, jid: str) -> Path | None:
        """The path of a model's raw_model.obj, what belongs to it beside it."""
        tree = self._tree(jid)
        if tree is None:
            return None
        assert self.folder is not None
        names = [name for file in FILES if (name := tree.find(jid, file)) is not None]
        return tree.place(names, self.folder)[0]

    def texture(self, jid: str) -> bytes | None:
        name = self.images.find(jid, TEXTURE)
        return None if name is None else self.images.read(name)

    def _tree(self, jid: str) -> Tree | None:
        return next((tree for tree in self.models if tree.find(jid, MODEL) is not None), None)


def size_of(tree: Tree, folder: str, file: str) -> int | None:
    name = tree.find(folder, file)
    return None if name is None else tree.size(name)


def beside(places: list[Path], name: str, exact: bool = False) -> list[str]:
    """The folders, else the zips, called `name` in the first of `places` that has any; also name-part1 and so on."""
    for place in places:
        fitting = sorted(
            path
            for path in place.iterdir()
            if (path.stem if path.suffix == ".zip" else path.name) == name
            or (not exact and path.name.startswith(f"{name}-part"))
        )
        folders = [path for path in fitting if path.is_dir()]
        packed = [path for path in fitting if path.suffix == ".zip" and path.is_file()]
        if folders or packed:
            return [str(path) for path in folders or packed]
    return []


def _skipped(path: str) -> set[str]:
    """`house/room` and `house` lines of a file. ValueError where it is no text."""
    if not path:
        return set()
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"skip={path} cannot be read as text ({error}): give a line house/room for each room"
        ) from error
    return {re.split(r"(?:^|\s)#", line)[0].strip() for line in lines} - {""}
