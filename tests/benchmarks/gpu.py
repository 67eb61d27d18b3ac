"""What a GPU makes of it: peel against nvdiffrast, views a second, the whole path with many cores, and parity.

    python tests/benchmarks/gpu.py ASSETS_FOLDER [--only peel shade path parity] [--device cuda] [--turns 7]

A table comes last, a line for each figure with what is wanted of it; exits 1 if one is missed. What cannot run (no
nvdiffrast, no assets) is a line that says why.

peel    64 views of 250K triangles at 504 x 504, six layers: `Scene.keys` of the whole images, and of their windows,
        against nvdiffrast's DepthPeeler, six layers of a batch of 64, from clip-space positions that are there
        already. In turns in one process; each turn ends with a synchronisation; nothing is copied from or to the host
        on either side but our cameras. Ours projects in that time, nvdiffrast does not. The figure is the median of
        the turns' ratios.
shade   Peel, alpha test and merge, peel at 2 x 2 samples, shade and meter of 64 views of real assets, on the device;
        the shadow maps are timed apart. Then `render_views` as a whole, which adds what the host does.
path    `render_views` and `shards.encode` on real assets by --cores processes, each with a CUDA context of its own, as
        the job runs them; then by one process that renders and threads that encode.
parity  Hits of every asset, `cpu` against this device and against nvdiffrast: pixels of equal counts, and the largest
        |dz| / z where they are equal; hits closer than 1e-5 of z merged on both sides.

    python tests/benchmarks/gpu.py ASSETS_FOLDER --device cpu --small

runs what needs no GPU, in a minute, to see that it works.
"""

import argparse
import hashlib
import multiprocessing
import os
import queue
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import warp as wp
from peers import forest, merged, nested_spheres, real_asset

import render
import shards
from render import Mesh, Rejected, RenderSettings
from render.backends import NvdiffrastPeeler, clip_from_camera
from render.cameras import Camera, intrinsics, look_at
from render.frames import Stage
from render.lights import DIRECTIONAL, POINT, Lights
from render.load import SUFFIXES
from render.normalise import normalise
from render.peel import Scene, device_of
from render.settings import DEPTH_ERROR
from shards import LayeredView, Origin

NEAR = 1e-3


@dataclass(frozen=True)
class Row:
    """A line of the last table. `wanted` is what `value` should reach, None where nothing is asked for."""

    what: str
    value: float | None
    unit: str = "x"
    wanted: float | None = None
    note: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.what:62s} {'':>12s}  {self.note}"
        verdict = "" if self.wanted is None else ("reached" if self.reached else "MISSED")
        asked = "" if self.wanted is None else f">= {self.wanted:g}"
        return f"{self.what:62s} {self.value:12.4g} {self.unit:12s} {asked:>9s} {verdict:8s} {self.note}"

    @property
    def reached(self) -> bool:
        return self.value is None or self.wanted is None or self.value >= self.wanted


def skipped(what: str, error: BaseException) -> Row:
    first = (str(error).splitlines() or [""])[0]
    return Row(what, None, note=f"skipped: {type(error).__name__}: {first}"[:160])


def turns_of(runs: dict[str, Callable[[], Any]], turns: int) -> dict[str, np.ndarray]:
    """Seconds (turns,) of each run, taken in turns after one to warm up; each ends with both libraries at rest."""
    took: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(turns + 1):
        for name, run in runs.items():
            at_rest()
            start = time.perf_counter()
            run()
            at_rest()
            if turn:
                took[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in took.items()}


def at_rest() -> None:
    """Waits for every device, Warp's streams and torch's."""
    wp.synchronize()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.synchronize()


def orbit(views: int, size: int, distance: float, centre: np.ndarray) -> list[Camera]:
    """Cameras around the vertical through `centre`, a little above it."""
    K = intrinsics(45.0, size, size)
    angles = np.linspace(0, 2 * np.pi, views, endpoint=False)
    eyes = centre + distance * np.stack([np.sin(angles), np.full(views, 0.2), np.cos(angles)], axis=1)
    return [Camera(K, look_at(eye, centre), size, size, {}) for eye in eyes]


def arrays_of(cameras: Sequence[Camera]) -> tuple[np.ndarray, np.ndarray]:
    """K (B,3,3) and camera_from_world (B,4,4)."""
    poses = np.stack([np.linalg.inv(camera.world_from_camera) for camera in cameras])
    poses[:, 3] = 0.0, 0.0, 0.0, 1.0
    return np.stack([camera.K for camera in cameras]), poses


