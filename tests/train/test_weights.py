"""Weights from anywhere: what each source gives as a run, as a start, and as an exported file."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor
from typer.testing import CliRunner

from model import (
    LICENCE,
    RELEASED,
    LogMedian,
    WTDiT,
    ZScore,
    from_released,
    presets,
    read_released,
    released_normalisation,
    to_released,
)
from model import released as the_release
from tests.model.released_files import KINDS, drawn, reduced, same, write
from tests.train.test_run import MAP, Settings, trained
from train import config, weights
from train.checkpoints.commands import app
from train.config.shape import shape_of
from train.run import Run, build, load_run

LICENCE_LINE = f"its weights are under {LICENCE}"


@pytest.fixture(scope="module")
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
    _as_if_trained(c)
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
    _as_if_trained(first)
    second = settings(model__start=first.out, out=str(tmp_path / "second"))
    _as_if_trained(second)
    for run in (first, second):
        assert LICENCE_LINE in export(run.out, "--out", tmp_path / "wt.safetensors")
    third = settings(model__start=str(tmp_path / "wt.safetensors"), out=str(tmp_path / "third"))
    _as_if_trained(third)
    assert LICENCE_LINE in export(third.out, "--out", tmp_path / "third.safetensors")
    lost = settings(model__start="gone", out=str(tmp_path / "lost"))
    _as_if_trained(lost)
    assert LICENCE not in export(lost.out, "--out", tmp_path / "lost.safetensors")


def _as_if_trained(c: config.Config) -> None:
    """A checkpoint whose config names its start, which was never read."""
    from model import normalisation as maps
    from train.checkpoints import Checkpoints
    from train.ranks.parallel import Ranks

    network = WTDiT(shape_of(c))
    average = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
    about = {"config": config.to_dict(c), "model": network.config.to_dict(), "normalisation": maps.to_dict(MAP)}
    with Checkpoints(c.out, 3, Ranks(0, 1, torch.device("cpu"))) as saver:
        saver.save(7, {"model": network.state_dict(), "ema": average}, about, wait=True)
