"""A checkpoint on disk: which files it has, what makes it whole, and how it appears and goes.

    out/checkpoints/step-000100/state.json
                                model/00000-000.safetensors  00001-000.safetensors ...   (rank, part)
                                ema/...
                                optimizer/...

The first line of `state.json` is the SHA-256 of the rest of it, and the rest has the size and SHA-256 of every other
file, so one flipped bit anywhere is found. It is written last, in a folder of another name, which then gets its own.
No pickle, and no path that leads out of the folder.
"""

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, TypeVar

from shards.parallel import cores

if TYPE_CHECKING:
    from train.ranks.parallel import Ranks

T = TypeVar("T")
GROUPS = ("model", "ema", "optimizer")
FORMAT = 2  # 1 had one file for each group, and nothing to say so
STATE_BYTES = 64 << 20  # of 512 ranks it is some hundred kilobytes
STEPS = 10**12  # no run has so many
_NAME = re.compile(r"step-([0-9]{6,12})")
_FILE = re.compile(r"[a-z]{1,32}/[0-9a-z-]{1,64}\.safetensors")
_SEAL = re.compile(rb'\{"sha256": "([0-9a-f]{64})",')


class State(dict[str, Any]):
    """What `state.json` says; ValueError for what it does not say."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.path = path

    def __missing__(self, name: str) -> Any:
        raise ValueError(f"{self.path / 'state.json'}: says nothing of {name}; it is no checkpoint of a training run")


@dataclass(frozen=True)
class Found:
    """A checkpoint that is whole. `state` is what was given to save, and `format`, `step`, `world`, `files`."""

    path: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.state["step"])

    @property
    def old(self) -> bool:
        """Whether it is of the time before training was sharded: one file for each group."""
        return "format" not in self.state

    def files(self, group: str) -> list[Path]:
        """Of one group, in the order of ranks."""
        if self.old:
            return [self.path / f"{group}.safetensors"] if group in self.state["sha256"] else []
        return [self.path / name for name in sorted(self.state["files"]) if name.startswith(f"{group}/")]


def steps(out: Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first."""
    found = [p for p in (out / "checkpoints").glob("step-*") if _NAME.fullmatch(p.name)]
    return sorted(found, key=_step_of)


def latest(out: Path, say: Callable[[str], None] = print, ranks: "Ranks | None" = None) -> Found | None:
    """The newest whole checkpoint of a run, or None where there is none; says which damaged ones it passed over.

    All `ranks` call it together: each checks a part of the files, and all get what rank 0 chose. ValueError where all
    are damaged: starting over in that folder would hide the loss.
    """
    folders = _told(ranks, steps(out) if _speaks(ranks) else [])
    for path in reversed(folders):
        try:
            return check(path, GROUPS, ranks)
        except ValueError as error:
            if _speaks(ranks):
                say(f"damaged checkpoint passed over: {error}")
    if folders:
        raise ValueError(f"{out}: all {len(folders)} checkpoints are damaged; move the folder away to start over")
    return None


def find(path: str | Path, names: tuple[str, ...] = GROUPS, say: Callable[[str], None] = print) -> Found:
    """A run folder or its `checkpoints` -> its newest checkpoint of which the groups `names` are whole; one checkpoint
    folder -> that one.

    FileNotFoundError where there is none, ValueError where all, or the one that was named, are damaged.
    """
    path = Path(path)
    if (path / "state.json").is_file():
        return check(path, names)
    run = path.parent if path.name == "checkpoints" else path
    folders = steps(run) if run.is_dir() else []
    if not folders:
        raise FileNotFoundError(f"{path}: no checkpoint there; give the `out` folder of a training run")
    for each in reversed(folders):
        try:
            return check(each, names)
        except ValueError as error:
            say(f"damaged checkpoint passed over: {error}")
    raise ValueError(f"{path}: all {len(folders)} checkpoints are damaged")


