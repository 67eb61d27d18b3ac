"""Tensors in files that others wrote: torch's (.pt, .pth) and .safetensors. Neither may run code here."""

import pickle
from pathlib import Path
from typing import Any

import torch

# What torch says of a file that is cut, or no such file at all; its messages are about pickles and zip archives.
_UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError)


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
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # of the format before zip archives, which cannot be mapped
            return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE:
        raise ValueError(f"{path}: holds no weights as torch or safetensors save them, or was cut") from None
