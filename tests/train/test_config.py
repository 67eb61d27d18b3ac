"""A config says what is wrong with it in one sentence, and survives a round trip."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from train import config
from train.config import Config

MINIMAL = {"data": {"path": "d"}, "out": "o"}


@pytest.mark.parametrize(
    ("path", "suggestion"),
    [
        ("optimizer.lrr", "did you mean optimizer.lr?"),
        ("optimiser.lr", "did you mean optimizer?"),
        ("lr", "did you mean optimizer.lr?"),
        ("augment.geometric.flipp", "did you mean augment.geometric.flip?"),
        ("model.widht", "did you mean model.width?"),
        ("model.encoder.dept", "did you mean model.encoder.depth?"),
        ("data.zzz", "data has path, split, where, window, cache, size, frames, batch, workers, prefetch"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(path: str, suggestion: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(MINIMAL))
    with pytest.raises(ValueError, match="unknown") as error:
        config.load(file, [f"{path}=1"])
    first = path if not path.startswith("optimiser") else "optimiser"
    assert str(error.value) == f"{first}: unknown; {suggestion}"


def test_an_unknown_key_of_a_source_is_found() -> None:
    with pytest.raises(ValueError, match=r"data\.path\.1\.wieght: unknown; did you mean data\.path\.1\.weight"):
        config.from_dict({"data": {"path": [{"path": "a"}, {"path": "b", "wieght": 2}]}, "out": "o"})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=fast", "optimizer.lr: .*; found 'fast'"),
        ("optimizer.lr=-1", "optimizer.lr: .*; found -1"),
        ("data.batch=2.5", "data.batch: .*; found 2.5"),
        ("precision=fp8", "precision: .*; found 'fp8'"),
        ("accumulation=3", "data.batch 512 is not a multiple of accumulation 3"),
        ("optimizer.min_lr=1", "optimizer.min_lr 1.0 exceeds optimizer.lr"),
        ("objective.shared_times_from=stabel", "^[a-z_.]+: expected a whole number or stable; found 'stabel'$"),
        ("parallel.shard=nod", "^parallel.shard: expected a whole number, node or all; found 'nod'$"),
        ("parallel.shard=0", "^parallel.shard: expected a number above 0, node or all; found 0$"),
        ("compute.compile=maybe", "^compute.compile: expected true, false or auto; found 'maybe'$"),
        ("data.path=5", "^data.path: expected text or a list; found 5$"),
        ("augment=3", "^augment: expected a section with keys of its own; found 3$"),
        ("data.path=[{path: a, weight: 0}]", "data.path.0.weight: .*; found 0"),
        ("steps", "steps: expected key=value"),
        ("data.path.x=1", "path is a value"),
    ],
)
def test_a_wrong_value_is_found_where_it_is(override: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(MINIMAL))
    with pytest.raises(ValueError, match=message) as error:
        config.load(file, [override])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("limit", "size"),
    [("200 GB", 200e9), ("1.5TB", 1.5e12), (1000, 1000), ("64 MB", 64e6), ("500 K", 5e5), ("7", 7)]
    + [("10GiB", 10 * 2**30), ("1e12", 1e12), (1e12, 1e12), ("2 kb", 2000), ("1.5 MiB", 1.5 * 2**20), ("3 T", 3e12)],
)
def test_room_for_a_cache_is_text_or_bytes(limit: object, size: float) -> None:
    c = config.from_dict({"data": {"path": "s3://b/d", "cache": {"folder": "/c", "limit": limit}}, "out": "o"})
    assert c.data.cache is not None
    assert c.data.cache.bytes == size
    assert config.differences(c, config.from_dict({"data": {"path": "d"}, "out": "o"})) == [], "it may change on resume"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"cache": {"folder": "c", "limit": "lots"}},
            r"data\.cache\.limit: a cache needs room: .*200 GB.*; found 'lots'",
        ),
        ({"cache": {"folder": "c", "limit": True}}, r"data\.cache\.limit: a cache needs room: .*; found True"),
        (
            {"cache": {"folder": "c", "limit": "10 Gi B"}},
            r"data\.cache\.limit: a cache needs room: .*; found '10 Gi B'",
        ),
        ({"cache": {"folder": "c", "limit": "1e999"}}, r"data\.cache\.limit: a cache needs room"),
        ({"cache": {"folder": "c", "limit": float("nan")}}, r"data\.cache\.limit: a cache needs room"),
        ({"cache": {"folder": "c", "limit": -1}}, r"data\.cache\.limit: a cache needs room"),
        ({"cache": {"folder": "c", "limit": 0}}, r"data\.cache\.limit: a cache needs room"),
        ({"cache": {"folder": "c"}}, r"data\.cache\.limit: not set"),
        ({"cache": {"foldr": "c", "limit": 1}}, r"data\.cache\.foldr: unknown; did you mean data\.cache\.folder"),
        ({"path": [{"path": "a"}], "window": 3}, r"data\.window stands beside a list of sources"),
        ({"path": [{"path": "a"}], "split": "all"}, r"data\.split stands beside a list of sources"),
        ({"path": [{"path": "a"}], "where": "x"}, r"data\.where stands beside a list of sources"),
        ({"path": [{"of": [{"path": "a", "weight": "sqrt"}]}]}, r"data\.path\.0\.of\.0\.weight: .*found 'sqrt'"),
        ({"path": []}, r"data\.path: expected a folder, a URL, or a list"),
        ({"window": 0}, r"data\.window: .*; found 0"),
    ],
)
def test_what_is_wrong_about_the_data_is_found_where_it_is(data: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        config.from_dict({"data": {"path": "d", **data}, "out": "o"})
    assert "\n" not in str(error.value)


def test_a_mixture_survives_a_round_trip(tmp_path: Path) -> None:
    """1e-1 is a number here, though not in YAML 1.1."""
    text = """