def check(path: Path, names: Iterable[str] = GROUPS, ranks: "Ranks | None" = None) -> Found:
    """The checkpoint in `path`, if all its files are there and the bytes of the groups `names` are those that were
    written; else ValueError says what is wrong. `ranks` share the work out and come to the same end."""
    state, problem = _told(ranks, _attempt(lambda: _read_state(path)) if _speaks(ranks) else (None, None))
    if state is None:
        raise ValueError(problem)
    rank, world = (ranks.rank, ranks.world) if ranks else (0, 1)
    wanted = sorted(name for name in state["files"] if name.split("/")[0].split(".")[0] in names)
    mine = {name: state["files"][name]["sha256"] for name in wanted[rank::world]}
    _, problem = _attempt(lambda: _check_bytes(path, mine))
    problems = [each for each in (ranks.gather_objects(problem) if ranks else [problem]) if each]
    if problems:
        raise ValueError(problems[0])
    return Found(path, State(path, state if "format" in state else {k: v for k, v in state.items() if k != "files"}))


def begin(out: Path) -> None:
    """Make the folder of a run's checkpoints, and see that files can be made there; ValueError."""
    folder = out / "checkpoints"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        path = next(p for p in (folder, *folder.parents) if os.path.lexists(p))
        wrong = f"cannot be written to: {error.strerror}" if path.is_dir() else "is no folder"
        raise ValueError(f"out: {path} {wrong}; give a folder that you may write to as out=") from None


def temporary(out: Path, step: int, token: str) -> Path:
    """Where a checkpoint is written until it is whole; `token` is unlike that of any other save."""
    return out / "checkpoints" / f".step-{step:06d}-{token}.tmp"


def final(out: Path, step: int) -> Path:
    return out / "checkpoints" / f"step-{step:06d}"


def sweep(out: Path) -> list[Path]:
    """Remove what saves that were killed have left behind. Returns what was there."""
    left = [*(out / "checkpoints").glob(".step-*.tmp")]
    for path in left:
        with suppress(OSError):
            _remove(path)
    return left


def publish(
    out: Path, step: int, token: str, files: Mapping[str, Mapping[str, Any]], state: Mapping[str, Any], world: int
) -> Path:
    """Seal what all ranks have written under `temporary` and give it its name. OSError leaves older ones untouched."""
    here, there = temporary(out, step, token), final(out, step)
    text = json.dumps({"format": FORMAT, "step": step, "world": world, **state, "files": dict(files)}, indent=1)
    body = text.removeprefix("{").encode()
    seal = b'{"sha256": "%s",' % hashlib.sha256(body).hexdigest().encode()
    if len(seal) + len(body) > STATE_BYTES:
        raise OSError(
            f"{there}: its state.json would have {len(body)} bytes, more than the {STATE_BYTES} that are read"
        )
    with (here / "state.json").open("wb") as file:
        file.write(seal + body)
        file.flush()
        os.fsync(file.fileno())
    for folder in (*(here / group for group in {name.split("/")[0] for name in files}), here):
        sync(folder)
    if os.path.lexists(there):  # of the same step, and damaged: else the run would not have come here again
        there.rename(temporary(out, step, f"{token}-before"))
    here.rename(there)
    sync(there.parent)
    return there


