"""Files that lie: every one ends as Unreadable with a reason, within bounded time and memory."""

import io
import os
import pickle
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from shards import generator
from shards.rgbd import Unreadable, files, open_corpus
from tests.shards.rgbd import corpora, judged

WRITERS: dict[str, Callable[[Path], object]] = {
    "megadepth": corpora.megadepth,
    "blendedmvs": corpora.blendedmvs,
    "scannet": corpora.scannet_sens,
    "scannet-exported": corpora.scannet,
    "arkitscenes": corpora.arkitscenes,
    "argoverse2": corpora.argoverse2,
    "waymo": corpora.waymo,
    "nyu-exported": judged.nyu_exported,
    "eth3d": lambda root: judged.eth3d(root, ("kicker",)),
    "moge": judged.moge,
}
DAMAGES = 24  # of every corpus


@pytest.fixture(scope="module", params=sorted(WRITERS))
def corpus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("whole")
    WRITERS[request.param](folder)
    return request.param.partition("-")[0], folder


def test_damage_is_typed(corpus: tuple[str, Path], tmp_path: Path) -> None:
    """Whatever happens to any file, a frame is read or it is Unreadable: no other exception, none that hangs."""
    name, whole = corpus
    rng = generator(0, "damage", name)
    paths = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    refused = 0
    for number in range(DAMAGES):
        folder = tmp_path / str(number)  # a new one each time: readers remember what they have read
        shutil.copytree(whole, folder)
        path = folder / paths[number % len(paths)]
        path.write_bytes(damaged(path.read_bytes(), rng))
        reader = open_corpus(name, folder)
        for scene in reader.scenes():
            try:
                for frame in reader.frames(scene):
                    try:
                        reader.read(scene, frame)
                    except Unreadable:
                        refused += 1
            except Unreadable:
                refused += 1
    assert refused >= DAMAGES // 4


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut, emptied, overwritten in one place, or with numbers that are out of all proportion."""
    at = int(rng.integers(max(len(content), 1)))
    kind = int(rng.integers(5))
    if kind == 0:
        return content[:at]
    if kind == 1:
        return b""
    if kind == 2:
        return content[:at] + rng.bytes(16) + content[at + 16 :]
    if kind == 3:
        return content[:at] + b"\xff" * 12 + content[at + 12 :]
    return content.replace(b"1", b"nan", 1) if rng.random() < 0.5 else content.replace(b"1", b"9" * 40, 1)


def outside(tmp_path: Path) -> Path:
    (tmp_path / "secret.png").write_bytes(b"x")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(tmp_path / "corpus" / "pipe.png")  # to open it would wait for ever
    return tmp_path / "corpus"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("link.png", "outside_folder"),
        ("../secret.png", "outside_folder"),
        ("pipe.png", "outside_folder"),
        ("none.png", "missing_file"),
        (".", "missing_file"),
        ("a\0b", "missing_file"),
    ],
)
def test_names_that_lead_elsewhere(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(Unreadable) as error:
        files.inside(outside(tmp_path), name)
    assert error.value.reason == reason


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_image_bombs(tmp_path: Path) -> None:
    for read in (files.read_image, files.read_depth_png):
        with pytest.raises(Unreadable) as error:
            read(png_claiming(60_000, 60_000))
        assert error.value.reason == "too_large"


def test_truncated_images() -> None:
    data = io.BytesIO()
    Image.fromarray(generator(0, "noise").integers(0, 255, (64, 64, 3), np.uint8)).save(data, "JPEG")
    for content in (data.getvalue()[:-500], png_claiming(2000, 2000)[:-800]):
        with pytest.raises(Unreadable) as error:
            files.read_image(content)
        assert error.value.reason == "truncated"


def test_depth_png_must_have_16_bits() -> None:
    data = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(data, "PNG")
    with pytest.raises(Unreadable, match="not 16-bit grey"):
        files.read_depth_png(data.getvalue())


def test_arrays_run_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    array = np.empty(1, object)
    array[0] = Evil()
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Evil()))
    for name in ("a.npy", "b.npy"):
        with pytest.raises(Unreadable):
            files.read_npy(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_arrays_of_claimed_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "FILE_LIMIT", 1 << 20)
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (100000, 100000), }"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    with pytest.raises(Unreadable):
        files.read_npy(content)
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w") as file,
    ):
        for _ in range(3):
            file.write(bytes(1 << 20))
    with pytest.raises(Unreadable) as error:
        files.read_npz_member(tmp_path / "bomb.npz", "x")
    assert error.value.reason == "too_large"


def test_npy_round_trips(tmp_path: Path) -> None:
    for array in (
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.asfortranarray(np.eye(3)),
        np.array([7], np.uint16),
    ):
        np.savez_compressed(tmp_path / "a.npz", x=array)
        np.save(tmp_path / "a.npy", array)
        for found in (files.read_npy(tmp_path / "a.npy"), files.read_npz_member(tmp_path / "a.npz", "x")):
            assert found.dtype == array.dtype
            assert np.array_equal(found, array)


def test_hdf5_of_other_files(tmp_path: Path) -> None:
    """Links and storage outside the file may lead anywhere; a claimed size is not believed."""
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["depth"] = np.ones((4, 4), np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["external"] = h5py.ExternalLink("other.h5", "depth")
        file["soft"] = h5py.SoftLink("/external")
        file.create_dataset("raw", (4, 4), "f4", external=[(str(tmp_path / "other.h5"), 0, 64)])
        layout = h5py.VirtualLayout((4, 4), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "depth", (4, 4))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("huge", (1 << 20, 1 << 20), "f4", chunks=(64, 64))
        file["text"] = "none"
    for name in ("external", "soft", "raw", "virtual", "huge", "text", "absent"):
        with pytest.raises(Unreadable):
            files.read_h5(tmp_path / "a.h5", name)
    assert files.read_h5(tmp_path / "other.h5", "depth").sum() == 16


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"Pf", b"Pf\n-3 4\n-1\n", b"PF\n2 2\n-1\n", b"Pf\n2 2\nx\n", b"Pf\n9 9\n-1.0\nab", b"Pf\n0 4\n-1\n"),
        *(b"Pf\n1 1\n%s\nabcd" % scale for scale in (b"0", b"nan", b"inf", b"-inf")),
        b"Pf 1 1 -1 abcd\n",  # no line end before the values
    ],
)
def test_float_maps(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pfm").write_bytes(content)
    with pytest.raises(Unreadable):
        files.read_pfm(tmp_path / "a.pfm")


@pytest.mark.parametrize("size", [(2, 3), (12, 16), (10, 21)])
@pytest.mark.parametrize("scale", ["1", "2", "1.0", "-1", "-1.0", "-2"])
@pytest.mark.parametrize("end", ["\n", "\r\n", " \n"])
def test_float_maps_of_both_byte_orders(tmp_path: Path, size: tuple[int, int], scale: str, end: str) -> None:
    """Whichever digits the numbers of the header share, and whatever byte the values begin with."""
    height, width = size
    values = np.linspace(1, 5, height * width, dtype=np.float32).reshape(size)
    values[-1, 0] = np.frombuffer(b"\n\n\n\n", "f4")[0]
    order = "<" if scale.startswith("-") else ">"
    stored = values[::-1].astype(f"{order}f4").tobytes()
    (tmp_path / "a.pfm").write_bytes(f"Pf{end}{width} {height}{end}{scale}{end}".encode() + stored)
    assert np.array_equal(files.read_pfm(tmp_path / "a.pfm"), values)
