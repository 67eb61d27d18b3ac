"""What Toys4K and Truebones have in common: a tree of models, each a main file with what lies beside it."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath

import render
from cluster.sources.base import AssetRef
from cluster.sources.extract import Directory, Tree, open_tree
from cluster.sources.trees import below, digest_of, hidden, on_disk, path_and_query, unchanged
from render import Mesh, Rejected
from render.front3d import plain_text
from shards import Origin

COMPANIONS = 200  # files of an asset's folder that are brought along


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
    names = [name, *_companions(tree, name)]
    with on_disk(tree, names) as paths:
        mesh = render.load(paths[0])
    return mesh, Origin(ref.uid, ref.source, now, ref.licence)


def _digest(source: str, uid: str, tree: Tree, name: str) -> str:
    return digest_of(source, uid, {PurePosixPath(name).name: tree.size(name)})


def _companions(tree: Tree, name: str) -> list[str]:
    """What an .obj or a .gltf may refer to: the files of its folder and of the folders in it; a .glb is alone."""
    if name.lower().endswith(".glb") or isinstance(tree, Directory):  # in a folder they lie where they belong
        return []
    folder = name.rpartition("/")[0]
    near = [
        each
        for each in tree.names()
        if each.startswith(f"{folder}/" if folder else "")
        and each.lower().endswith((".mtl", ".bin", ".png", ".jpg", ".jpeg", ".bmp", ".tga", ".webp", ".gif"))
    ]
    return near[:COMPANIONS]
