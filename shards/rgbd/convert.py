"""One unit: its frames are read, tested, resized and encoded into one shard, and what became of each is recorded."""

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import layout, ledger, manifest
from ..contract import LayeredView, Origin
from ..layers.codec import DEFAULT_BOUND
from ..sample import EncodedSample, encode
from ..store import Store
from ..writer import shard_into
from .base import Corpus, Frame, Layered, Reason, Scene, Unreadable, checked, origin_sha256
from .plan import Settings, Unit, taken
from .resize import resized

# Half a millimetre at two metres, the step of the 16-bit maps: sensors, LiDAR and stereo know depth no better than ten
# times that. A frame of 675x504 in steps of a millimetre takes 87 KB instead of 159 for its layers.
MEASURED = 2.5e-4


@dataclass
class Done:
    """A unit that is written: its samples, its frames, its row of the ledger, reason -> frames that were rejected."""

    unit: str
    views: int
    frames: int
    entry: dict[str, Any]
    rejected: dict[str, int] = field(default_factory=dict)
    end: int = 0  # bytes of its shard, without the end mark; 0: there is none


def to_record(done: Done, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """What a unit leaves beside its shard until the dataset is finished: `rows` are those of the manifest."""
    values = {"done": vars(done), "rows": [manifest.to_json_row(row) for row in rows]}
    return json.dumps(values, separators=(",", ":"), sort_keys=True).encode()


def of_record(content: bytes) -> tuple[Done, list[dict[str, Any]]] | None:
    """The inverse; None where it is damaged: the unit is made again."""
    try:
        values = json.loads(content)
        return Done(**values["done"]), [manifest.from_json_row(row) for row in values["rows"]]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def record_name(unit: str) -> str:
    return f"{layout.UNITS}/{unit}.json"


def shard_name(unit: str) -> str:
    return f"{unit}.tar"


def convert(
    store: Store,
    corpus: Corpus,
    unit: Unit,
    settings: Settings,
    skip: Mapping[int, Reason] | None = None,
    reading: Callable[[int], None] = lambda index: None,
) -> Done:
    """Write the shard of `unit`, then its record. `reading(i)` is called before frame i of the unit is read; those of
    `skip` are not read, and rejected for the reason given. OSError where the store fails; a frame raises nothing.
    """
    work = _Work(corpus, unit, settings, dict(skip or {}), reading)
    rows: list[dict[str, Any]] = []
    name = f"{layout.SHARDS}/{shard_name(unit.name)}"
    samples = work.samples()
    first = next(samples, None)
    if first is None:
        store.delete([name])  # of an earlier run that could read some of them
    else:
        with store.writing(name) as file:
            rows = shard_into(file, shard_name(unit.name), _after(first, samples))
    done = work.done(rows)
    with store.writing(record_name(unit.name)) as file:
        file.write(to_record(done, rows))
    return done


def probe(
    corpus: Corpus,
    unit: Unit,
    settings: Settings,
    skip: Mapping[int, Reason],
    begin: int,
    reading: Callable[[int], None] = lambda index: None,
) -> None:
    """Do with the frames from `begin` on what `convert` does, but write nothing: to find all that end the process."""
    for _ in _Work(corpus, unit, settings, dict(skip), reading).samples(begin):
        pass


@dataclass
class _Work:
    corpus: Corpus
    unit: Unit
    settings: Settings
    skip: dict[int, Reason]
    reading: Callable[[int], None]
    rejected: list[tuple[str, Unreadable]] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)
    seconds_load: float = 0.0
    seconds_encode: float = 0.0

    def samples(self, begin: int = 0) -> Iterator[EncodedSample]:
        """Of the frames from `begin` on that can be used, in their order."""
        unit = self.unit
        if unit.broken is not None:
            self.rejected.append(("*", unit.broken))
            return
        try:
            names = taken(self.corpus, unit.scene, self.settings.every)[unit.begin : unit.end]
        except Unreadable as error:
            self.rejected.append(("*", error))
            return
        for index, (number, name) in enumerate(names[begin:], begin):
            self.reading(index)
            began = time.perf_counter()
            try:
                if index in self.skip:
                    raise Unreadable(self.skip[index], "the process that read it ended or was stopped")
                view = self._view(number, name)
                loaded = time.perf_counter()
                self.seconds_load += loaded - began
                sample = _encoded(view, bound_of(self.corpus, self.settings))
                self.seconds_encode += time.perf_counter() - loaded
            except Unreadable as error:
                self.rejected.append((name, error))
                continue
            self.flags.update(view.info["flags"])
            yield sample

    def _view(self, number: int, name: str) -> LayeredView:
        corpus, scene, settings = self.corpus, self.unit.scene, self.settings
        try:
            if isinstance(corpus, Layered):
                return corpus.view(scene, number, name, settings.layers)
            with np.errstate(over="ignore", invalid="ignore"):  # depth that no float32 holds is unknown (`checked`)
                frame = corpus.read(scene, name)
            frame = checked(resized(checked(frame), settings.size, settings.upscale))
            return layered_view(corpus, scene, number, name, frame, settings.layers)
        except Unreadable:
            raise
        except MemoryError:
            raise Unreadable("too_large", "reading it needs more memory than a worker may use") from None
        except Exception as error:  # a reader that does not foresee what a hostile file holds must not end the import
            raise Unreadable("crashed", f"{type(error).__name__}: {error}") from None

    def done(self, rows: Sequence[Mapping[str, Any]]) -> Done:
        corpus, unit = self.corpus, self.unit
        counts: Counter[str] = Counter(error.reason for _, error in self.rejected)
        first = self.rejected[0] if self.rejected else None
        entry = ledger.row(
            unit=unit.name,
            asset=f"{corpus.name}/{unit.scene.name}",
            source=corpus.name,
            licence=corpus.licence,
            status="done" if rows else "rejected",
            reason=counts.most_common(1)[0][0] if counts and not rows else None,
            message=f"{first[0]}: {first[1].message}" if first else None,
            views=len(rows),
            views_rejected=[f"{name}:{error.reason}" for name, error in self.rejected],
            flags=sorted(self.flags),
            sha256=origin_sha256(corpus.name, unit.scene.place),
            seconds_load=self.seconds_load,
            seconds_encode=self.seconds_encode,
        )
        end = max((row["offset"] + row["bytes"] for row in rows), default=0)
        return Done(unit.name, len(rows), unit.count, entry, dict(counts), end)


