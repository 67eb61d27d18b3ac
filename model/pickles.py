"""What a pickle of torch's would build, told without building it: nothing that takes for ever to look at.

torch's own reader of data (`weights_only=True`) calls nothing that it does not know, but puts whatever it finds into
tables. A tuple of the same tuple twice, forty times over, has a trillion parts in 200 bytes, and all are visited to
find its place in one; to print it in an error too.
"""

import pickletools
from collections.abc import Iterable
from typing import IO

PARTS = 1000  # of a tuple, with all that is in it, taken apart; what torch writes of one tensor has some 20
_KNOWN = {  # all that torch.load(weights_only=True) knows, and what its own torch.save writes
    *("PROTO", "STOP", "MARK", "GLOBAL", "NEWOBJ", "REDUCE", "BUILD", "BINPERSID"),
    *("APPEND", "APPENDS", "SETITEM", "SETITEMS", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "NONE", "NEWTRUE", "NEWFALSE"),
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"),
    *("BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT"),
}
_TAKES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "REDUCE": 2, "NEWOBJ": 2, "BINPERSID": 1}
_ADDS = {"APPEND": 1, "SETITEM": 2, "BUILD": 1}


class _Made:
    """Something that holds others; numbers and texts are None. `name`: the operation that made it."""

    __slots__ = ("name", "parts", "size")

    def __init__(self, name: str, parts: Iterable["_Made | None"] = ()) -> None:
        self.name, self.size = name, 1
        self.parts: list[_Made] = []
        self.add(parts)

    def add(self, parts: Iterable["_Made | None"]) -> None:
        for part in parts:
            self.size += 1
            if part is not None:
                self.parts.append(part)


def check_pickle(file: IO[bytes]) -> None:
    """Read one pickle of `file`. ValueError where it holds a tuple of more than `PARTS` parts, a tuple as a key, calls
    what is no name, or does what torch does not; LookupError where it is not in order. Takes time as it has bytes.
    """
    stack: list[_Made | None] = []
    marks: list[int] = []
    memo: dict[int, _Made | None] = {}
    tuples: list[_Made] = []
    for operation, argument, _ in pickletools.genops(file):
        name = operation.name
        if name not in _KNOWN:
            raise ValueError(f"{name} is nothing that torch saves")
        if name == "MARK":
            marks.append(len(stack))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[int(argument or 0)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument or 0)])
        elif name in _ADDS or name in ("APPENDS", "SETITEMS"):
            items = _taken(stack, len(stack) - _ADDS[name] if name in _ADDS else marks.pop())
            if name.startswith("SETITEM") and any(key is not None for key in items[::2]):
                raise ValueError("a key is no text or number")
            if (held := stack[-1]) is None:
                raise ValueError("a number or text is to hold something")
            held.add(items)
        elif name in _TAKES or name == "TUPLE":
            items = _taken(stack, len(stack) - _TAKES[name] if name in _TAKES else marks.pop())
            if name in ("REDUCE", "NEWOBJ") and (items[0] is None or items[0].name != "GLOBAL"):
                raise ValueError("what is called is no name")
            stack.append(made := _Made(name, items))
            if name.startswith("TUPLE"):
                tuples.append(made)
        elif name == "GLOBAL" or name.startswith("EMPTY_"):
            stack.append(_Made(name))
        elif name not in ("PROTO", "STOP"):
            stack.append(None)
    sizes: dict[int, int] = {}
    for each in tuples:
        if _parts_of(each, sizes) > PARTS:
            raise ValueError(f"a tuple has more than {PARTS} parts")


def _taken(stack: list[_Made | None], begin: int) -> list[_Made | None]:
    if begin < 0:
        raise LookupError("more is taken than there is")
    items = stack[begin:]
    del stack[begin:]
    return items


def _parts_of(top: _Made, sizes: dict[int, int]) -> int:
    """How many parts a thing has, taken apart; more than PARTS where it holds itself."""
    waiting = [top]
    while waiting:
        made = waiting[-1]
        if sizes.get(id(made), 0) > 0:
            waiting.pop()
            continue
        if id(made) not in sizes:  # what is met again while it is open holds itself
            sizes[id(made)] = 0
            unknown = [part for part in made.parts if id(part) not in sizes]
            if unknown:
                waiting += unknown
                continue
        total = made.size - len(made.parts) + sum(sizes[id(part)] or PARTS + 1 for part in made.parts)
        sizes[id(made)] = min(total, PARTS + 1)
        waiting.pop()
    return sizes[id(top)]
