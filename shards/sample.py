"""One sample as members of a shard, and back: the meaning of `<key>.rgba.webp`, `<key>.layers.zst` and `<key>.json`.

A clip is one sample whose frames are numbered: `<key>.000.rgba.webp`, `<key>.000.layers.zst`, ..., and one
`<key>.json`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .codec import DEFAULT_BOUND, Codec, decode_layers, encode_layers
from .contract import Clip, LayeredView, Origin, Sample
from .errors import CorruptSample
from .image import decode_rgba, encode_rgba
from .split import split_of

SAMPLE_VERSION = 1
KEY = re.compile(r"[a-z0-9_-]{1,80}\Z")  # webdataset ends the key at the first dot; ustar names have 100 bytes


@dataclass(frozen=True)
class EncodedSample:
    """`members` maps suffixes ("json", "rgba.webp", ...) to bytes; `row` is its manifest row without its place."""

    key: str
    members: dict[str, bytes]
    row: dict[str, Any]


def encode(sample: Sample, codec: Codec = "inverse", bound: float = DEFAULT_BOUND) -> EncodedSample:
    """A view or a clip -> its bytes, the same on every run. ValueError names the sample and what is wrong with it."""
    if not KEY.match(sample.key):
        raise ValueError(f"{sample.key!r} cannot be a key: use 1 to 80 characters of a-z, 0-9, _ and -")
    frames = sample.frames if isinstance(sample, Clip) else (sample,)
    members: dict[str, bytes] = {}
    try:
        for t, frame in enumerate(frames):
            prefix = frame_prefix(t, isinstance(sample, Clip))
            members[f"{prefix}rgba.webp"] = encode_rgba(frame.rgba)
            members[f"{prefix}layers.zst"] = encode_layers(frame.hits, frame.depth, codec, bound)
        members["json"] = _to_json(sample, frames)
    except ValueError as error:
        raise ValueError(f"{sample.key}: {error}") from None
    return EncodedSample(sample.key, dict(sorted(members.items())), describe(sample.key, frames))


def decode(key: str, members: Mapping[str, bytes]) -> Sample:
    """The inverse of `encode`; `members` as in EncodedSample. CorruptSample names the key and the member at fault."""
    meta = read_meta(key, members)
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
                    K=_matrix(entry, "K", 3),
                    world_from_camera=_matrix(entry, "world_from_camera", 4),
                    regime=meta["regime"],
                    origin=Origin(**meta["origin"]),
                    single_layer=bool(entry["single_layer"]),
                    info=dict(entry["info"]),
                )
            )
        except (ValueError, KeyError, TypeError) as error:
            where = f"frame {t}: " if meta["clip"] else ""
            raise CorruptSample(f"{key}: {where}{error}") from None
    try:
        return Clip(key, tuple(frames)) if meta["clip"] else frames[0]
    except ValueError as error:
        raise CorruptSample(str(error)) from None


def read_meta(key: str, members: Mapping[str, bytes]) -> dict[str, Any]:
    """The JSON member: {version, key, clip, regime, origin, frames: [{key, K, world_from_camera, single_layer,
    info}]}.
    """
    try:
        meta = json.loads(_member(members, "json"))
        if meta["version"] > SAMPLE_VERSION:
            raise CorruptSample(f"sample version {meta['version']} is newer than this reader; update worldtrace")
        if meta["key"] != key:
            raise CorruptSample(f"the JSON member is that of {meta['key']!r}")
        if not meta["frames"] or (len(meta["frames"]) != 1 and not meta["clip"]):
            raise CorruptSample(f"{len(meta['frames'])} frames cannot be")
        return dict(meta)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptSample(f"{key}: {error}") from None


def describe(key: str, frames: tuple[LayeredView, ...]) -> dict[str, Any]:
    """The columns of the manifest that depend on content only (docs/format.md)."""
    first = frames[0]
    true_hits = np.concatenate([f.depth[f.hit] for f in frames])
    coverage = [float(np.mean([np.mean(f.hits > l) for f in frames])) for l in range(first.layers)]
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
        "z_min": float(true_hits.min()) if true_hits.size else 0.0,
        "z_max": float(true_hits.max()) if true_hits.size else 0.0,
        "flags": sorted({str(flag) for f in frames for flag in f.info.get("flags", ())}),
        "overflow": sum(int(f.info.get("overflow", 0)) for f in frames),
    }


def _to_json(sample: Sample, frames: tuple[LayeredView, ...]) -> bytes:
    origin = sample.origin
    meta = {
        "version": SAMPLE_VERSION,
        "key": sample.key,
        "clip": isinstance(sample, Clip),
        "regime": sample.regime,
        "origin": {"uid": origin.uid, "source": origin.source, "sha256": origin.sha256, "licence": origin.licence},
        "frames": [
            {
                "key": frame.key,
                "K": np.asarray(frame.K, np.float64).tolist(),
                "world_from_camera": np.asarray(frame.world_from_camera, np.float64).tolist(),
                "single_layer": bool(frame.single_layer),
                "info": dict(frame.info),
            }
            for frame in frames
        ],
    }
    # shortest round-trip floats: a matrix read back is equal bit for bit
    text = json.dumps(meta, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)
    return text.encode()


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


def _matrix(entry: Mapping[str, Any], name: str, size: int) -> np.ndarray:
    matrix = np.asarray(entry[name], np.float64)
    if matrix.shape != (size, size) or not np.isfinite(matrix).all():
        raise CorruptSample(f"{name} is not a finite {size}x{size} matrix")
    return matrix
