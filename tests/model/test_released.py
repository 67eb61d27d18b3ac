"""The released checkpoints: every name maps both ways, and the same weights give the released numbers."""

import importlib.util
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from model import WTDiT, from_released, preset, read_released, to_released
from model.released_names import our_name

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "released"
needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the released fixtures are not beside this checkout")
REDUCED = {
    "object": preset("wt_o", decoder_blocks=6, head_blocks=3),
    "scene": preset("wt_s", decoder_blocks=6, head_blocks=3),
    "dynamic": preset("wt_d", decoder_blocks=6, head_blocks=3),
}


def shapes(name):
    return {key: tuple(shape) for key, shape in json.loads((FIXTURES / f"{name}.shapes.json").read_text()).items()}


@needs_fixtures
@pytest.mark.parametrize("name", REDUCED)
def test_names_and_shapes_are_the_released_ones(name):
    with torch.device("meta"):
        state = WTDiT(REDUCED[name]).state_dict()
    assert {key: tuple(value.shape) for key, value in to_released(state).items()} == shapes(name)


@pytest.mark.parametrize(("name", "count"), [("wt_o", 1233), ("wt_s", 1127), ("wt_d", 1485)])
def test_full_models_map_there_and_back(name, count):
    with torch.device("meta"):
        state = WTDiT(preset(name)).state_dict()
    released = to_released(state)
    assert len(released) == count
    assert "net.decoder_blocks.35.norm3.weight" in released
    assert "net.encoder.blocks.23.norm2.weight" in released
    assert list(from_released(released)) == list(state)


def test_a_checkpoint_comes_back_with_its_head_negated_and_its_ema_preferred(tmp_path):
    torch.manual_seed(0)
    model = WTDiT(preset("tiny", width=32, heads=2, decoder_blocks=3, head_blocks=1))
    released = {"_orig_mod." + key: value for key, value in to_released(model.state_dict()).items()}
    torch.save({"model_state_dict": {}, "ema_state_dict": released, "step": 7}, tmp_path / "model.pt")
    model.load_state_dict(read_released(tmp_path / "model.pt").tensors)
    assert torch.equal(released["_orig_mod.net.latents_projection.geo_proj.weight"], -model.head.projection.weight)


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"net\.unheard_of"):
        our_name("net.unheard_of.weight")
    with pytest.raises(FileNotFoundError, match=r"model\.pt"):
        read_released(tmp_path / "model.pt")


@needs_fixtures
@pytest.mark.parametrize("name", ["object", "scene", "dynamic"])
def test_stand_in_weights_give_the_released_numbers(name):
    """Full widths and encoder, 6 + 3 blocks, weights made from their names: the release's own forward within 1e-4."""
    spec = importlib.util.spec_from_file_location("stand_in_weights", FIXTURES / "weights.py")
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    with torch.device("meta"):
        model = WTDiT(REDUCED[name])
    names = shapes(name)

    def drawn(name):
        return torch.from_numpy(weights.tensor(name, names[name]).astype(np.float32, copy=False))

    with ThreadPoolExecutor() as pool:  # nearly all of the time goes into drawing 0.6 billion numbers
        made = dict(zip(names, pool.map(drawn, names), strict=True))
    model.load_state_dict(from_released(made), assign=True)
    with np.load(FIXTURES / f"{name}.npz") as fixture, torch.no_grad():
        rgb, x_t = torch.from_numpy(fixture["rgb"]), torch.from_numpy(fixture["x_t"])
        for t, x0 in zip(fixture["t"], fixture["x0"], strict=True):
            out = model(rgb, x_t, torch.full((len(rgb),), float(t)), frames=len(rgb))
            difference = out - torch.from_numpy(x0)
            assert difference.abs().max() < 1e-4
