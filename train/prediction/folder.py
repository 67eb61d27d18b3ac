"""All pictures of a folder: a set of outputs for each, a ledger of what became of it, and on from there if stopped."""

import glob
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from train.prediction import output
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
    paths = {picture: [out / f"{names[picture]}.{each}" for each in how.formats] for picture in pictures}
    output.check([path for each in paths.values() for path in each], pictures)
    out.mkdir(parents=True, exist_ok=True)
    ledger = _Ledger(out / LEDGER)
    todo = []
    kept = 0
    for picture in pictures:
        asked_for = _digest(run, picture, how)
        if ledger.done.get(picture.name) == asked_for and all(_there(path) for path in paths[picture]):
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
                say(f"{task.picture.name}: rejected: {reason}")
                rejected += 1
            else:
                ledger.add(task.picture.name, "done", asked=task.asked, outputs=[path.name for path in task.paths])
                say(lines[0])
                done += 1
    return Outcome(done, kept, rejected)


@dataclass(frozen=True)
class _Task:
    picture: Path
    paths: list[Path]
    asked: str


class _Ledger:
    """A line of JSON for each picture, appended. `done`: picture -> what was asked, where its last line says done."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: dict[str, str] = {}
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                if entry["state"] == "done":
                    self.done[str(entry["picture"])] = str(entry["asked"])
                else:
                    self.done.pop(str(entry["picture"]), None)
            except (ValueError, LookupError, TypeError):
                continue  # a line that was being written when the machine stopped
        if text and not text.endswith("\n"):
            self._append("\n")

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
    """What the outputs of each picture are called: its stem, or all of its name where two share the stem."""
    stems = Counter(picture.stem for picture in pictures)
    return {picture: picture.stem if stems[picture.stem] == 1 else picture.name for picture in pictures}


def _there(path: Path) -> bool:
    """Whether an output is there; depth layers are a file each."""
    suffix = output.suffix_of(path)
    layers = glob.escape(path.name[: -len(suffix)]) + ".L*" + glob.escape(suffix)
    return path.is_file() or any(path.parent.glob(layers))


def _digest(run: Run, picture: Path, how: How) -> str:
    """Of the weights, of the way and of the picture's and its mask's bytes."""
    digest = hashlib.sha256(json.dumps([str(run.path), run.step, asdict(how)]).encode())
    try:
        mask = _mask_of(picture, how.mask)
        for path in [picture, *([Path(mask)] if mask is not None and mask not in FOUND else [])]:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    except (OSError, ValueError):
        return "unreadable"  # asked again each time
    return digest.hexdigest()
