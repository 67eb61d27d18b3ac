"""When is an asset that could not be had tried again, when is it given up, and when is its source?"""

import time
from dataclasses import dataclass

FIRST_PAUSE = 2.0  # seconds, doubled at every further refusal
LONGEST_PAUSE = 300.0
TRIES = 8  # about four minutes
DEAD_AFTER = 1800.0  # seconds without a single asset of a source


@dataclass
class Refusals:
    """Of one asset: how often it was refused, and since when."""

    count: int = 0
    since: float = 0.0


class Availability:
    """What the sources of one job have served and refused. A refusal of one asset says something of that asset only if
    its source served others meanwhile; if it serves none, the source is down, and no asset pays for that.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.served_at = [0.0] * len(names)
        self.refusing_since: list[float | None] = [None] * len(names)

    def served(self, source: int) -> None:
        self.served_at[source] = time.monotonic()
        self.refusing_since[source] = None

    def refused(self, source: int, asset: Refusals, message: str) -> float | None:
        """Seconds until the asset is to be tried again; None: give it up. ValueError where the source is down."""
        now = time.monotonic()
        asset.count += 1
        asset.since = asset.since or now
        if self.refusing_since[source] is None:
            self.refusing_since[source] = now
        began = self.refusing_since[source] or now
        if asset.count >= TRIES and self.served_at[source] > asset.since:
            return None
        if now - began > DEAD_AFTER and asset.count > 1:
            raise ValueError(
                f"source {self.names[source]} has served nothing for {(now - began) / 60:.3g} minutes (the last word: "
                f"{message}); what is missing was not recorded, and the same command goes on from here"
            )
        return min(FIRST_PAUSE * 2.0 ** (asset.count - 1), LONGEST_PAUSE)
