"""Tensors in files that others wrote: torch's (.pt, .pth) and .safetensors. Neither may run code here.

What such a file claims is bounded by what it has: no tensor is larger than its bytes, nothing is unpacked.
"""

import io
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.pickles import check_pickle

PICKLE_BYTES = 16 << 20  # of the names and shapes in a .pt; of a model of 1,500 tensors they are 0.3 MB
_ZIP = b"PK\x03\x04"  # how torch's archives begin
_OLD = 5  # pickles at the beginning of the format before: magic number, version, system, content, names of storages
# What torch says of a file that is cut, or no such file at all; its messages are about pickles and zip archives.
_UNREADABLE = (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, LookupError, ValueError)
_WRONG = (*_UNREADABLE, TypeError, AttributeError, AssertionError, OverflowError, MemoryError, NotImplementedError)


def read_tensors(path: str | Path) -> Any:
    """What the file holds: of .safetensors a dict of tensors, otherwise what was given to `torch.save`, on the CPU.

    Tensors stay on the disk until they are used, where the format allows. FileNotFoundError where there is no file,
    ValueError where it cannot be read; weights only, a checkpoint is data.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist; give the path of a .pt, .pth or .safetensors file")
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                return load_file(path)
            except SafetensorError as error:
                raise ValueError(str(error)) from None
        _check_pickles(Path(path))
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # of the format before zip archives, which cannot be mapped
            return torch.load(path, map_location="cpu", weights_only=True)
    except _WRONG:
        raise ValueError(f"{path}: holds no weights as torch or safetensors save them, or was cut") from None


def state_dict(content: Any, keys: Sequence[str], path: str | Path) -> dict[str, Tensor]:
    """The tensors by name that a file holds under the first of `keys` that it has, else the whole of it.

    Prefixes that wrappers leave (`_orig_mod.` of torch.compile, `module.`) are taken off. ValueError, one sentence,
    for what is no dict of dense tensors on the CPU whose numbers are all in the file.
    """
    if isinstance(content, Mapping):
        content = next(
            (content[key] for key in keys if isinstance(content.get(key), Mapping) and content[key]), content
        )
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path} holds no state dict of tensors, but {_kind(content)}")
    tensors: dict[str, Tensor] = {}
    for key, value in content.items():
        if not isinstance(key, str) or type(value) not in (Tensor, nn.Parameter):
            raise ValueError(f"{path} holds no state dict of tensors: {str(key)[:100]} is {_kind(value)}")
        name = key
        while name.startswith(("_orig_mod.", "module.")):
            name = name.partition(".")[2]
        if name in tensors:
            raise ValueError(f"{path} holds {name[:100]} twice, with the prefix of a wrapper and without")
        tensors[name] = _dense(value.detach(), name, path)
    held = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if held > Path(path).stat().st_size:
        raise ValueError(f"{path} claims {held} bytes of tensors, which is more than the file has")
    return tensors


def _check_pickles(path: Path) -> None:
    """ValueError, or another of `_WRONG`, where torch.load could take for ever. It tells the formats apart as here."""
    with path.open("rb") as file:
        if file.read(len(_ZIP)) == _ZIP:
            _check_archive(path)
            check_pickle(io.BytesIO(torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")))
            return
        file.seek(0)
        begin = io.BytesIO(file.read(PICKLE_BYTES))
    for _ in range(_OLD):
        check_pickle(begin)


def _check_archive(path: Path) -> None:
    """ValueError where reading it could take more memory than the file has bytes: torch packs nothing."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    pickled = sum(member.file_size for member in members if member.filename.endswith(".pkl"))
    if packed or pickled > PICKLE_BYTES or sum(member.file_size for member in members) > path.stat().st_size:
        raise ValueError("no archive of torch's")


def _dense(tensor: Tensor, name: str, path: str | Path) -> Tensor:
    whole = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not whole or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"{path} holds no numbers of {name[:100]}, only what shape they would have")
    return tensor


def _kind(value: Any) -> str:
    return f"{'an' if (name := type(value).__name__)[:1] in 'aeiou' else 'a'} {name}"
