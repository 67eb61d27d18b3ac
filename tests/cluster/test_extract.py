"""Archives that lie, and what becomes of it: a typed rejection of the member, or one sentence about the archive."""

import io
import os
import pickle
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.sources import extract
from cluster.sources.extract import Archive, Directory, open_tree
from render import Rejected

TEXT = b"v 0 0 0\n" * 500


def packed(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def in_the_table(path: Path, name: str, offset: int, form: str, value: int) -> Path:
    """Overwrites a field of the central directory's entry for `name`."""
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(name.encode()))
    struct.pack_into(form, data, at + offset, value)
    path.write_bytes(data)
    return path


FLAGS, METHOD, PACKED, SIZE, ATTRIBUTES = (8, "<H"), (10, "<H"), (20, "<I"), (24, "<I"), (38, "<I")


def test_an_archive_and_its_folder_are_read_alike(tmp_path: Path) -> None:
    files = {
        "top/a/model.obj": TEXT,
        "top/b/model.obj": TEXT * 2,
        "top/b/model.mtl": b"newmtl x",
        "top/info.json": b"[]",
    }
    archive = open_tree(packed(tmp_path / "x.zip", files))
    for name, data in files.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(data)
    folder = open_tree(tmp_path / "out")
    assert isinstance(archive, Archive)
    assert isinstance(folder, Directory)
    assert archive.names() == folder.names() == sorted(files)
    for tree in (archive, folder, pickle.loads(pickle.dumps(archive))):
        for name, data in files.items():
            assert tree.size(name) == len(data)
            assert tree.read(name) == data
        into = tmp_path / f"into{id(tree)}"
        assert [path.read_bytes() for path in tree.place(sorted(files), into)] == [
            files[name] for name in sorted(files)
        ]
    assert archive.find("b", "model.mtl") == "top/b/model.mtl"
    assert Directory(tmp_path / "out" / "top").find("b", "model.mtl") == "b/model.mtl"
    assert archive.folders("model.obj") == Directory(tmp_path / "out" / "top").folders("model.obj") == ["a", "b"]
    assert archive.find("b", "texture.png") is None
    assert folder.find("b", "texture.png") is None
    assert archive.size("nothing") is folder.size("nothing") is None


def test_only_what_is_asked_for_is_extracted(tmp_path: Path) -> None:
    tree = open_tree(packed(tmp_path / "x.zip", {"a/x.obj": TEXT, "a/x.mtl": b"m", "b/y.obj": TEXT}))
    (path,) = tree.place(["a/x.obj"], tmp_path / "into")
    assert [each for each in (tmp_path / "into").rglob("*") if each.is_file()] == [path]


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/x", "a/../../x", "a//x", "./x", "C:/x", "C:x", "a/./x", "a/..", "..", "\\\\host\\x", "a\\..\\..\\x"],
)
def test_names_that_leave_the_folder_are_never_written(name: str, tmp_path: Path) -> None:
    tree = open_tree(packed(tmp_path / "x.zip", {name: TEXT, "good": TEXT}))
    assert tree.names() == ["good"]
    inner = tmp_path / "into" / "deep"
    (tmp_path / "x").write_bytes(b"mine")
    for stored in (name, name.replace("\\", "/")):
        with pytest.raises(Rejected, match="path_outside_folder"):
            tree.place([stored], inner)
        with pytest.raises(Rejected, match="path_outside_folder"):
            tree.read(stored)
        with pytest.raises(Rejected, match="path_outside_folder"):
            Directory(tmp_path).read(stored)
    assert (tmp_path / "x").read_bytes() == b"mine"
    assert not [path for path in (tmp_path / "into").rglob("*") if path.is_file()]


def link_member(path: Path) -> Path:
    info = zipfile.ZipInfo("a")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    return path


def twice(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", TEXT)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a", TEXT[::-1])
    return path


def flipped(path: Path) -> Path:
    packed(path, {"a": bytes(range(256)) * 50}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    return path


LIES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a link": (link_member, "path_outside_folder"),
    "two of one name": (twice, "corrupt"),
    "a flipped bit": (flipped, "corrupt"),
    "encrypted": (lambda p: in_the_table(packed(p, {"a": TEXT}), "a", *FLAGS, 1), "encrypted"),
    "a size too small": (lambda p: in_the_table(packed(p, {"a": TEXT}), "a", *SIZE, 100), "corrupt"),
    "a size too large": (lambda p: in_the_table(packed(p, {"a": TEXT}), "a", *SIZE, 1 << 20), "corrupt"),
    "a size of 4 GB": (lambda p: in_the_table(packed(p, {"a": TEXT}), "a", *SIZE, 0xFFFFFFF0), "file_too_large"),
    "too few bytes": (lambda p: in_the_table(packed(p, {"a": TEXT}), "a", *PACKED, 3), "corrupt"),
    "a method that is none": (lambda p: in_the_table(packed(p, {"a": TEXT}), "a", *METHOD, 77), "unsupported_format"),
    "bzip2": (lambda p: packed(p, {"a": TEXT}, zipfile.ZIP_BZIP2), "unsupported_format"),
    "a bomb": (lambda p: packed(p, {"a": bytes(64 << 20)}), "zip_bomb"),
    "not there": (lambda p: packed(p, {"b": TEXT}), "missing_file"),
    "a folder": (lambda p: packed(p, {"a/": b""}), "missing_file"),
}


