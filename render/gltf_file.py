"""The bytes of a glTF 2.0 file: container, JSON, buffers and accessors, every range checked before it is touched.

Strict where leniency would invent geometry: nothing is zero-filled that the file does not declare as zeros.
"""

import base64
import binascii
import json
import math
import struct
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np

from render import meshopt
from render.folder import Folder
from render.limits import Limits
from render.mesh import Rejected

_MAGIC = b"glTF"
_JSON_CHUNK, _BIN_CHUNK = 0x4E4F534A, 0x004E4942
_COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}

# What an asset may require and still be read in full, or at the cost of its looks only.
_DECODED = {
    "KHR_texture_transform",
    "KHR_mesh_quantization",
    "KHR_lights_punctual",
    "KHR_texture_basisu",
    "KHR_xmp_json_ld",
    "EXT_mesh_gpu_instancing",
    "EXT_meshopt_compression",
    "EXT_texture_webp",
}
_DECODED_FAMILY = "KHR_materials_"
_MOST_ESCAPES = 1 << 20  # in a data URI; decoding them makes an object of each


def is_gltf(data: bytes) -> bool:
    """True for GLB by its magic number, and for what starts like a JSON object."""
    return data[:4] == _MAGIC or data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{"


class GltfFile:
    """A parsed file. `item` walks its arrays, `accessor` gives numbers, `view_bytes` an embedded image."""

    def __init__(self, data: bytes, folder: Folder, limits: Limits, extensions: frozenset[str] = frozenset()) -> None:
        """`extensions` are what the caller decodes beside those that concern this file."""
        self.folder = folder
        self.limits = limits
        self.json, self._binary = _parse(data, limits)
        self._buffers: dict[int, memoryview] = {}
        self._accessors: dict[int, np.ndarray] = {}
        self._sources: dict[int, int] = {}
        self._views: dict[int, bytes] = {}
        self._made = 0  # elements that the file announces and does not hold, or that are copied
        _check_version_and_extensions(self.json, extensions)

    def count(self, kind: str) -> int:
        return len(array(self.json, kind))

    def item(self, kind: str, index: Any) -> dict[str, Any]:
        """Entry `index` of the top-level array `kind`, such as "meshes"."""
        items = array(self.json, kind)
        return json_object(items[integer(index, f"index into {kind}", len(items))], kind)

    def accessor(
        self, index: Any, types: tuple[str, ...], rows: np.ndarray | None = None, *, normalise: bool = False
    ) -> np.ndarray:
        """Values (count, width) float32 (float64 for 32-bit integers); with `rows` only those, in that order.

        `normalise` maps integers to [0, 1] or [-1, 1] even where the file forgets to say so (colours and weights).
        """
        raw, declared = self._accessor(index, types)
        if rows is not None:
            raw = raw[rows]
        if raw.dtype.kind == "f":
            return raw
        if not (normalise or declared):
            return raw.astype(np.float64 if raw.dtype.itemsize == 4 else np.float32)
        scaled = raw.astype(np.float32) / np.float32(np.iinfo(raw.dtype).max)
        return np.maximum(scaled, np.float32(-1))

    def integers(self, index: Any, types: tuple[str, ...]) -> np.ndarray:
        """Values (count, width) of an accessor of unsigned integers: indices and joints."""
        raw, _ = self._accessor(index, types)
        if raw.dtype.kind != "u":
            raise Rejected("corrupt", f"accessor {index} holds {raw.dtype.name}, expected unsigned integers")
        return raw

    def length(self, index: Any) -> int:
        """The count of an accessor, without reading it."""
        return integer(self.item("accessors", index).get("count"), "accessor count")

    def has_data(self, index: Any) -> bool:
        """False for an accessor of implicit zeros: with a compression extension its data is elsewhere."""
        accessor = self.item("accessors", index)
        return "bufferView" in accessor or "sparse" in accessor

    def view_bytes(self, index: Any) -> bytes:
        return bytes(self._view(index)[0])

    def _accessor(self, index: Any, types: tuple[str, ...]) -> tuple[np.ndarray, bool]:
        entry = self.item("accessors", index)
        kind = entry.get("type")
        if kind not in types:
            raise Rejected("corrupt", f"accessor {index} has type {kind!r}, expected {' or '.join(types)}")
        declared = entry.get("normalized") is True
        if index not in self._accessors:
            dtype = _component(entry)
            count = integer(entry.get("count"), f"count of accessor {index}")
            width = _WIDTHS[kind]
            if "bufferView" in entry:
                offset = integer(entry.get("byteOffset", 0), f"offset of accessor {index}")
                values = self._strided(entry["bufferView"], offset, count, dtype, width)
            else:
                self.allow(count, f"accessor {index}")
                values = np.zeros((count, width), dtype)
            if "sparse" in entry:
                self.allow(count, f"accessor {index}")
                values = self._substituted(values, json_object(entry["sparse"], "sparse"), dtype, width)
            self._accessors[index] = values
        return self._accessors[index], declared

    def allow(self, count: int, what: str) -> None:
        """Charges `count` elements that are not views of the file. Raises Rejected("too_many_vertices")."""
        self._made += count
        if self._made > self.limits.vertices:
            raise Rejected("too_many_vertices", f"{what} and those before announce {self._made} elements")

    def provide(self, index: Any, values: np.ndarray, view: int) -> None:
        """`values` (count,width), decompressed from bufferView `view`, are what accessor `index` holds."""
        entry = self.item("accessors", index)
        dtype, width = _component(entry), _WIDTHS.get(str(entry.get("type")))
        if values.shape[1] != width or (values.dtype.kind == "f") != (dtype.kind == "f"):
            raise Rejected(
                "corrupt", f"accessor {index} is {entry.get('type')}, its data {values.shape[1]} numbers each"
            )
        if self._sources.setdefault(index, view) != view:
            raise Rejected("corrupt", f"accessor {index} belongs to two compressed primitives")
        self._accessors[index] = values if values.dtype.kind == "u" else values.astype(dtype)

    def provided(self, index: Any, view: int) -> bool:
        """Whether `provide` gave accessor `index` what `view` holds."""
        return self._sources.get(integer(index, "accessor")) == view

    def _substituted(self, base: np.ndarray, sparse: dict[str, Any], dtype: np.dtype, width: int) -> np.ndarray:
        count = integer(sparse.get("count"), "sparse count")
        at = json_object(sparse.get("indices"), "sparse indices")
        new = json_object(sparse.get("values"), "sparse values")
        where_type = _component(at)
        if where_type.kind != "u":
            raise Rejected("corrupt", f"sparse indices hold {where_type.name}, expected unsigned integers")
        where_offset = integer(at.get("byteOffset", 0), "offset of sparse indices")
        where = self._strided(at.get("bufferView"), where_offset, count, where_type, 1)[:, 0]
        if count and int(where.max()) >= len(base):
            raise Rejected("index_out_of_range", f"sparse index {int(where.max())} of {len(base)} elements")
        values = base.copy()
        new_offset = integer(new.get("byteOffset", 0), "offset of sparse values")
        values[where] = self._strided(new.get("bufferView"), new_offset, count, dtype, width)
        return values

    def _strided(self, view_index: Any, offset: int, count: int, dtype: np.dtype, width: int) -> np.ndarray:
        view, stride = self._view(view_index)
        element = dtype.itemsize * width
        stride = stride or element
        if stride < element:
            raise Rejected("corrupt", f"bufferView {view_index} has a stride of {stride} bytes for {element} bytes")
        needed = offset + stride * (count - 1) + element if count else 0
        if needed > len(view):
            raise Rejected(
                "truncated", f"bufferView {view_index} holds {len(view)} bytes, its accessor needs {needed} of them"
            )
        if count == 0:
            return np.zeros((0, width), dtype)
        return np.ndarray((count, width), dtype, view, offset, (stride, dtype.itemsize))

    def _view(self, index: Any) -> tuple[memoryview, int]:
        entry = self.item("bufferViews", index)
        offset = integer(entry.get("byteOffset", 0), f"offset of bufferView {index}")
        length = integer(entry.get("byteLength"), f"length of bufferView {index}")
        stride = integer(entry.get("byteStride", 0), f"stride of bufferView {index}")
        compressed = extension(entry, meshopt.NAME)
        if compressed is not None and not self._has_bytes(entry.get("buffer")):
            return memoryview(self._decompressed(index, length, compressed)), stride
        buffer = self._buffer(entry.get("buffer"))
        if offset + length > len(buffer):
            raise Rejected(
                "truncated", f"bufferView {index} ends at byte {offset + length} of a buffer of {len(buffer)}"
            )
        return buffer[offset : offset + length], stride

    def _has_bytes(self, buffer: Any) -> bool:
        """False for a buffer that only tells how long the decompressed views would be."""
        return "uri" in self.item("buffers", buffer) or (buffer == 0 and self._binary is not None)

    def _decompressed(self, index: int, length: int, compressed: dict[str, Any]) -> bytes:
        if index not in self._views:
            count, stride = (
                integer(compressed.get(key), f"{key} of {meshopt.NAME}") for key in ("count", "byteStride")
            )
            if count * stride != length:
                raise Rejected("corrupt", f"{meshopt.NAME} announces {count * stride} bytes for a view of {length}")
            self.allow(count * max(1, stride // 16), f"bufferView {index}")
            offset = integer(compressed.get("byteOffset", 0), f"offset of {meshopt.NAME}")
            end = offset + integer(compressed.get("byteLength"), f"length of {meshopt.NAME}")
            buffer = self._buffer(compressed.get("buffer"))
            if end > len(buffer):
                raise Rejected("truncated", f"{meshopt.NAME} ends at byte {end} of a buffer of {len(buffer)}")
            mode, how = str(compressed.get("mode")), str(compressed.get("filter", "NONE"))
            self._views[index] = meshopt.decode(bytes(buffer[offset:end]), count, stride, mode, how)
        return self._views[index]

    def _buffer(self, index: Any) -> memoryview:
        index = integer(index, "buffer")
        if index in self._buffers:
            return self._buffers[index]
        entry = self.item("buffers", index)
        announced = integer(entry.get("byteLength"), f"length of buffer {index}")
        uri = entry.get("uri")
        data: bytes | memoryview
        if isinstance(uri, str) and uri.startswith("data:"):
            data = data_uri(uri)
        elif isinstance(uri, str):
            path = self.folder.find(uri, uri=True)
            if path is None:
                raise Rejected("missing_buffer", f"the file {uri[:120]!r} of buffer {index} does not exist")
            data = self.folder.read(path)
        elif index == 0 and self._binary is not None:
            data = self._binary
        else:
            raise Rejected("missing_buffer", f"buffer {index} has no data")
        if len(data) < announced:
            raise Rejected("truncated", f"buffer {index} announces {announced} bytes and holds {len(data)}")
        self._buffers[index] = memoryview(data)[:announced]
        return self._buffers[index]


def data_uri(uri: str) -> bytes:
    """The bytes of `data:[type][;base64],...`. Raises Rejected("corrupt")."""
    head, comma, body = uri.partition(",")
    if not comma:
        raise Rejected("corrupt", "a data URI has no comma")
    if body.count("%") > _MOST_ESCAPES:
        raise Rejected("corrupt", f"a data URI has more than {_MOST_ESCAPES} %-escapes")
    try:
        raw = unquote_to_bytes(body)
        return base64.b64decode(raw + b"=" * (-len(raw) % 4)) if head.endswith(";base64") else raw
    except (binascii.Error, ValueError) as error:
        raise Rejected("corrupt", f"a data URI is not base64: {error}") from error


def integer(value: Any, what: str, end: int | None = None) -> int:
    """A non-negative integer of the JSON, less than `end`; 3.0 counts as 3, as some exporters write it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Rejected("corrupt", f"{what} is {str(value)[:40]!r}, expected a non-negative integer")
    if end is not None and value >= end:
        raise Rejected("index_out_of_range", f"{what} is {value}, but there are {end}")
    return value


def numbers(value: Any, size: int, what: str) -> np.ndarray:
    """(size,) float64 from a JSON array."""
    if not isinstance(value, list) or len(value) != size or any(isinstance(x, bool) for x in value):
        raise Rejected("corrupt", f"{what} is not an array of {size} numbers")
    if not all(isinstance(x, int | float) for x in value):
        raise Rejected("corrupt", f"{what} is not an array of {size} numbers")
    return np.array([number(x, what) for x in value], np.float64)


def number(value: Any, what: str) -> float:
    """A finite number of the JSON, in which 1e999 is infinite and 10^400 an integer."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise Rejected("corrupt", f"{what} is {str(value)[:40]}, expected a finite number")


def extension(entry: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The extension object `name` of a JSON entry, or None."""
    found = json_object(entry.get("extensions", {}), "extensions").get(name)
    return None if found is None else json_object(found, name)


def _parse(data: bytes, limits: Limits) -> tuple[dict[str, Any], memoryview | None]:
    text: bytes | memoryview = data
    binary = None
    if data[:4] == _MAGIC:
        if len(data) < 12:
            raise Rejected("truncated", f"a GLB of {len(data)} bytes has no complete header")
        version, length = struct.unpack_from("<II", data, 4)
        if version != 2:
            raise Rejected("unsupported_version", f"GLB container version {version}; version 2 is supported")
        if length > len(data):
            raise Rejected("truncated", f"the GLB header announces {length} bytes, the file has {len(data)}")
        chunks = _chunks(memoryview(data)[:length])
        if not chunks or chunks[0][0] != _JSON_CHUNK:
            raise Rejected("corrupt", "the first chunk of the GLB is not JSON")
        text = chunks[0][1]
        if len(chunks) > 1 and chunks[1][0] == _BIN_CHUNK:
            binary = chunks[1][1]
    return parse_json(text, limits), binary


def parse_json(text: bytes | memoryview, limits: Limits) -> dict[str, Any]:
    """The JSON of a glTF, or Rejected: file_too_large, corrupt."""
    if len(text) > limits.json_bytes:
        raise Rejected("file_too_large", f"the JSON has {len(text)} bytes; the limit is {limits.json_bytes}")
    raw = bytes(text)
    values = sum(raw.count(mark) for mark in (b",", b"[", b"{"))  # 3 bytes of JSON may become 80 of Python
    if values > limits.json_values:
        raise Rejected("file_too_large", f"the JSON has {values} values; the limit is {limits.json_values}")
    try:
        parsed = json.loads(raw.decode("utf-8-sig"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Rejected("corrupt", f"the JSON cannot be parsed: {type(error).__name__}: {str(error)[:200]}") from error
    return json_object(parsed, "the file")


def _chunks(data: memoryview) -> list[tuple[int, memoryview]]:
    chunks: list[tuple[int, memoryview]] = []
    at = 12
    while at + 8 <= len(data) and len(chunks) < 2:
        length, kind = struct.unpack_from("<II", data, at)
        if at + 8 + length > len(data):
            raise Rejected("truncated", f"a GLB chunk announces {length} bytes, {len(data) - at - 8} are left")
        chunks.append((kind, data[at + 8 : at + 8 + length]))
        at += 8 + length
    return chunks


def _check_version_and_extensions(root: dict[str, Any], extensions: frozenset[str]) -> None:
    version = str(json_object(root.get("asset", {}), "asset").get("version", ""))
    if not version.startswith("2."):
        raise Rejected("unsupported_version", f"glTF version {version[:20]!r}; version 2 is supported")
    required = [str(name) for name in array(root, "extensionsRequired")]
    decoded = _DECODED | extensions
    unknown = [n for n in required if n not in decoded and not n.startswith(_DECODED_FAMILY)]
    if unknown:
        hint = " (the package DracoPy decodes Draco)" if "KHR_draco_mesh_compression" in unknown else ""
        raise Rejected("unsupported_extension", f"the asset requires {', '.join(unknown)[:200]}{hint}")


def _component(entry: dict[str, Any]) -> np.dtype:
    code = entry.get("componentType")
    if not isinstance(code, int) or code not in _COMPONENTS:
        raise Rejected("corrupt", f"componentType {code!r} does not exist")
    return np.dtype(_COMPONENTS[code])


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def json_object(value: Any, what: str) -> dict[str, Any]:
    """`value`, which must be a JSON object. Raises Rejected("corrupt")."""
    if not isinstance(value, dict):
        raise Rejected("corrupt", f"{what} is {type(value).__name__}, expected an object")
    return value


def array(entry: dict[str, Any], key: str) -> list[Any]:
    """entry[key], which must be a JSON array; empty where it is left out. Raises Rejected("corrupt")."""
    value = entry.get(key, [])
    if not isinstance(value, list):
        raise Rejected("corrupt", f"{key} is {type(value).__name__}, expected an array")
    return value
