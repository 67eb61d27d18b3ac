"""Randomness without state: every draw is a pure function of a seed and of the names of what it is for.

A retried unit, a resumed job and a resumed training replay the same numbers, on any machine and in any order, because
nothing here remembers what was drawn before. Philox is counter-based: distinct keys give independent streams.
"""

import hashlib
import json

import numpy as np


def seed_of(seed: int, *names: str | int) -> int:
    """128-bit key of (seed, names...), stable across processes, platforms and versions of Python.

    `names` say what the numbers are for: `seed_of(0, asset_sha256, view, "camera")`.
    """
    text = json.dumps([int(seed), *[n if isinstance(n, str) else int(n) for n in names]], separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator over the Philox stream keyed by (seed, names...)."""
    return np.random.Generator(np.random.Philox(key=seed_of(seed, *names)))
