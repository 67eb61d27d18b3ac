"""Curves and pictures for people who look from elsewhere: TensorBoard, Weights & Biases.

What a run must keep is in its own folder; a board is a copy. So a board that fails is said once and left behind, and
none of them makes a step wait.
"""

import queue
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml
from PIL import Image

from train.config import Log

INIT_SECONDS = 60.0  # for W&B to open a run; it happens beside the training
CLOSE_SECONDS = 10.0  # for W&B to send what is left; a cluster that has sent SIGTERM does not wait for long
WAITING = 1000  # records that W&B may be behind; it then loses some
WANDB_ID = "wandb-id.txt"

Say = Callable[[str], None]


class Board(Protocol):
    """A place for curves and pictures. Any call may raise; none may wait."""

    name: str

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def image(self, step: int, name: str, path: Path) -> None: ...

    def close(self) -> None: ...


class Boards:
    """All boards of a run as one, of which those that fail are left behind. Without any, every call does nothing."""

    def __init__(self, boards: Sequence[Board] = (), say: Say = print) -> None:
        self._boards, self._say = list(boards), say

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """The numbers among `values` after `step` steps; of a list each by itself, as name/0, name/1, ..."""
        numbers = dict(_numbers(values))
        self._each(lambda board: board.scalars(step, numbers))

    def image(self, step: int, name: str, path: Path) -> None:
        """A PNG file, which stays where it is."""
        self._each(lambda board: board.image(step, name, path))

    def close(self) -> None:
        self._each(lambda board: board.close())

    def _each(self, do: Callable[[Board], None]) -> None:
        for board in list(self._boards):
            try:
                do(board)
            except Exception as error:  # whatever a board does, the training goes on
                self._boards.remove(board)
                self._say(f"{board.name} is left out from now on: {_one_line(error)}; training goes on without it")


def open_boards(settings: Log, out: Path, first: int, tree: Mapping[str, Any], say: Say) -> Boards:
    """The boards that a config asks for, for a run in `out` that goes on after step `first`; `tree` is its config.

    Open them when the workers have been forked. ValueError where W&B is asked for and not installed.
    """
    boards: list[Board] = []
    if settings.wandb is not None:
        boards.append(WandB(settings.wandb, out, tree, say))
    if settings.tensorboard:
        boards.append(TensorBoard(out, first, tree))
    return Boards(boards, say)


class TensorBoard:
    """Event files in out/tensorboard. What an interrupted run wrote after its last checkpoint is not shown again."""

    name = "TensorBoard"

    def __init__(self, out: Path, first: int, tree: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a second to import; only the reporting process pays it

        self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=first + 1)
        text = yaml.safe_dump(dict(tree), sort_keys=False)
        self._writer.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()), first)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, step: int, name: str, path: Path) -> None:
        with Image.open(path) as picture:
            self._writer.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A run of Weights & Biases, the same one after a restart (its id is kept in `out`), online or WANDB_MODE=offline.

    A thread of its own talks to it. W&B counts records by itself and refuses a smaller count, so the training step is a
    metric beside the others, and the axis they are drawn over: a run that falls back to a checkpoint draws some steps
    twice.
    """

    name = "W&B"

    def __init__(self, project: str, out: Path, tree: Mapping[str, Any], say: Say) -> None:
        try:
            import wandb
        except ImportError:
            raise ValueError(
                f"log.wandb: {project} asks for Weights & Biases, which is not installed; "
                "run .venv/bin/pip install -e '.[wandb]', or leave log.wandb out"
            ) from None
        self._wandb, self._project, self._out, self._tree, self._say = wandb, project, out, dict(tree), say
        self._records: queue.Queue[dict[str, Any] | None] = queue.Queue(WAITING)
        self._lost = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._send, name="wandb", daemon=True)
        self._thread.start()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._put({**values, "step": step})

    def image(self, step: int, name: str, path: Path) -> None:
        self._put({name: path, "step": step})

    def close(self) -> None:
        if not self._thread.is_alive():
            self._raise()
            return
        with suppress(queue.Full):  # it does not take anything any more; the wait below says so
            self._records.put(None, timeout=CLOSE_SECONDS / 4)
        self._thread.join(CLOSE_SECONDS)
        self._raise()
        if self._thread.is_alive():
            threading.Thread(target=self._leave, daemon=True).start()
            raise TimeoutError(
                f"it has not taken the last records within {CLOSE_SECONDS:.0f} seconds; "
                f"`wandb sync` in {self._out} sends what is there"
            )

    def _put(self, record: dict[str, Any]) -> None:
        self._raise()
        try:
            self._records.put_nowait(record)
        except queue.Full:
            if not self._lost:
                self._say(f"W&B is {WAITING} records behind and loses some; metrics.jsonl has all of them")
            self._lost = True

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _send(self) -> None:
        """In the thread: open the run, pass records on until None comes, finish."""
        try:
            run = self._open()
            while (record := self._records.get()) is not None:
                run.log({k: self._wandb.Image(str(v)) if isinstance(v, Path) else v for k, v in record.items()})
            run.finish()
        except Exception as error:  # raised again by the next call of the training's own thread
            self._error = error
            self._leave()

    def _leave(self) -> None:
        """End W&B's own process, here where nobody waits: when Python exits, W&B would, for as long as it retries."""
        with suppress(Exception):
            self._wandb.teardown()

    def _open(self) -> Any:
        settings = self._wandb.Settings(
            init_timeout=INIT_SECONDS,
            finish_timeout=CLOSE_SECONDS,  # also when Python exits, where it would wait for ever
            console="off",  # the live line is not for a log file
            silent=True,
        )
        offline = self._wandb.setup().settings.mode in ("offline", "disabled", "dryrun")
        if not offline and not self._wandb.login(prompt=False):
            raise ValueError("there is no API key; run `wandb login`, or set WANDB_MODE=offline")
        path = self._out / WANDB_ID
        if not path.is_file():
            path.write_text(secrets.token_hex(4))
        run = self._wandb.init(
            project=self._project,
            name=self._out.resolve().name,
            id=path.read_text().strip(),
            resume="allow",
            dir=str(self._out),
            config=self._tree,
            settings=settings,
        )
        run.define_metric("step", hidden=True)
        run.define_metric("*", step_metric="step")
        where = f"offline; `wandb sync {self._out}/wandb/*` sends it" if offline else run.url
        self._say(f"W&B: {where}")
        return run


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        for i, part in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(part, int | float) and not isinstance(part, bool):
                yield f"{name}/{i}" if isinstance(value, list) else name, part


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
