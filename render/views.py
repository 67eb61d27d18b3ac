"""`render_views`: an asset, its origin and settings in; layered views, or typed reasons why not, out.

A pure function: every number drawn for a view is keyed by (seed, asset sha256, view, purpose).
"""

import hashlib
import json
import re
import time
from dataclasses import dataclass, field

from render import backends, verdicts
from render.frames import Stage
from render.layer_faces import with_planes
from render.mesh import Mesh, Rejected
from render.settings import RenderSettings
from render.studio import METRES, Studio, normalised
from shards.contract import Clip, Origin, Sample


@dataclass(frozen=True)
class Rendered:
    """`samples` in the order of the views; `rejected` as (view, reason, message); `seconds` per stage."""

    samples: list[Sample]
    rejected: list[tuple[int, str, str]]
    seconds: dict[str, float] = field(default_factory=dict)


def render_views(mesh: Mesh, origin: Origin, settings: RenderSettings) -> Rendered:
    """Renders `settings.views` views (or clips) of one asset.

    object: normalised so that the longest side of its box is 1; scene: metres, from inside; dynamic: clips of
    `settings.frames` frames, each under one normalisation (a room: metres). `info` of every view records camera,
    lights, exposure, normalisation, flags, overflow, backend and slots.
    Raises Rejected where the asset itself cannot be normalised, ValueError where the backend cannot run here.
    """
    backends.check(settings)
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    flags = verdicts.mesh_flags(mesh)
    indoors = settings.regime == "scene" or (
        settings.regime == "dynamic" and (settings.indoors or mesh.room is not None)
    )
    asset, normalisation = mesh, METRES
    if not indoors:
        mesh, normalisation = normalised(asset, ())
    seconds["normalise"] = time.perf_counter() - start
    stage = Stage(mesh, settings, seconds)
    studio = Studio(asset, mesh, origin, settings, stage, normalisation, indoors, flags)

    taken: list[Sample | Rejected] = []
    if settings.regime == "dynamic":
        for view in range(settings.views):
            key = sample_key(origin, "c", view)
            try:
                taken.append(Clip(key, tuple(studio.clip(key, view))))
            except Rejected as error:
                taken.append(error)
    else:
        taken += studio.views([sample_key(origin, "v", view) for view in range(settings.views)])
    samples = [sample for sample in taken if not isinstance(sample, Rejected)]
    if settings.planes:
        with stage.clock("planes"):
            samples = [_with_planes(asset, sample, settings) for sample in samples]
    rejected = [(view, r.reason, r.message) for view, r in enumerate(taken) if isinstance(r, Rejected)]
    return Rendered(samples, rejected, {name: round(value, 6) for name, value in seconds.items()})


def _with_planes(asset: Mesh, sample: Sample, settings: RenderSettings) -> Sample:
    if isinstance(sample, Clip):
        return Clip(sample.key, tuple(with_planes(asset, frame, settings) for frame in sample.frames))
    return with_planes(asset, sample, settings)


def sample_key(origin: Origin, letter: str, view: int) -> str:
    """ "<uid-slug>-<digest>-v003": the key of a view ("v") or a clip ("c"), of [a-z0-9_-] only and at most 80 long.

    The digest is over source, uid and bytes: uids whose slugs are one, and files that lie in two sources, stay apart.
    """
    slug = re.sub(r"[^a-z0-9_]+", "-", origin.uid.lower()).strip("-")[:60].strip("-") or "asset"
    identity = json.dumps([origin.source, origin.uid, origin.sha256]).encode()
    return f"{slug}-{hashlib.blake2b(identity, digest_size=6).hexdigest()}-{letter}{view:03d}"
