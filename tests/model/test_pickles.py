"""Files of torch's that take for ever to look at are refused; what torch itself saves is read."""

import io
import struct
import time
import zipfile
from pathlib import Path

import pytest
import torch

from model.files import read_tensors
from model.pickles import PARTS, check_pickle


def doubled(times: int, begin: bytes = b")", pair: bytes = b"\x86") -> bytes:
    """A tuple of the same thing twice, of which each is such a tuple, and so on."""
    text = begin + b"q\x00"
    for i in range(times):
        text += b"h" + bytes([i]) + b"h" + bytes([i]) + pair + b"q" + bytes([i + 1])
    return text


def as_key(what: bytes) -> bytes:
    return b"\x80\x02}" + what + b"K\x01s."


HOSTILE = {
    "a doubled tuple as key": as_key(doubled(40)),
    "a plain tuple as key": as_key(b"K\x01K\x02\x86"),
    "a doubled tuple as value": b"\x80\x02}K\x01" + doubled(40) + b"s.",
    "a tuple as one key of many": b"\x80\x02}(X\x01\x00\x00\x00aK\x01K\x01K\x02\x86K\x01u.",
    "a list that is called": b"\x80\x02])R.",  # which torch would print in its error, with all that is in it
    "a tuple in itself": b"\x80\x02]q\x00h\x00\x85a.",
    "a tuple as a name of a storage": b"\x80\x02" + doubled(40) + b"Q.",
    "more than there is": b"\x80\x02\x87.",
    "a memory of nothing": b"\x80\x02h\x07.",
    "what torch does not know": b"\x80\x02(K\x01o.",
    "no end": b"\x80\x02}",
}


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("case", HOSTILE)
def test_what_takes_for_ever_is_refused_at_once(tmp_path: Path, case: str, archive: bool) -> None:
    path = tmp_path / "model.pt"
    if archive:
        with zipfile.ZipFile(path, "w") as there:
            there.writestr("model/data.pkl", HOSTILE[case])
            there.writestr("model/version", "3\n")
            there.writestr("model/byteorder", "little")
    else:
        path.write_bytes(HOSTILE[case])
    began = time.process_time()
    with pytest.raises(ValueError, match=r"model\.pt: holds no weights"):
        read_tensors(path)
    assert time.process_time() - began < 5


def test_a_tuple_may_have_so_many_parts_and_not_one_more() -> None:
    def of(parts: int) -> io.BytesIO:
        return io.BytesIO(b"\x80\x02(" + b"K\x01" * (parts - 1) + b"t.")

    check_pickle(of(PARTS))
    with pytest.raises(ValueError, match=f"more than {PARTS} parts"):
        check_pickle(of(PARTS + 1))


@pytest.mark.parametrize("archive", [True, False])
def test_what_torch_saves_is_read(tmp_path: Path, archive: bool) -> None:
    """Both formats; state dicts (with their _metadata) of more tensors than a tuple may have parts, and shared ones."""
    weights = {f"block.{i}.weight": torch.full((2,), float(i)) for i in range(PARTS + 1)}
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    saved = {
        "ema_state_dict": weights,
        "model_state_dict": weights,
        "network": network.state_dict(),
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0, 1]}]},
        "parameter": torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16)),
        "others": [1, -1, 2**70, 0.5, None, True, (1, (2.5, "a")), torch.Size([1, 2]), torch.float16, ()],
        3: {"step": 4},
    }
    torch.save(saved, tmp_path / "model.pt", _use_new_zipfile_serialization=archive)
    found = read_tensors(tmp_path / "model.pt")
    assert list(found) == list(saved)
    assert found["others"] == saved["others"]
    assert all(torch.equal(found["ema_state_dict"][name], tensor) for name, tensor in weights.items())
    assert found["optimizer"] == saved["optimizer"]


def test_the_format_is_told_as_torch_tells_it(tmp_path: Path) -> None:
    """A pickle with an archive behind it is a pickle to torch, whatever is_zipfile says of it."""
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as there:
        there.writestr("model/data.pkl", b"\x80\x02}.")
    behind = (tmp_path / "model.pt").read_bytes()
    number = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."
    before = number + b"\x80\x02M" + struct.pack("<H", 1001) + b".\x80\x02}." + as_key(doubled(40))
    (tmp_path / "model.pt").write_bytes(before + behind)
    assert zipfile.is_zipfile(tmp_path / "model.pt")
    began = time.process_time()
    with pytest.raises(ValueError, match="holds no weights"):
        read_tensors(tmp_path / "model.pt")
    assert time.process_time() - began < 5
