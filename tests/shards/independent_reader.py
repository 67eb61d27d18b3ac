"""A second reader of datasets, written from docs/format.md alone: plain loops, and not a line of `shards`.

    for key, frames in samples(folder): ...

A frame is a map of `rgba` (H,W,4) uint8, `hits` (H,W), `depth` (L,H,W) float32, `K`, `world_from_camera`, `info`,
`single_layer`, `key`, and those of `normals`, `facing` and `material` that are there. It refuses what the page says
that a reader must refuse, by ValueError.
"""

import hashlib
import io
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import zstandard
from PIL import Image

HEADER = "<8sHBBIIIQddQQII"
HEADER_FIELDS = ["magic", "version", "kind", "layout", "L", "H", "W", "n", "bound", "step"]
HEADER_FIELDS += ["raw", "frame_bytes", "frame_crc", "header_crc"]


def samples(folder: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Every sample, in the order of the manifest."""
    check_dataset_json((folder / "dataset.json").read_bytes())
    for row in pq.read_table(folder / "manifest.parquet").to_pylist():
        whole = (folder / "shards" / row["shard"]).read_bytes()
        if "shard_bytes" in row:
            refuse(len(whole) != row["shard_bytes"], "size of the shard")
            refuse(hashlib.sha256(whole).hexdigest() != row["shard_sha256"], "sha256 of the shard")
        refuse(whole[-1024:] != bytes(1024), "end of the shard")
        part = whole[row["offset"] : row["offset"] + row["bytes"]]
        refuse(hashlib.sha256(part).hexdigest() != row["sha256"], "sha256 of the sample")
        members = untar(row["key"], part)
        for member in row.get("members", []):
            content = members[member["name"]]
            digest = hashlib.sha256(content).digest()[:16]
            refuse((len(content), digest) != (member["bytes"], member["digest"]), "digest of a member")
        yield row["key"], frames_of(members)


def check_dataset_json(content: bytes) -> None:
    whole = json.loads(content)
    refuse(whole["format"] != "worldtrace" or whole["version"] not in (1, 2), "version of the dataset")
    if whole["version"] == 2:
        blank = content.replace(whole["digest"].encode(), b"0" * 64)
        refuse(hashlib.sha256(blank).hexdigest() != whole["digest"], "digest of dataset.json")


def untar(key: str, part: bytes) -> dict[str, bytes]:
    members = {}
    at = 0
    while at < len(part):
        block = part[at : at + 512]
        name = block[:100].rstrip(b"\0").decode("ascii")
        size = int(block[124:136].rstrip(b"\0 "), 8)
        refuse(block[156:157] not in (b"0", b"\0"), "type of a member")
        refuse(name.split(".", 1)[0] != key, "key of a member")
        members[name.split(".", 1)[1]] = part[at + 512 : at + 512 + size]
        at += 512 + (size + 511) // 512 * 512
    return members


def frames_of(members: dict[str, bytes]) -> list[dict[str, Any]]:
    meta = json.loads(members["json"])
    refuse(meta["version"] not in (1, 2), "version of a sample")
    frames = []
    for t, entry in enumerate(meta["frames"]):
        frame = lay_over(meta.get("shared", {}), entry)
        prefix = f"{t:03d}." if meta["clip"] else ""
        frame["hits"], frame["depth"] = layers(members[prefix + "layers.zst"])
        with Image.open(io.BytesIO(members[prefix + "rgba.webp"])) as image:
            frame["rgba"] = np.asarray(image.convert("RGBA"))
        refuse(frame["rgba"].shape[:2] != frame["hits"].shape, "size of the image")
        for name in ("normals", "facing", "material"):
            if f"{prefix}{name}.zst" in members:
                frame[name] = plane(name, members[f"{prefix}{name}.zst"], frame["hits"], len(frame["depth"]))
        frames.append(frame)
    return frames


def lay_over(shared: Any, own: Any) -> dict[str, Any]:
    refuse(not isinstance(shared, dict) or not isinstance(own, dict), "what frames share")
    whole = {name: value for name, value in shared.items() if name not in own}
    for name, value in own.items():
        whole[name] = lay_over(shared[name], value) if name in shared else value
    return whole


def layers(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """hits (H,W) and forward-filled depth (L,H,W)."""
    header, payload = opened(data, b"WTLAYERS", (1, 2))
    L, H, W, n = header["L"], header["H"], header["W"], header["n"]
    hits = np.frombuffer(payload[: H * W], np.uint8).reshape(H, W)
    refuse(int(hits.sum(dtype=np.int64)) != n or int(hits.max(initial=0)) > L, "hits")
    predictor, packing = header["layout"] & 15, header["layout"] >> 4
    if header["version"] == 1:
        refuse(header["layout"] != 0 or header["kind"] > 1, "codec of version 1")
        predictor, packing = (1, 0) if header["kind"] == 0 else (0, 0)
    words = unpack(payload[H * W :], n, packing)
    codes = dict(zip(hit_order(hits, L), words)) if predictor == 0 else predict(words, hits, L, predictor)
    depth = np.zeros((L, H, W), np.float32)
    for (l, v, u), q in codes.items():
        z = to_depth(header["kind"], q, header["step"])
        refuse(not (0 < z < float("inf")), "a depth")
        depth[l:, v, u] = z
    return hits, depth


def plane(name: str, data: bytes, hits: np.ndarray, L: int) -> np.ndarray:
    header, payload = opened(data, b"WTPLANES", (1,))
    number = ("normals", "facing", "material").index(name)
    refuse(header["kind"] != number or header["layout"] & 15 != 2, "plane")
    refuse((header["L"], header["H"], header["W"]) != (L, *hits.shape), "size of a plane")
    refuse(header["n"] != int(hits.sum(dtype=np.int64)), "hits of a plane")
    channels, n, step = (2, 1, 1)[number], header["n"], header["step"]
    words = unpack(payload, channels * n, header["layout"] >> 4)
    found = [predict(words[c * n : (c + 1) * n], hits, L, 2) for c in range(channels)]
    shape = (L, *hits.shape)
    values = (
        np.zeros((*shape, 3), np.float32),
        np.zeros(shape, np.int8),
        np.full(shape, -1, np.int32),
    )[number]
    for at, q in found[0].items():
        if name == "normals":
            values[at] = unfold(q * step - 1, found[1][at] * step - 1)
        elif name == "facing":
            values[at] = {0: 1, 1: -1}[q]
        else:
            values[at] = q
    return values


def unfold(x: float, y: float) -> np.ndarray:
    z = abs(x) + abs(y) - 1
    if z > 0:
        x, y = x - (-z if x < 0 else z), y - (-z if y < 0 else z)
    length = np.sqrt(np.float64(x * x + y * y + z * z))
    return np.array([x / length, y / length, z / length]).astype(np.float32)


def opened(data: bytes, magic: bytes, versions: tuple[int, ...]) -> tuple[dict[str, Any], bytes]:
    """The header as a map, and the payload."""
    refuse(len(data) < 72, "size of a header")
    header = dict(zip(HEADER_FIELDS, struct.unpack(HEADER, data[:72])))
    refuse(header["header_crc"] != zlib.crc32(data[:68]), "checksum of a header")
    refuse(header["magic"] != magic or header["version"] not in versions, "version")
    refuse(header["L"] * header["H"] * header["W"] > 1 << 26 or not 1 <= header["L"] <= 255, "size")
    refuse(not (1 <= header["H"] <= 16383 and 1 <= header["W"] <= 16383), "size of the image")
    refuse(not 0 <= header["bound"] < float("inf"), "bound")
    frame = data[72:]
    refuse(len(frame) != header["frame_bytes"], "size of the frame")
    refuse(zlib.crc32(frame) != header["frame_crc"], "checksum of the frame")
    payload = zstandard.ZstdDecompressor().decompress(frame)
    refuse(len(payload) != header["raw"], "size of the payload")
    return header, payload


def unpack(data: bytes, n: int, packing: int) -> list[int]:
    if packing == 0:
        return four_planes(data, n)
    refuse(packing != 1, "packing")
    pairs = data[: (n + 1) // 2]
    halves = [half for byte in pairs for half in (byte >> 4, byte & 15)]
    refuse(n % 2 == 1 and halves.pop() != 0, "half byte")
    further = iter(four_planes(data[len(pairs) :], halves.count(15)))
    return [15 + next(further) if half == 15 else half for half in halves]


def four_planes(data: bytes, n: int) -> list[int]:
    refuse(len(data) != 4 * n, "size of the words")
    return [data[i] | data[n + i] << 8 | data[2 * n + i] << 16 | data[3 * n + i] << 24 for i in range(n)]


def hit_order(hits: np.ndarray, L: int) -> list[tuple[int, int, int]]:
    H, W = hits.shape
    return [(l, v, u) for l in range(L) for v in range(H) for u in range(W) if hits[v, u] > l]


def predict(words: list[int], hits: np.ndarray, L: int, predictor: int) -> dict[tuple[int, int, int], int]:
    """Codes q by (l, v, u), from zigzag residuals."""
    refuse(predictor not in (1, 2), "predictor")
    order = hit_order(hits, L)
    there = set(order)
    linked = [(l, v, u) for l, v, u in order if (l, v, u - 1) in there]
    starts = [(l, v, u) for l, v, u in order if (l, v, u - 1) not in there]
    residual = dict(zip(linked + starts, [word // 2 if word % 2 == 0 else -(word // 2) - 1 for word in words]))
    q: dict[tuple[int, int, int], int] = {}
    d: dict[tuple[int, int, int], int] = {}
    for l, v, u in order:
        r = residual[l, v, u]
        if (l, v, u - 1) in there:
            d[l, v, u] = r + (d.get((l, v - 1, u), 0) if predictor == 1 else 0)
            q[l, v, u] = (q[l, v, u - 1] + d[l, v, u]) % 2**32
        else:
            parents = ((l, v - 1, u), (l, v - 1, u + 1), (l, v - 1, u - 1), (l - 1, v, u))
            parent = next((p for p in parents if p in there), None)
            q[l, v, u] = (r + (q[parent] if parent is not None else 0)) % 2**32
    return q


def to_depth(codec: int, q: int, step: float) -> float:
    if codec == 1:
        return float(struct.unpack("<f", struct.pack("<I", q))[0])
    refuse(not 1 <= q < 2**29, "a code")
    if codec == 0:
        return 1.0 / (q * step)
    if codec == 3:
        return q * step
    refuse(codec != 2, "codec")
    low = [1.0]
    while len(low) < 4096:
        low.append(low[-1] * step)
    high, ratio = 2.0**-150, low[4095] * step
    for _ in range(q >> 12):
        high *= ratio
    return high * low[q & 4095]


def permuted(text: str, n: int, x: int) -> int:
    """P(text, n)(x)."""
    digest = hashlib.blake2b(text.encode(), digest_size=64).digest()
    keys = struct.unpack("<8Q", digest)
    bits = max(1, -(-(n - 1).bit_length() // 2))
    while True:
        left, right = x >> bits, x & ((1 << bits) - 1)
        for key in keys:
            left, right = right, left ^ (mix(right ^ key) & ((1 << bits) - 1))
        x = left << bits | right
        if x < n:
            return x


def mix(y: int) -> int:
    y = (y ^ y >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    y = (y ^ y >> 27) * 0x94D049BB133111EB % 2**64
    return y ^ y >> 31


def row_at(g: int, n: int, seed: int, digest: str) -> int:
    """Row at global position g."""
    return permuted(f"order {seed} {digest} {n} {g // n}", n, g % n)


def row_at_windows(g: int, counts: list[int], window: int, seed: int, digest: str) -> int:
    """The same with windows of `window` shards; `counts` are the rows of the shards."""
    n, S = sum(counts), len(counts)
    epoch, at = divmod(g, n)
    places = [permuted(f"shards {seed} {digest} {S} {epoch}", S, i) for i in range(S)]
    rows = [sum(counts[:s]) + i for s in places for i in range(counts[s])]
    k = -(-S // window)
    begin = 0
    for w in range(k):
        size = sum(counts[s] for s in places[w * S // k : (w + 1) * S // k])
        if at < begin + size:
            return rows[begin + permuted(f"window {seed} {digest} {epoch} {w}", size, at - begin)]
        begin += size
    raise AssertionError("a position beyond the epoch")


def refuse(wrong: bool, what: str) -> None:
    if wrong:
        raise ValueError(f"{what} is not as it must be")
