"""Predictions as .npz: what is written comes back bit by bit, and what is no prediction is told in a sentence."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from train.prediction import archive
from train.prediction.archive import read_npz, write_npz
from train.prediction.prediction import Prediction

SEEDS, LAYERS, HEIGHT, WIDTH = 2, 3, 6, 8


def predicted(seed: int = 0, **changes: object) -> Prediction:
    rng = np.random.default_rng(seed)
    valid = rng.random((HEIGHT, WIDTH)) < 0.7
    xyz = rng.normal(size=(SEEDS, LAYERS, HEIGHT, WIDTH, 3)).astype(np.float32)
    made = Prediction(
        rgb=rng.random((HEIGHT, WIDTH, 3)).astype(np.float32),
        valid=valid,
        xyz=np.where(valid[..., None], xyz, 0).astype(np.float32),
        K=np.array([[[9.0 + seed, 0, 4], [0, 8, 3], [0, 0, 1]], [[7, 0, 4], [0, 7.5, 3 + seed], [0, 0, 1]]]),
        seeds=(3, 9),
        name="cup",
        framed_from_image=np.array([[2.0, 0, 1], [0, 2, -3], [0, 0, 1]]),
        image_size=(480, 640),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def same(one: Prediction, other: Prediction) -> None:
    for name in ("rgb", "valid", "xyz", "exists", "K", "framed_from_image"):
        left, right = getattr(one, name), getattr(other, name)
        if left is None:
            assert right is None, name
        else:
            assert left.dtype == right.dtype, name
            np.testing.assert_array_equal(left, right, err_msg=name)
    assert (one.seeds, one.image_size) == (other.seeds, other.image_size)


def test_a_prediction_comes_back_bit_by_bit(tmp_path: Path) -> None:
    made = predicted()
    (back,) = read_npz(write_npz(tmp_path / "cup.npz", [made]))
    same(made, back)
    assert back.name == "cup"


def test_layers_that_are_not_there_come_back(tmp_path: Path) -> None:
    made = predicted()
    sparse = replace(made, exists=made.exists & (np.random.default_rng(1).random(made.exists.shape) < 0.5))
    same(sparse, read_npz(write_npz(tmp_path / "a.npz", [sparse]))[0])


def test_the_frames_of_a_clip_are_one_file(tmp_path: Path) -> None:
    frames = [predicted(t) for t in range(4)]
    frames[2] = replace(frames[2], K=None)  # its camera is not determined
    back = read_npz(write_npz(tmp_path / "walk.npz", frames))
    assert [each.name for each in back] == ["walk-0000", "walk-0001", "walk-0002", "walk-0003"]
    for one, other in zip(frames, back):
        same(one, other)
    stored = np.load(tmp_path / "walk.npz", allow_pickle=False)
    assert stored["xyz"].shape == (SEEDS, 4, LAYERS, HEIGHT, WIDTH, 3)
    assert stored["valid"].shape == (4, HEIGHT, WIDTH)
    assert stored["K"].shape == (SEEDS, 4, 3, 3)


def test_a_seed_that_no_camera_fits_has_none(tmp_path: Path) -> None:
    made = predicted()
    assert made.K is not None
    half = replace(made, K=np.stack([made.K[0], np.full((3, 3), np.nan)]))
    (back,) = read_npz(write_npz(tmp_path / "a.npz", [half]))
    same(half, back)
    assert back.camera(1) is None
    np.testing.assert_array_equal(back.camera(0), made.K[0])
    assert back.field_of_view is not None
    assert np.isfinite(back.field_of_view).all(axis=1).tolist() == [True, False]


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((archive.MOST_SEEDS + 1, 1, 1, 1, 3), "1025 seeds are more than the 1024"),
        ((1, archive.MOST_FRAMES + 1, 1, 1, 1, 3), "10001 frames are more"),
        ((1, archive.MOST_LAYERS + 1, 1, 1, 3), "257 layers are more"),
    ],
)
def test_a_small_file_can_not_ask_for_long_work(tmp_path: Path, shape: tuple[int, ...], said: str) -> None:
    frames = shape[1:2] if len(shape) == 6 else ()
    np.savez_compressed(
        tmp_path / "a.npz",
        xyz=np.ones(shape, np.float32),
        valid=np.ones((*frames, 1, 1), bool),
        rgb=np.ones((*frames, 1, 1, 3), np.float32),
    )
    with pytest.raises(ValueError, match=said):
        read_npz(tmp_path / "a.npz")


def test_what_could_not_be_read_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.check_fits(tmp_path / "a.npz", 64, 1, 6, 504, 504)
    with pytest.raises(ValueError, match=r"a\.npz: 8 seeds of 64 frames of 504x504 pixels are .* take fewer"):
        archive.check_fits(tmp_path / "a.npz", 8, 64, 6, 504, 504)
    file = write_npz(tmp_path / "b.npz", [predicted()])
    with zipfile.ZipFile(file) as content:
        size = sum(each.file_size for each in content.infolist())
    monkeypatch.setattr(archive, "LARGEST", size - 1)  # never less than what is written
    with pytest.raises(ValueError, match="GiB"):
        write_npz(file, [predicted()])
    file.unlink()
    seeds = archive.MOST_SEEDS + 1
    many = Prediction(
        np.ones((1, 1, 3)), np.ones((1, 1), bool), np.ones((seeds, 1, 1, 1, 3)), None, tuple(range(seeds))
    )
    with pytest.raises(ValueError, match="1025 seeds are more"):
        write_npz(tmp_path / "a.npz", [many])
    assert not list(tmp_path.iterdir())


def test_frames_that_do_not_agree_are_not_one_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="same seeds"):
        write_npz(tmp_path / "a.npz", [predicted(), predicted(seeds=(1, 2))])
    assert not list(tmp_path.iterdir())


def test_the_same_prediction_is_the_same_file(tmp_path: Path) -> None:
    one, other = (write_npz(tmp_path / name, [predicted()], np.zeros((1, 2))) for name in ("a.npz", "b.npz"))
    assert one.read_bytes() == other.read_bytes()
    assert np.load(one, allow_pickle=False)["true_xyz"].shape == (1, 2)


def test_arrays_of_another_program_are_taken(tmp_path: Path) -> None:
    """numpy's own writer, float64 and float16, other byte and index orders, and the three arrays that are needed."""
    made = predicted()
    np.savez(
        tmp_path / "a.npz",
        xyz=np.asfortranarray(made.xyz.astype(">f8")),
        valid=made.valid,
        rgb=made.rgb.astype(np.float16),
    )
    (back,) = read_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(back.xyz, made.xyz)
    assert back.xyz.dtype == np.float32
    assert back.seeds == (0, 1)
    assert back.K is None
    np.testing.assert_array_equal(back.exists, np.broadcast_to(made.valid, back.xyz.shape[:-1]))


