"""All pictures of a folder: a set of outputs for each, a ledger of what became of it, and on from there if stopped."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model import ZScore
from shards.printable import printable
from train.prediction import depth_files, output
from train.prediction.ask import Asked, Kind, ask
from train.prediction.clips import pictures_in
from train.prediction.edges import without_flyers
from train.prediction.masks import FOUND
from train.prediction.mesh import Hidden
from train.prediction.predict import Solver, answer, compile_for, stacks_at_once
from train.prediction.prediction import Prediction
from train.run import Run

LEDGER = "predictions.jsonl"
WAITING = 4  # batches' worth of pictures are held at most, where sizes differ


@dataclass(frozen=True)
class How:
    """What makes a prediction and its files what they are, but for the model and the picture."""

    formats: tuple[str, ...]
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    steps: int = 20
    solver: Solver = "euler"
    mask: str | None = None
    kind: Kind = "auto"
    stretch: bool = False
    mesh: bool = False
    closed: bool = False
    hidden: Hidden = "grey"
    no_flyers: bool = False


@dataclass(frozen=True)
class Outcome:
    done: int
    kept: int
    rejected: int

    def line(self, out: Path) -> str:
        kept = f", {self.kept} were there already" if self.kept else ""
        text = f"{self.done} predicted{kept}, {self.rejected} rejected"
        return text + (f"; {out / LEDGER} says why" if self.rejected else "")


def predict_folder(
    run: Run, folder: Path, out: Path, how: How, batch: int | None = None, say: Callable[[str], None] = print
) -> Outcome:
    """Predict every picture of `folder` (not of folders in it) into `out`, as NAME.FORMAT for each format.

    out/predictions.jsonl gets a line for each picture as soon as its files are written, or as it is rejected, with the
    reason; a bad picture ends nothing. Called again, pictures are left out whose last line says that they were done
    by the same weights in the same way from the same bytes, and whose files are there; rejected ones are tried again.

    Pictures whose frames have one size are sampled together, `batch` stacks at a time (default: `stacks_at_once`), and
    no more than a few batches of pictures are held at once. `how.mask` may be a folder of masks, each of the name of
    its picture but for the suffix.

    ValueError for formats that nothing writes, or a folder without pictures; OSError where nothing can be written.
    """
    pictures = pictures_in(folder)
    if out.resolve() == folder.resolve():
        raise ValueError(f"--out {out} is the folder of the pictures; give another one, such as {out / 'predicted'}")
    names = _names(pictures)
    weights = _weights(run)
    paths = {picture: [out / f"{names[picture]}.{each}" for each in how.formats] for picture in pictures}
    output.check([path for each in paths.values() for path in each], pictures)
    out.mkdir(parents=True, exist_ok=True)
    ledger = _Ledger(out / LEDGER)
    todo = []
    kept = 0
    for picture in pictures:
        asked_for = _digest(weights, picture, how, paths[picture])
        if ledger.kept(picture.name, asked_for):
            kept += 1
        else:
            todo.append(_Task(picture, paths[picture], asked_for))
    done = rejected = 0
    compiled = False
    for group in _grouped(run, todo, how, batch):
        good = [(task, asked) for task, asked in group if isinstance(asked, Asked)]
        answers: Iterator[list[Prediction]] = iter(())
        if good:
            if not compiled:
                at_once = batch or stacks_at_once(run, good[0][1])
                if _one_size(run, how):
                    compile_for(run, -(-len(todo) * len(how.seeds) // at_once))
                compiled = True
            answers = iter(answer(run, [asked for _, asked in good], how.seeds, how.steps, how.solver, batch))
        for task, asked in group:
            try:
                if isinstance(asked, Exception):
                    raise asked
                predictions = next(answers)
                if how.no_flyers:
                    predictions = [without_flyers(each) for each in predictions]
                lines = output.write(predictions, task.paths, mesh=how.mesh, closed=how.closed, hidden=how.hidden)
            except (ValueError, FileNotFoundError) as error:
                reason = " ".join(str(error).split())
                ledger.add(task.picture.name, "rejected", reason=reason)
                say(printable(f"{task.picture.name}: rejected: {reason}"))
                rejected += 1
            else:
                files = [file.name for path in task.paths for file in _files(path, predictions[0])]
                ledger.add(task.picture.name, "done", asked=task.asked, outputs=files)
                say(printable(lines[0]))
                done += 1
    return Outcome(done, kept, rejected)


@dataclass(frozen=True)
class _Task:
    picture: Path
    paths: list[Path]
    asked: str


class _Ledger:
    """A line of JSON for each picture, appended. `done`: picture -> what was asked, and the files that were written,
    where its last line says done."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: dict[str, tuple[str, list[str]]] = {}
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                if entry["state"] == "done":
                    self.done[str(entry["picture"])] = str(entry["asked"]), [str(each) for each in entry["outputs"]]
                else:
                    self.done.pop(str(entry["picture"]), None)
            except (ValueError, LookupError, TypeError):
                continue  # a line that was being written when the machine stopped
        if text and not text.endswith("\n"):
            self._append("\n")

    def kept(self, picture: str, asked: str) -> bool:
        """Whether it was asked so, and every file is there that was written then."""
        before, files = self.done.get(picture, ("", []))
        return before == asked and bool(files) and all((self.path.parent / Path(each).name).is_file() for each in files)

    def add(self, picture: str, state: str, **facts: Any) -> None:
        self._append(json.dumps({"picture": picture, "state": state, **facts}) + "\n")

    def _append(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)


