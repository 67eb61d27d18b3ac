"""Presets: the released sizes, round trips, and errors that name what was meant."""

import json
import re

import pytest
import torch

from model import WTConfig, WTDiT, preset, presets


@pytest.mark.parametrize(
    ("name", "total", "trainable", "tensors"),
    [("wt_o", 1705.05, 1394.39, 1233), ("wt_s", 1549.18, 1238.51, 1127), ("wt_d", 2101.80, 1791.14, 1485)],
)
def test_full_models_have_the_released_size(name, total, trainable, tensors):
    with torch.device("meta"):
        model = WTDiT(preset(name))
    counts = [round(n / 1e6, 2) for n in model.parameter_counts()]
    assert counts == [total, trainable]
    assert len(model.state_dict()) == tensors
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in model.named_parameters() if n.startswith("encoder.")}


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_small_presets_train_their_own_encoder(name):
    with torch.device("meta"):
        model = WTDiT(preset(name))
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == {"encoder.mask_token"}
    assert model.parameter_counts()[0] < 50e6


@pytest.mark.parametrize("name", sorted(presets))
def test_config_survives_json(name):
    assert WTConfig.from_dict(json.loads(json.dumps(presets[name].to_dict()))) == presets[name]


def test_changes_reach_nested_fields_and_leave_the_preset_alone():
    changed = preset("tiny", width=64, encoder={"depth": 3})
    assert (changed.width, changed.encoder.depth) == (64, 3)
    assert changed.encoder.width == presets["tiny"].encoder.width
    assert presets["tiny"].width != 64


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda: preset("tinny"), "'tiny'"),
        (lambda: preset("tiny", widht=8), "'width'"),
        (lambda: WTConfig.from_dict({"encoder": {"dept": 2}}), "'depth'"),
        (lambda: preset("zzz"), "tiny"),
        (lambda: preset("tiny", width=130), "head"),
        (lambda: preset("tiny", encoder={"taps": 99}), "taps"),
        (lambda: preset("tiny", width="abc"), "model.width: expected a positive whole number, found 'abc'"),
        (lambda: preset("tiny", width=None), "model.width"),
        (lambda: preset("tiny", heads=0), "model.heads"),
        (lambda: preset("tiny", heads=True), "model.heads"),
        (lambda: preset("tiny", layers=6.0), "model.layers"),
        (lambda: preset("tiny", patch=-7), "model.patch"),
        (lambda: preset("tiny", time_shift="big"), "model.time_shift: expected a positive number, found 'big'"),
        (lambda: preset("tiny", time_shift=0.0), "model.time_shift"),
        (lambda: preset("tiny", time_shift=float("nan")), "model.time_shift"),
        (lambda: preset("tiny", temporal=1), "model.temporal: expected true or false, found 1"),
        (lambda: preset("tiny", encoder=3), "model.encoder: expected a mapping of its fields, found 3"),
        (lambda: preset("tiny", encoder={"heads": 0}), "model.encoder.heads"),
        (lambda: preset("tiny", encoder={"grid": "x"}), "model.encoder.grid"),
    ],
)
def test_mistakes_are_named(call, meant):
    with pytest.raises(ValueError, match=re.escape(meant)) as error:
        call()
    assert "\n" not in str(error.value)
