"""Which units were committed since one last looked? What `report --follow` reads of a dataset that others write."""

import time
from pathlib import Path

import shards
from cluster.ledger import Attempt, Ledger
from cluster.report import NO_PRICES, Prices, Report, Tally


class Watch:
    """Looks at the dataset in `text` again and again: each record is read once, and a look costs one listing besides.

    Nothing is written or locked, so any number may watch, from any machine that can read the dataset.
    FileNotFoundError / ValueError where there is none.
    """

    def __init__(self, text: str, prices: Prices = NO_PRICES, examples: int = 1, slowest: int = 5) -> None:
        self.folder = Path(text)
        self.ledger = Ledger(self.folder)
        self.prices = prices
        self.tally = Tally(text, shards.read_dataset_json(self.folder), examples, slowest)
        self.seen: set[str] = set()

    def look(self) -> Report:
        complete = bool(shards.read_dataset_json(self.folder).get("complete"))
        if complete:
            self._table()
        else:
            self._records()
        return self.tally.report(time.time(), complete, self.prices)

    def _records(self) -> None:
        names = {path.stem for path in self.ledger.records.glob("[!.]*.json")}
        for name in sorted(names - self.seen):
            if (record := self.ledger.read(name)) is not None:
                self._add(name, record.attempts, getattr(record, "seconds_commit", 0.0))

    def _table(self) -> None:
        """The job has ended, and its records are gone or going: what was not seen of them stands in the table."""
        unit: list[Attempt] = []
        for attempt in self.ledger.table():
            if unit and attempt.unit != unit[0].unit:
                self._add(unit[0].unit, unit)
                unit = []
            unit.append(attempt)
        if unit:
            self._add(unit[0].unit, unit)

    def _add(self, name: str, attempts: list[Attempt], seconds_commit: float | None = None) -> None:
        if name in self.seen:
            return
        self.seen.add(name)
        if seconds_commit is None:
            seconds_commit = sum(getattr(attempt, "seconds_commit", 0.0) for attempt in attempts)
        self.tally.add(attempts, seconds_commit)
