"""What Toys4K and Truebones have in common: a tree of models, each a main file with what lies beside it."""

import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import render
from cluster.sources.base import AssetRef
from cluster.sources.companions import bring_companions
from cluster.sources.extract import TOTAL, Directory, Tree, open_tree
from cluster.sources.trees import below, digest_of, hidden, path_and_query, scratch, unchanged
from render import Mesh, Rejected
from render.front3d import plain_text
from shards import Origin


def parsed(text: str, what: str) -> str:
    """The path of "scheme:path", which exists. FileNotFoundError, ValueError."""
    path, _ = path_and_query(text, ())
    if not os.path.exists(path):
        raise FileNotFoundError(f"source {text!r}: {path} does not exist: give the folder or the zip of {what}")
    return path


def listed(
    path: str,
    source: str,
    readable: Sequence[str],
    unreadable: Sequence[str],
    about: Callable[[Tree, str, str], tuple[str, tuple[str, ...]]],
    animated: bool,
) -> Iterable[AssetRef]:
    """The models of the tree at `path`, sorted by name; uids are their names without the folder around them all.

    A model in an `unreadable` format has no sha256 and is rejected when it is loaded, unless there is a readable one of
    its name. `about(tree, name, uid)` gives a model's licence and categories. ValueError where there is no model.
    """
    tree = open_tree(path)
    names = [name for name in tree.names() if not hidden(name)]
    models = [name for name in names if name.lower().endswith((*readable, *unreadable))]
    if not models:
        raise ValueError(f"{path} holds no model ({', '.join((*readable, *unreadable))}): check the path")
    top = below(tree, models)
    converted = {name.rpartition(".")[0] for name in models if name.lower().endswith(tuple(readable))}
    for name in models:
        stem, _, suffix = name.rpartition(".")
        raw = f".{suffix.lower()}" in unreadable
        if raw and stem in converted:
            continue
        uid = plain_text(name.removeprefix(top))
        licence, categories = about(tree, name, uid)
        sha256 = None if raw else _digest(source, uid, tree, name)
        yield AssetRef(uid, source, licence, name, sha256, animated=None if raw else animated, categories=categories)


def loaded(path: str, ref: AssetRef, readable: Sequence[str], how: str) -> tuple[Mesh, Origin]:
    """The model that `listed` gave; `how` tells what to do about one that cannot be read."""
    name, tree = ref.locator, open_tree(path)
    if not name.lower().endswith(tuple(readable)):
        raise Rejected("unsupported_format", f"{PurePosixPath(name).suffix} is not read: {how}")
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
