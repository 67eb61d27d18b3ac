"""Weights from anywhere: what each source gives as a run and as a start."""

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file

from model import LICENCE, RELEASED, LogMedian, ZScore, presets, released_normalisation, to_released
from tests.model.released_files import KINDS, drawn, reduced, same, write
from tests.train.released_hub import LICENCE_LINE, as_if_trained, export, state
from tests.train.test_run import Settings, trained
from train import config, weights
from train.config.shape import shape_of
from train.run import build, load_run


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_model_by_its_name_is_a_run(hub: Path, name: str) -> None:
    release = RELEASED[name]
    run = load_run(name, say=lambda text: None)
    assert same(state(run), drawn(reduced(release.kind)))
    assert (run.config.data.size, run.config.data.frames) == (release.size, release.frames)
    assert (run.config.precision, run.config.augment.background, run.step) == ("bf16", "black", 0)
    assert run.normalisation == (LogMedian() if release.kind == "scene" else released_normalisation({}))
    assert run.path == hub / release.repository / "model.pt"
    assert shape_of(run.config) == run.model.config == reduced(release.kind)
    assert config.from_dict(json.loads(json.dumps(config.to_dict(run.config)))) == run.config
    assert not run.model.training
    assert not any(p.requires_grad for p in run.model.parameters())


def test_r76_samples_with_the_noise_that_it_was_trained_on(hub: Path) -> None:
    assert load_run("r76", say=lambda text: None).config.objective.noise_correlation == 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_names_urls_and_files_give_the_same(hub: Path, tmp_path: Path, kind: str) -> None:
    release = next(each for each in RELEASED.values() if each.kind == kind)
    copy = tmp_path / f"{release.name}.pt"
    copy.write_bytes((hub / release.repository / "model.pt").read_bytes())
    tensors = tmp_path / f"{release.name}.safetensors"
    save_file(to_released(drawn(reduced(kind))), tensors)
    one = load_run(release.name, say=lambda text: None)
    for source in (f"hf://{release.repository}", release.source, str(copy), copy, tensors):
        run = load_run(source, say=lambda text: None)
        assert same(state(run), state(one))
        assert run.normalisation == one.normalisation
        assert (run.config.data.size, run.config.data.frames) == (one.config.data.size, one.config.data.frames)


def test_a_name_is_the_released_model_and_a_path_is_a_path(
    hub: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = settings(out=str(tmp_path / "r75b"))
    trained(c)
    monkeypatch.chdir(tmp_path)
    for source, step in (("r75b", 0), ("./r75b", 7), (Path("r75b"), 7), (tmp_path / "r75b", 7)):
        assert load_run(source, say=lambda text: None).step == step


def test_scenes_that_do_not_say_their_size_are_taken_for_504_and_that_is_said(hub: Path, tmp_path: Path) -> None:
    said: list[str] = []
    path = write(tmp_path / "model.pt", drawn(reduced("scene")))
    assert load_run(path, say=said.append).config.data.size == 504
    assert sum("taken for r69e, at 504 pixels" in line for line in said) == 1
    said.clear()
    for source in ("r69l", "hf://haoz19/scene-model-6layer-840", "r69e"):
        load_run(source, say=said.append)
    assert said == []


def test_weights_of_another_kind_than_the_name_says_are_refused(hub: Path) -> None:
    file = hub / RELEASED["r75b"].repository / "model.pt"
    file.unlink()
    write(file, drawn(reduced("scene")))
    with pytest.raises(ValueError, match="r75b: is to be a model of kind object, and these weights are of kind scene"):
        load_run("r75b", say=lambda text: None)


def test_the_licence_is_said_once_on_a_machine(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    for source in ("r75b", "r75b", "r69l"):
        load_run(source, say=said.append)
    assert said == [f"r75b: {LICENCE_LINE}"]
    assert "CC BY-NC-ND 4.0" in LICENCE
    assert "non-commercial" in LICENCE
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(weights, "marks", lambda: tmp_path / "file")
    for _ in range(2):
        load_run("r75b", say=said.append)
    assert len(said) == 3, "where no mark can be made, it is said every time"


def test_of_ones_own_weights_no_licence_is_said(settings: Settings, tmp_path: Path) -> None:
    c = settings()
    trained(c)
    said: list[str] = []
    load_run(c.out, say=said.append)
    assert LICENCE not in export(c.out, "--out", tmp_path / "wt.safetensors")
    load_run(tmp_path / "wt.safetensors", say=said.append)
    assert said == []


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("r75", "r75 does not exist; did you mean r75b?"),
        ("R69E", "R69E does not exist; did you mean r69e?"),
        ("out/gone", "out/gone does not exist; give a run's folder, one of its checkpoints, an exported .safetensors"),
        ("gone.pt", "gone.pt does not exist; give a run's folder"),
    ],
)
def test_what_is_not_there_is_named_with_what_was_meant(source: str, told: str) -> None:
    for load in (load_run, weights.find):
        with pytest.raises(FileNotFoundError) as error:
            load(source)
        assert str(error.value).startswith(told)
        assert "\n" not in str(error.value)


