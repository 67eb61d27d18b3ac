"""`procedural:objects?count=64&start=0&seed=0` (also rooms, actors): assets made on the spot, without a network."""

import difflib
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from cluster.sources.base import AssetRef
from render import Mesh, procedural
from shards import Origin, Regime

REGIME_OF_KIND: dict[str, Regime] = {"objects": "object", "rooms": "scene", "actors": "dynamic"}
DEFAULTS = {"count": 64, "start": 0, "seed": 0}


@dataclass(frozen=True)
class ProceduralSource:
    """Assets `start` to `start + count - 1` of one kind. `seed` makes other ones; it is not the seed of views."""

    kind: str
    count: int = 64
    start: int = 0
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> "ProceduralSource":
        kind, _, query = text.partition(":")[2].partition("?")
        if kind not in REGIME_OF_KIND:
            near = difflib.get_close_matches(kind, REGIME_OF_KIND, n=1)
            hint = f"did you mean procedural:{near[0]}?" if near else f"the kinds are {', '.join(REGIME_OF_KIND)}"
            raise ValueError(f"source {text!r} has an unknown kind {kind!r}: {hint}")
        values = dict(DEFAULTS)
        seen: set[str] = set()
        for key, value in parse_qsl(query, keep_blank_values=True):
            if key not in DEFAULTS:
                near = difflib.get_close_matches(key, DEFAULTS, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(DEFAULTS)}"
                raise ValueError(f"source {text!r} has an unknown key {key!r}: {hint}")
            if key in seen:
                raise ValueError(f"source {text!r} gives {key!r} twice: keep one")
            seen.add(key)
            minimum = 1 if key == "count" else 0
            if not (value.isascii() and value.isdigit() and int(value) >= minimum):
                raise ValueError(
                    f"source {text!r}: {key} is {value!r}, but must be a whole number of at least {minimum}"
                )
            values[key] = int(value)
        return cls(kind, **values)

    @property
    def text(self) -> str:
        return f"procedural:{self.kind}?count={self.count}&start={self.start}&seed={self.seed}"

    @property
    def regime(self) -> Regime:
        return REGIME_OF_KIND[self.kind]

    @property
    def remote(self) -> bool:
        return False

    @property
    def own_terms(self) -> bool:
        return True

    def assets(self) -> Iterable[AssetRef]:
        for index in range(self.start, self.start + self.count):
            uid = f"{self.kind}-s{self.seed}-{index:06d}"
            recipe = json.dumps(["procedural", self.kind, self.seed, index])
            sha256 = hashlib.sha256(recipe.encode()).hexdigest()
            yield AssetRef(uid, f"procedural:{self.kind}", "CC0-1.0", str(index), sha256)

    def fetch(self, ref: AssetRef, folder: Path) -> str:
        raise AssertionError("a recipe has no files")

    def load(self, ref: AssetRef, path: Path | None) -> tuple[Mesh, Origin]:
        assert ref.sha256 is not None
        mesh = procedural.make(self.kind, self.seed, int(ref.locator))
        return mesh, Origin(ref.uid, ref.source, ref.sha256, ref.licence)
