"""How many bytes do layers and images take, at what error and in what time, against other ways to keep them?

    OMP_NUM_THREADS=1 python tests/benchmarks/codec.py ASSETS_FOLDER... [--regime object] [--views 2] [--size 504]

Views of real assets are rendered, and each is kept in every way in turns; seconds are those of CPU of this process, the
least of three. Sections: whole samples; layers by codec; layers as others keep them (float32 in a compressed npz, PNGs
of 16 bits, the prototype of issue 5); layer 0 as depth sensors and outdoor scans give it; levels of zstd; images.
"""

import argparse
import hashlib
import io
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from PIL import Image

import render
import shards
from render import Rejected, RenderSettings
from render.load import SUFFIXES
from shards import LayeredView, Origin, generator
from shards.image import decode_rgba, encode_rgba
from shards.layers.codec import DEFAULT_BOUND, decode_layers, encode_layers, read_header
from shards.layers.packing import pack, packing_of
from shards.layers.prediction import residuals, structure
from shards.layers.quantise import codes

TURNS = 3
Way = tuple[Callable[[LayeredView], bytes], Callable[[bytes], Any] | None]


def views_of(folders: Iterable[Path], settings: RenderSettings) -> list[LayeredView]:
    views: list[LayeredView] = []
    for path in sorted(p for folder in folders for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        origin = Origin(path.stem, "folder", hashlib.sha256(path.read_bytes()).hexdigest())
        try:
            samples = render.render_views(render.load(path), origin, settings).samples
        except Rejected:
            continue
        views += [sample for sample in samples if isinstance(sample, LayeredView)]
    return views


def npz(view: LayeredView) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, depth=view.depth, hits=view.hits)
    return out.getvalue()


def pngs(view: LayeredView) -> bytes:
    """A PNG of 16 bits a layer: z from the nearest to the farthest hit in equal steps, 0 where there is no hit."""
    hit, parts = view.hit, []
    z = view.depth[hit]
    low, high = (float(z.min()), float(z.max())) if z.size else (0.0, 1.0)
    for depth, there in zip(view.depth, hit):
        levels = 1 + np.rint((depth - low) / max(high - low, 1e-9) * 65534)
        out = io.BytesIO()
        Image.fromarray(np.where(there, levels, 0).astype(np.uint16)).save(out, "PNG")
        parts.append(out.getvalue())
    return b"".join(parts)


def prototype(view: LayeredView) -> bytes:
    """Inverse depth by planes, as the prototype predicts it: left + up - corner, a line where there is no corner."""
    hit = np.pad(view.hit, ((0, 0), (2, 0), (2, 0)))
    z = view.depth[view.hit].astype(np.float64)
    if not z.size:
        return b""
    q = np.zeros(hit.shape, np.int64)
    q[:, 2:, 2:][view.hit] = np.rint(1 / z / (2 * DEFAULT_BOUND / z.max()))

    def at(array: np.ndarray, v: int, u: int) -> np.ndarray:
        return np.roll(array, (v, u), (1, 2))

    a, b, c = at(hit, 0, 1), at(hit, 1, 0), at(hit, 1, 1)
    a2, b2 = at(hit, 0, 2) & a, at(hit, 2, 0) & b
    left, up, corner = at(q, 0, 1), at(q, 1, 0), at(q, 1, 1)
    plane, line = left + up - corner, 2 * left - at(q, 0, 2)
    split = a2 & (np.abs(line - plane) > 64) & (np.abs(up - corner) > 64)
    before = np.concatenate([np.zeros_like(q[:1]), q[:-1]])
    rest = np.where(a2, line, np.where(b2, 2 * up - at(q, 2, 0), np.where(a, left, np.where(b, up, before))))
    expected = np.where(a & b & c, np.where(split, left, plane), rest)
    r = (q - expected)[hit]
    words = np.minimum((r << 1) ^ (r >> 63), 65535).astype("<u2")
    payload = words.view(np.uint8).reshape(-1, 2).T.tobytes()
    level9 = zstandard.ZstdCompressor(level=9)
    return level9.compress(payload) + level9.compress(view.hits.tobytes())