def retain(out: Path, step: int, keep: int, token: str) -> None:
    """Drop all but the `keep` newest checkpoints up to `step`; later ones were passed over: they neither count nor go.

    A folder loses its name before it loses its files, so that a kill leaves no half of one. OSError.
    """
    for old in [p for p in steps(out) if _step_of(p) <= step][:-keep]:
        aside = temporary(out, _step_of(old), f"{token}-dropped")
        old.rename(aside)
        _remove(aside)
    for before in (out / "checkpoints").glob(f".step-*-{token}-before.tmp"):
        _remove(before)


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def workers() -> int:
    """Threads that hash, write or read files: this rank's share of the machine's cores, up to 8."""
    local = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, min(8, cores() // int(local if local.isdigit() and int(local) else 1)))


def _read_state(path: Path) -> dict[str, Any]:
    """`state.json`, sealed and with a list of files that are all there and alone; ValueError."""
    file = path / "state.json"
    try:
        if not stat.S_ISREG(file.lstat().st_mode) or file.lstat().st_size > STATE_BYTES:
            raise ValueError(f"{file}: is no file of at most {STATE_BYTES} bytes")
        raw = file.read_bytes()
        state = json.loads(raw)
    except (OSError, ValueError, RecursionError) as error:
        text = " ".join(str(error).split())
        raise ValueError(text if text.startswith(str(file)) else f"{file}: {text}") from None
    if not isinstance(state, dict) or type(state.get("step")) is not int or not 0 <= state["step"] < STEPS:
        raise ValueError(f"{file}: names no step")
    if _NAME.fullmatch(path.name) and _step_of(path) != state["step"]:
        raise ValueError(f"{file}: is of step {state['step']}, which its folder's name is not")
    if isinstance(state.get("sha256"), dict) and "format" not in state:
        state["files"] = _old_files(file, state["sha256"])
    else:
        seal = _SEAL.match(raw)
        if seal is None or hashlib.sha256(raw[seal.end() :]).hexdigest().encode() != seal[1]:
            raise ValueError(f"{file}: its bytes are not those that were written")
        if state.get("format") != FORMAT:
            raise ValueError(f"{file}: of format {state.get('format')!r}; this version reads {FORMAT}")
    listed = state.get("files")
    if not isinstance(listed, dict) or not all(_described(k, v, state) for k, v in listed.items()):
        raise ValueError(f"{file}: its list of files is none")
    _check_listing(path, listed)
    return state


def _old_files(file: Path, hashes: dict[str, Any]) -> dict[str, Any]:
    if not hashes.keys() <= set(GROUPS):
        raise ValueError(f"{file}: its list of files is none")
    return {f"{name}.safetensors": {"sha256": value} for name, value in hashes.items()}


def _described(name: str, entry: Any, state: Mapping[str, Any]) -> bool:
    """Whether an item of the list of files is one, and leads nowhere else."""
    named = _FILE.fullmatch(name) or "format" not in state
    sized = isinstance(entry, dict) and ("format" not in state or type(entry.get("bytes")) is int)
    return bool(named and sized and isinstance(entry.get("sha256"), str))


def _check_listing(path: Path, listed: Mapping[str, Mapping[str, Any]]) -> None:
    """ValueError where a file is missing, of another size, no plain file, or where there is one more."""
    try:
        for group in {name.split("/")[0] for name in listed if "/" in name}:
            if not stat.S_ISDIR((path / group).lstat().st_mode):
                raise ValueError(f"{path / group}: is no folder")
        for name, entry in listed.items():
            seen = (path / name).lstat()
            if not stat.S_ISREG(seen.st_mode):
                raise ValueError(f"{path / name}: is no plain file")
            if entry.get("bytes", seen.st_size) != seen.st_size:
                raise ValueError(f"{path / name}: has {seen.st_size} bytes, and {entry['bytes']} were written")
        extra = {p.relative_to(path).as_posix() for p in path.rglob("*.safetensors")} - listed.keys()
        extra |= {p.name for p in path.iterdir() if not p.name.startswith(".")} - {
            "state.json",
            *(name.split("/")[0] for name in listed),
        }
    except OSError as error:
        raise ValueError(f"{error.filename or path}: {error.strerror or error}") from None
    if extra:
        raise ValueError(f"{path / min(extra)}: does not belong to the checkpoint")


def _check_bytes(path: Path, hashes: Mapping[str, str]) -> None:
    def wrong(name: str) -> str | None:
        try:
            with (path / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return f"{path / name}: {error.strerror or error}"
        return None if found == hashes[name] else f"{path / name}: its bytes are not those that were written"

    with ThreadPoolExecutor(workers()) as pool:
        problem = next((text for text in pool.map(wrong, hashes) if text), None)
    if problem:
        raise ValueError(problem)


def _remove(path: Path) -> None:
    """A folder with all that is in it; of a link only the link. OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _attempt(act: Callable[[], T]) -> tuple[T | None, str | None]:
    try:
        return act(), None
    except ValueError as error:
        return None, str(error)


def _speaks(ranks: "Ranks | None") -> bool:
    return ranks is None or ranks.first


def _told(ranks: "Ranks | None", value: T) -> T:
    return value if ranks is None else ranks.tell(value)


def _step_of(path: Path) -> int:
    found = _NAME.fullmatch(path.name)
    assert found is not None
    return int(found[1])
