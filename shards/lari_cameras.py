"""The camera files beside LaRI's layers: Blender's matrices in .npy, of which those of 3D-FRONT are pickled maps.

`np.save` of a map writes a pickle. It is never unpickled here: its opcodes are listed (pickletools executes nothing),
and a small stack puts together the few that data is made of: numbers, texts, tuples, lists, maps, and arrays of numbers
of numpy, which are recognised by name and built from their bytes. Everything else ends in an error.

A pickle may name one tuple many times, in others that it names again: 30 levels are a billion items for whatever walks
them, as hash, str and np.asarray do. So nothing is walked that is not known to be a text or a number.
"""

import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from .rgbd.base import Unreadable
from .rgbd.files import npy_header, read_bytes, read_npy
from .rgbd.pose import OPENGL

FILE_LIMIT = 1 << 16  # bytes of a camera file
OBJECT_LENS = 35.0  # mm: the .npy of objects tells none, their renderer sets this one
SENSOR = 32.0  # mm, the width of the sensor

PUSHED = frozenset(["BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"])
PUSHED |= frozenset(["BINBYTES", "SHORT_BINBYTES"])
CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
IGNORED = frozenset(["PROTO", "FRAME", "STOP"])
NUMPY = frozenset({("numpy", "ndarray"), ("numpy", "dtype")}) | {
    (f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")
}


def blender_camera(path: Path) -> tuple[np.ndarray, float | None]:
    """(world_from_camera (4,4), Blender's world and OpenCV's camera axes; focal length in mm of a sensor 32 mm wide,
    None where the file is of an object and tells none).

    Files hold camera_from_world (3,4) of Blender's camera, alone or as T_b_w2cam beside cam_len.
    """
    data = read_bytes(path, FILE_LIMIT)
    lens: float | None = None
    if (pickled := _pickle_of(data, path.name)) is None:
        matrix = read_npy(data, path.name, "unreadable_camera").astype(np.float64)
    else:
        try:
            found = values_of(pickled)
            matrix = _of(np.ndarray, found["T_b_w2cam"]).astype(np.float64)
            lens = float(found["cam_len"])
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise Unreadable("unreadable_camera", f"{path.name} holds no camera of LaRI ({error!s:.200})") from None
    if matrix.shape != (3, 4) or not np.isfinite(matrix).all():
        raise Unreadable("unreadable_camera", f"{path.name} holds an array {matrix.shape}, not a camera (3, 4)")
    whole = np.vstack([matrix, [0, 0, 0, 1]])
    if abs(np.linalg.det(whole)) < 1e-6:
        raise Unreadable("absurd_pose", f"the matrix of {path.name} cannot be inverted")
    return np.linalg.inv(whole) @ OPENGL, lens


def _pickle_of(data: bytes, name: str) -> bytes | None:
    """What follows the header of a .npy of objects; None where it is one of numbers."""
    _, _, dtype, begin = npy_header(data, name, "unreadable_camera")
    return data[begin:] if dtype.hasobject else None


def values_of(pickled: bytes) -> Any:
    """The map in a pickled array of one object, as plain data. ValueError for all that is not made of plain data."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    for opcode, given, _ in pickletools.genops(pickled):
        name, argument = opcode.name, given if given is not None else 0
        if name in PUSHED:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in ("EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT"):
            stack.append({"EMPTY_TUPLE": (), "EMPTY_LIST": [], "EMPTY_DICT": {}}[name])
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple(_pop(stack, len(stack) - int(name[-1]))))
        elif name == "TUPLE":
            stack.append(tuple(_pop(stack, marks.pop())))
        elif name in ("APPEND", "APPENDS"):
            values = _pop(stack, marks.pop() if name == "APPENDS" else len(stack) - 1)
            _of(list, stack[-1]).extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            values = _pop(stack, marks.pop() if name == "SETITEMS" else len(stack) - 2)
            _of(dict, stack[-1]).update(zip((_of(str, key) for key in values[::2]), values[1::2], strict=True))
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if name == "MEMOIZE" else int(argument)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument)])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            words = str(argument).split(" ") if name == "GLOBAL" else _pop(stack, len(stack) - 2)
            named = tuple(_of(str, word) for word in words)
            if named not in NUMPY:
                raise ValueError(f"it names {'.'.join(named)[:60]}")
            stack.append(_Named(named[-1]))
        elif name == "REDUCE":
            maker, arguments = _pop(stack, len(stack) - 2)
            stack.append(_Made(_of(_Named, maker).name, _of(tuple, arguments)))
        elif name == "BUILD":
            (state,) = _pop(stack, len(stack) - 1)
            _of(_Made, stack[-1]).state = state
        elif name not in IGNORED:
            raise ValueError(f"it holds {name}")
    (whole,) = stack
    (value,) = _of(list, _of(_Made, whole).state[4])
    return {key: item.array() if isinstance(item, _Made) else item for key, item in _of(dict, value).items()}


class _Named:
    """A name of numpy that was seen: it stands for nothing but itself."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Made:
    """What a pickle asks to be made by `maker`: written down, not made."""

    def __init__(self, maker: str, arguments: tuple[Any, ...]) -> None:
        self.maker, self.arguments, self.state = maker, arguments, ()

    state: Any

    def array(self) -> np.ndarray:
        """Of a pickled array of floats: its state is (version, shape, dtype, whether Fortran's order, bytes)."""
        _, shape, dtype, fortran, content = self.state
        kind, order = _of(str, _of(_Made, dtype).arguments[0]), _of(str, dtype.state[1])
        if self.maker != "_reconstruct" or kind not in ("f4", "f8") or order not in ("<", ">"):
            raise ValueError(f"it holds an array of {kind}")
        return np.frombuffer(_of(bytes, content), f"{order}{kind}").reshape(shape, order="F" if fortran else "C")


def _pop(stack: list[Any], begin: int) -> list[Any]:
    """The end of the stack from `begin`."""
    if not 0 <= begin <= len(stack):
        raise ValueError("its stack is empty")
    taken = stack[begin:]
    del stack[begin:]
    return taken


def _of(kind: type[Any], value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"a {type(value).__name__} stands where a {kind.__name__} should")
    return value