@pytest.mark.parametrize("what", LIES)
def test_a_member_that_lies_is_rejected_by_type(what: str, tmp_path: Path) -> None:
    make, reason = LIES[what]
    tree = open_tree(make(tmp_path / "x.zip"))
    with pytest.raises(Rejected) as refused:
        tree.read("a")
    assert refused.value.reason == reason, refused.value
    with pytest.raises(Rejected) as refused:
        tree.place(["a"], tmp_path / "into")
    assert refused.value.reason == reason


def test_a_bomb_is_not_inflated_whatever_it_announces(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.zip", {"a": bytes(64 << 20)})
    with pytest.raises(Rejected, match="zip_bomb"):
        open_tree(path).place(["a"], tmp_path / "into")
    assert (tmp_path / "into" / "a").stat().st_size == 0
    in_the_table(path, "a", *SIZE, 1000)  # and now it announces little
    with pytest.raises(Rejected, match="corrupt"):
        Archive(path).place(["a"], tmp_path / "again")
    assert (tmp_path / "again" / "a").stat().st_size <= 1000
    zeros = packed(tmp_path / "y.zip", {"a": bytes(extract.BOMB)})  # a blank image of a sound size is none
    assert len(open_tree(zeros).read("a")) == extract.BOMB


def test_names_that_no_disk_can_hold_are_rejected(tmp_path: Path) -> None:
    tree = open_tree(packed(tmp_path / "x.zip", {"a" * 300: TEXT, "b/" * 600 + "c": TEXT, "f": TEXT, "f/g": TEXT}))
    assert tree.names() == ["f", "f/g"]
    for names in (["a" * 300], ["b/" * 600 + "c"]):
        with pytest.raises(Rejected, match="path_outside_folder"):
            tree.place(names, tmp_path / "into")
    for number, names in enumerate((["f", "f/g"], ["f/g", "f"], ["f", "f"])):
        with pytest.raises(Rejected, match="corrupt"):
            tree.place(names, tmp_path / f"into{number}")


def test_all_files_of_an_asset_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "TOTAL", 10_000)
    tree = open_tree(packed(tmp_path / "x.zip", {"a": TEXT, "b": TEXT, "c": TEXT}))
    assert len(tree.place(["a", "b"], tmp_path / "into")) == 2
    with pytest.raises(Rejected, match="file_too_large"):
        tree.place(["a", "b", "c"], tmp_path / "more")
    with pytest.raises(Rejected, match="file_too_large"):
        tree.read("a", limit=100)
    assert tree.read("a", limit=len(TEXT)) == TEXT


@pytest.mark.parametrize("data", [b"", b"no zip", b"<html>log in first</html>", b"PK\x03\x04" + bytes(100)])
def test_a_broken_archive_is_one_sentence(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.zip cannot be read as a zip .*download it again") as error:
        open_tree(tmp_path / "x.zip")
    assert "\n" not in str(error.value)


def test_an_archive_cut_short_is_one_sentence(tmp_path: Path) -> None:
    whole = packed(tmp_path / "whole.zip", {f"{k}": TEXT for k in range(20)}).read_bytes()
    for end in range(0, len(whole) - 1, 97):
        path = tmp_path / f"{end}.zip"
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match="cannot be read as a zip"):
            open_tree(path)


def test_what_is_no_tree_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_tree(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")  # to open it would be to wait for its writer
    with pytest.raises(ValueError, match="no regular file"):
        open_tree(tmp_path / "pipe")


def test_links_out_of_a_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "real").write_bytes(b"real")
    (folder / "in").symlink_to(folder / "real")
    os.mkfifo(folder / "pipe")
    tree = Directory(folder)
    assert tree.read("in") == b"real"
    for name, reason in (("out", "path_outside_folder"), ("loop", "missing_file"), ("pipe", "missing_file")):
        assert tree.size(name) is None
        with pytest.raises(Rejected, match=reason):
            tree.read(name)
        with pytest.raises(Rejected, match=reason):
            tree.place([name], tmp_path)


def test_an_archive_that_changes_is_opened_anew(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.zip", {"a": TEXT})
    assert open_tree(path) is open_tree(path)
    packed(path, {"b": TEXT * 2})
    assert open_tree(path).names() == ["b"]


def test_random_damage_is_a_rejection_or_a_sentence(tmp_path: Path) -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w", zipfile.ZIP_DEFLATED) as archive:
        for k in range(4):
            archive.writestr(f"f{k}/model.obj", bytes(rng.integers(0, 255, 300, np.uint8)))
    whole = stored.getvalue()
    ended = {"sound": 0, "rejected": 0, "refused": 0}
    for case in range(400):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), int(rng.integers(1, 4))):
            data[at] = int(rng.integers(0, 256))
        path = tmp_path / f"{case}.zip"
        path.write_bytes(data)
        try:
            tree = Archive(path)
            for name in [*tree.names(), "f0/model.obj"]:
                tree.read(name)
            ended["sound"] += 1
        except Rejected:
            ended["rejected"] += 1
        except ValueError:
            ended["refused"] += 1
    assert min(ended.values()) > 10, ended
