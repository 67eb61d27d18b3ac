"""Parts of an archive whose headers were forged with a valid checksum: refused with one error, and never unpacked."""

import contextlib
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from shards import CorruptSample, generator
from shards.archive import BLOCK, END, archive_part, split_part, walk

MEMBERS = {"json": b"{}", "layers.zst": bytes(range(256)) * 3, "rgba.webp": b"RIFF" * 200}
SIZE = slice(124, 136)
HUGE = b"\x80" + (1 << 80).to_bytes(11, "big")  # base-256, as GNU tar writes sizes beyond 8 GB
NEGATIVE = b"\xff" * 12


def with_checksum(header: bytes | bytearray) -> bytes:
    """The 512 bytes of a header with the checksum that makes tar believe them."""
    blank = bytes(header[:148]) + b" " * 8 + bytes(header[156:])
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def forged(part: bytes, **fields: tuple[slice, bytes]) -> bytes:
    """`part` with fields of its first header replaced."""
    header = bytearray(part[:BLOCK])
    for place, value in fields.values():
        header[place] = value
    return with_checksum(header) + part[BLOCK:]


def test_what_was_put_together_comes_apart() -> None:
    part = archive_part("a", MEMBERS)
    assert split_part("a", part, "here") == MEMBERS
    assert forged(part) == part


def test_a_sparse_member_is_not_unpacked() -> None:
    """512 bytes that GNU tar, and Python's, take for a file of 300 MB."""
    header = bytearray(tarfile.TarInfo("a.json").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:410] = b"%011o\0%011o\0" % (300 << 20, 0)
    header[483:495] = b"%011o\0" % (300 << 20)
    tracemalloc.start()
    with pytest.raises(CorruptSample, match="plain file"):
        split_part("a", with_checksum(header), "here")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("size", [HUGE, NEGATIVE, b"%011o\0" % (1 << 30)])
def test_a_size_beyond_what_is_left_is_a_damaged_header(tmp_path: Path, size: bytes) -> None:
    good = archive_part("a", MEMBERS)
    bad = forged(archive_part("b", {"json": b"{}"}), size=(SIZE, size))
    with pytest.raises(CorruptSample, match="here"):
        split_part("b", bad, "here")
    path = tmp_path / "a.tar"
    path.write_bytes(good + bad + good + END)
    samples = walk(path)
    found = [next(samples), next(samples)]
    with pytest.raises(CorruptSample, match="damaged"):
        next(samples)
    assert found == [("a", 0, good), ("a", len(good) + len(bad), good)]


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"5", b"6", b"7", b"L", b"K", b"S", b"x", b"g", b"?"])
def test_only_plain_files_are_members(kind: bytes) -> None:
    with pytest.raises(CorruptSample, match="here"):
        split_part("a", forged(archive_part("a", MEMBERS), kind=(slice(156, 157), kind)), "here")


def test_a_forged_header_ends_as_a_corrupt_sample_whatever_it_says(tmp_path: Path) -> None:
    good = archive_part("a", MEMBERS)
    path = tmp_path / "a.tar"
    rng = generator(0, "forged-headers")
    refused = 0
    for _ in range(400):
        header = bytearray(good[:BLOCK])
        at = int(rng.integers(BLOCK - 24))
        value = rng.choice([b"\x80" + bytes(11), b"\xff" * 12, HUGE, b"77777777777\0", rng.bytes(12)])
        width = int(rng.integers(1, 13))
        header[at : at + width] = bytes(value).ljust(12, b"\0")[:width]
        header[156:157] = rng.choice([b"0", b"\0", b"S", b"L", b"x"])
        part = with_checksum(header) + good[BLOCK:]
        path.write_bytes(part + good + END)
        try:
            assert sum(map(len, split_part("a", part, "here").values())) < len(part)
        except CorruptSample:
            refused += 1
        with contextlib.suppress(CorruptSample):
            assert sum(len(found) for _, _, found in walk(path)) <= len(part + good)
    assert refused > 200


def test_a_part_may_not_be_followed_by_anything() -> None:
    part = archive_part("a", MEMBERS)
    for tail in (b"x", bytes(BLOCK), END, part):
        with pytest.raises(CorruptSample, match="here"):
            split_part("a", part + tail, "here")
    for cut in (1, BLOCK, len(part) - BLOCK + 1):
        with pytest.raises(CorruptSample, match="here"):
            split_part("a", part[:-cut], "here")