data:
  path:
    - {path: s3://b/objects, weight: 6e-1, window: 64}
    - weight: 0.4
      of:
        - {path: a, weight: sqrt(rows), boost: 1.5}
        - {path: b, weight: sqrt(rows), split: all, where: "regime = 'rgbd'"}
out: o
"""
    (tmp_path / "c.yaml").write_text(text)
    c = config.load(tmp_path / "c.yaml")
    assert [(s.path, s.weight, s.boost, s.split, s.window) for s in c.data.sources] == [
        ("s3://b/objects", 0.6, 1.0, "train", 64),
        ("a", "sqrt(rows)", 1.5, "train", None),
        ("b", "sqrt(rows)", 1.0, "all", None),
    ]
    config.save(c, tmp_path / "again.yaml")
    assert config.load(tmp_path / "again.yaml") == c


SOURCES = [
    {"path": "a", "weight": 2.0},
    {"weight": 1.0, "of": [{"path": "b", "weight": "rows"}, {"path": "c", "weight": "rows"}]},
]


@pytest.mark.parametrize(
    "other",
    [
        [{**SOURCES[0], "window": 4}, SOURCES[1]],
        [{**SOURCES[0], "split": "all"}, SOURCES[1]],
        [{**SOURCES[0], "where": "true"}, SOURCES[1]],
        [{**SOURCES[0], "boost": 2.0}, SOURCES[1]],
        [SOURCES[0], {**SOURCES[1], "weight": 3.0}],
        [SOURCES[0], {**SOURCES[1], "of": [{"path": "b"}, {"path": "c"}]}],
        [SOURCES[0], {"path": "b"}, {"path": "c"}],
    ],
)
def test_ranks_must_mix_alike_wherever_their_datasets_lie(other: list[dict[str, object]]) -> None:
    def shared(path: object) -> dict[str, object]:
        return config.alike(config.from_dict({"data": {"path": path}, "out": "o"}))

    moved = [{**SOURCES[0], "path": "/elsewhere"}, SOURCES[1]]
    assert shared(moved) == shared(SOURCES)
    assert [name for name, value in shared(other).items() if value != shared(SOURCES)[name]] == [
        "the sources of data.path"
    ]


def test_what_must_be_set_is_named() -> None:
    with pytest.raises(ValueError, match=r"data\.path: not set"):
        config.from_dict({"data": {}, "out": "o"})


def test_overrides_are_yaml_values() -> None:
    c = config.load(
        "tiny",
        ["optimizer.lr=3e-4", "optimizer.betas=[0.8, 0.9]", "augment.enabled=false", "model.encoder={depth: 2}"],
    )
    assert c.optimizer.lr == 3e-4
    assert c.optimizer.betas == (0.8, 0.9)
    assert c.augment.enabled is False
    assert c.model.overrides["encoder"] == {"depth": 2}


def test_dotted_overrides_reach_into_what_the_file_sets() -> None:
    c = config.load("tiny", ["model.encoder.depth=2", "model.layer_scale=1e-2"])
    assert c.model.overrides["encoder"] == {"depth": 2}
    assert c.model.overrides["layer_scale"] == 0.01


@pytest.mark.parametrize("name", config.shipped())
def test_shipped_configs_are_whole_and_survive_a_round_trip(name: str, tmp_path: Path) -> None:
    c = config.load(name)
    config.save(c, tmp_path / "config.yaml")
    assert config.load(tmp_path / "config.yaml") == c
    assert config.differences(c, config.load(tmp_path / "config.yaml")) == []
    assert "# paper" in (config.SHIPPED / f"{name}.yaml").read_text(), "the paper's line belongs beside the number"


def test_a_missing_file_names_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="tiny"):
        config.load(tmp_path / "absent.yaml")
    with pytest.raises(FileNotFoundError, match="tiny"):
        config.load("tinny")


def test_a_file_that_is_no_config_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("- a\n- b\n")
    with pytest.raises(ValueError, match="expected a mapping"):
        config.load(file)
    file.write_text("a: [1\n")
    with pytest.raises(ValueError, match="not YAML") as error:
        config.load(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("tree", [3, None, []])
def test_what_is_no_mapping_is_no_config(tree: Any) -> None:
    with pytest.raises(ValueError, match="a config is a mapping of sections; found"):
        config.from_dict(tree)


def test_only_what_changes_the_run_counts_as_a_difference() -> None:
    old = config.from_dict(MINIMAL)
    free = config.from_dict(
        {**MINIMAL, "out": "p", "steps": 7, "log": {"every": 1}, "data": {"path": "e", "workers": 0}}
    )
    assert config.differences(old, free) == []
    other = config.from_dict({**MINIMAL, "optimizer": {"lr": 2e-4}, "model": {"preset": "tiny", "width": 64}})
    assert config.differences(old, other) == [
        "model.preset: wt_o -> tiny",
        "model.width: None -> 64",
        "optimizer.lr: 0.0001 -> 0.0002",
    ]


def test_the_defaults_are_the_papers() -> None:
    """App. A and App. B of the paper, as numbers."""
    c: Config = config.from_dict(MINIMAL)
    o = c.optimizer
    assert (o.lr, o.min_lr, o.warmup, o.weight_decay, o.betas, o.clip) == (1e-4, 1e-5, 2000, 0.01, (0.9, 0.999), 1.0)
    assert (o.spike, c.ema, c.objective.lambda_mono, c.data.batch, c.data.size) == (4.0, 0.9995, 0.1, 512, 504)


def test_the_door_opens_without_waiting_for_torch() -> None:
    code = "import sys, train.cli; assert 'torch' not in sys.modules; from train import Run, load, load_run, train"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], timeout=100)
    import train

    assert [getattr(train, name).__name__ for name in train.__all__] == train.__all__
    with pytest.raises(AttributeError, match="lod"):
        train.lod  # noqa: B018
