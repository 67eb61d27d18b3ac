"""Which units were committed since one last looked? What `report --follow` reads of a dataset that others write."""

import time
from itertools import groupby
from typing import Any

import shards
from cluster import tables
from cluster.ledger import Attempt, Ledger
from cluster.report import NO_PRICES, Prices, Report, Tally
from shards import layout
from shards.store import open_store


class Watch:
    """Looks at the dataset in `text`, a folder or URL, again and again: each unit is read once, and a look costs the
    listing of one folder besides.

    Nothing is written or claimed, so any number may watch, from any machine that can read the dataset.
    FileNotFoundError / ValueError / OSError in one sentence where there is none.
    """

    def __init__(self, text: str, prices: Prices = NO_PRICES, examples: int = 1, slowest: int = 5) -> None:
        self.store = open_store(text)
        self.ledger = Ledger(self.store)
        self.prices = prices
        self.tally = Tally(text, self._header(), examples, slowest)
        self.seen: set[str] = set()

    def look(self) -> Report:
        complete = bool(self._header().get("complete"))
        if complete:
            # The job has ended, and its records are gone or going: what was not seen of them stands in the table.
            for unit, attempts in groupby(tables.attempts(self.store), lambda attempt: attempt.unit):
                self._add(unit, list(attempts))
        else:
            new = sorted(self.ledger.units() - self.seen)
            for record in self.ledger.records(new, samples=False):
                self._add(record.unit, record.attempts)
        return self.tally.report(time.time(), complete, self.prices)

    def _header(self) -> dict[str, Any]:
        try:
            content = self.store.read(layout.DATASET_JSON)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{self.store.text} holds no dataset: give what `worldtrace render --out` was given (a job that has "
                "just begun makes one once it has listed its assets)"
            ) from None
        return shards.parse_dataset_json(content, f"{self.store.text.rstrip('/')}/{layout.DATASET_JSON}")

    def _add(self, unit: str, attempts: list[Attempt]) -> None:
        if unit not in self.seen:
            self.seen.add(unit)
            self.tally.add(attempts)
