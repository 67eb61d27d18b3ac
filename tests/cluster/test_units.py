"""The plan is a pure function of assets and settings, and parts no asset."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.sources import AssetRef, parse
from cluster.units import Unit, digest_of_assets, plan
from render import Mesh
from render.views import sample_key
from shards import Origin, Regime

SETTINGS = {"views": 4, "seed": 0}


def units_of(text: str, settings: dict = SETTINGS, views: int = 4, shard_views: int = 64) -> list[Unit]:
    return plan([parse(text)], settings, views, shard_views)


@given(st.integers(1, 40), st.integers(1, 70), st.integers(1, 70))
def test_every_asset_is_in_one_unit_in_order(count: int, views: int, shard_views: int) -> None:
    units = units_of(f"procedural:objects?count={count}", views=views, shard_views=shard_views)
    assert [task.ref.locator for unit in units for task in unit.tasks] == [str(index) for index in range(count)]
    assert [unit.index for unit in units] == list(range(len(units)))
    for unit in units[:-1]:
        images = len(unit.tasks) * views
        assert images <= max(shard_views, views) < images + views or len(unit.tasks) == 1
    assert len({unit.name for unit in units}) == len(units)


def test_the_listing_tells_how_far_it_is() -> None:
    told: list[int] = []
    plan([parse("procedural:objects?count=5")] * 2, SETTINGS, 4, 64, lambda done, total: told.append(done))
    assert told == list(range(1, 11))


def test_names_are_stable() -> None:
    """A resumed job of tomorrow must find today's shards: this name may change only with the format of datasets."""
    assert units_of("procedural:objects?count=8")[0].shard == "shards/000000-ff5d3afb7631.tar"


def test_a_name_changes_with_whatever_changes_the_bytes() -> None:
    base = units_of("procedural:objects?count=32")
    others = [
        units_of("procedural:objects?count=32", {**SETTINGS, "seed": 1}),
        units_of("procedural:objects?count=32&seed=1"),
        units_of("procedural:objects?count=32&start=1"),
        units_of("procedural:objects?count=32", shard_views=32),
    ]
    names = [unit.name for units in [base, *others] for unit in units]
    assert len(set(names)) == len(names)
    assert [unit.name for unit in units_of("procedural:objects?count=32", {"seed": 0, "views": 4})] == [
        unit.name for unit in base
    ]


def test_assets_have_one_digest_however_they_are_cut() -> None:
    text = "procedural:objects?count=32"
    assert digest_of_assets(units_of(text)) == digest_of_assets(units_of(text, shard_views=4))
    assert digest_of_assets(units_of(text)) != digest_of_assets(units_of("procedural:objects?count=31"))


def test_an_asset_that_comes_again_is_marked() -> None:
    sources = [parse("procedural:objects?count=4"), parse("procedural:objects?count=4&start=2")]
    tasks = [task for unit in plan(sources, SETTINGS, 4, 64) for task in unit.tasks]
    marked = [(task.ref.locator, task.source) for task in tasks if task.duplicate_of]
    assert marked == [("2", 1), ("3", 1)]
    assert tasks[4].duplicate_of == "procedural:objects/objects-s0-000002"


def test_copies_whose_names_make_one_slug_are_assets_of_their_own(tmp_path: Path) -> None:
    """Keys are cut to fit a tar header; the manifest would refuse double ones when all the work is done."""
    for name in ("a" * 70 + "1.obj", "a" * 70 + "2.obj", "Chair.obj", "chair.obj", "椅子.obj", "机.obj"):
        (tmp_path / name).write_text("the same")
    tasks = plan([parse(str(tmp_path))], SETTINGS, 4, 64)[0].tasks
    assert not any(task.duplicate_of for task in tasks)
    keys = {sample_key(Origin(task.ref.uid, task.ref.source, task.ref.sha256 or ""), "v", 0) for task in tasks}
    assert len(keys) == len(tasks) == 6


@dataclass(frozen=True)
class Catalogue:
    """A remote source whose assets are known by their place alone until they are fetched."""

    refs: tuple[AssetRef, ...]
    text: str = "catalogue"
    regime: Regime = "object"
    remote: bool = True
    own_terms: bool = False

    def assets(self) -> Iterable[AssetRef]:
        return self.refs

    def fetch(self, ref: AssetRef, folder: Path) -> str:
        raise AssertionError("nothing is fetched for a plan")

    def load(self, ref: AssetRef, path: Path | None) -> tuple[Mesh, Origin]:
        raise AssertionError("nothing is loaded for a plan")


def unseen(uid: str, source: str = "hub", locator: str = "etag-1") -> AssetRef:
    return AssetRef(uid, source, "unknown", locator)


def test_assets_not_yet_fetched_are_duplicates_by_source_and_uid() -> None:
    refs = (unseen("a"), unseen("b"), unseen("a"), unseen("a", "elsewhere"))
    tasks = plan([Catalogue(refs)], SETTINGS, 4, 64)[0].tasks
    assert [task.duplicate_of for task in tasks] == [None, None, "hub/a", None]


def test_an_asset_not_yet_fetched_that_changed_in_its_place_is_another() -> None:
    before, after = (plan([Catalogue((unseen("a", locator=each),))], SETTINGS, 4, 64) for each in ("etag-1", "etag-2"))
    assert before[0].name != after[0].name
    assert digest_of_assets(before) != digest_of_assets(after)


def test_more_units_than_names_have_digits_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.units.MOST", 3)
    assert len(units_of("procedural:objects?count=3", shard_views=4)) == 3
    with pytest.raises(ValueError, match="4 assets make 4 shards, 3 are the most: give more --shard-views"):
        units_of("procedural:objects?count=4", shard_views=4)
