"""One sample as members of a shard, and back: the meaning of `<key>.rgba.webp`, `<key>.layers.zst` and `<key>.json`.

A clip is one sample whose frames are numbered: `<key>.000.rgba.webp`, `<key>.000.layers.zst`, ..., and one
`<key>.json`, which says once what its frames have in common. Optional planes are members too: `<key>.normals.zst`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .contract import REGIMES, Clip, LayeredView, Origin, Sample
from .errors import CorruptSample
from .image import decode_rgba, encode_rgba
from .layers.codec import DEFAULT_BOUND, Choice, decode_layers, encode_layers
from .layers.planes import PLANES, SUFFIX, Plane, decode_plane, encode_plane, planes_in
from .shared import merged, parted
from .split import split_of

SAMPLE_VERSION = 2  # what is written; 1, whose clips share nothing, is read as well
LARGEST_META = 1 << 30  # frames times bytes of the JSON member: bounds what the frames of a forged one unfold to
KEY = re.compile(r"[a-z0-9_-]{1,80}\Z")  # webdataset ends the key at the first dot; ustar names have 100 bytes


@dataclass(frozen=True)
class EncodedSample:
    """`members` maps suffixes ("json", "rgba.webp", ...) to bytes; `row` is its manifest row without its place."""

    key: str
    members: dict[str, bytes]
    row: dict[str, Any]


def encode(sample: Sample, codec: Choice = "auto", bound: float = DEFAULT_BOUND) -> EncodedSample:
    """A view or a clip -> its bytes, the same for the same arrays with the same versions of libwebp and zstd.

    Images are kept lossless, but for opaque ones of regime `rgbd`: photographs. ValueError names the sample and what is
    wrong with it.
    """
    if not KEY.match(sample.key):
        raise ValueError(f"{sample.key!r} cannot be a key: use 1 to 80 characters of a-z, 0-9, _ and -")
    frames = sample.frames if isinstance(sample, Clip) else (sample,)
    members: dict[str, bytes] = {}
    try:
        for t, frame in enumerate(frames):
            prefix = frame_prefix(t, isinstance(sample, Clip))
            members[f"{prefix}rgba.webp"] = encode_rgba(frame.rgba, photograph=frame.regime == "rgbd")
            members[f"{prefix}layers.zst"] = encode_layers(frame.hits, frame.depth, codec, bound)
            members |= _planes(prefix, frame, frames[0])
        members["json"] = _to_json(sample, frames)
        read_meta(sample.key, members)  # what decode would refuse is not written
    except ValueError as error:
        raise ValueError(f"{sample.key}: {error}") from None
    return EncodedSample(sample.key, dict(sorted(members.items())), describe(sample.key, frames))


def decode(key: str, members: Mapping[str, bytes], planes: Sequence[Plane] = ()) -> Sample:
    """The inverse of `encode`; `members` as in EncodedSample. Of the optional planes those in `planes` are decoded
    (`planes_in(members)`: all that there are). CorruptSample names the key and the member at fault.
    """
    meta = read_meta(key, members)
    if missing := [plane for plane in planes if plane not in planes_in(members)]:
        there = ", ".join(planes_in(members)) or "none"
        raise ValueError(f"{key} has no plane {missing[0]}: it has {there}; give `planes=` to the render job")
    frames = []
    for t, entry in enumerate(meta["frames"]):
        prefix = frame_prefix(t, meta["clip"])
        try:
            hits, depth = decode_layers(_member(members, f"{prefix}layers.zst"))
            rgba = decode_rgba(_member(members, f"{prefix}rgba.webp"), *hits.shape)
            frames.append(
                LayeredView(
                    key=entry["key"],
                    rgba=rgba,
                    hits=hits,
                    depth=depth,
                    K=np.array(entry["K"], np.float64),
                    world_from_camera=np.array(entry["world_from_camera"], np.float64),
                    regime=meta["regime"],
                    origin=Origin(**meta["origin"]),
                    single_layer=entry["single_layer"],
                    info=entry["info"],
                    planes={
                        name: decode_plane(name, _member(members, f"{prefix}{name}{SUFFIX}"), hits, len(depth))
                        for name in planes
                    },
                )
            )
        except ValueError as error:
            where = f"frame {t}: " if meta["clip"] else ""
            raise CorruptSample(f"{key}: {where}{error}") from None
    try:
        return Clip(key, tuple(frames)) if meta["clip"] else frames[0]
    except ValueError as error:
        raise CorruptSample(str(error)) from None


def read_meta(key: str, members: Mapping[str, bytes]) -> dict[str, Any]:
    """The JSON member: {version, key, clip, regime, origin, frames: [{key, K, world_from_camera, single_layer,
    info}]}, with every type and range that readers, and the manifest, rely on. Frames are whole: what the member says
    of them once is in each. CorruptSample names what is amiss.
    """
    try:
        text = _member(members, "json")
        meta = json.loads(text, parse_constant=_no_number)
        _require(isinstance(meta, dict), "the JSON member is not a map")
        version = meta.get("version")
        _require(type(version) is int and version >= 1, f"version {version!r} is not a number from 1 on")
        _require(version <= SAMPLE_VERSION, f"sample version {version} is newer than this reader; update worldtrace")
        _require(meta.get("key") == key, f"the JSON member is that of {meta.get('key')!r}")
        _require(bool(KEY.match(key)), "such a key no sample has")
        _require(meta.get("regime") in REGIMES, f"regime {meta.get('regime')!r} is none of {', '.join(REGIMES)}")
        _check_origin(meta.get("origin"))
        clip, frames = meta.get("clip"), meta.get("frames")
        _require(type(clip) is bool and isinstance(frames, list), "clip is not true or false, or frames not a list")
        _require(bool(frames) and (clip or len(frames) == 1), f"{len(frames)} frames cannot be")
        if "shared" in meta:
            _require(version >= 2 and clip and len(frames) * len(text) <= LARGEST_META, "what frames share cannot be")
            frames = meta["frames"] = [merged(meta["shared"], frame) for frame in frames]
            del meta["shared"]
        for frame in frames:
            _check_frame(frame)
        kinds = {frame["single_layer"] for frame in frames}
        _require(len(kinds) == 1, "its frames differ in single_layer, of which the manifest has one")
        return dict(meta)
    except (ValueError, OverflowError, RecursionError) as error:
        raise CorruptSample(f"{key}: {error}") from None


def describe(key: str, frames: tuple[LayeredView, ...]) -> dict[str, Any]:
    """The columns of the manifest that depend on content only (docs/format.md)."""
    first = frames[0]
    nearest, farthest = zip(*map(_depth_range, frames))
    at_least = [np.bincount(f.hits.reshape(-1), minlength=first.layers + 1)[::-1].cumsum()[::-1] for f in frames]
    coverage = [float(np.mean([counts[l + 1] / first.hits.size for counts in at_least])) for l in range(first.layers)]
    return {
        "key": key,
        "asset": first.origin.uid,
        "source": first.origin.source,
        "licence": first.origin.licence,
        "asset_sha256": first.origin.sha256,
        "regime": first.regime,
        "split": split_of(first.origin.sha256),
        "view": int(first.info.get("view", 0)),
        "frames": len(frames),
        "height": first.size[0],
        "width": first.size[1],
        "layers": first.layers,
        "single_layer": first.single_layer,
        "coverage": coverage,
        "z_min": min((z for z in nearest if z > 0), default=0.0),
        "z_max": max(farthest),
        "flags": sorted({str(flag) for f in frames for flag in f.info.get("flags", ())}),
        "overflow": sum(int(f.info.get("overflow", 0)) for f in frames),
        "planes": sorted(first.planes),
    }


def _depth_range(frame: LayeredView) -> tuple[float, float]:
    """(nearest, farthest) of all true hits; (0, 0) if there is none. Filling repeats hits and changes neither."""
    rows, columns = np.flatnonzero(frame.hits.any(axis=1)), np.flatnonzero(frame.hits.any(axis=0))
    if not rows.size:
        return 0.0, 0.0
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    z, valid = frame.depth[:, box[0], box[1]], frame.hits[box] > 0
    return float(z.min(axis=0)[valid].min()), float(z.max())


def _to_json(sample: Sample, frames: tuple[LayeredView, ...]) -> bytes:
    origin = sample.origin
    entries = [
        {
            "key": frame.key,
            "K": np.asarray(frame.K, np.float64).tolist(),
            "world_from_camera": np.asarray(frame.world_from_camera, np.float64).tolist(),
            "single_layer": bool(frame.single_layer),
            "info": dict(frame.info),
        }
        for frame in frames
    ]
    meta: dict[str, Any] = {
        "version": SAMPLE_VERSION,
        "key": sample.key,
        "clip": isinstance(sample, Clip),
        "regime": sample.regime,
        "origin": {"uid": origin.uid, "source": origin.source, "sha256": origin.sha256, "licence": origin.licence},
        "frames": entries,
    }
    if isinstance(sample, Clip):
        meta["shared"], meta["frames"] = parted([json.loads(_json(entry)) for entry in entries])
    return _json(meta).encode()


def _json(value: Any) -> str:
    """Shortest round-trip floats: a matrix read back is equal bit for bit."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)


