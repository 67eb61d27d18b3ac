"""The frames of a clip come in order, whatever holds them, every so many, and no more than are held at once."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.prediction import clips
from train.prediction.clips import frames_of, is_clip, pictures_in

SHADES = [20, 60, 100, 140, 180, 220]


def frame(shade: int) -> np.ndarray:
    picture = np.full((32, 48, 3), shade, np.uint8)
    picture[:8, :8] = 255 - shade
    return picture


def write_video(path: Path, shades: list[int] = SHADES) -> Path:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.bit_rate = 4_000_000
        for shade in shades:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame(shade), format="rgb24")))
        container.mux(stream.encode())
    return path


def write_folder(folder: Path) -> Path:
    folder.mkdir()
    for index, shade in enumerate(SHADES):
        Image.fromarray(frame(shade)).save(folder / f"frame-{2 * index}.png")  # 0, 2, ... 10: 10 is after 8
    (folder / "notes.txt").write_text("not a frame")
    return folder


def write_animation(path: Path, **options: object) -> Path:
    first, *rest = [Image.fromarray(frame(shade)) for shade in SHADES]
    first.save(path, save_all=True, append_images=rest, duration=100, **options)
    return path


@pytest.mark.parametrize("holder", ["list", "folder", "webp", "png", "gif", "mp4", "mkv"])
def test_frames_come_in_order_and_every_so_many(tmp_path: Path, holder: str) -> None:
    clip: object
    if holder == "list":
        clip = [frame(shade) for shade in SHADES]
    elif holder == "folder":
        clip = write_folder(tmp_path / "frames")
    elif holder in ("mp4", "mkv"):
        clip = write_video(tmp_path / f"clip.{holder}")
    else:
        clip = write_animation(tmp_path / f"clip.{holder}", **({"lossless": True} if holder == "webp" else {}))
    assert is_clip(clip)  # type: ignore[arg-type]
    for count, stride, more in ((6, 1, False), (4, 1, True), (3, 2, False), (2, 2, True), (2, 4, False)):
        taken = frames_of(clip, count, stride)  # type: ignore[arg-type]
        assert taken.more == more
        assert len(taken.rgba) == len(taken.names) == count
        shades = [float(np.median(rgba[..., :3])) for rgba in taken.rgba]
        assert shades == pytest.approx(SHADES[::stride][:count], abs=6)
        assert all(rgba.shape == (32, 48, 4) and (rgba[..., 3] == 255).all() for rgba in taken.rgba)


def test_one_picture_is_no_clip_not_even_with_pages(tmp_path: Path) -> None:
    first, *rest = [Image.fromarray(frame(shade)) for shade in SHADES]
    first.save(tmp_path / "pages.tiff", save_all=True, append_images=rest)
    first.save(tmp_path / "still.webp")
    for path in ("pages.tiff", "still.webp", "none.png"):
        assert not is_clip(tmp_path / path)
    assert len(frames_of(tmp_path / "pages.tiff", 5).rgba) == 1
    assert not is_clip(frame(3))


def test_names_are_sorted_by_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "._b2.png").write_text("what another system keeps beside a picture")
    for name in ("b2.png", "b10.png", "a.png", "b1.PNG", "10.png", "9.png"):
        Image.fromarray(frame(9)).save(tmp_path / name)
    assert [path.name for path in pictures_in(tmp_path)] == ["9.png", "10.png", "a.png", "b1.PNG", "b2.png", "b10.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no picture in this folder"):
        pictures_in(tmp_path / "empty")


def test_a_clip_of_more_pixels_than_are_held_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "CLIP_PIXELS", 3 * 32 * 48)
    assert len(frames_of([frame(s) for s in SHADES], 3).rgba) == 3
    with pytest.raises(ValueError, match="take fewer --frames"):
        frames_of([frame(s) for s in SHADES], 4)


def test_what_is_no_video_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.mp4: not a readable video"):
        frames_of(tmp_path / "text.mp4", 3)
    with pytest.raises(FileNotFoundError, match="no such video"):
        frames_of(tmp_path / "none.mp4", 3)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ModuleNotFoundError, match=r"worldtrace\[video\]"):
        frames_of(tmp_path / "text.mp4", 3)


def test_a_phone_held_upright_films_upright(tmp_path: Path) -> None:
    from types import SimpleNamespace

    turned = SimpleNamespace(rotation=-90, to_ndarray=lambda format: frame(20))
    assert np.array_equal(clips._upright(turned), np.rot90(frame(20), -1))


def test_a_video_is_what_it_is_called_and_opens_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A colon is no protocol, a title need not be UTF-8, and a list of other files is no video."""
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 16
        container.metadata["title"] = "titre"
        for _ in range(2):
            picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    content = (tmp_path / "clip.avi").read_bytes()
    assert b"titre" in content
    (tmp_path / "12:30.avi").write_bytes(content.replace(b"titre", b"titr\xe9"))
    monkeypatch.chdir(tmp_path)
    assert len(frames_of("12:30.avi", 8).rgba) == 2
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile clip.avi\n")
    with pytest.raises(ValueError, match=r"list\.mp4: not a readable video"):
        frames_of("list.mp4", 8)
