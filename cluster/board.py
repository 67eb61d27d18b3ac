"""What the workers of a training say to its driver on Ray, and the driver to them: an actor between them."""

from typing import Any


class Board:
    """An actor: what the workers say to the driver, and the driver to them."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._attempts = 0
        self._refusal: str | None = None
        self._refused_by = 0
        self._stop = 0
        self._hung: str | None = None
        self._runs = False

    def begin(self) -> str | None:
        """Rank 0 calls it at the start of an attempt -> why the run cannot be, if the attempt before found out."""
        self._attempts += 1
        self._runs = True
        if self._attempts > 1 and self._refusal is None:
            self._lines.append(f"attempt {self._attempts}: all workers start again from the newest checkpoint")
        return self._refusal

    def refusal(self) -> str | None:
        return self._refusal

    def refuse(self, reason: str) -> None:
        """A worker met what another attempt would meet again."""
        self._refusal = self._refusal or reason
        self._refused_by += 1

    def refused_by(self) -> int:
        """How many workers met it."""
        return self._refused_by

    def lost(self, cause: str) -> None:
        """Workers have ended against their will; after a refusal that is how the run ends, and nothing to speak of."""
        self._runs = False
        if self._refusal is None:
            self._lines.append(f"lost: {self._hung or cause}")
        self._hung = None

    def hung(self, sentence: str) -> None:
        """The ranks have found one that hangs, and end: each says it, and it is told once."""
        self._hung = sentence

    def runs(self) -> bool:
        """Whether an attempt is under way."""
        return self._runs

    def say(self, line: str) -> None:
        self._lines.append(line)

    def read(self) -> list[str]:
        """The lines that were said since the last call."""
        lines, self._lines = self._lines, []
        return lines

    def stop(self, number: int) -> None:
        self._stop = number

    def stopped(self) -> int:
        """The signal that the driver caught, 0 without one."""
        return self._stop


class Lines:
    """A text file for Rich's console that hands every whole line to the board, and waits for nothing."""

    encoding = "utf-8"

    def __init__(self, board: Any) -> None:
        self._board, self._begun = board, ""

    def write(self, text: str) -> int:
        *whole, self._begun = (self._begun + text).split("\n")
        for line in whole:
            self._board.say.remote(line)
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False
