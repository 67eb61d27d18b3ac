"""Predictions as .npz: what `worldtrace predict` writes, and what any other model may write to be judged beside ours.

    xyz (S,L,H,W,3) float     points of S seeds, camera frame (+x right, +y down, +z forward), 0 where not valid
    valid (H,W) bool          pixels that see the object, or the scene
    rgb (H,W,3) float         the image as the model saw it, in [0, 1]
    seeds (S,) int            optional (0, 1, ...)
    exists (S,L,H,W) bool     optional (`valid` at every layer): where the model says that a layer is there
    K (S,3,3) float           optional: intrinsics of each seed, in pixels of `rgb`; nan of one that no camera fits
    framed_from_image (3,3)   optional: from pixels of the picture that was asked about to those of `rgb`
    image_size (2,) int       optional: height and width of that picture
    true_xyz (L,H,W,3)        optional, and only written: the truth

Of a clip of T frames, everything but `seeds` has an axis T more, behind S where there is one: xyz (S,T,L,H,W,3), valid
(T,H,W). Nothing is pickled; the same arrays give the same bytes.
"""

import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from shards import committed
from train.prediction.prediction import Prediction

LARGEST = 4 << 30  # bytes of all arrays of a file: 64 seeds of six layers at 504x504 are 1.2 GB
MOST_SEEDS, MOST_FRAMES, MOST_LAYERS = 1024, 10_000, 256  # zeros pack a thousandfold: a small file could have millions
FARTHEST = 1e12  # units of the prediction; squares of what is farther leave float32
NEEDED = ("xyz", "valid", "rgb")
OPTIONAL = ("seeds", "exists", "K", "framed_from_image", "image_size")
# Level 1 of zlib: 146 MB (8 seeds at 504, 40 % valid) become 55 MB in 1.3 s, at level 6 54 MB in 1.6 s; reading takes
# 0.25 s either way (CPU time). What is saved are the zeros around an object.
LEVEL = 1


