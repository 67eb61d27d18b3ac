"""Going on with a run: what its folder holds, and whether it is the same run on the same data with the same model."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from model import WTConfig, WTDiT
from shards import History
from shards.cache import file_locks
from shards.order.sequence import DATA_JSON
from train import config
from train.config import Config
from train.data.stream import Stream
from train.ranks.parallel import Ranks

LOCK = ".lock"  # in the folder of checkpoints; it stays, who holds it counts


class Saved(Protocol):
    """A checkpoint: how far it is, and what its `state.json` says."""

    @property
    def step(self) -> int: ...

    @property
    def state(self) -> Mapping[str, Any]: ...


@contextmanager
def alone_in(out: Path, ranks: Ranks) -> Iterator[None]:
    """Nobody else trains in `out` within the block: ValueError on all ranks where somebody does.

    Two that do would remove and rename each other's checkpoints. The lock goes with the process, however it ends.
    """
    with ExitStack() as held:
        with ranks.together():
            if ranks.first:
                (out / "checkpoints").mkdir(parents=True, exist_ok=True)
                handle = file_locks.opened(out / "checkpoints" / LOCK, os.O_RDWR | os.O_CREAT)
                held.callback(file_locks.closed, handle)
                if not file_locks.locked(handle):
                    raise ValueError(f"{out}: another process trains there now; end it first, or use another out=")
        yield


def check_config(out: Path, saved: Saved, settings: Config) -> None:
    """ValueError where the run in `out` has another config, which names each difference."""
    changed = config.differences(config.from_dict(saved.state["config"]), settings)
    if changed:
        raise ValueError(
            f"{out}: holds a run with another config ({'; '.join(changed)}); use another out=, or remove it"
        )


def check_model(out: Path, saved: Saved, settings: Config, model: WTDiT) -> None:
    """ValueError where the model has changed under a run."""
    changed = config.differing(WTConfig.from_dict(saved.state["model"]).to_dict(), model.config.to_dict())
    if changed:
        raise ValueError(
            f"{out}: its run trained another model than preset {settings.model.preset} is now "
            f"({'; '.join(changed)}); go on with the version that began it, or use another out="
        )


def history_of(out: Path, saved: Saved | None, settings: Config, stream: Stream) -> History:
    """What the run knows of its data from here on. ValueError where they have changed otherwise than by growing."""
    begun = partial(History.begun, settings.data.mixed, stream.sources, settings.seed, settings.data.batch)
    if saved is None:
        return begun()
    known = History.read(out)
    if known is not None and known.hash_at(-1) != saved.state["data"]:  # a later one may have come after it was saved
        index = saved.step * settings.data.batch
        older = [g for g, of in enumerate(known.generations) if of.first < index or not g]
        known = known if known.hash_at(older[-1]) == saved.state["data"] else None
    if known is not None:
        try:
            return known.resumed(settings.data.mixed, stream.sources, saved.step * settings.data.batch)
        except ValueError as error:
            raise ValueError(f"{out}: its run was trained on other samples than data.path holds now: {error}") from None
    if saved.state["data"] != stream.hash or saved.state.get("generations", 1) != 1:
        raise ValueError(
            f"{out}: its run was trained on other samples than data.path holds now, and no {DATA_JSON} there says on "
            "which; restore it, or use another out="
        )
    return begun()  # of a run from before there were notes
