"""What Toys4K and Truebones have in common: a tree of models, each a main file with what lies beside it."""

import os
import posixpath
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar, Self

import render
from cluster.sources.base import AssetRef
from cluster.sources.companions import bring_companions
from cluster.sources.extract import TOTAL, Directory, Tree, open_tree
from cluster.sources.trees import below, digest_of, hidden, path_and_query, scratch, unchanged
from render import Mesh, Rejected
from render.front3d import plain_text
from shards import Origin, Regime


@dataclass(frozen=True)
class Pack(ABC):
    """Every model of a folder or a zip, sorted; its category is its first folder. A pack says what is particular to it.

    A model in an `unreadable` format has no sha256 and is rejected when it is loaded, unless there is a readable one of
    its name; `how` tells what to do about it.
    """

    text: str
    path: str

    regime: ClassVar[Regime] = "object"
    remote: ClassVar[bool] = False
    own_terms: ClassVar[bool] = True
    name: ClassVar[str]  # of the source, as the manifest has it
    what: ClassVar[str]  # to a reader
    readable: ClassVar[tuple[str, ...]]
    unreadable: ClassVar[tuple[str, ...]]
    how: ClassVar[str]
    animated: ClassVar[bool]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of "scheme:path". FileNotFoundError, ValueError."""
        path, _ = path_and_query(text, ())
        if not os.path.exists(path):
            raise FileNotFoundError(f"source {text!r}: {path} does not exist: give the folder or the zip of {cls.what}")
        return cls(text, path)

    @abstractmethod
    def licence(self, tree: Tree, name: str) -> str:
        """That of the model `name`."""

    def assets(self) -> Iterable[AssetRef]:
        """uids are the models' names without the folder around them all. ValueError where there is no model."""
        tree = open_tree(self.path)
        known = (*self.readable, *self.unreadable)
        models = [name for name in tree.names() if not hidden(name) and name.lower().endswith(known)]
        if not models:
            raise ValueError(f"{self.path} holds no model ({', '.join(known)}): check the path")
        top = below(tree, models)
        converted = {name.rpartition(".")[0] for name in models if name.lower().endswith(self.readable)}
        for name in models:
            raw = name.lower().endswith(self.unreadable)
            if raw and name.rpartition(".")[0] in converted:
                continue
            uid = plain_text(name.removeprefix(top))
            yield AssetRef(
                uid,
                self.name,
                self.licence(tree, name),
                name,
                sha256=None if raw else _digest(self.name, uid, tree, name),
                animated=None if raw else self.animated,
                categories=(uid.partition("/")[0],) if "/" in uid else (),
            )

    def fetch(self, ref: AssetRef, folder: Path) -> str:
        raise AssertionError("every node reads the files where they lie")

    def load(self, ref: AssetRef, path: Path | None) -> tuple[Mesh, Origin]:
        name, tree = ref.locator, open_tree(self.path)
        if not name.lower().endswith(self.readable):
            raise Rejected("unsupported_format", f"{PurePosixPath(name).suffix} is not read: {self.how}")
        now = unchanged(ref, _digest(ref.source, ref.uid, tree, name))
        with _on_disk(tree, name) as main:
            mesh = render.load(main)
        return mesh, Origin(ref.uid, ref.source, now, ref.licence)


def _digest(source: str, uid: str, tree: Tree, name: str) -> str:
    return digest_of(source, uid, {PurePosixPath(name).name: tree.size(name)})


@contextmanager
def _on_disk(tree: Tree, name: str) -> Iterator[Path]:
    """The path of a model, for the time of the block: in a folder where it lies, of an archive extracted with the
    files that it names. Rejected, as `Tree.place` and `bring_companions` do, and where together they are too large.
    """
    if isinstance(tree, Directory):
        yield tree.place([name], Path())[0]
        return
    folder = name.rpartition("/")[0]
    near = sum(tree.size(each) or 0 for each in tree.within(folder))  # it can name no others
    with scratch([tree], min(near, TOTAL)) as place:
        main = tree.place([name], place)[0]
        left = TOTAL - main.stat().st_size

        def bring(companion: str) -> Path | None:
            """As the loader looks for it: case is ignored where the exact name does not exist."""
            nonlocal left
            found = tree.like(posixpath.normpath(posixpath.join(folder, companion)))
            if found is None:
                return None
            with suppress(OSError):  # "a/../b" is found only where there is an a
                (place / folder / companion).parent.mkdir(parents=True, exist_ok=True)
            path = place / found
            if not path.is_file():
                left -= tree.size(found) or 0
                if left < 0:
                    raise Rejected("file_too_large", f"{name} names files of more than {TOTAL} bytes in all")
                tree.place([found], place)
            return path

        bring_companions(main, bring)
        yield main