def write_npz(path: Path, predictions: Sequence[Prediction], true_xyz: np.ndarray | None = None) -> Path:
    """Write one prediction, or those of the frames of a clip, which agree in size and seeds; true_xyz as described
    above. ValueError where they do not, and for more than is read.
    """
    first = predictions[0]
    check_fits(path, len(first.seeds), len(predictions), *first.xyz.shape[1:4])
    if any(each.xyz.shape != first.xyz.shape or each.seeds != first.seeds for each in predictions):
        raise ValueError(
            f"{path}: the frames of a clip must have one size and the same seeds to be written as one file"
        )
    clip = len(predictions) > 1
    unknown = np.full((len(first.seeds), 3, 3), np.nan)

    def joined(arrays: Sequence[np.ndarray], axis: int) -> np.ndarray:
        return np.stack(arrays, axis) if clip else arrays[0]

    arrays: dict[str, np.ndarray] = {
        "xyz": joined([each.xyz.astype(np.float32, copy=False) for each in predictions], 1),
        "valid": joined([each.valid for each in predictions], 0),
        "rgb": joined([each.rgb.astype(np.float32, copy=False) for each in predictions], 0),
        "seeds": np.array(first.seeds, np.int64),
    }
    if any((each.exists != each.valid).any() for each in predictions):  # one that fills need not say so per layer
        arrays["exists"] = joined([each.exists for each in predictions], 1)
    if any(each.K is not None for each in predictions):
        arrays["K"] = joined([unknown if each.K is None else each.K for each in predictions], 1)
    for name in ("framed_from_image", "image_size"):
        known = [getattr(each, name) for each in predictions]
        if all(each is not None for each in known):
            arrays[name] = joined([np.asarray(each) for each in known], 0)
    if true_xyz is not None:
        arrays["true_xyz"] = true_xyz
    with committed(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # dated 1980: the same prediction is the same file
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as out:
                np.lib.format.write_array(out, np.ascontiguousarray(array), allow_pickle=False)
    return path


def check_fits(path: Path, seeds: int, frames: int, layers: int, height: int, width: int) -> None:
    """ValueError, before it is sampled, for more than `read_npz` would read."""
    try:
        _check_counts(seeds, frames, layers)
        size = frames * height * width * (13 * seeds * layers + 13) + 512 * (frames + 1) * (seeds + 1)
        if size > LARGEST:
            raise ValueError(
                f"{seeds} seeds of {frames} frames of {width}x{height} pixels are {size / 2**30:.1f} GiB, and "
                f"{LARGEST / 2**30:.0f} GiB are read of a file; take fewer --seeds or --frames"
            )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_npz(path: str | Path) -> list[Prediction]:
    """The prediction that a file holds, or those of the frames of a clip; named after the file.

    Points that are not there (`exists`, `valid`) are zero where they are not finite. FileNotFoundError where there is
    no file; ValueError, in a sentence, for one that is damaged, too large to be read, or whose arrays do not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; a prediction is written by `worldtrace predict --out NAME.npz`")
    try:
        arrays = _read_arrays(path)
        clip = arrays["xyz"].ndim == 6
        frames = len(arrays["valid"]) if clip else 1
        _check(arrays, frames if clip else None)
        names = [f"{path.stem}-{t:04d}" for t in range(frames)] if clip else [path.stem]
        return [_prediction(_frame(arrays, t if clip else None), name) for t, name in enumerate(names)]
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, MemoryError, ValueError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path} is no prediction that can be read: {text}; its arrays are described in docs/predicting.md"
        ) from None


def _prediction(arrays: Mapping[str, np.ndarray], name: str) -> Prediction:
    """The arrays of one frame, checked for what only a look at the values can tell."""
    xyz, valid, rgb = arrays["xyz"], arrays["valid"], arrays["rgb"]
    exists = arrays.get("exists", np.broadcast_to(valid, xyz.shape[:-1])) & valid
    finite = np.isfinite(xyz).all(axis=-1)
    if wrong := int((exists & ~finite).sum()):
        raise ValueError(
            f"{wrong} of its {int(exists.sum())} points are not finite; say by an array `exists` where there are none"
        )
    if not (np.isfinite(rgb).all() and rgb.min(initial=0) >= -1e-3 and rgb.max(initial=0) <= 1 + 1e-3):
        raise ValueError("its rgb is not within [0, 1]")
    if (farthest := float(np.abs(xyz).max(where=exists[..., None], initial=0))) > FARTHEST:
        raise ValueError(f"its points reach to {farthest:.3g}, and at most {FARTHEST:.0e} is read")
    if not finite.all():
        xyz = np.where(finite[..., None], xyz, 0)
    K = arrays.get("K")
    if K is not None:
        K = _cameras(K)
    framed, size = arrays.get("framed_from_image"), arrays.get("image_size")
    if framed is not None and not (np.isfinite(framed).all() and abs(np.linalg.det(framed)) > 0):
        raise ValueError("its framed_from_image is not a map that can be inverted")
    if size is not None and not (size.min() > 0 and size.max() <= LARGEST):
        raise ValueError(f"its image_size is {size.tolist()}")
    return Prediction(
        rgb=rgb,
        valid=valid,
        xyz=xyz,
        exists=exists,
        K=K,
        seeds=tuple(map(int, arrays.get("seeds", np.arange(len(xyz))))),
        name=name,
        framed_from_image=framed,
        image_size=None if size is None else (int(size[0]), int(size[1])),
    )


def _cameras(K: np.ndarray) -> np.ndarray | None:
    """K (S,3,3) if each is a camera, or nan where no camera fits a seed; None if that is so of all."""
    fits = ~np.isnan(K).all(axis=(1, 2))
    known = K[fits]
    if not np.isfinite(known).all():
        raise ValueError("its K is not finite")
    focal = known[:, [0, 1], [0, 1]]
    if (known[:, 2] != [0, 0, 1]).any() or (focal < 1 / FARTHEST).any() or (np.abs(known) > FARTHEST).any():
        raise ValueError("its K is no matrix of intrinsics, with positive focal lengths and the last row 0 0 1")
    return K if fits.any() else None


def _frame(arrays: Mapping[str, np.ndarray], t: int | None) -> dict[str, np.ndarray]:
    """The arrays of frame t of a clip, or, where t is None, of the one image."""
    if t is None:
        return dict(arrays)
    behind_seeds = {"xyz", "exists", "K"}
    return {
        name: array if name == "seeds" else array[:, t] if name in behind_seeds else array[t]
        for name, array in arrays.items()
    }


def _check(arrays: dict[str, np.ndarray], frames: int | None) -> None:
    """Shapes that fit each other, and kinds of numbers; brings them to float32, float64, bool and int64."""
    xyz = arrays["xyz"]
    if xyz.ndim not in (5, 6) or xyz.shape[-1] != 3 or min(xyz.shape) == 0:
        raise ValueError(f"its xyz is {_by(xyz.shape)}, not (S,L,H,W,3), nor (S,T,L,H,W,3) of a clip")
    seeds, layers, height, width = xyz.shape[0], *xyz.shape[-4:-1]
    _check_counts(seeds, frames or 1, layers)
    time = () if frames is None else (xyz.shape[1],)
    expected = {
        "xyz": xyz.shape,
        "valid": (*time, height, width),
        "rgb": (*time, height, width, 3),
        "seeds": (seeds,),
        "exists": (seeds, *time, layers, height, width),
        "K": (seeds, *time, 3, 3),
        "framed_from_image": (*time, 3, 3),
        "image_size": (*time, 2),
    }
    kinds = {"valid": ("b", bool), "exists": ("b", bool), "seeds": ("iu", np.int64), "image_size": ("iu", np.int64)}
    for name, array in arrays.items():
        if array.shape != expected[name]:
            raise ValueError(
                f"its {name} is {_by(array.shape)}, but beside xyz {_by(xyz.shape)} it must be {_by(expected[name])}"
            )
        kind, dtype = kinds.get(name, ("f", np.float64 if name in ("K", "framed_from_image") else np.float32))
        if array.dtype.kind not in kind:
            wanted = {"b": "bool", "iu": "an integer", "f": "a float (rgb in [0, 1])"}[kind]
            raise ValueError(f"its {name} is {array.dtype}, not {wanted}")
        arrays[name] = array.astype(dtype, copy=False)


def _check_counts(seeds: int, frames: int, layers: int) -> None:
    for count, most, what in (
        (seeds, MOST_SEEDS, "seeds"),
        (frames, MOST_FRAMES, "frames"),
        (layers, MOST_LAYERS, "layers"),
    ):
        if count > most:
            raise ValueError(f"{count} {what} are more than the {most} that a file of predictions may have")


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays that are wanted, each as large as its header says and no larger than LARGEST together."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        wanted = [name for name in (*NEEDED, *OPTIONAL) if f"{name}.npy" in members]
        if missing := [name for name in NEEDED if name not in wanted]:
            raise ValueError(f"it has no array {missing[0]}")
        total = sum(members[f"{name}.npy"].file_size for name in wanted)
        if total > LARGEST:
            raise ValueError(f"its arrays have {total:,} bytes, more than the {LARGEST:,} that are read")
        arrays = {}
        for name in wanted:
            info = members[f"{name}.npy"]
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"its {name} is compressed in a way that numpy does not write")
            with archive.open(info) as file:
                arrays[name] = _read_array(file, name, info.file_size)
    return arrays


def _read_array(file: IO[bytes], name: str, size: int) -> np.ndarray:
    """A .npy of `size` bytes. Its header is believed only where it accounts for exactly these bytes, so that a small
    file can not ask for a large array."""
    try:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
    except (TypeError, SyntaxError, RecursionError, tokenize.TokenError, ValueError):
        raise ValueError(f"its {name} does not begin as a .npy file does") from None
    if dtype.kind not in "fiub" or dtype.hasobject:
        raise ValueError(f"its {name} holds {dtype}, not numbers")
    count = 1
    for side in shape:
        if side < 0:
            raise ValueError(f"its {name} claims the shape {_by(shape)}")
        count *= int(side)
    if file.tell() + count * dtype.itemsize != size:
        raise ValueError(f"its {name} claims the shape {_by(shape)} of {dtype}, which its {size:,} bytes do not hold")
    data = bytearray(count * dtype.itemsize)
    rest = memoryview(data)
    while rest and (got := file.readinto(rest[: 1 << 22])):  # type: ignore[attr-defined]
        rest = rest[got:]
    if rest:
        raise ValueError(f"its {name} ends {len(rest):,} bytes early")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _by(shape: Sequence[Any]) -> str:
    return f"({','.join(map(str, shape))})"
