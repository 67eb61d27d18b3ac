"""Released models for tests: small ones in a folder that stands for the hub, and exports of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from model import LICENCE, RELEASED, WTDiT, ZScore
from model import released as the_release
from tests.model.released_files import KINDS, drawn, reduced, write
from train import config, weights
from train.checkpoints.commands import app
from train.config.shape import shape_of
from train.run import Run

MAP = ZScore((0.1, 0.2, 2.0), (0.3, 0.4, 0.5))
LICENCE_LINE = f"its weights are under {LICENCE}"


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A released file of each kind, of a small model."""
    folder = tmp_path_factory.mktemp("released")
    return {
        kind: write(folder / f"{kind}.pt", drawn(reduced(kind)), "ema_state_dict", "model_state_dict") for kind in KINDS
    }


@pytest.fixture
def hub(tmp_path: Path, released: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub is a folder here: OWNER/REPO/FILE."""

    def fetched(source: str, default: str | None = None, say: Any = None) -> str:
        repository, file = the_release.parsed(source, default)
        path = tmp_path / "hub" / repository / file
        if not path.is_file():
            raise OSError(f"{source} could not be fetched (no connection)")
        return str(path)

    monkeypatch.setattr(weights, "fetched", fetched)
    for repository, kind in {each.repository: each.kind for each in RELEASED.values()}.items():
        (tmp_path / "hub" / repository).mkdir(parents=True)
        (tmp_path / "hub" / repository / "model.pt").symlink_to(released[kind])
    return tmp_path / "hub"


def export(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["export", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return " ".join(result.output.split())


def state(run: Run) -> dict[str, Tensor]:
    return dict(run.model.state_dict())


def as_if_trained(c: config.Config) -> None:
    """A checkpoint whose config names its start, which was never read."""
    from model import normalisation as maps
    from train.checkpoints import Checkpoints
    from train.ranks.parallel import Ranks

    network = WTDiT(shape_of(c))
    average = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
    about = {"config": config.to_dict(c), "model": network.config.to_dict(), "normalisation": maps.to_dict(MAP)}
    with Checkpoints(c.out, 3, Ranks(0, 1, torch.device("cpu"))) as saver:
        saver.save(7, {"model": network.state_dict(), "ema": average}, about, wait=True)