Group = list[tuple[_Task, Asked | Exception]]


def _grouped(run: Run, tasks: Sequence[_Task], how: How, batch: int | None) -> Iterator[Group]:
    """Tasks and what they ask, in groups whose frames have one size; those that cannot be read come with the reason."""
    waiting: dict[tuple[int, ...], Group] = {}
    for task in tasks:
        try:
            asked = ask(str(task.picture), run, _mask_of(task.picture, how.mask), how.kind, stretch=how.stretch)
        except (ValueError, OSError, MemoryError) as error:
            yield [(task, error if isinstance(error, ValueError | OSError) else ValueError("too large for memory"))]
            continue
        group = waiting.setdefault(asked.rgb.shape, [])
        group.append((task, asked))
        full = max(1, (batch or stacks_at_once(run, asked)) // len(how.seeds))
        if len(group) >= full:
            yield waiting.pop(asked.rgb.shape)
        elif sum(map(len, waiting.values())) >= WAITING * full:
            yield waiting.pop(max(waiting, key=lambda size: len(waiting[size])))
    yield from waiting.values()


def _mask_of(picture: Path, mask: str | None) -> str | None:
    if mask is None or mask in FOUND or not Path(mask).is_dir():
        return mask
    found = sorted(path for path in Path(mask).iterdir() if path.stem == picture.stem and path.is_file())
    if not found:
        raise ValueError(f"{picture.name}: no mask {picture.stem}.png in {mask}")
    return str(found[0])


def _names(pictures: Sequence[Path]) -> dict[Path, str]:
    """What the outputs of each picture are called: its stem, or all of its name where another has that."""
    taken = Counter(name.lower() for picture in pictures for name in (picture.stem, picture.name))
    return {picture: output.name_for(picture, taken[picture.stem.lower()] > 1) for picture in pictures}


def _files(path: Path, prediction: Prediction) -> list[Path]:
    """What is written for an output of one picture; depth layers are a file each."""
    if output.suffix_of(path) != depth_files.SUFFIX:
        return [path]
    return depth_files.depth_names(path, prediction.xyz.shape[1])


def _one_size(run: Run, how: How) -> bool:
    """Whether all pictures have frames of one size: blocks are compiled for each size anew, and for so many at most."""
    an_object = how.kind == "object" or (how.kind != "scene" and isinstance(run.normalisation, ZScore))
    return an_object or how.stretch


def _weights(run: Run) -> list[object]:
    """Which they are. Others may have come to their place: of that, the files' sizes and times tell."""
    files = sorted(run.path.iterdir()) if run.path.is_dir() else [run.path]
    stats = [(file.name, file.stat()) for file in files if file.is_file()]
    return [str(run.path), run.step, [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]]


def _digest(weights: list[object], picture: Path, how: How, paths: Sequence[Path]) -> str:
    """Of the weights, of the way, of what the outputs are called, and of the picture's and its mask's bytes."""
    asked = [weights, asdict(how), [path.name for path in paths]]
    digest = hashlib.sha256(json.dumps(asked).encode())
    try:
        mask = _mask_of(picture, how.mask)
        for path in [picture, *([Path(mask)] if mask is not None and mask not in FOUND else [])]:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    except (OSError, ValueError):
        return "unreadable"  # asked again each time
    return digest.hexdigest()