def _planes(prefix: str, frame: LayeredView, first: LayeredView) -> dict[str, bytes]:
    """The members of the planes of a frame."""
    if unknown := sorted(set(frame.planes) - set(PLANES)):
        raise ValueError(f"there is no plane {unknown[0]!r}: the planes are {', '.join(PLANES)}")
    if set(frame.planes) != set(first.planes):
        raise ValueError("the frames of a clip have the same planes, all of them or none")
    return {
        f"{prefix}{name}{SUFFIX}": encode_plane(name, frame.hits, frame.planes[name])
        for name in PLANES
        if name in frame.planes
    }


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise ValueError(f"info holds a {type(value).__name__}, which JSON cannot hold: store numbers, text, lists or maps")


def frame_prefix(t: int, clip: bool) -> str:
    """What stands before the suffixes of frame `t`: nothing in a view, its number in a clip."""
    return f"{t:03d}." if clip else ""


def _member(members: Mapping[str, bytes], suffix: str) -> bytes:
    if suffix not in members:
        raise CorruptSample(f"member .{suffix} is missing")
    return members[suffix]


def _check_origin(origin: Any) -> None:
    names = {"uid", "source", "sha256", "licence"}
    _require(
        isinstance(origin, dict) and set(origin) == names, f"origin does not hold {', '.join(sorted(names))} alone"
    )
    for name, value in origin.items():
        _require(_is_text(value), f"origin.{name} is not text")