def test_what_is_not_there_need_not_be_finite(tmp_path: Path) -> None:
    made = predicted()
    xyz, exists = made.xyz.copy(), made.exists.copy()
    v, u = np.argwhere(made.valid)[0]
    xyz[0, 1, v, u] = np.nan
    write_npz(tmp_path / "a.npz", [replace(made, xyz=xyz)])
    with pytest.raises(ValueError, match=r"a\.npz .* 1 of its \d+ points are not finite; say by an array `exists`"):
        read_npz(tmp_path / "a.npz")
    exists[0, 1, v, u] = False
    write_npz(tmp_path / "a.npz", [replace(made, xyz=xyz, exists=exists)])
    (back,) = read_npz(tmp_path / "a.npz")
    assert np.isfinite(back.xyz).all()
    assert not back.exists[0, 1, v, u]


def stored(path: Path, **changes: object) -> Path:
    made = predicted()
    arrays = {name: getattr(made, name) for name in ("xyz", "valid", "rgb", "K", "seeds", "framed_from_image")}
    np.savez(path, **{name: value for name, value in {**arrays, **changes}.items() if value is not None})  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rgb": None}, "it has no array rgb"),
        ({"xyz": np.zeros((2, 3, 6, 8), np.float32)}, r"its xyz is \(2,3,6,8\)"),
        ({"xyz": np.zeros((0, 3, 6, 8, 3), np.float32)}, r"its xyz is \(0,3,6,8,3\)"),
        ({"valid": np.zeros((8, 6), bool)}, r"its valid is \(8,6\), but beside xyz .* must be \(6,8\)"),
        ({"exists": np.zeros((3, 6, 8), bool)}, "its exists is"),
        ({"seeds": np.arange(3)}, r"its seeds is \(3\)"),
        ({"valid": np.zeros((6, 8), np.float32)}, "its valid is float32, not bool"),
        ({"rgb": np.zeros((6, 8, 3), np.uint8)}, r"its rgb is uint8, not a float \(rgb in \[0, 1\]\)"),
        ({"rgb": np.full((6, 8, 3), 255.0)}, "its rgb is not within"),
        ({"K": np.full((2, 3, 3), np.inf)}, "its K is not finite"),
        ({"K": np.stack([np.eye(3), np.diag([1.0, 0, 1])])}, "its K is no matrix of intrinsics"),
        ({"K": np.stack([np.eye(3), np.eye(3)[::-1]])}, "its K is no matrix of intrinsics"),
        ({"xyz": np.full((2, 3, 6, 8, 3), 1e30, np.float32)}, r"its points reach to 1e\+30"),
        ({"framed_from_image": np.zeros((3, 3))}, "inverted"),
        ({"image_size": np.array([0, 4])}, "its image_size"),
        ({"seeds": np.array([{}, []], object)}, "its seeds holds object, not numbers"),
        ({"xyz": np.zeros((2, 3, 6, 8, 3), complex)}, "not numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_in_a_sentence(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        read_npz(stored(tmp_path / "a.npz", **changes))
    assert str(refused.value).startswith(str(tmp_path / "a.npz"))
    assert "\n" not in str(refused.value)


def header(shape: str, descr: str = "<f4") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        header("(1, 6, 1000000, 1000000, 3)"),  # 72 TB, said by 128 bytes
        header("(1, 6, -4, 8, 3)"),
        header("(" * 3000),
        header("(1,)", "O"),
        b"\x93NUMPY\x09\x00",
        b"",
    ],
)
def test_a_header_is_not_believed(tmp_path: Path, content: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        for name in archive.NEEDED:
            file.writestr(f"{name}.npy", content)
    with pytest.raises(ValueError, match=r"a\.npz is no prediction that can be read: its xyz"):
        read_npz(tmp_path / "a.npz")


def test_a_file_that_unpacks_beyond_all_measure_is_not_unpacked(tmp_path: Path) -> None:
    """Its directory says so, or it says too little and the array ends there."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        for name in archive.NEEDED:
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                member.write(header("(1, 6, 2000, 2000, 3)") + bytes(1000))
    content = (tmp_path / "a.npz").read_bytes()
    with pytest.raises(ValueError, match="bytes do not hold"):
        read_npz(tmp_path / "a.npz")
    at = content.rindex(b"PK\x01\x02")  # the last member's size, as the directory has it
    (tmp_path / "b.npz").write_bytes(content[: at + 24] + (0xFFFFFFF0).to_bytes(4, "little") + content[at + 28 :])
    with pytest.raises(ValueError, match="more than the 4,294,967,296 that are read"):
        read_npz(tmp_path / "b.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no archive", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz is no prediction"):
        read_npz(tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_npz(tmp_path / "b.npz")


def test_damage_is_told_and_never_read_over(tmp_path: Path) -> None:
    """Any one byte: what comes back is what was written, or an error."""
    made = predicted()
    whole = write_npz(tmp_path / "a.npz", [made]).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(whole), 150):
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        (tmp_path / "b.npz").write_bytes(damaged)
        try:
            (back,) = read_npz(tmp_path / "b.npz")
        except ValueError:
            refused += 1
        else:  # a date, an attribute, or the name of an array that need not be there
            np.testing.assert_array_equal(back.xyz, made.xyz)
            np.testing.assert_array_equal(back.rgb, made.rgb)
    assert refused > 100


def test_it_reads_a_stream_of_a_stored_archive(tmp_path: Path) -> None:
    """np.savez stores without compression; lzma is not read, because nothing of ours or numpy's writes it."""
    content = io.BytesIO()
    np.savez(content, **{name: getattr(predicted(), name) for name in archive.NEEDED})
    (tmp_path / "a.npz").write_bytes(content.getvalue())
    same(predicted(K=None, seeds=(0, 1), framed_from_image=None, image_size=None), read_npz(tmp_path / "a.npz")[0])
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_LZMA) as file:
        for name in archive.NEEDED:
            file.writestr(f"{name}.npy", header("(1,)") + bytes(4))
    with pytest.raises(ValueError, match="compressed in a way"):
        read_npz(tmp_path / "b.npz")
