"""What a source of assets is."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from render import Mesh
from shards import Origin, Regime


@dataclass(frozen=True)
class AssetRef:
    """One asset of a source, before it is loaded.

    `uid` is unique within the source; `source` is what the manifest says of its provenance; `locator` is for the
    source's own `load` (a path, an index). `sha256` is None where it is known only once the asset is fetched.
    """

    uid: str
    source: str
    licence: str
    locator: str
    sha256: str | None = None

    @property
    def label(self) -> str:
        return f"{self.source}/{self.uid}"


class Source(Protocol):
    """A set of assets in a fixed order. Travels to the workers, so it holds only plain values."""

    @property
    def text(self) -> str:
        """As a user would write it; goes into dataset.json."""

    @property
    def regime(self) -> Regime:
        """What its assets are rendered as unless the user says otherwise."""

    def assets(self) -> Iterable[AssetRef]:
        """Every asset, in the same order every time."""

    def load(self, ref: AssetRef) -> tuple[Mesh, Origin]:
        """The asset itself; `render.Rejected` where it cannot become ground truth."""