def planes(z: np.ndarray) -> tuple[float, float]:
    """z of the vertices, any shape -> near and far, close around them unless some lie behind or beside the camera.

    In float32, z / w with a near plane at 1e-3 is off by some 1e-4 at z = 2, too coarse to put hits in order.
    """
    lowest, highest = float(z.min()), float(z.max())
    near = max(NEAR, 0.99 * lowest)
    return near, max(1.01 * highest, 2 * near)


class Nvdiffrast:
    """DepthPeeler of a batch of views of one mesh, whose clip-space positions (B,V,4) are on the device."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, K: np.ndarray, pose: np.ndarray, size: int) -> None:
        import nvdiffrast.torch as dr
        import torch

        self.dr, self.torch, self.size = dr, torch, size
        if size % 8:
            raise ValueError(f"nvdiffrast needs a size that is a multiple of 8, not {size}")
        camera = vertices @ pose[:, :3, :3].transpose(0, 2, 1) + pose[:, None, :3, 3]
        near, far = planes(camera[..., 2])
        clip = np.stack([clip_from_camera(k, size, size, near, far) for k in K])
        positions = np.concatenate([camera, np.ones((*camera.shape[:2], 1))], axis=2) @ clip.transpose(0, 2, 1)
        self.positions = torch.from_numpy(positions.astype(np.float32)).cuda().contiguous()
        self.faces = torch.from_numpy(np.ascontiguousarray(faces, np.int32)).cuda()
        self.context = dr.RasterizeCudaContext()

    def peel(self, layers: int) -> list[Any]:
        """A tensor (B,H,W,4) for each layer; channel 3 is the triangle plus 1, 0 where there is none."""
        rasters = []
        with (
            self.torch.no_grad(),
            self.dr.DepthPeeler(
                self.context, self.positions, self.faces, (self.size, self.size), grad_db=False
            ) as peeler,
        ):
            for _ in range(layers):
                raster, _ = peeler.rasterize_next_layer()
                rasters.append(raster)
        return rasters

    def hits(self, layers: int) -> int:
        return sum(int((raster[..., 3] > 0).sum()) for raster in self.peel(layers))


def peel_rows(device: str, views: int, size: int, layers: int, turns: int, small: bool) -> list[Row]:
    rows: list[Row] = []
    cases = {"nested spheres": nested_spheres(2 if small else 6, size), "forest": forest(size, 3 if small else 50)}
    for name, case in cases.items():
        scene = Scene(case.vertices, case.faces, device)
        low, high = case.vertices.min(axis=0), case.vertices.max(axis=0)
        K, pose = arrays_of(orbit(views, size, 1.1 * float(np.linalg.norm(high - low)), (low + high) / 2))
        boxes = scene.windows(K, pose, size, size)
        height, width = (int(boxes[:, k].max()) for k in (2, 3))
        origins = np.minimum(boxes[:, :2], [size - height, size - width])

        def whole(scene: Scene = scene, K: np.ndarray = K, pose: np.ndarray = pose) -> Any:
            pose[:, 2, 3] += 1e-9  # a hair, so that nothing that was projected is used again
            return scene.keys(K, pose, size, size, layers, NEAR)

        def window(
            scene: Scene = scene,
            K: np.ndarray = K,
            pose: np.ndarray = pose,
            part: tuple[int, int] = (height, width),
            origins: np.ndarray = origins,
        ) -> Any:
            pose[:, 2, 3] += 1e-9
            return scene.keys(K, pose, *part, layers, NEAR, origins)

        label = f"peel, {views} views of {len(case.faces)} triangles ({name})"
        runs: dict[str, Callable[[], Any]] = {"whole": whole, "window": window}
        try:
            peer = Nvdiffrast(case.vertices, case.faces, K, pose, size)
            runs["nvdiffrast"] = lambda peer=peer: peer.peel(layers)
        except Exception as error:  # not installed, no CUDA, or its plug-in does not build
            rows.append(skipped(f"{label}: nvdiffrast", error))
        took = turns_of(runs, turns)
        for run, seconds in took.items():
            rows.append(Row(f"{label}: {run}", views / float(np.median(seconds)), "views/s"))
        if "nvdiffrast" in took:
            for run in ("whole", "window"):
                ratio = float(np.median(took["nvdiffrast"] / took[run]))
                rows.append(
                    Row(f"{label}: nvdiffrast's time / ours, {run}", ratio, "x", 5.0 if run == "whole" else None)
                )
            empty = np.uint64(0xFFFFFFFFFFFFFFFF)
            mine = int((whole().numpy() != empty).sum())
            theirs = peer.hits(layers)
            rows.append(Row(f"{label}: hits, nvdiffrast's / ours", theirs / max(mine, 1), "", None, f"{mine} of ours"))
            del peer, runs
    return rows


def assets_of(folder: Path | None, most: int, limit: int) -> list[tuple[str, Mesh, Origin]]:
    """(name, mesh, origin) of real assets of at most `most` faces, evenly chosen, at most `limit`."""
    if folder is None:
        raise ValueError("no folder of assets was given")
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        try:
            mesh = render.load(path)
        except Rejected:
            continue
        if len(mesh.faces) <= most:
            name = str(path.relative_to(folder))
            found.append((name, mesh, Origin(name, "folder", hashlib.sha256(path.read_bytes()).hexdigest())))
    if not found:
        raise ValueError(f"{folder} holds no asset of at most {most} faces")
    chosen = np.unique(np.linspace(0, len(found) - 1, min(limit, len(found))).round().astype(int))
    return [found[i] for i in chosen]


def lights_of(view: LayeredView) -> Lights:
    """The lights of a view as its `info` has them."""
    light = view.info["light"]
    each = light["lights"]
    kind = np.array([{"directional": DIRECTIONAL, "point": POINT}[one["kind"]] for one in each], np.int32)
    vector = np.array([one["vector"] for one in each], np.float32).reshape(-1, 3)
    color = np.array([one["color"] for one in each], np.float32).reshape(-1, 3)
    return Lights(np.array(light["sh"], np.float32), kind, vector, color)


def shade_rows(folder: Path | None, device: str, views: int, size: int, turns: int, limit: int) -> list[Row]:
    s = RenderSettings(views=views, height=size, width=size, backend=device)
    per_view: dict[str, list[float]] = {"peel and shade": [], "shadow maps": [], "render_views": []}
    for name, mesh, origin in assets_of(folder, 250_000, limit):
        begin = time.perf_counter()
        rendered = render.render_views(mesh, origin, s)  # also warms up
        taken = [sample for sample in rendered.samples if isinstance(sample, LayeredView)]
        if not taken or mesh.pose is not None:
            continue
        warm = time.perf_counter() - begin
        stage = Stage(normalise(mesh, ())[0], s, {})
        cameras = [Camera(view.K, view.world_from_camera, size, size, {}) for view in taken]
        lights = [lights_of(view) for view in taken]
        parts = [slice(i, i + stage.batch) for i in range(0, len(taken), stage.batch)]
        framed = [stage.framed(cameras[part]) for part in parts]
        maps = [stage.shadows(lights[part], False) for part in parts]

        def on_device(
            stage: Stage = stage, parts: Any = parts, framed: Any = framed, lights: Any = lights, maps: Any = maps
        ) -> None:
            for part, shots, cast in zip(parts, framed, maps):
                keys = stage.peeler.keys(shots, s.slots, s.near)
                stage.shader.surfaces(
                    keys, shots.rays, shots.origins, shots.size, s.layers, stage.tolerance, 4 * DEPTH_ERROR
                )
                stage.shader.meter(stage.image(shots, lights[part], cast))

        def shadow(stage: Stage = stage, parts: Any = parts, lights: Any = lights) -> None:
            for part in parts:
                stage.shadows(lights[part], False)

        def front_door(mesh: Mesh = mesh, origin: Origin = origin) -> None:
            render.render_views(mesh, origin, s)

        runs: list[Callable[[], None]] = [on_device, shadow, front_door]
        took = turns_of(dict(zip(per_view, runs)), turns)
        for label, seconds in took.items():
            per_view[label].append(float(np.median(seconds)) / (views if label == "render_views" else len(taken)))
        shown = ", ".join(f"{label} {1e3 * values[-1]:.3f} ms" for label, values in per_view.items())
        print(f"{name[-40:]:40s} {len(mesh.faces):7d} faces, a view: {shown}; first time {warm:.2f} s", flush=True)
    rows = []
    for label, values in per_view.items():
        if values:
            wanted = 2000.0 if label == "peel and shade" else None
            note = f"{len(values)} assets x {views} views, slowest {1 / max(values):.0f}"
            rows.append(Row(f"{label}, 2 x 2 samples", 1 / float(np.mean(values)), "views/s", wanted, note))
    return rows


def worker(number: int, device: str, folder: str, views: int, size: int, limit: int, seconds: float, ends: Any) -> None:
    """One process of the job: renders and encodes assets that it has loaded until the time is up."""
    barrier, results = ends
    try:
        assets = assets_of(Path(folder), 250_000, limit)
        settings = RenderSettings(views=views, height=size, width=size, backend=device, seed=number)
        render.render_views(assets[0][1], assets[0][2], settings)
    except BaseException:
        barrier.abort()
        raise
    barrier.wait(timeout=300)
    begin, made, turn = time.perf_counter(), 0, number  # workers begin at different assets
    spent = {"render": 0.0, "encode": 0.0}
    while time.perf_counter() - begin < seconds:
        _, mesh, origin = assets[turn % len(assets)]
        start = time.perf_counter()
        rendered = render.render_views(mesh, origin, settings.model_copy(update={"seed": turn}))
        middle = time.perf_counter()
        made += len([shards.encode(sample) for sample in rendered.samples])
        spent["render"] += middle - start
        spent["encode"] += time.perf_counter() - middle
        turn += 1
    results.put((made, time.perf_counter() - begin, spent))


def gathered(results: Any, processes: Sequence[Any]) -> list[Any]:
    """One result of each process, from a queue; RuntimeError as soon as one has died."""
    found: list[Any] = []
    while len(found) < len(processes):
        codes = [process.exitcode for process in processes]  # before the queue is asked: what ended has put its result
        try:
            found.append(results.get(timeout=2))
        except queue.Empty:
            if any(code not in (None, 0) for code in codes) or None not in codes:
                raise RuntimeError(f"a process ended without a result; exit codes: {codes}") from None
    return found


def path_rows(
    folder: Path | None, device: str, cores: int, views: int, size: int, limit: int, seconds: float
) -> list[Row]:
    if folder is None:
        raise ValueError("no folder of assets was given")
    context = multiprocessing.get_context("spawn")  # a CUDA context does not survive a fork
    ends = context.Barrier(cores), context.Queue()
    arguments = (device, str(folder), views, size, limit, seconds, ends)
    processes = [context.Process(target=worker, args=(n, *arguments)) for n in range(cores)]
    for process in processes:
        process.start()
    try:
        results = gathered(ends[1], processes)
    except BaseException:
        for process in processes:  # those that wait for one that died
            process.terminate()
        raise
    finally:
        for process in processes:
            process.join(timeout=30)
            if process.is_alive():
                process.terminate()
    rate = sum(made / took for made, took, _ in results)
    shares = {name: sum(spent[name] for _, _, spent in results) for name in ("render", "encode")}
    note = ", ".join(f"{name} {100 * value / max(sum(shares.values()), 1e-9):.0f} %" for name, value in shares.items())
    rows = [Row(f"whole path, {cores} processes", rate, "views/s", 200.0, f"of their time: {note}")]

    assets = assets_of(folder, 250_000, limit)
    settings = RenderSettings(views=views, height=size, width=size, backend=device)
    render.render_views(assets[0][1], assets[0][2], settings)
    pending: list[Future[Any]] = []
    begin, turn, rendering = time.perf_counter(), 0, 0.0
    with ThreadPoolExecutor(max(cores - 1, 1)) as pool:
        while time.perf_counter() - begin < seconds:
            _, mesh, origin = assets[turn % len(assets)]
            start = time.perf_counter()
            rendered = render.render_views(mesh, origin, settings.model_copy(update={"seed": turn}))
            rendering += time.perf_counter() - start
            pending += [pool.submit(shards.encode, sample) for sample in rendered.samples]
            turn += 1
            if len(pending) > 512:  # memory: wait for the oldest
                pending.pop(0).result()
        made = turn * views
        for future in pending:
            future.result()
        took = time.perf_counter() - begin
    note = f"rendering {100 * rendering / took:.0f} % of the time"
    rows.append(Row(f"whole path, one process and {cores - 1} threads that encode", made / took, "views/s", None, note))
    return rows


def agreement(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Depth (S,P) twice -> share of the pixels with equal counts of hits, and the largest |dz| / z where equal."""
    a, b = merged(a), merged(b)
    same = np.isfinite(a).sum(axis=0) == np.isfinite(b).sum(axis=0)
    z, other = a[:, same], b[:, same]
    found = np.isfinite(z)
    error = float((np.abs(z[found] - other[found]) / z[found]).max()) if found.any() else 0.0
    return float(same.mean()), error


