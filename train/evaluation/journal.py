"""A long evaluation keeps what it has judged, sample by sample, and goes on there when it is started again."""

import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Journal:
    """Lines of JSON: first what is judged and how, then a line per sample. Of another evaluation, it begins anew.

    A last line that was cut off is dropped. The file stays when the evaluation ends: whoever has written the report
    takes it away. ValueError where another process judges into the same file.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.identity = json.loads(json.dumps(identity))
        self.done: dict[str, dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise ValueError(f"{path}: another evaluation is judging into it; give this one another --out") from None
        except OSError:  # a file system without locks
            pass
        kept = self._read()
        self._file.truncate(kept)
        if not kept:
            self._write(self.identity)

    def add(self, sample: Mapping[str, Any]) -> None:
        self._write(sample)

    def close(self) -> None:
        self._file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write((json.dumps(line) + "\n").encode())
        self._file.flush()

    def _read(self) -> int:
        """Bytes of it that stand; 0 to begin anew."""
        kept = 0
        self._file.seek(0)
        for number, line in enumerate(self._file):
            try:
                found = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                found = None
            if number == 0:
                if found != self.identity:
                    return 0
            elif found is not None and _is_sample(found):
                self.done[found["key"]] = found
            else:
                break
            kept += len(line)
        return kept


def _is_sample(line: Any) -> bool:
    """A key, and metrics by method; whether it is the file that was written or another that somebody edited."""
    if not isinstance(line, dict) or not isinstance(line.get("key"), str):
        return False
    if line.get("empty") is True:
        return True
    methods = [value for name, value in line.items() if name not in ("key", "each")]
    numbers = [number for metrics in methods if isinstance(metrics, dict) for number in metrics.values()]
    plain = all(isinstance(metrics, dict) for metrics in methods) and isinstance(line.get("each"), dict)
    return plain and all(isinstance(number, float) for number in numbers)
