"""Plots of an evaluation: what they say, of reports of every kind; and which samples are shown."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import shards
from tests.shards.scenes import spheres_view
from train.evaluation import evaluate, plots, showing
from train.evaluation.methods import Precomputed
from train.evaluation.truth import truth_of
from train.prediction.archive import write_npz
from train.prediction.prediction import Prediction


def seeds_of(rng: np.random.Generator, count: int) -> list[dict[str, float | None]]:
    return [{"all/cd_l1": float(a), "hidden/cd_l2": float(b)} for a, b in rng.uniform(0.1, 1, (count, 2))]


def test_best_of_k_is_the_mean_over_all_choices_of_k_seeds() -> None:
    rng = np.random.default_rng(0)
    each = [seeds_of(rng, 5) for _ in range(4)]
    for metric in ("all/cd_l1", "hidden/cd_l2"):
        curve = plots.best_of_k(each, metric, "all/cd_l1")
        for k in range(1, 6):
            expected = [
                np.mean([min(chosen, key=lambda row: row["all/cd_l1"] or 0)[metric] for chosen in choices])
                for choices in (list(itertools.combinations(rows, k)) for rows in each)
            ]
            assert curve[k - 1] == pytest.approx(np.mean(expected))
    assert (np.diff(plots.best_of_k(each, "all/cd_l1", "all/cd_l1")) < 0).all()


def test_best_of_k_of_samples_that_lack_something() -> None:
    single = [{"depth/absrel": 0.2}, {"depth/absrel": 0.1}]
    assert plots.best_of_k([single], "depth/absrel", "all/cd_l1") == pytest.approx([0.15, 0.1])
    assert plots.best_of_k([single], "all/cd_l1", "all/cd_l1").size == 0
    infinite: list[dict[str, float | None]] = [{"all/cd_l1": None}, {"all/cd_l1": 1.0}]
    fewer: list[dict[str, float | None]] = [{"all/cd_l1": 3.0}]
    assert plots.best_of_k([infinite, fewer, [{"all/cd_l1": 1.0}] * 2], "all/cd_l1", "all/cd_l1") == pytest.approx(
        [2.0]
    )
    assert plots.best_of_k([], "all/cd_l1", "all/cd_l1").size == 0


def report_of(layers: int = 3, samples: int = 6, count: int = 4) -> dict[str, Any]:
    """As `eval` writes it; without several layers there are no hidden ones."""
    rng = np.random.default_rng(layers)
    metrics = ["depth/absrel", "visible/cd_l1", *(["hidden/cd_l2", "all/cd_l1"] if layers > 1 else [])]
    metrics += [f"layer{k}/rmse" for k in range(layers)]

    def one() -> dict[str, float]:
        return {metric: float(rng.uniform(0.01, 1)) for metric in metrics}

    entries: list[dict[str, Any]] = []
    for i in range(samples):
        zero = {m: 0.0 if m in ("depth/absrel", "visible/cd_l1", "layer0/rmse") else v for m, v in one().items()}
        each = {"ours": [one() for _ in range(count)]}
        entries.append({"key": f"s{i}", "each": each, "ours": one(), "ours_best": one(), "mean": one(), "layer0": zero})
    names = ["ours_best", "ours", "mean", "layer0"]
    methods = {n: {m: float(np.mean([e[n][m] for e in entries])) for m in metrics} for n in names}
    return {"settings": {"best_of_k_selected_by": "all/cd_l1"}, "methods": methods, "samples": entries}


@pytest.mark.parametrize(
    ("layers", "samples", "count", "written"),
    [
        (3, 6, 4, ["layers.png", "samples.png", "best-of-k.png"]),
        (1, 6, 4, ["samples.png", "best-of-k.png"]),
        (3, 6, 1, ["layers.png", "samples.png"]),
        (3, 1, 1, ["layers.png"]),
    ],
)
def test_what_a_report_has_is_drawn(tmp_path: Path, layers: int, samples: int, count: int, written: list[str]) -> None:
    report = json.loads(json.dumps(report_of(layers, samples, count)))
    paths = plots.write(report, tmp_path / "plots")
    assert [path.name for path in paths] == written
    for path in paths:
        with Image.open(path) as image:
            assert min(image.size) > 300
            assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 20, "something is drawn"


def test_the_lines_are_the_numbers() -> None:
    report = report_of()
    figure = plots.layers(report)
    assert figure is not None
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in figure.axes[0].get_lines()}
    assert list(lines) == ["ours, best seed", "ours, one seed", "training mean", "true layer 0 repeated"]
    assert lines["ours, best seed"] == pytest.approx(
        [report["methods"]["ours_best"][f"layer{k}/rmse"] for k in range(3)]
    )
    curves = plots.seeds(report)
    assert curves is not None
    assert "ours" in {str(line.get_label()) for line in curves.axes[0].get_lines()}
    shares = plots.spread(report)
    assert shares is not None
    assert shares.axes[0].get_title() == "0 in all samples: true layer 0 repeated"
    step = next(line for line in shares.axes[0].get_lines() if line.get_label() == "ours, one seed")
    assert np.asarray(step.get_xdata()) == pytest.approx(sorted(s["ours"]["depth/absrel"] for s in report["samples"]))


def test_what_is_no_report_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"this is no report of `worldtrace eval --out x\.json`"):
        plots.write({"samples": []}, tmp_path)


def test_samples_are_ranked_by_their_best_seed() -> None:
    def sample(key: str, *errors: float | None) -> dict[str, Any]:
        return {"key": key, "each": {"m": [{"all/cd_l1": error} for error in errors]}}

    samples = [sample("a", 3.0, 2.0), sample("b", None, None), sample("c", 1.0, None), sample("d", 2.0, 5.0)]
    ranked = showing.ranking([*samples, {"key": "e", "each": {}}], "m", "all/cd_l1")
    assert ranked == [("c", 1.0, 0), ("a", 2.0, 1), ("d", 2.0, 0), ("b", float("inf"), 0)]
    single = {"key": "s", "each": {"m": [{"depth/absrel": 0.5}, {"depth/absrel": 0.4}]}}
    assert showing.ranking([single], "m", "all/cd_l1") == [("s", 0.4, 1)]


@pytest.mark.parametrize("number", [1, 2, 3, 8, 9, 40])
def test_the_groups_are_the_ends_and_the_middle(number: int) -> None:
    ranked = [(f"{i:02d}", float(i), 0) for i in range(number)]
    found = showing.groups(ranked, 3)
    assert found["worst"][0] == ranked[-1]
    assert found["best"][0] == ranked[0]
    assert {len(group) for group in found.values()} == {min(3, max(1, number // 3))}
    keys = [entry[0] for group in found.values() for entry in group]
    if number >= 3:
        assert len(set(keys)) == len(keys)
        assert abs(np.mean([entry[1] for entry in found["median"]]) - (number - 1) / 2) <= 0.5


def test_worst_middle_and_best_are_drawn_from_what_was_predicted(tmp_path: Path) -> None:
    views = [spheres_view(i, 28, 28, layers=3) for i in range(3)]
    rows = shards.write_shard(tmp_path / "data" / "shards" / "000000-x.tar", [shards.encode(v) for v in views])
    shards.write_manifest(tmp_path / "data", rows)
    shards.write_dataset_json(tmp_path / "data", {"layers": 3, "size": [28, 28]})
    dataset = shards.open(tmp_path / "data")
    folder = tmp_path / "predictions"
    folder.mkdir()
    for i, view in enumerate(views):
        truth = truth_of(view, 3, 28, "black")
        off = (
            np.where(truth.valid[..., None], [0.0, 0.0, 0.1 * (i + 1)], 0.0) * np.array([0, 1, 1])[:, None, None, None]
        )
        xyz = np.stack([truth.xyz + off, truth.xyz + 0.5 * off]).astype(np.float32)
        write_npz(
            folder / f"{view.key}.npz", [Prediction(rgb=truth.rgb, valid=truth.valid, xyz=xyz, K=None, seeds=(0, 1))]
        )
    method = Precomputed("a b/c", folder)
    asked = evaluate.ask([method], dataset, [0, 1, 2])
    report = evaluate.compare([method], dataset, asked).to_dict()
    assert [seed for _, _, seed in showing.ranking(report["samples"], method.name, asked.selected_by)] == [1, 1, 1]
    paths = showing.write(report, [method], dataset, tmp_path / "plots")
    assert [path.name for path in paths] == ["a-b-c-worst.png", "a-b-c-median.png", "a-b-c-best.png"]
    pictures = [np.asarray(Image.open(path).convert("RGB"), np.int64) for path in paths]
    assert pictures[0].shape == pictures[2].shape
    assert np.abs(pictures[0] - pictures[2]).max() > 30, "different samples"
