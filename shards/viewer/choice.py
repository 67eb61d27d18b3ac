"""Which sample of a dataset a page shows: by number or key, one after another, within a split and a condition."""

from ..reader import Dataset
from ..split import SPLITS

ALL = "all"


class Choice:
    """`dataset` is what is chosen from, `row` the number in it that is shown."""

    def __init__(self, whole: Dataset) -> None:
        if not len(whole):
            raise ValueError(f"{whole.directory}: the selection is empty")
        self.whole = whole
        self.dataset = whole
        self.row = 0

    @property
    def key(self) -> str:
        return self.dataset.key(self.row)

    def narrow(self, split: str, where: str) -> None:
        """Choose from a split (or ALL) and the rows for which `where` holds (SQL; blank: all). The sample stays if it
        is among them. ValueError where none is, and the choice is as before.
        """
        if split not in (ALL, *SPLITS):
            raise ValueError(f"split {split!r} is none of {', '.join(SPLITS)}")
        dataset = self.whole if split == ALL else self.whole.narrowed(f"split = '{split}'")
        dataset = dataset.narrowed(where) if where.strip() and len(dataset) else dataset
        if not len(dataset):
            raise ValueError("no sample of the dataset is such")
        key = self.key
        self.dataset = dataset
        try:
            self.row = dataset.row_of(key)
        except KeyError:
            self.row = 0

    def step(self, by: int) -> None:
        """To the next sample or the one before; after the last comes the first."""
        self.row = (self.row + by) % len(self.dataset)

    def go(self, to: int | str) -> None:
        """To a number or a key, which may also be a number as text. ValueError where there is none."""
        if isinstance(to, str) and to.strip().isdecimal():
            to = int(to)
        try:
            self.row = self.dataset.row_of(to.strip() if isinstance(to, str) else to)
        except LookupError as error:
            raise ValueError(error.args[0]) from None
