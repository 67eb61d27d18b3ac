"""What a run is opened on, begun with, and refused for: its folder, its data, the weights that it starts from."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import shards
from model import ZScore, presets, to_released
from tests.train.conftest import Settings
from tests.train.runs import losses, quiet
from train import resume
from train.loop import train
from train.ranks.parallel import Ranks
from train.run import build, load_run


def test_another_config_is_refused_in_the_same_folder(settings: Settings) -> None:
    train(settings(steps=2), quiet())
    with pytest.raises(
        ValueError, match=r"another config \(optimizer.lr: 0.002 -> 0.003; seed: 0 -> 1\).*another out="
    ):
        train(settings(steps=2, optimizer__lr=3e-3, seed=1), quiet())


def test_other_samples_are_refused_and_a_moved_dataset_is_not(
    settings: Settings, dataset: Path, tmp_path: Path
) -> None:
    train(settings(steps=1), quiet())
    moved = shutil.copytree(dataset, tmp_path / "moved")
    assert train(settings(steps=2, data__path=str(moved)), quiet()).step == 2
    rows = shards.read_manifest(moved).to_pylist()
    shards.write_manifest(moved, rows[:-1])
    with pytest.raises(ValueError, match="trained on other samples"):
        train(settings(steps=3, data__path=str(moved)), quiet())


def test_two_runs_in_one_folder_are_refused(settings: Settings) -> None:
    c = settings(steps=2)
    here = resume.alone_in(Path(c.out), Ranks(0, 1, torch.device("cpu")))
    with here, pytest.raises(ValueError, match="another process trains there now"):
        train(c, quiet())
    assert train(c, quiet()).step == 2


def test_a_size_that_is_no_multiple_of_the_patch_is_refused(settings: Settings) -> None:
    with pytest.raises(ValueError, match=r"data\.size: 30 is not a multiple"):
        train(settings(data__size=30), quiet())


def test_a_frozen_encoder_needs_weights(settings: Settings) -> None:
    c = settings(model__encoder={"width": 32, "depth": 2, "heads": 2, "frozen": True})
    with pytest.raises(ValueError, match=r"model\.start: not set"):
        train(c, quiet())


def test_a_warm_start_keeps_the_normalisation_of_its_weights(settings: Settings, dataset: Path, tmp_path: Path) -> None:
    c = settings(steps=1, model__normalisation="log_median")
    train(c, quiet())
    for kind, kept in (("auto", "log_median"), ("zscore", "zscore")):
        second = settings(steps=1, out=str(tmp_path / kind), model__start=c.out, model__normalisation=kind)
        train(second, quiet())
        assert load_run(second.out).normalisation.kind == kept


def test_a_start_from_released_weights_brings_the_released_statistics(settings: Settings, tmp_path: Path) -> None:
    for film_adaln, kind in ((False, "zscore"), (True, "log_median")):
        c = settings(model__film_adaln=film_adaln)
        network, _ = build(c)
        torch.save({"ema_state_dict": to_released(network.state_dict())}, tmp_path / "model.pt")
        again, inherited = build(
            settings(model__film_adaln=film_adaln, model__start=str(tmp_path / "model.pt"), seed=5)
        )
        assert inherited is not None
        assert inherited.kind == kind
        assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), network.state_dict().values()))
        if isinstance(inherited, ZScore):
            assert inherited == ZScore((-0.002366, -0.004008, 1.904278), (0.280865, 0.315927, 0.706423))


def test_a_start_that_does_not_fit_is_named(settings: Settings, tmp_path: Path) -> None:
    train(settings(steps=1), quiet())
    with pytest.raises(ValueError, match=r"run holds another model.* is \d+x\d+.* there and .* here") as error:
        build(settings(model__width=64, model__start=str(tmp_path / "run")))
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="absent there"):
        build(settings(model__film_adaln=True, model__start=str(tmp_path / "run")))
    for content in (b"# A readme\n", b"", b"PK\x03\x04 cut"):
        (tmp_path / "README.md").write_bytes(content)
        with pytest.raises(ValueError, match=r"README\.md: holds no weights") as error:
            build(settings(model__start=str(tmp_path / "README.md")))
        assert "\n" not in str(error.value)


def test_a_preset_that_changed_under_a_run_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    train(settings(steps=1), quiet())
    monkeypatch.setitem(presets, "tiny", replace(presets["tiny"], time_shift=3.0))
    with pytest.raises(ValueError, match=r"preset tiny is now \(time_shift: 10\.0 -> 3\.0\)"):
        train(settings(steps=2), quiet())


def test_scenes_are_trained_under_the_log_median(settings: Settings, tmp_path: Path) -> None:
    from tests.shards.scenes import spheres_view
    from tests.train.conftest import write_dataset

    path = write_dataset(tmp_path / "scenes", [spheres_view(i, 28, 28, regime="scene") for i in range(2)], 28)
    c = settings(steps=2, data__path=str(path), precision="bf16")
    train(c, quiet())
    assert load_run(c.out).normalisation.kind == "log_median"
    assert all(math.isfinite(x) for x in losses(c.out))
