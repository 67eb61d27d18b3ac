"""Which split an asset belongs to: decided by its hash alone, so that no view or order can leak between splits."""

import hashlib
from typing import Literal, get_args

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


def split_of(sha256: str) -> Split:
    """90 % train, 5 % val, 5 % test by the asset's sha256 (hashed once more: a recipe's name may serve as well)."""
    percent = int.from_bytes(hashlib.blake2b(sha256.encode(), digest_size=8).digest(), "little") % 100
    return "train" if percent < 90 else "val" if percent < 95 else "test"