def parity_rows(folder: Path | None, device: str, size: int, slots: int, most: int) -> list[Row]:
    if folder is None:
        raise ValueError("no folder of assets was given")
    sides: dict[str, list[tuple[float, float]]] = {f"cpu and {device}": [], "cpu and nvdiffrast": []}
    rows: list[Row] = []
    bits = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        case = real_asset(path, size, most)
        if isinstance(case, str):
            continue
        reference = Scene(case.vertices, case.faces, "cpu").peel(case.K, size, size, slots).numpy()
        a = reference.depth.reshape(slots, -1)
        other = Scene(case.vertices, case.faces, device).peel(case.K, size, size, slots).numpy()
        bits.append(all(np.array_equal(x, y) for x, y in zip(reference, other)))
        found = {f"cpu and {device}": agreement(a, other.depth.reshape(slots, -1))}
        try:
            peer = NvdiffrastPeeler(case.vertices, case.faces)
            theirs = peer.peel(case.K, size, size, slots, NEAR, np.eye(4)).depth.reshape(slots, -1)
            found["cpu and nvdiffrast"] = agreement(a, np.sort(theirs, axis=0))
        except Exception as error:  # not installed, no CUDA, or its plug-in does not build
            if not any("nvdiffrast" in row.what for row in rows):
                rows.append(skipped("parity with nvdiffrast", error))
        for side, (share, dz) in found.items():
            sides[side].append((share, dz))
        text = "; ".join(f"{side}: equal {100 * share:.4f} %, dz/z {dz:.1e}" for side, (share, dz) in found.items())
        print(f"{path.stem[-40:]:40s} {len(case.faces):7d} faces  {text}", flush=True)
    for side, pairs in sides.items():
        if pairs:
            share, dz = (np.array(column) for column in zip(*pairs))
            wanted, bound = (99.99, 1e-5) if side == f"cpu and {device}" else (99.9, 1e-4)
            good = int(((100 * share >= wanted) & (dz <= bound)).sum())
            note = f"{good} of {len(pairs)} assets; largest dz/z {dz.max():.1e}, wanted <= {bound:g}"
            rows.append(Row(f"equal counts, worst asset: {side}", 100 * float(share.min()), "%", wanted, note))
            rows.append(Row(f"depth agrees: {side}", float(bound / max(dz.max(), 1e-300) >= 1), "", 1.0))
    rows.append(Row(f"every bit equal: cpu and {device}", sum(bits), "assets", None, f"of {len(bits)}"))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assets", type=Path, nargs="?")
    names = ("peel", "shade", "path", "parity")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--views", type=int, default=64)
    parser.add_argument("--path-views", type=int, default=16, help="views of an asset in `path`")
    parser.add_argument("--size", type=int, default=504)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--slots", type=int, default=32, help="hits compared in `parity`")
    parser.add_argument("--most", type=int, default=1_000_000, help="faces of an asset in `parity`")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--cores", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement in `path`")
    parser.add_argument("--limit", type=int, default=16, help="real assets in `shade` and `path`")
    parser.add_argument("--small", action="store_true", help="little of everything")
    a = parser.parse_args()
    if a.small:
        a.views, a.path_views, a.size, a.turns, a.cores, a.seconds, a.limit, a.most = 3, 2, 128, 2, 2, 3.0, 3, 3000
    try:
        device = device_of(a.device)
    except ValueError as error:
        sys.exit(str(error).replace("--backend", "--device"))
    print(f"{device.name}, Warp {wp.config.version}, {os.cpu_count()} cores", flush=True)

    measure: dict[str, Callable[[], list[Row]]] = {
        "peel": lambda: peel_rows(a.device, a.views, a.size, a.layers, a.turns, a.small),
        "shade": lambda: shade_rows(a.assets, a.device, a.views, a.size, a.turns, a.limit),
        "path": lambda: path_rows(a.assets, a.device, a.cores, a.path_views, a.size, a.limit, a.seconds),
        "parity": lambda: parity_rows(a.assets, a.device, a.size, a.slots, a.most),
    }
    rows: list[Row] = []
    for name in a.only:
        begin = time.perf_counter()
        try:
            found = measure[name]()
        except Exception as error:  # the other measurements are worth having
            found = [skipped(name, error)]
        rows += found
        print(f"{name}: {time.perf_counter() - begin:.0f} s", *map(str, found), sep="\n    ", flush=True)
    print(f"\n{device.name}, {a.size} x {a.size}, {a.layers} layers")
    print(*map(str, rows), sep="\n")
    return 0 if all(row.reached for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
