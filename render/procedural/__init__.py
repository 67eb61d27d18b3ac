"""An endless source of meshes made by programs: what a person without a data set starts from.

`make(kind, seed, index)` gives the mesh of that index; every index is different, and the same in every process.
"""

from collections.abc import Callable
from difflib import get_close_matches

from render.mesh import Mesh
from render.procedural.actors import make_actor
from render.procedural.objects import make_object
from render.procedural.rooms import make_room

KINDS = ("objects", "rooms", "actors")

_MAKERS: dict[str, Callable[[int, int], Mesh]] = {"objects": make_object, "rooms": make_room, "actors": make_actor}


def make(kind: str, seed: int, index: int) -> Mesh:
    """The mesh number `index` (>= 0) of a kind under `seed`.

    `objects` stand on y = 0 near the origin, about their real size in metres; `rooms` are interiors in metres with
    `Mesh.room`; `actors` walk on the spot, with `Mesh.pose`. +y is up. ValueError for a kind that does not exist.
    """
    if kind not in _MAKERS:
        nearest = get_close_matches(kind, KINDS, n=1, cutoff=0.0)[0]
        raise ValueError(f"no procedural kind {kind!r}: choose one of {', '.join(KINDS)} (nearest: {nearest})")
    if index < 0:
        raise ValueError(f"procedural index {index} is negative: indices count from 0")
    return _MAKERS[kind](seed, index)


__all__ = ["KINDS", "make"]