def _check_frame(frame: Any) -> None:
    names = {"key", "K", "world_from_camera", "single_layer", "info"}
    _require(isinstance(frame, dict) and names <= set(frame), f"a frame does not hold {', '.join(sorted(names))}")
    _require(_is_text(frame["key"]), "key of a frame is not text")
    _require(type(frame["single_layer"]) is bool, "single_layer is not true or false")
    _matrix(frame, "world_from_camera", 4)
    K = _matrix(frame, "K", 3)
    with np.errstate(all="ignore"):
        invertible = np.linalg.matrix_rank(K) == 3 and bool(np.isfinite(np.linalg.inv(K)).all())
    _require(invertible and K[2].tolist() == [0, 0, 1], "K is not invertible with last row 0, 0, 1")
    _require(K[0, 0] > 0 and K[1, 1] > 0, "a focal length of K is not positive")
    info = frame["info"]
    _require(isinstance(info, dict), "info is not a map")
    for name in ("view", "overflow"):
        value = info.get(name, 0)
        _require(type(value) is int and 0 <= value < 1 << 31, f"info.{name} is not a number from 0 to 2^31 - 1")
    flags = info.get("flags", [])
    _require(isinstance(flags, list) and all(map(_is_text, flags)), "info.flags is not a list of text")


def _matrix(frame: Mapping[str, Any], name: str, size: int) -> np.ndarray:
    rows = frame[name]
    plain = isinstance(rows, list) and all(isinstance(row, list) and {*map(type, row)} <= {int, float} for row in rows)
    matrix = np.array(rows, np.float64) if plain else np.zeros(())
    _require(
        matrix.shape == (size, size) and bool(np.isfinite(matrix).all()), f"{name} is not a finite {size}x{size} matrix"
    )
    return matrix


def _is_text(value: Any) -> bool:
    """A string that UTF-8, and so the manifest, can hold: JSON may spell half of a surrogate pair."""
    return isinstance(value, str) and value.encode(errors="replace").decode() == value


def _no_number(name: str) -> float:
    raise CorruptSample(f"the JSON member holds {name}, which is no JSON")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise CorruptSample(otherwise)
