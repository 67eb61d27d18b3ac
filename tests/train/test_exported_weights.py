"""Weights in one file: exported from runs and released models, in our names and in the release's, read back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor

from model import LICENCE, from_released, read_released, to_released
from model import released as the_release
from tests.model.released_files import drawn, reduced, same
from tests.train.released_hub import LICENCE_LINE, as_if_trained, export, state
from tests.train.test_run import MAP, Settings, trained
from train import weights
from train.config.shape import shape_of
from train.run import build, load_run


def test_an_exported_file_is_its_run(settings: Settings, tmp_path: Path) -> None:
    c = settings()
    trained(c)
    export(c.out, "--out", tmp_path / "wt.safetensors")
    one, two = load_run(c.out), load_run(str(tmp_path / "wt.safetensors"))
    assert same(state(one), state(two))
    assert (one.normalisation, one.config, one.step, one.model.config) == (MAP, c, 7, two.model.config)
    assert (two.normalisation, two.config, two.step) == (MAP, c, 7)
    again = tmp_path / "again.safetensors"
    export(tmp_path / "wt.safetensors", "--out", again)
    assert same(load_file(again), load_file(tmp_path / "wt.safetensors"))
    with safe_open(again, "pt") as opened, safe_open(tmp_path / "wt.safetensors", "pt") as before:
        assert opened.metadata() == before.metadata()


def test_an_exported_file_from_the_hub_is_a_run(hub: Path, settings: Settings) -> None:
    c = settings()
    trained(c)
    (hub / "me" / "mine").mkdir(parents=True)
    export(c.out, "--out", hub / "me" / "mine" / "wt.safetensors")
    assert load_run("hf://me/mine/wt.safetensors").config == c


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": {"decoder_blocks": 3_000_000}}, "its weights are not those of the model that its wt.safetensors"),
        ({"model": {"width": 64}}, "its weights are not those"),
        ({"model": [1]}, "describes no run that this version can read"),
        ({"config": {"colour": 3}}, "describes no run that this version can read"),
        ({"normalisation": {"kind": "none"}}, "describes no run that this version can read"),
        ({"normalisation": {"kind": "zscore", "mean": [1e400] * 3, "std": [1] * 3}}, "three positive deviations"),
        ({"config": {"data": {"size": 15}}}, "data.size 15 is no multiple of its patch"),
        ({"config": {"data": {"size": 112000}}}, "data.size 112000 is no multiple of its patch, 7, up to 4096"),
    ],
)
def test_an_exported_file_that_describes_another_model_is_refused(
    settings: Settings, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    c = settings()
    trained(c)
    file = tmp_path / "wt.safetensors"
    export(c.out, "--out", file)
    with safe_open(file, "pt") as opened:
        about = opened.metadata()
    for name, value in change.items():
        said = json.loads(about[name])
        if name == "config":
            value["data"] = said["data"] | value.get("data", {})
        whole = not isinstance(value, dict) or name == "normalisation"
        about[name] = json.dumps(value if whole else {**said, **value})
    save_file(load_file(file), file, about)
    with pytest.raises(ValueError, match=told) as error:
        load_run(file)
    assert "\n" not in str(error.value)


def test_an_exported_file_of_a_stranger_is_checked_like_a_released_one(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = settings()
    trained(c)
    file = tmp_path / "wt.safetensors"
    export(c.out, "--out", file)
    with safe_open(file, "pt") as opened:
        about = opened.metadata()
    before = state(load_run(file))
    first = next(iter(before))

    def write_with(change: dict[str, Tensor], **said: str) -> None:
        save_file({**before, **change}, file, {**about, **said})

    write_with({first: before[first].to(torch.int8)})
    with pytest.raises(ValueError, match=r"has numbers of torch\.int8; weights are floats"):
        load_run(file)
    write_with({first: torch.full_like(before[first], torch.nan)})
    with pytest.raises(ValueError, match="has numbers that are not finite"):
        load_run(file)
    with pytest.raises(ValueError, match=r"model\.start: .*not finite"):
        build(settings(model__start=str(file)))
    write_with({first: torch.full_like(before[first], 1e300, dtype=torch.float64)})
    with pytest.raises(ValueError, match="has numbers that are not finite"):
        load_run(file)
    write_with({name: tensor.double() for name, tensor in before.items()})
    assert same(state(load_run(file)), before)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_with({}, licence=json.dumps("\x1b]0;mine\x07\x1b[2J" + "x" * 10_000))
    said: list[str] = []
    load_run(file, say=said.append)
    assert said[0].isprintable()
    assert len(said[0]) < 1000


def test_a_strangers_start_is_never_fetched_for_its_licence(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = settings(model__start="hf://a/stranger/huge.pt")
    as_if_trained(c)
    monkeypatch.setattr(weights, "fetched", None)
    assert weights.licence_of(weights.find(c.out)) is None


def test_released_weights_are_exported_with_their_licence(hub: Path, tmp_path: Path) -> None:
    file = tmp_path / "wt.safetensors"
    assert f"{file}: {LICENCE_LINE}" in export("r69l", "--out", file)
    with safe_open(file, "pt") as opened:
        assert json.loads(opened.metadata()["licence"]) == LICENCE
    said: list[str] = []
    run, origin = load_run(file, say=said.append), load_run("r69l")
    assert same(state(run), state(origin))
    assert (run.config, run.normalisation) == (origin.config, origin.normalisation)
    assert run.config.data.size == 840
    assert LICENCE_LINE in export(file, "--out", tmp_path / "again.safetensors")


@pytest.mark.parametrize("kind", ["object", "scene", "dynamic"])
def test_a_run_goes_out_in_the_releases_names_and_comes_back(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Whatever its size: the release's own is put in the place of ViT-L/14."""
    c = settings(model__film_adaln=kind == "scene", model__temporal=kind == "dynamic")
    trained(c)
    monkeypatch.setattr(the_release, "_ENCODER", shape_of(c).encoder)
    monkeypatch.setattr(the_release, "_FIXED", {})
    one = load_run(c.out)
    output = export(c.out, "--released", "--out", tmp_path / "model.pt")
    assert "points would come out stretched" in output, "the run's map is not the release's"
    assert LICENCE not in output
    two = load_run(tmp_path / "model.pt")
    assert same(state(one), state(two))
    assert (two.normalisation, two.config, two.step) == (MAP, c, 7), "and not the release's"
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert same(from_released(content["ema_state_dict"]), state(one))
    assert same(content["model_state_dict"], content["ema_state_dict"])