def layered_view(corpus: Corpus, scene: Scene, number: int, name: str, frame: Frame, layers: int) -> LayeredView:
    """A frame as a single-layer sample (paper, Sec. 3.5): hits in {0, 1}, its depth broadcast over `layers` layers,
    alpha 255 everywhere: the photograph has no background, whether its depth is known or not.
    """
    flags = set(frame.flags)
    pose = frame.world_from_camera
    if pose is None:
        flags.add("no_pose")
    return LayeredView(
        key=key_of(corpus.name, scene.name, name),
        rgba=np.dstack([frame.image, np.full(frame.depth.shape, 255, np.uint8)]),
        hits=(frame.depth > 0).astype(np.uint8),
        depth=np.repeat(frame.depth[None], layers, axis=0),
        K=frame.K,
        world_from_camera=np.eye(4) if pose is None else pose,
        regime="rgbd",
        origin=Origin(
            ledger.plain(f"{corpus.name}/{scene.name}"),
            corpus.name,
            origin_sha256(corpus.name, scene.place),
            corpus.licence,
        ),
        single_layer=True,
        info={"view": number, "flags": sorted(flags), "frame": ledger.plain(name)},
    )


def bound_of(corpus: Corpus, settings: Settings) -> float:
    """The relative error of depth that the codec may make: MEASURED where the depth was measured, not rendered."""
    if settings.bound is not None:
        return settings.bound
    return DEFAULT_BOUND if corpus.synthetic or isinstance(corpus, Layered) else MEASURED


def _encoded(view: LayeredView, bound: float) -> EncodedSample:
    try:
        return encode(view, bound=bound)
    except MemoryError:
        raise Unreadable("too_large", "encoding it needs more memory than a worker may use") from None
    except ValueError as error:
        raise Unreadable("crashed", f"it cannot be encoded: {error}") from None


def key_of(corpus: str, scene: str, frame: str) -> str:
    """Readable, unique by 48 bits of digest among frames of like names, and within the 80 characters of a key."""
    digest = hashlib.sha256(f"{scene}\0{frame}".encode(errors="surrogateescape")).hexdigest()[:12]
    return f"{corpus}-{_slug(scene)}-{_slug(frame)}-{digest}"


def _slug(text: str) -> str:
    """Its last 24 characters that a key may have: numbers stand at the end."""
    return re.sub("[^a-z0-9_-]+", "-", text.lower()).strip("-")[-24:] or "x"


def _after(first: EncodedSample, rest: Iterator[EncodedSample]) -> Iterator[EncodedSample]:
    yield first
    yield from rest
