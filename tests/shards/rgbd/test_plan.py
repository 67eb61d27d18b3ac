"""Which frames of which scenes become which units."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from shards.rgbd import Frame, Scene
from shards.rgbd.plan import Selection, Settings, plan


@dataclass(frozen=True)
class Names:
    """A corpus of `names`, each a scene of two frames."""

    folder: Path
    names: tuple[str, ...]

    name: ClassVar[str] = "names"
    title: ClassVar[str] = "Names"
    licence: ClassVar[str] = "CC0-1.0"
    synthetic: ClassVar[bool] = True
    layout: ClassVar[str] = "anything"

    def scenes(self) -> Iterable[Scene]:
        return map(Scene, self.names)

    def frames(self, scene: Scene) -> Sequence[str]:
        return ["0", "1"]

    def read(self, scene: Scene, frame: str) -> Frame:
        raise AssertionError("nothing is read to plan")


LOGS = tuple(f"{part}/{log}" for part in ("train", "val") for log in ("02678d04", "0b86f508", "3bffdcff"))


def planned(corpus: Names, lines: list[str], **options: object) -> tuple[list[str], list[str]]:
    """(names of the scenes taken, remarks) for a split file of `lines`."""
    path = corpus.folder / "split.txt"
    path.write_text("\n".join(lines))
    remarks: list[str] = []
    selection = Selection(split_file=path, **options)  # type: ignore[arg-type]
    units = plan(corpus, Settings("names"), selection, remark=remarks.append)
    return [unit.scene.name for unit in units], remarks


def test_official_lists_name_the_last_part(tmp_path: Path) -> None:
    corpus = Names(tmp_path, LOGS)
    assert planned(corpus, ["02678d04", "val/3bffdcff"]) == (["train/02678d04", "val/02678d04", "val/3bffdcff"], [])
    with pytest.raises(ValueError, match=r"none of the 6 scenes .* is one of .*split.txt"):
        planned(corpus, ["2678d04", "train"])


def test_names_of_the_list_that_no_scene_has_are_said(tmp_path: Path) -> None:
    corpus = Names(tmp_path, LOGS)
    taken, (remark,) = planned(corpus, ["0b86f508", "a", "b", "c", "d"])
    assert taken == ["train/0b86f508", "val/0b86f508"]
    assert "4 of the 5 names" in remark
    assert remark.endswith("a, b, c, ...")
    assert planned(corpus, ["0b86f508", "a"], limit=1) == (["train/0b86f508"], []), "the rest was not looked for"
    assert planned(corpus, ["0b86f508", "3bffdcff"], scenes="*/3*")[1] == [], "it is there, but not asked for"


@pytest.mark.parametrize("between", [0, 100])
def test_two_scenes_of_one_name_are_refused(between: int, tmp_path: Path) -> None:
    """Their frames would have one key each, and their units one shard."""
    names = ("a", *(f"scene{i}" for i in range(between)), "a")
    with pytest.raises(ValueError, match=r"two scenes of .* are named 'a'"):
        plan(Names(tmp_path, names), Settings("names"), Selection())
