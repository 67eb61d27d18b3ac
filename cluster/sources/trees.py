"""What sources over large archives and folders share: how an asset is identified unread, and brought to disk.

The digest of such an asset (`AssetRef.sha256`) is over the names and sizes of its files, not their content: to hash
3D-FUTURE would be to read 100 GB before the first view. It is the same for an archive and for the folder extracted from
it. `load` computes it anew and refuses an asset whose files have changed in name or size; members of an archive are
also checked against the sum that its table has of them. A file of a folder that was replaced by another of the same
size is not noticed.
"""

import difflib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from cluster.scratch import private_folder
from cluster.sources.base import AssetRef
from cluster.sources.extract import Archive, Directory, Tree
from render import Rejected


def digest_of(source: str, uid: str, files: Mapping[str, int | None], *more: str) -> str:
    """SHA-256 of what an asset is called and made of; `files` are sizes by name."""
    text = json.dumps([source, uid, sorted(files.items()), *more], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def unchanged(ref: AssetRef, now: str) -> str:
    """The digest, if it is the one that was listed. Raises Rejected("changed")."""
    if ref.sha256 is not None and now != ref.sha256:
        raise Rejected("changed", f"the files of {ref.label} are not those that were listed when the job started")
    return now


@contextmanager
def on_disk(tree: Tree, names: Sequence[str]) -> Iterator[list[Path]]:
    """The paths of these files, for the time of the block extracted to a folder of their own where they are packed."""
    with scratch([tree], sum(tree.size(name) or 0 for name in names)) as folder:
        yield tree.place(names, folder)


@contextmanager
def scratch(trees: Sequence[Tree], size: int) -> Iterator[Path]:
    """Where `place` of these trees may extract about `size` bytes; of folders nothing is copied, and it has none."""
    if any(isinstance(tree, Archive) for tree in trees):
        with private_folder(size) as folder:
            yield folder
    else:
        yield Path()


def path_and_query(text: str, keys: Sequence[str]) -> tuple[str, dict[str, list[str]]]:
    """ "scheme:path?key=path&key=path" -> the path, and the paths of each key. ValueError for another key.

    They are absolute, for workers have another working directory. %-encoding is decoded in those of keys; a plus sign
    is one.
    """
    path, mark, query = text.partition(":")[2].partition("?")
    found: dict[str, list[str]] = {key: [] for key in keys}
    for item in query.split("&") if mark else []:
        key, _, value = item.partition("=")
        if key not in found:
            near = difflib.get_close_matches(key, keys, n=1)
            hint = (
                f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(keys)}" if keys else "it takes none"
            )
            raise ValueError(f"source {text!r} has an unknown key {key!r}: {hint}")
        if not value:
            raise ValueError(f"source {text!r} gives no {key}: write {key}=PATH")
        found[key].append(os.path.abspath(unquote(value)))
    if not path:
        raise ValueError(f"source {text!r} names no folder or archive: write {text.partition(':')[0]}:PATH")
    return os.path.abspath(path), found


def below(tree: Tree, names: Sequence[str]) -> str:
    """The folder around all of `names` in an archive ("3D-FRONT/"), or "": who extracts it names that folder."""
    if isinstance(tree, Directory):
        return ""
    top = {name.partition("/")[0] for name in names}
    return f"{top.pop()}/" if len(top) == 1 and all("/" in name for name in names) else ""


def hidden(name: str) -> bool:
    """Whether `name` is what systems leave behind: .DS_Store, __MACOSX/..."""
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def json_of(data: bytes, what: str) -> Any:
    """Parsed JSON of a catalogue the user gave. ValueError in one sentence."""
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is no JSON ({str(error)[:120]}): download it again") from error
