"""Several methods side by side: precomputed predictions, clips, lists of samples, and an evaluation that goes on."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import shards
from model import LogMedian, WTDiT, ZScore, preset
from tests.shards.scenes import spheres_clip, spheres_view
from tests.train.conftest import write_dataset
from train import config
from train.evaluation import coverage, methods, protocols, samples, table
from train.evaluation.evaluate import Asked, Report, ask, compare
from train.evaluation.methods import Method, Precomputed, Sampled
from train.evaluation.metrics import distinct, stack_metrics
from train.evaluation.truth import truth_of, truths_of
from train.prediction.archive import write_npz
from train.prediction.batch import predict_batch
from train.prediction.prediction import Prediction
from train.run import Run

SIZE = 28


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> shards.Dataset:
    """Four assets, three views of each."""
    some = [spheres_view(i, SIZE, SIZE, layers=3) for i in range(12)]
    some = [
        replace(v, origin=replace(v.origin, uid=f"asset{i // 3}", sha256=f"{i // 3:064x}")) for i, v in enumerate(some)
    ]
    folder = tmp_path_factory.mktemp("views") / "data"
    return shards.open(write_dataset(folder, list(some), SIZE))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> shards.Dataset:
    still = [spheres_clip(i, 3, height=SIZE, width=SIZE) for i in range(2)]
    some = [replace(c, frames=tuple(replace(f, regime="dynamic") for f in c.frames)) for c in still]
    folder = tmp_path_factory.mktemp("clips") / "data"
    return shards.open(write_dataset(folder, list(some), SIZE))


def tiny(layers: int = 3, frames: int = 1, **data: Any) -> Run:
    torch.manual_seed(0)
    encoder = {"width": 32, "depth": 1, "heads": 2, "taps": 1, "grid": 2}
    shape = {"width": 32, "heads": 2, "decoder_blocks": 3, "head_blocks": 1, "encoder": encoder}
    small = preset("tiny", layers=layers, temporal=frames > 1, **shape)
    settings = config.from_dict({"data": {"path": "none", "size": SIZE, "frames": frames, **data}, "out": "none"})
    return Run(WTDiT(small).eval(), ZScore((0.0, 0.0, 1.9), (0.2, 0.2, 0.2)), settings, step=7, path=Path("none"))


def predicted(folder: Path, dataset: shards.Dataset, error: float, seeds: int = 2, frames: int = 1) -> Precomputed:
    """The truth, seed k of it off by (k + 1) * error."""
    folder.mkdir(parents=True, exist_ok=True)
    for row, key in enumerate(dataset.keys):
        rng = np.random.default_rng(row)
        truths = truths_of(dataset[row], 3, SIZE, "black", frames)
        noise = [rng.normal(size=truths[0].xyz.shape) * error * (k + 1) for k in range(seeds)]
        stacks = [[t.xyz + n for n in noise] for t in truths]
        write_npz(
            folder / f"{key}.npz",
            [
                Prediction(t.rgb, t.valid, np.asarray(s, np.float32), None, tuple(range(seeds)))
                for t, s in zip(truths, stacks)
            ],
        )
    return Precomputed(folder.name, folder)


def asked_for(methods: list[Method], dataset: shards.Dataset, **changes: Any) -> Asked:
    return replace(ask(methods, dataset, range(len(dataset))), **changes)


def test_methods_are_judged_side_by_side_each_as_if_alone(views: shards.Dataset, tmp_path: Path) -> None:
    good, bad = predicted(tmp_path / "good", views, 0.01), predicted(tmp_path / "bad", views, 0.03)
    both = compare([good, bad], views, asked_for([good, bad], views))
    assert list(both.methods) == ["good_best", "good", "bad_best", "bad", "mean", "layer0"]
    assert both.methods["good"]["all/cd_l1"] < both.methods["bad"]["all/cd_l1"]
    alone = compare([bad], views, asked_for([bad], views))
    assert alone.methods["bad"] == both.methods["bad"]
    truth = truth_of(views[3], 3, SIZE, "black")
    drawn = bad.read(truth.key, 1)
    each = [stack_metrics(drawn.xyz[k, 0], truth.xyz, truth.hits, exists=drawn.exists[k, 0]) for k in range(2)]
    row = alone.samples[3]
    assert row["key"] == truth.key
    assert row["bad_best"] == min(each, key=lambda m: m["all/cd_l1"])
    assert row["bad"] == {name: pytest.approx((each[0][name] + each[1][name]) / 2) for name in each[0]}
    assert [m["all/cd_l1"] for m in row["each"]["bad"]] == [m["all/cd_l1"] for m in each]


def test_a_run_and_the_same_predictions_from_a_folder_are_the_same(views: shards.Dataset, tmp_path: Path) -> None:
    sampled = Sampled("run", tiny(), seeds=2, steps=2)
    (tmp_path / "stored").mkdir()
    rows = range(4)
    for row in rows:
        drawn = sampled.draw(views[row], SIZE, 1)
        truth = truth_of(views[row], 3, SIZE, "black")
        write_npz(
            tmp_path / "stored" / f"{truth.key}.npz",
            [Prediction(truth.rgb, truth.valid, drawn.xyz[:, 0], None, (0, 1))],
        )
    both: list[Method] = [sampled, Precomputed("stored", tmp_path / "stored")]
    report = compare(both, views, ask(both, views, rows))
    assert report.methods["run"] == report.methods["stored"]
    assert report.settings["judged"]["run"] == {
        "run": "none", "training_step": 7, "changed": 0, "seeds": 2, "steps": 2, "solver": "euler",
        "coverage": 1.0,
    }  # fmt: skip


def test_seeds_come_in_batches_that_fit_and_a_full_gpu_is_told_in_a_sentence(
    views: shards.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = Sampled("run", tiny(), seeds=3, steps=1)
    whole = method.draw(views[0], SIZE, 1)
    asked: list[int] = []

    def counted(run: Run, rgb: np.ndarray, valid: np.ndarray, draws: list[tuple[int, str]], *rest: Any) -> Any:
        asked.append(len(draws))
        return predict_batch(run, rgb, valid, draws, *rest)

    monkeypatch.setattr(methods, "predict_batch", counted)
    monkeypatch.setattr(methods, "TOKENS", {"cpu": 2 * 3 * 4})  # of 3 layers of 2x2 patches, twice
    parts = method.draw(views[0], SIZE, 1)
    assert asked == [2, 1]
    assert np.allclose(parts.xyz, whole.xyz, atol=1e-5)

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate.")

    monkeypatch.setattr(methods, "predict_batch", full)
    with pytest.raises(ValueError, match=r"^run: too little GPU memory \(CUDA out of memory\); free some"):
        method.draw(views[0], SIZE, 1)


def test_a_regression_answers_once(views: shards.Dataset) -> None:
    run = tiny()
    settings = run.config.model_copy(
        update={"objective": run.config.objective.model_copy(update={"kind": "regression"})}
    )
    method = Sampled("regression", replace(run, config=settings), seeds=8)
    assert len(method.draw(views[0], SIZE, 1).xyz) == 1
    report = compare([method], views, ask([method], views, [0, 1]))
    assert report.methods["regression"] == report.methods["regression_best"]
    assert "| regression |" in table.markdown(report, protocols.PROTOCOLS[1].columns, "T")


def test_missing_predictions_are_refused_or_counted(views: shards.Dataset, tmp_path: Path) -> None:
    method = predicted(tmp_path / "some", views, 0.01)
    (tmp_path / "some" / f"{views.key(0)}.npz").unlink()
    asked = asked_for([method], views)
    with pytest.raises(ValueError, match=r"some: 1 of 12 predictions are missing.*--allow-missing"):
        compare([method], views, asked)
    report = compare([method], views, replace(asked, allow_missing=True))
    assert report.settings["judged"]["some"]["missing"] == 1
    assert "some" not in report.samples[0]
    assert "layer0" in report.samples[0]
    assert "lacks 1 of them" in table.footnote(report.settings)
    with pytest.raises(ValueError, match="but not the plain name of a file"):
        method.path("../elsewhere")


def test_a_method_with_fewer_layers_has_no_points_in_the_others(views: shards.Dataset, tmp_path: Path) -> None:
    (tmp_path / "depth").mkdir()
    truth = truth_of(views[0], 3, SIZE, "black")
    write_npz(
        tmp_path / "depth" / f"{truth.key}.npz", [Prediction(truth.rgb, truth.valid, truth.xyz[None, :1], None, (0,))]
    )
    method = Precomputed("depth", tmp_path / "depth")
    assert method.shape == (1, SIZE)
    report = compare([method], views, replace(ask([method], views, [0]), layers=3))
    assert report.methods["depth"]["visible/cd_l1"] == pytest.approx(0, abs=1e-6)
    assert report.methods["depth"]["all/cd_l1"] > 0
    assert "layer1/rmse" not in report.methods["depth"]


def test_a_run_without_lengths_is_not_judged_unaligned(views: shards.Dataset) -> None:
    method = Sampled("rooms", replace(tiny(), normalisation=LogMedian()), 1, 1)
    with pytest.raises(ValueError, match="rooms predicts scenes in units of their median depth"):
        compare([method], views, replace(ask([method], views, [0]), rule="none"))


def test_where_no_point_is_predicted_the_table_says_so_and_names_are_no_markup(
    views: shards.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method = predicted(tmp_path / "half", views, 0.01)
    for row in range(2):
        drawn, truth = method.read(views.key(row), 1), truth_of(views[row], 3, SIZE, "black")
        there = np.broadcast_to(truth.valid, drawn.xyz.shape[:1] + drawn.xyz.shape[2:-1]).copy()
        there[..., ::2] = False
        write_npz(
            method.path(truth.key), [Prediction(truth.rgb, truth.valid, drawn.xyz[:, 0], None, (0, 1), exists=there)]
        )
    named = replace(method, name="half [/] :bomb:")
    report = compare([named], views, ask([named], views, [0, 1]))
    assert 0.3 < report.settings["judged"][named.name]["coverage"] < 0.7
    table.show(report)
    assert "half [/] :bomb: has a visible point at" in " ".join(capsys.readouterr().out.split())


def test_clips_are_judged_frame_by_frame_with_one_alignment(clips: shards.Dataset, tmp_path: Path) -> None:
    method = predicted(tmp_path / "stored", clips, 0.01, frames=3)
    report = compare([method], clips, ask([method], clips, range(2), table=3))
    assert report.settings["frames"] == 3
    assert report.settings["best_of_k_selected_by"] == "all/cd_l2"
    assert 0 < report.methods["stored_best"]["all/cd_l2"] < 0.01
    assert report.methods["layer0"]["depth/mae"] == pytest.approx(0, abs=1e-6)
    fewer = predicted(tmp_path / "fewer", clips, 0.01, frames=2)
    with pytest.raises(ValueError, match="has 2 frames, and 3 are judged"):
        compare([fewer], clips, ask([fewer], clips, range(2), table=3))


def test_a_model_of_clips_sees_its_frames_together_and_one_of_images_each_by_itself(clips: shards.Dataset) -> None:
    moving, still = Sampled("moving", tiny(6, frames=2), 2, 1), Sampled("still", tiny(6), 2, 1)
    asked = ask([moving, still], clips, range(2), table=3)
    assert asked.frames == 2  # what the model of clips was trained with
    report = compare([moving, still], clips, asked)
    assert {"moving", "still"} <= report.methods.keys()
    drawn = still.draw(clips[0], SIZE, 3)
    assert drawn.xyz.shape == (2, 3, 6, SIZE, SIZE, 3)
    first = still.draw(clips[0], SIZE, 1)
    assert np.array_equal(first.xyz[:, 0], drawn.xyz[:, 0])


def test_tables_ask_for_what_the_paper_says(views: shards.Dataset, clips: shards.Dataset) -> None:
    assert protocols.protocol_of(views).number == 1
    assert protocols.protocol_of(clips).number == 3
    with pytest.raises(ValueError, match="--table 3 judges clips"):
        protocols.protocol_of(views, 3)
    with pytest.raises(ValueError, match="--table 4 is none of 1, 2, 3, 6 and 5"):
        protocols.protocol_of(views, 4)
    titles = [column.metric for column in protocols.with_surfaces(protocols.PROTOCOLS[1].columns)]
    assert titles[-1] == "surface/f@0.05"
    assert "all/cd_l1" not in titles


def test_points_of_surfaces_take_the_place_of_all_layers(views: shards.Dataset, tmp_path: Path) -> None:
    class Known:
        folder, index = tmp_path, {"count": 3}

        def points(
            self, view: shards.LayeredView, K: np.ndarray | None = None, size: tuple[int, int] | None = None
        ) -> np.ndarray:
            assert size == (SIZE, SIZE)
            assert K is not None
            assert np.array_equal(K, view.K)  # it is judged as it is stored
            return distinct(view.xyz(), view.hits, 0)

    method = predicted(tmp_path / "stored", views, 0.01)
    asked = asked_for([method], views, surfaces=Known(), selected_by="surface/cd_l1")
    report = compare([method], views, asked)
    assert report.methods["stored"]["surface/cd_l1"] == pytest.approx(report.methods["stored"]["all/cd_l1"], abs=1e-6)
    for row in report.samples:
        each = [seed["surface/cd_l1"] for seed in row["each"]["stored"]]
        assert row["stored_best"]["surface/cd_l1"] == min(each)
    assert report.settings["surfaces"] == str(tmp_path)


def test_table_6_judges_depth_alone_by_the_seed_of_least_absrel(views: shards.Dataset, tmp_path: Path) -> None:
    method = predicted(tmp_path / "stored", views, 0.01)
    report = compare([method], views, ask([method], views, range(4), table=6))
    assert report.settings["unit"].endswith("median depth")
    assert "visible/cd_l1" not in report.methods["stored"]
    whole = compare([method], views, asked_for([method], views, rows=(0, 1, 2, 3), unit="median"))
    for row in report.samples:
        each = [seed["depth/absrel"] for seed in row["each"]["stored"]]
        assert row["stored_best"]["depth/absrel"] == min(each)
    depth = [name for name in whole.methods["stored"] if name.startswith("depth/")]
    assert {n: whole.methods["stored"][n] for n in depth} == {n: report.methods["stored"][n] for n in depth}


def test_scenes_are_judged_in_units_of_their_median_depth(views: shards.Dataset, tmp_path: Path) -> None:
    method = predicted(tmp_path / "scene", views, 0.01)
    report = compare([method], views, asked_for([method], views, unit="median", baselines=False))
    plain = compare([method], views, asked_for([method], views, baselines=False))
    for row, (scaled, original) in enumerate(zip(report.samples, plain.samples)):
        truth = truth_of(views[row], 3, SIZE, "black")
        z = np.sort(truth.xyz[..., 2][:, truth.valid].ravel())
        m = z[(len(z) - 1) // 2]
        assert scaled["scene"]["all/cd_l1"] == pytest.approx(original["scene"]["all/cd_l1"] / m, rel=1e-5)


def test_all_views_of_so_many_assets_and_the_same_ones_every_time(views: shards.Dataset) -> None:
    rows = samples.held_out(views, ("train", "val", "test"), assets=3)
    chosen = views.manifest["asset_sha256"].take(rows).to_pylist()
    assert len(rows) == 9
    assert len(set(chosen)) == 3
    assert rows == samples.held_out(views, ("test", "val", "train"), assets=3)
    assert len(samples.held_out(views, ("train", "val", "test"), assets=100)) == 12
    assert len(samples.held_out(views, ("train", "val", "test"), limit=4, assets=3)) == 4


def test_a_list_of_samples_is_read_as_it_was_written(views: shards.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "lists" / "val.txt"
    samples.write_list(path, views, [3, 7])
    assert samples.read_list(path, views) == [3, 7]
    keys = samples.keys_of(views, [3, 7])
    assert samples.list_hash(keys) in path.read_text()
    assert samples.list_hash(keys) == samples.list_hash(keys[::-1]) != samples.list_hash(keys[:1])
    path.write_text(f"{keys[0]}\nunknown\n")
    with pytest.raises(ValueError, match=r"1 of its 2 samples are not in .*'unknown'"):
        samples.read_list(path, views)
    for text, problem in (("# nothing\n", "lists no sample"), (f"{keys[0]}\n{keys[0]}\n", "lists a sample twice")):
        path.write_text(text)
        with pytest.raises(ValueError, match=problem):
            samples.read_list(path, views)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="is no text"):
        samples.read_list(path, views)


def test_a_stopped_evaluation_goes_on_and_ends_in_the_same_report(views: shards.Dataset, tmp_path: Path) -> None:
    method = predicted(tmp_path / "stored", views, 0.01)
    asked = asked_for([method], views)
    whole = compare([method], views, asked)
    path = tmp_path / "report.json.partial"

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare([method], views, asked, stop, path)
    lines = path.read_text().splitlines()
    assert len(lines) == 6
    path.write_text("\n".join([*lines[:-1], lines[-1][:20]]))  # the last line was cut off
    begun: list[int] = []
    again = compare([method], views, asked, lambda done, total: begun.append(done), path)
    assert begun[0] == 4
    assert again == whole
    assert len(path.read_text().splitlines()) == 13, "it stays until the report is written"


def test_methods_have_names_and_one_size(views: shards.Dataset, tmp_path: Path) -> None:
    method = predicted(tmp_path / "a", views, 0.01)
    for name in ("mean", "a_best", "each"):
        with pytest.raises(ValueError, match=f"a method called '{name}'"):
            compare([replace(method, name=name)], views, asked_for([method], views))
    with pytest.raises(ValueError, match="a method called 'a'"):
        compare([method, method], views, asked_for([method], views))
    large = Sampled("large", tiny(size=56))
    with pytest.raises(ValueError, match=r"different sizes \(a 28, large 56\): say with --size"):
        ask([method, large], views, [0])
    assert ask([method, large], views, [0], size=28).size == 28
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no \.npz is in it"):
        _ = Precomputed("empty", tmp_path / "empty").shape
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        Precomputed("none", tmp_path / "none")


def test_markdown_has_a_row_per_method_and_the_best_in_bold(views: shards.Dataset, tmp_path: Path) -> None:
    good, bad = predicted(tmp_path / "good", views, 0.01), predicted(tmp_path / "bad", views, 0.03)
    report = compare([good, bad], views, asked_for([good, bad], views))
    columns = protocols.PROTOCOLS[1].columns
    lines = table.markdown(report, columns, "Table 1: Object geometry").splitlines()
    assert lines[0] == "### Table 1: Object geometry"
    rows = [line for line in lines if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[1:]] == [
        *("| good, best of 2", "| good, one seed", "| bad, best of 2", "| bad, one seed"),
        *("| train mean", "| true layer 0 repeated"),
    ]
    assert all(row.count("|") == len(columns) + 2 for row in rows)
    last = [row.split(" | ")[6] for row in rows]  # CD-L1
    assert last[1].startswith("**")
    assert not any("**" in cell for cell in last[2:])
    assert report.settings["list_hash"] in lines[-1]


def test_what_is_not_finite_is_null_in_json() -> None:
    report = Report({"a": [1.0, float("inf")]}, {"m": {"x": float("nan")}}, [])
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False)) == {
        "settings": {"a": [1.0, None]}, "methods": {"m": {"x": None}}, "samples": []
    }  # fmt: skip


def test_layer_validity_counts_pixels_of_the_views_that_have_the_layer(views: shards.Dataset) -> None:
    rows = list(range(len(views)))
    found = coverage.layer_validity(views, rows)
    counts = np.array([[(view.hits > layer).mean() * 100 for view in views] for layer in range(3)])  # type: ignore[union-attr]
    for row in found:
        known = counts[row["layer"]][counts[row["layer"]] > 0]
        assert row["views"] == len(known)
        assert row["mean"] == pytest.approx(known.mean())
        assert [row[name] for name in ("p25", "median", "p75", "p90")] == pytest.approx(
            list(np.percentile(known, (25, 50, 75, 90)))
        )