def test_released_weights_go_out_in_their_names_bit_for_bit(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(the_release, "_ENCODER", reduced("object").encoder)
    monkeypatch.setattr(the_release, "_FIXED", {})
    output = export("r75b", "--released", "--out", tmp_path / "model.pt")
    assert LICENCE_LINE in output
    assert "stretched" not in output
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert same(content["ema_state_dict"], to_released(drawn(reduced("object"))))
    read = read_released(tmp_path / "model.pt")
    assert read.note is not None
    assert read.note["licence"] == LICENCE


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "ViT-L/14"),
        ({"model__masks": True}, "no masks"),
        ({"objective__kind": "regression"}, "trained as a regression"),
    ],
)
def test_what_the_release_has_not_is_not_written_for_it(
    settings: Settings, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    c = settings(**changes)
    trained(c)
    with pytest.raises(ValueError, match=told) as error:
        export(c.out, "--released", "--out", tmp_path / "model.pt")
    assert "\n" not in str(error.value)
    assert str(tmp_path / "model.pt") not in str(error.value)
    assert [p.name for p in tmp_path.iterdir() if "model" in p.name] == []


def test_the_ending_says_which_file_is_written(settings: Settings, tmp_path: Path) -> None:
    for arguments, told in (
        (("--released", "--out", tmp_path / "wt.safetensors"), r"with --released .* torch's \.pt.*ends in \.pt"),
        (("--out", tmp_path / "wt.pt"), r"without --released .* safetensors.*ends in \.safetensors"),
    ):
        with pytest.raises(ValueError, match=told):
            export(tmp_path, *arguments)
