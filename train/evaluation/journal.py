"""A long evaluation keeps what it has judged, sample by sample, and goes on there when it is started again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Journal:
    """Lines of JSON: first what is judged and how, then a line per sample. Of another evaluation, it begins anew.

    A last line that was cut off is dropped. `finish` removes the file.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.identity = json.loads(json.dumps(identity))
        self.done: dict[str, dict[str, Any]] = {}
        kept = self._read()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("r+b" if kept else "wb")
        if kept:
            self._file.seek(kept)
            self._file.truncate()
        else:
            self._write(self.identity)

    def add(self, sample: Mapping[str, Any]) -> None:
        self._write(sample)

    def close(self) -> None:
        self._file.close()

    def finish(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write((json.dumps(line) + "\n").encode())
        self._file.flush()

    def _read(self) -> int:
        """Bytes of it that stand; 0 to begin anew."""
        if not self.path.is_file():
            return 0
        kept = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file):
                try:
                    found = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    found = None
                if number == 0:
                    if found != self.identity:
                        return 0
                elif isinstance(found, dict) and isinstance(found.get("key"), str):
                    self.done[found["key"]] = found
                else:
                    break
                kept += len(line)
        return kept
