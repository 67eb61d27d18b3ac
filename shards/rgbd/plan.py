"""What is to be imported: which frames of which scenes, cut into units, each of which becomes one shard.

A unit is a run of frames of one scene. Its name is a function of the corpus, the scene and the number of the run alone,
so a corpus that grows between two imports keeps the shards it has.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any

from . import open_corpus
from .base import Corpus, Scene, Unreadable, origin_sha256
from .files import listing

AT_ONCE = 64  # scenes whose frames are counted together


@dataclass(frozen=True)
class Settings:
    """What decides the content of a shard: all of it stands in dataset.json, and a later import must agree with it."""

    corpus: str
    options: tuple[tuple[str, str], ...] = ()
    size: int = 504
    upscale: bool = False
    every: int = 1
    run: int = 256  # frames of a shard
    layers: int = 6
    bound: float | None = None  # relative error of depth; None: what suits the corpus (convert.bound_of)

    def as_job(self) -> dict[str, Any]:
        return {"from_rgbd": {**asdict(self), "options": dict(self.options)}}

    def open(self, folder: Path) -> Corpus:
        return open_corpus(self.corpus, folder, dict(self.options))


@dataclass(frozen=True)
class Unit:
    """Frames `begin` to `end` (without it) of what `taken` gives of the scene. `broken` where it cannot be listed."""

    name: str
    scene: Scene
    begin: int
    end: int
    broken: Unreadable | None = field(default=None, compare=False)

    @property
    def count(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True)
class Selection:
    """Which scenes (a pattern such as `scene00*`, and a file with one name a line) and how many frames in all."""

    scenes: str = "*"
    split_file: Path | None = None
    limit: int | None = None

    def listed(self) -> frozenset[str] | None:
        """The names in the split file. ValueError where it holds none."""
        if self.split_file is None:
            return None
        try:
            lines = self.split_file.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.split_file} cannot be read: {error}") from None
        names = frozenset(line.strip() for line in lines if line.strip() and not line.startswith("#"))
        if not names:
            raise ValueError(f"{self.split_file} names no scene: it should hold one in each line")
        return names


Counting = Callable[[Sequence[Scene]], Sequence["int | Unreadable"]]  # how many frames each scene has


def plan(
    corpus: Corpus,
    settings: Settings,
    selection: Selection,
    counting: Counting | None = None,
    advance: Callable[[int], None] = lambda scenes: None,
    remark: Callable[[str], None] = lambda sentence: None,
) -> list[Unit]:
    """The units, in the order of scenes. ValueError where the folder is not of this corpus, or nothing is selected;
    `remark` is given what the user may want to know: names of the split file that no scene has.

    To count frames is to read containers, so it may be left to processes (workers.Crew).
    """
    listed = selection.listed()
    counting = counting or (lambda scenes: [counted(corpus, scene, settings.every) for scene in scenes])
    units: list[Unit] = []
    left = selection.limit if selection.limit is not None else sys.maxsize
    matched = 0
    found: set[str] = set()
    met: set[str] = set()  # names of the split file
    scenes = iter(corpus.scenes())
    while left > 0 and (some := list(islice(scenes, AT_ONCE))):
        for scene in some:
            if scene.name in found:
                raise ValueError(f"two scenes of {corpus.folder} are named {scene.name!r}: rename one of them")
            found.add(scene.name)
        if listed is not None:
            met.update(name for scene in some for name in names_of(scene) if name in listed)
            some = [scene for scene in some if not listed.isdisjoint(names_of(scene))]
        some = [scene for scene in some if fnmatchcase(scene.name, selection.scenes)]
        for scene, count in zip(some, counting(some)):
            for unit in _units(corpus, scene, count, settings):
                if left > 0:
                    kept = replace(unit, end=min(unit.end, unit.begin + left))
                    left -= kept.count
                    units.append(kept)
        matched += len(some)
        advance(matched)
    if not found:
        there = ", ".join(listing(corpus.folder)[:6]) or "nothing"
        raise ValueError(f"{corpus.folder} is no {corpus.title} folder: expected {corpus.layout}; it holds {there}")
    if not matched:
        where = f" of {selection.split_file}" if selection.split_file is not None else ""
        raise ValueError(
            f"none of the {len(found)} scenes in {corpus.folder} is one{where} that matches {selection.scenes!r}"
        )
    if listed is not None and left > 0 and (strange := sorted(listed - met)):
        some_names = ", ".join(strange[:3]) + (", ..." if len(strange) > 3 else "")
        remark(
            f"{len(strange)} of the {len(listed)} names in {selection.split_file} are of no scene in {corpus.folder}: "
            f"{some_names}"
        )
    if not any(unit.count or unit.broken for unit in units):
        raise ValueError(f"the {matched} scenes in {corpus.folder} hold no frame: expected {corpus.layout}")
    return units


def names_of(scene: Scene) -> tuple[str, str]:
    """What a list may call it: its name, or the last part, since official lists have no folder such as train/."""
    return scene.name, scene.name.rpartition("/")[2]


def taken(corpus: Corpus, scene: Scene, every: int) -> list[tuple[int, str]]:
    """(number in the scene, name) of every `every`-th frame. Unreadable where they cannot be listed."""
    try:
        return list(enumerate(corpus.frames(scene)))[::every]
    except Unreadable:
        raise
    except Exception as error:  # a reader that does not foresee what a hostile container holds
        raise Unreadable("unreadable_scene", f"{type(error).__name__}: {error}") from None


def counted(corpus: Corpus, scene: Scene, every: int) -> "int | Unreadable":
    """How many frames are taken of a scene, or why it cannot be listed."""
    try:
        return len(taken(corpus, scene, every))
    except Unreadable as error:
        return error


def _units(corpus: Corpus, scene: Scene, count: "int | Unreadable", settings: Settings) -> Iterator[Unit]:
    digest = origin_sha256(corpus.name, scene.name)[:12]
    if isinstance(count, Unreadable):
        yield Unit(f"000000-{digest}", scene, 0, 0, count)
        return
    for begin in range(0, count, settings.run):
        yield Unit(f"{begin // settings.run:06d}-{digest}", scene, begin, min(begin + settings.run, count))