def test_a_folder_without_checkpoints_and_a_file_without_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint there"):
        load_run(tmp_path)
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ValueError, match=r"notes\.txt: holds no weights"):
        load_run(tmp_path / "notes.txt")


@pytest.mark.parametrize("kind", ["object", "scene"])
def test_training_starts_from_a_released_model_by_its_name(hub: Path, settings: Settings, kind: str) -> None:
    """Fine-tuning: the model of the preset that is the release's, its weights, and the map of its points."""
    name, preset = {"object": ("r75b", "wt_o"), "scene": ("r69l", "wt_s")}[kind]
    c = settings(model={**weights._overrides(reduced(kind), presets[preset]), "preset": preset, "start": name})
    said: list[str] = []
    network, inherited = build(c, say=said.append)
    assert same(dict(network.state_dict()), drawn(reduced(kind)))
    assert inherited == (LogMedian() if kind == "scene" else released_normalisation({}))
    assert said == [f"{name}: {LICENCE_LINE}"]
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in network.named_parameters() if name.startswith("encoder.")}


def test_clips_start_from_the_released_objects(hub: Path, settings: Settings) -> None:
    """WT-D from r75b: all weights that both have are the release's, temporal blocks are as the seed makes them."""
    shape = reduced("dynamic")
    model = {**weights._overrides(shape, presets["wt_d"]), "preset": "wt_d"}
    said: list[str] = []
    network, inherited = build(settings(model={**model, "start": "r75b"}), say=said.append)
    found = dict(network.state_dict())
    temporal = {name: x for name, x in found.items() if name.startswith("temporal.")}
    assert same({name: x for name, x in found.items() if name not in temporal}, drawn(reduced("object")))
    alone, _ = build(settings(model={**model, "encoder": {**model["encoder"], "frozen": False}}))
    assert same(temporal, {name: x for name, x in alone.state_dict().items() if name.startswith("temporal.")})
    assert "r75b is of single frames; the 2 temporal blocks" in said[-1]
    assert isinstance(inherited, ZScore)


def test_a_start_that_is_another_model_or_not_there_is_named_by_its_key(hub: Path, settings: Settings) -> None:
    with pytest.raises(ValueError, match=r"model\.start: r69e holds another model than the config describes"):
        build(settings(model__start="r69e"), say=lambda text: None)
    with pytest.raises(OSError, match=r"model\.start: hf://me/mine could not be fetched"):
        build(settings(model__start="hf://me/mine"))


def test_what_was_trained_from_released_weights_keeps_their_licence(
    hub: Path, settings: Settings, tmp_path: Path
) -> None:
    """Through a chain of runs, as long as they are there; of a start that nobody knows, nothing is claimed."""
    first = settings(
        model__start="r75b", out=str(tmp_path / "first"), model__encoder={"width": 32, "depth": 2, "heads": 2}
    )
    as_if_trained(first)
    second = settings(model__start=first.out, out=str(tmp_path / "second"))
    as_if_trained(second)
    for run in (first, second):
        assert LICENCE_LINE in export(run.out, "--out", tmp_path / "wt.safetensors")
    third = settings(model__start=str(tmp_path / "wt.safetensors"), out=str(tmp_path / "third"))
    as_if_trained(third)
    assert LICENCE_LINE in export(third.out, "--out", tmp_path / "third.safetensors")
    lost = settings(model__start="gone", out=str(tmp_path / "lost"))
    as_if_trained(lost)
    assert LICENCE not in export(lost.out, "--out", tmp_path / "lost.safetensors")
