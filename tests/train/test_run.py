"""Where the weights of a run come from, and what may differ between a run and the one it starts from."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from model import Normalisation, WTDiT, ZScore, released_normalisation, to_released
from model import normalisation as maps
from tests.train.small_checkpoints import reseal
from train import config
from train.checkpoints import Checkpoints
from train.checkpoints.commands import app
from train.config import Config
from train.ranks.parallel import Ranks
from train.run import build, load_run

MAP = ZScore((0.1, 0.2, 2.0), (0.3, 0.4, 0.5))
Settings = Callable[..., Config]


def trained(settings: Config, seed: int = 1) -> tuple[WTDiT, dict[str, Tensor]]:
    """A run in `settings.out`, as if it had been trained: weights that are not those of any start."""
    network, _ = build(settings)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.2, generator=generator)
    average = {n: p.detach() + 0.01 for n, p in network.named_parameters() if p.requires_grad}
    state = {
        "config": config.to_dict(settings),
        "model": network.config.to_dict(),
        "normalisation": maps.to_dict(MAP),
    }
    with Checkpoints(settings.out, 3, Ranks(0, 1, torch.device("cpu"))) as saver:
        saver.save(7, {"model": network.state_dict(), "ema": average}, state, wait=True)
    return network, {**network.state_dict(), **average}


def outputs(network: WTDiT, normalisation: Normalisation | None = None, size: int = 28, frames: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand((2 * frames, 3, size, size), generator=generator)
    noisy = torch.randn((2 * frames, network.config.layers, size, size, 3), generator=generator)
    with torch.no_grad():
        return network.eval()(rgb, noisy, torch.full((2 * frames,), 0.4), frames)


def equal(network: WTDiT, expected: dict[str, Tensor], names: list[str] | None = None) -> bool:
    found = network.state_dict()
    return all(torch.equal(found[name], expected[name]) for name in names or expected)


def test_a_run_is_loaded_with_its_average_where_there_is_one(settings: Settings) -> None:
    c = settings(model__encoder={"frozen": True, "width": 32, "depth": 2, "heads": 2}, model__start="elsewhere")
    with pytest.raises(FileNotFoundError):
        build(c)
    free = settings(model__encoder={"frozen": False, "width": 32, "depth": 2, "heads": 2})
    network, averaged = trained(free)
    run = load_run(free.out)
    assert equal(run.model, averaged)
    assert not any(p.requires_grad for p in run.model.parameters())
    assert (run.step, run.normalisation, run.config) == (7, MAP, free)
    assert not equal(run.model, network.state_dict())


def test_the_second_stage_takes_the_averaged_weights_of_the_first_at_another_size(settings: Settings) -> None:
    """196 -> 504 (App. B): no weight depends on the size of the image."""
    first = settings(data__size=28)
    _, averaged = trained(first)
    second = settings(data__size=56, model__start=first.out, out=first.out + "2", seed=9)
    said: list[str] = []
    network, inherited = build(second, say=said.append)
    assert equal(network, averaged)
    assert inherited == MAP
    assert said == []
    assert outputs(network, size=56).isfinite().all()


def test_one_checkpoint_is_a_start_as_well_as_its_run(settings: Settings) -> None:
    first = settings()
    _, averaged = trained(first)
    network, _ = build(settings(model__start=f"{first.out}/checkpoints/step-000007"))
    assert equal(network, averaged)


@pytest.mark.parametrize("released", [False, True])
def test_clips_begin_as_frames(settings: Settings, tmp_path: Path, released: bool) -> None:
    """WT-D from WT-O: the same bits for single frames, and temporal blocks as the seed alone makes them."""
    still = settings(model__decoder_blocks=6)
    network, averaged = trained(still)
    start = still.out
    if released:
        start = str(tmp_path / "model.pt")
        torch.save({"ema_state_dict": to_released(averaged), "epoch": 3}, start)
    moving = settings(model__decoder_blocks=6, model__temporal=True, model__start=start)
    said: list[str] = []
    dynamic, inherited = build(moving, say=said.append)
    network.load_state_dict(averaged)
    assert torch.equal(outputs(dynamic), outputs(network))
    assert inherited == (released_normalisation(averaged) if released else MAP)
    assert len(said) == 1 + released
    assert "the 2 temporal blocks, which it lacks" in said[-1]
    assert ("CC BY-NC-ND 4.0" in said[0]) == released
    alone, _ = build(settings(model__decoder_blocks=6, model__temporal=True))
    assert equal(dynamic, alone.state_dict(), [name for name in alone.state_dict() if name.startswith("temporal.")])
    assert not torch.equal(outputs(dynamic, frames=2), outputs(network, frames=2))


def _flat(tree: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in tree.items())


@pytest.mark.parametrize(
    "change",
    [
        {"model__width": 64},
        {"model__layers": 4},
        {"model__decoder_blocks": 6},
        {"model__head_blocks": 2},
        {"model__film_adaln": True},
        {"model__patch": 14},
        {"model__encoder": {"width": 32, "depth": 3, "heads": 2}},
    ],
    ids=_flat,
)
@pytest.mark.parametrize("temporal", [False, True])
def test_nothing_else_may_differ(settings: Settings, change: dict[str, Any], temporal: bool) -> None:
    first = settings()
    trained(first)
    with pytest.raises(ValueError, match="holds another model than the config describes"):
        build(settings(model__start=first.out, model__temporal=temporal, **change))


def test_frames_do_not_begin_as_clips_nor_clips_with_half_of_their_blocks(settings: Settings) -> None:
    moving = settings(model__decoder_blocks=6, model__temporal=True)
    trained(moving)
    with pytest.raises(ValueError, match=r"temporal\.0.*absent here"):
        build(settings(model__decoder_blocks=6, model__start=moving.out))
    few = settings(model__temporal=True, out=moving.out + "2")
    trained(few)
    with pytest.raises(ValueError, match="holds another model"):
        build(settings(model__decoder_blocks=6, model__temporal=True, model__start=few.out))


def test_on_meta_there_are_shapes_and_nothing_is_read(settings: Settings) -> None:
    c = settings()
    there, _ = build(c)
    here, inherited = build(settings(model__start="nowhere"), meta=True)
    assert inherited is None
    assert {n: t.shape for n, t in here.state_dict().items()} == {n: t.shape for n, t in there.state_dict().items()}
    assert all(t.is_meta for t in (*here.parameters(), *here.buffers()))
    assert [n for n, p in here.named_parameters() if p.requires_grad] == [
        n for n, p in there.named_parameters() if p.requires_grad
    ]


def test_the_seed_alone_makes_the_weights_of_a_start_from_nothing(settings: Settings) -> None:
    before = torch.random.get_rng_state()
    one, two, other = (build(settings(seed=seed))[0] for seed in (3, 3, 4))
    assert equal(one, two.state_dict())
    assert not equal(one, other.state_dict())
    assert torch.equal(before, torch.random.get_rng_state())


def test_clips_need_a_model_that_sees_them_as_such(settings: Settings) -> None:
    with pytest.raises(ValueError, match=r"data\.frames: 16, but tiny has no temporal blocks"):
        build(settings(data__frames=16))
    build(settings(data__frames=16, model__temporal=True))


ENCODER = {"width": 32, "depth": 2, "heads": 2, "frozen": True}


def test_a_frozen_encoder_needs_weights_from_somewhere(settings: Settings) -> None:
    with pytest.raises(ValueError, match=r"model\.start: not set, and model\.encoder_weights neither"):
        build(settings(model__encoder=ENCODER))


def test_a_start_that_is_not_there_is_named_by_its_key(settings: Settings) -> None:
    with pytest.raises(FileNotFoundError, match=r"^model\.start: out/gone does not exist; give a run's folder, "):
        build(settings(model__start="out/gone"))


@pytest.mark.parametrize("projection", [False, True])
def test_encoder_weights_are_those_of_the_encoder_and_nothing_else(
    settings: Settings, tmp_path: Path, projection: bool
) -> None:
    encoder = {**ENCODER, "frozen": False}
    plain, _ = build(settings(model__encoder=encoder))
    own = {f"net.encoder.{name}": torch.full_like(x, 0.5) for name, x in plain.encoder.state_dict().items()}
    if not projection:
        own = {name: x for name, x in own.items() if "final_project" not in name}
    torch.save(own, tmp_path / "encoder.pt")
    frozen = {**ENCODER, "train_projection": not projection}
    network, inherited = build(settings(model__encoder=frozen, model__encoder_weights=str(tmp_path / "encoder.pt")))
    assert inherited is None
    for name, found in network.state_dict().items():
        mine = name.startswith("encoder.") and not name.startswith(("encoder.image_", "encoder.final_project."))
        if mine or (projection and name.startswith("encoder.final_project.")):
            assert (found == 0.5).all(), name
        else:
            assert torch.equal(found, plain.state_dict()[name]), name


def test_a_start_brings_its_encoder_and_a_run_that_goes_on_needs_nothing(settings: Settings) -> None:
    first = settings()
    _, averaged = trained(first)
    said: list[str] = []
    network, _ = build(settings(model__start=first.out, model__encoder_weights="nowhere.pt"), say=said.append)
    assert equal(network, averaged)
    assert said == [
        f"model.encoder_weights: nowhere.pt is not read, because model.start brings an encoder: {first.out}"
    ]
    for given in ({"model__start": "nowhere"}, {"model__encoder_weights": "nowhere.pt"}):
        build(settings(model__encoder=ENCODER, **given), resumed=True, say=said.append)
        build(settings(model__encoder=ENCODER, **given), meta=True, say=said.append)
        with pytest.raises(FileNotFoundError):
            build(settings(model__encoder=ENCODER, **given))
    assert len(said) == 1


def test_an_exported_file_is_a_start_like_its_run(settings: Settings, tmp_path: Path) -> None:
    first = settings()
    _, averaged = trained(first)
    file = tmp_path / "wt.safetensors"
    assert CliRunner().invoke(app, ["export", first.out, "--out", str(file)]).exit_code == 0
    network, inherited = build(settings(model__start=str(file)))
    assert equal(network, averaged)
    assert inherited == MAP
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"wt\.safetensors: cannot be read"):
        build(settings(model__start=str(file)))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": {"decoder_blocks": 3_000_000}}, "its weights are not those of the model"),
        ({"model": {"head_blocks": 3_000_000}}, "its weights are not those of the model"),
        ({"model": {"encoder": {"depth": 3_000_000}}}, "its weights are not those of the model"),
        ({"model": {"mlp_ratio": 10**30}}, "describes no run that this version can read: "),
        ({"model": {"width": 10**18, "heads": 10**16}}, ""),
        ({"model": None}, "describes no run that this version can read: "),
        ({"normalisation": {"kind": "zscore", "mean": [1]}}, "describes no run that this version can read: "),
        ({"normalisation": {"kind": "none"}}, "describes no run that this version can read: normalisation 'none' is"),
        ({"config": 3}, "describes no run that this version can read: "),
        ({"config": {"colour": 3}}, "describes no run that this version can read: "),
    ],
)
def test_a_strange_state_is_refused_at_once_and_in_a_sentence(settings: Settings, change: dict, told: str) -> None:
    c = settings()
    trained(c)
    step = Path(c.out) / "checkpoints" / "step-000007"

    def laid_over(state: dict) -> None:
        for name, value in change.items():
            whole = name == "normalisation" or not isinstance(value, dict)
            state[name] = value if whole else {**state[name], **value}

    reseal(step, laid_over)
    began = time.process_time()
    with pytest.raises(ValueError, match=f"step-000007.*{told}"):
        load_run(c.out)
    assert time.process_time() - began < 30


@pytest.mark.parametrize("name", ["model", "normalisation", "config"])
def test_what_a_state_lacks_is_named(settings: Settings, name: str) -> None:
    c = settings()
    trained(c)
    reseal(Path(c.out) / "checkpoints" / "step-000007", lambda state: state.pop(name))
    with pytest.raises(ValueError, match=rf"step-000007/state\.json: says nothing of {name}"):
        load_run(c.out)