def at_level(level: int) -> Callable[[LayeredView], bytes]:
    """The default codec with another level of zstd, without its header."""

    def run(view: LayeredView) -> bytes:
        found = codes(view.depth[view.hit], "inverse", DEFAULT_BOUND)
        assert found is not None
        words = residuals(found[0], structure(view.hit))
        payload = view.hits.tobytes() + pack(words, packing_of(words))
        return zstandard.ZstdCompressor(level=level).compress(payload)

    return run


def picture(kind: str, **options: Any) -> Way:
    def run(view: LayeredView) -> bytes:
        out = io.BytesIO()
        Image.fromarray(view.rgba, "RGBA").save(out, kind, **options)
        return out.getvalue()

    return run, lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


def sensor(view: LayeredView, scale: float, noise: Callable[[np.ndarray], Any], step: float) -> LayeredView:
    """Layer 0 as a sensor would give it: metres times `scale`, with noise, holes of 8 pixels and dropped pixels."""
    rng = generator(0, "sensor", view.key)
    height, width = view.size
    z = view.depth[0].astype(np.float64) * scale
    z = z + noise(z) * rng.normal(size=z.shape)
    z = np.rint(z / step) * step if step else z
    holes = np.kron(rng.random((height // 8 + 1, width // 8 + 1)) < 0.08, np.ones((8, 8), bool))[:height, :width]
    hits = ((view.hits > 0) & (z > 0.1) & ~holes & (rng.random(z.shape) > 0.01)).astype(np.uint8)
    depth = np.repeat(np.where(hits > 0, z, 0).astype(np.float32)[None], view.layers, axis=0)
    return LayeredView(
        view.key, view.rgba, hits, depth, view.K, view.world_from_camera, "rgbd", view.origin, single_layer=True
    )


SENSORS: dict[str, tuple[float, Callable[[np.ndarray], Any], float]] = {
    "1 mm steps, noise of a Kinect": (1.0, lambda z: 0.0012 + 0.0019 * (z - 0.4) ** 2, 1e-3),
    "1 mm steps, noise of 1 mm": (1.0, lambda z: 1e-3, 1e-3),
    "1 mm steps, no noise": (1.0, lambda z: 0.0, 1e-3),
    "20 times as far, noise of 0.2 %": (20.0, lambda z: 0.002 * z, 0.0),
    "20 times as far, no noise": (20.0, lambda z: 0.0, 0.0),
}


class Table:
    """Bytes and seconds of ways to keep views, in turns."""

    def __init__(self, ways: dict[str, Way]) -> None:
        self.ways = ways
        self.bytes: dict[str, list[int]] = defaultdict(list)
        self.seconds: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.notes: dict[str, list[float]] = defaultdict(list)

    def add(self, view: LayeredView, note: Callable[[LayeredView, Any], float] | None = None) -> None:
        best = {name: [np.inf, np.inf] for name in self.ways}
        kept: dict[str, tuple[bytes, Any]] = {}
        for _ in range(TURNS):
            for name, (encode, decode) in self.ways.items():
                start = time.process_time()
                data = encode(view)
                middle = time.process_time()
                again = decode(data) if decode is not None else None
                end = time.process_time()
                best[name] = [min(best[name][0], middle - start), min(best[name][1], end - middle)]
                kept[name] = data, again
        for name, (data, again) in kept.items():
            self.bytes[name].append(len(data))
            self.seconds[name].append((best[name][0], best[name][1]))
            if note is not None and again is not None:
                self.notes[name].append(note(view, again))

    def show(self, title: str, hits: int = 0, worst: Callable[[list[float]], float] = max, unit: str = "") -> None:
        print(f"\n{title}\n{'':34s} {'KB mean':>8s} {'median':>7s} {'encode':>7s} {'decode':>7s} ms of CPU")
        for name, sizes in self.bytes.items():
            encode, decode = (1e3 * float(np.mean([s[i] for s in self.seconds[name]])) for i in (0, 1))
            line = f"{name:34s} {np.mean(sizes) / 1e3:8.1f} {np.median(sizes) / 1e3:7.1f} {encode:7.2f} {decode:7.2f}"
            if hits:
                line += f"  {8 * sum(sizes) / hits:6.2f} bits a hit"
            if self.notes[name]:
                line += f"  {unit} {worst(self.notes[name]):.3g}"
            print(line)


def depth_error(view: LayeredView, again: Any) -> float:
    """The greatest relative error of a true hit."""
    exact = view.depth[view.hit].astype(np.float64)
    return float((np.abs(again[1][view.hit] - exact) / exact).max(initial=0.0))


def rim_error(view: LayeredView, again: Any) -> float:
    """PSNR in dB, over black, of the pixels beside another alpha or a step of depth: thin parts and silhouettes."""
    rim = np.zeros(view.size, bool)
    for axis in (0, 1):
        for array in (view.rgba[..., 3].astype(np.float64) * 100, np.log(np.maximum(view.depth[0], 1e-3)) * 50):
            jump = np.abs(np.diff(array, axis=axis)) > 1
            rim |= np.pad(jump, [(1, 0) if a == axis else (0, 0) for a in (0, 1)])
            rim |= np.pad(jump, [(0, 1) if a == axis else (0, 0) for a in (0, 1)])
    over = [rgba[..., :3] * (rgba[..., 3:] / 255) for rgba in (view.rgba.astype(np.float64), again.astype(np.float64))]
    error = float(((over[0] - over[1])[rim] ** 2).mean()) if rim.any() else 0.0
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def layers_way(codec: Any) -> Way:
    return lambda view: encode_layers(view.hits, view.depth, codec), decode_layers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assets", type=Path, nargs="+")
    parser.add_argument("--regime", choices=("object", "scene"), default="object")
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--size", type=int, default=504)
    arguments = parser.parse_args()
    size = arguments.size
    settings = RenderSettings(views=arguments.views, height=size, width=size, backend="cpu", regime=arguments.regime)
    views = views_of(arguments.assets, settings)
    hits = sum(int(view.hits.sum()) for view in views)
    print(f"{len(views)} views, {size} x {size}, {hits / len(views):.0f} hits a view")

    samples = Table({"sample": (lambda view: b"".join(shards.encode(view).members.values()), None)})
    layers = Table({codec: layers_way(codec) for codec in ("auto", "inverse", "log", "float32")})
    peers = Table(
        {"layers.zst": layers_way("auto"), "npz": (npz, None), "png": (pngs, None), "proto": (prototype, None)}
    )
    levels = Table({f"level {level}": (at_level(level), None) for level in (1, 3, 6, 9, 12, 15, 19)})
    images: dict[str, Way] = {
        "ours: WebP lossless": (lambda view: encode_rgba(view.rgba), lambda data: decode_rgba(data, size, size)),
        "WebP lossless 4, 75": picture("WEBP", lossless=True, method=4, quality=75),
        **{f"WebP {quality}": picture("WEBP", quality=quality) for quality in (80, 92, 98)},
        "PNG": picture("PNG"),
        **{f"AVIF {quality} 4:4:4": picture("AVIF", quality=quality, subsampling="4:4:4") for quality in (80, 95)},
    }
    pictures = Table(images)
    for view in views:
        samples.add(view)
        layers.add(view, depth_error)
        peers.add(view)
    for view in views[::4]:
        levels.add(view)
        pictures.add(view, rim_error)
    samples.show("whole samples (members alone)")
    layers.show("layers by codec", hits, unit="greatest relative error")
    peers.show("layers as others keep them", hits)
    ours, other = sum(peers.bytes["layers.zst"]), {name: sum(peers.bytes[name]) for name in ("npz", "png", "proto")}
    print("  ours against: " + ", ".join(f"{name} {ours / other[name]:.3f}" for name in other))
    chosen: dict[str, int] = defaultdict(int)
    for view in views:
        header = read_header(encode_layers(view.hits, view.depth))
        chosen[f"{header.codec} {header.predictor} {header.packing}"] += 1
    print(f"  chosen: {dict(chosen)}")
    levels.show("layers, codec inverse, every fourth view: level of zstd")
    pictures.show("images, every fourth view", worst=min, unit="worst PSNR at rims, dB")
    if arguments.regime == "scene":
        for name, how in SENSORS.items():
            seen = [sensor(view, *how) for view in views]
            table = Table({codec: layers_way(codec) for codec in ("auto", "inverse", "log", "float32")})
            table.ways["npz"] = (npz, None)
            for view in seen:
                table.add(view, depth_error)
            table.show(f"one layer: {name}", sum(int(v.hits.sum()) for v in seen), unit="greatest relative error")


if __name__ == "__main__":
    main()
