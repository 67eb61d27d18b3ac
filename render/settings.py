"""What a render job may choose: one strict, frozen config whose defaults are documented here and in docs/render.md."""

import contextlib
import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from shards.layers.planes import PLANES, Plane

RenderRegime = Literal["object", "scene", "dynamic"]
BackendName = Literal["auto", "cpu", "cuda", "nvdiffrast", "pyrender"]

Span = tuple[float, float]

# Limits of what comes after, stated here so that a job is refused before it starts and not at its first view: the
# values of one depth map that `shards` stores, and the hits of one image that the peel can index.
STORED_VALUES = 1 << 26
PEELED_HITS = 1 << 31

DEPTH_ERROR = 5e-5  # of z, the most that `shards` may change a depth by
COLOR_SLOTS = 4  # surfaces per colour sample where something may be seen through; doubled where that is not enough


class RenderSettings(BaseModel):
    """Settings of `render_views`. Angles in degrees, lengths in the units of the normalised scene (rooms: metres).

    Every number drawn for a view is a pure function of (seed, asset sha256, view, purpose), so view 3 is the same view
    whether 4 or 56 are asked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    views: int = Field(4, ge=1)  # views of an asset; clips of an asset in the dynamic regime
    height: int = Field(504, ge=8, le=8192)
    width: int = Field(504, ge=8, le=8192)
    layers: int = Field(6, ge=1, le=32)
    regime: RenderRegime = "object"
    seed: int = 0
    frames: int = Field(16, ge=1)  # of a clip
    indoors: bool = False  # clips: see every asset from inside, as in the scene regime; one with a `Room` always is
    frames_per_second: float = Field(12.0, gt=0)  # of a clip; a shorter animation is sampled over its whole length
    backend: BackendName = "auto"

    samples: int = Field(2, ge=1, le=8)  # colour samples per pixel side: 2 means 2x2 anti-aliasing
    extra_slots: int = Field(4, ge=0)  # surfaces peeled beyond `layers`, so that merging cannot starve the last layer
    slots_limit: int = Field(32, ge=1)  # peeling is repeated with twice the slots, up to this, where a pixel filled up
    near: float = Field(1e-3, gt=0)
    merge: float = Field(1e-4, ge=0)  # hits facing alike are one if closer than this share of the scene diagonal, or
    # than 4 times DEPTH_ERROR, so that storing a gap between two surfaces changes it by no more than a half
    texture_limit: int = Field(2048, ge=16)  # textures are halved until no side exceeds this
    planes: tuple[Plane, ...] = ()  # what is stored of every hit beside its depth: normals, facing, material

    # Objects. Calibrated by tests/benchmarks/coverage.py: on a mixed corpus, coverage (paper, Table 5) and moments of
    # XYZ (the release) come out together. What ties them is the focal length: the sum of z^2 over all pixels is that of
    # the silhouettes times f^2, whatever the distances, so the released 54.2 degrees (f = 500 at 512 pixels) would ask
    # for slimmer objects than ours; 60 degrees fit these.
    fov: Span = (10.0, 70.0)
    fov_mode: float = 60.0
    fov_deviation: float = Field(6.0, ge=0)
    fov_spread: float = Field(0.02, ge=0, le=1)  # share of views with a field of view uniform over `fov`; few, for a
    # lens of 10 degrees stands 14 lengths away, and a twentieth of such views adds a tenth to the deviation of z
    elevation: Span = (-30.0, 85.0)
    elevation_mode: float = 10.0
    elevation_deviation: float = Field(20.0, ge=0)
    framing: Span = (0.15, 1.2)  # longest side of the box over the shorter image side, at the distance of its centre
    framing_median: float = Field(0.42, gt=0)
    framing_deviation: float = Field(0.21, ge=0)  # of the logarithm
    aim_deviation: Span = (0.045, 0.13)  # right, down: how far from the centre a camera aims, in longest sides
    crop: float = Field(0.04, ge=0, le=1)  # share of views that are aimed so that the frame cuts the object
    crop_cut: Span = (0.05, 0.45)  # share of the object's width or height in the image that is then cut off
    aspect: Span = (1.0, 1.0)  # fx / fy, log-uniform, in rooms too; the image stays height x width
    roll_deviation: float = Field(3.0, ge=0)
    principal_deviation: float = Field(0.02, ge=0)  # of the principal point, as a share of the image side

    # Rooms: the placement rules used for 3D-FRONT.
    scene_fov: Span = (50.0, 85.0)
    scene_height: Span = (1.4, 1.8)
    scene_pitch: Span = (0.0, 20.0)  # downwards
    scene_nearest: float = Field(0.5, ge=0)  # the nearest surface in view is at least this far
    scene_mean_depth: Span = (2.0, 7.5)  # the lower end is relaxed in small rooms, see cameras.mean_depth_range
    scene_valid: float = Field(0.5, ge=0, le=1)  # share of rays that must meet a surface
    scene_tries: int = Field(64, ge=1)

    min_coverage: float = Field(0.003, ge=0, le=1)  # a smaller share of valid pixels is rejected as too_few_pixels
    exposure: Span = (0.55, 1.0)  # mean brightness of a white surface in view, linear, before encoding
    shadows: bool = True

    @field_validator("planes", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """ "normals,facing" as a command line gives it; the order does not count."""
        names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
        for name in names if isinstance(names, list | tuple) else ():
            if name not in PLANES:
                near = difflib.get_close_matches(str(name), PLANES, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"the planes are {', '.join(PLANES)}"
                raise ValueError(f"there is no plane {name!r}: {hint}")
        return sorted(set(names)) if isinstance(names, list | tuple) else names

    @model_validator(mode="after")
    def _ordered(self) -> "RenderSettings":
        spans = (
            "fov",
            "elevation",
            "framing",
            "crop_cut",
            "aspect",
            "scene_fov",
            "scene_height",
            "scene_pitch",
            "scene_mean_depth",
            "exposure",
        )
        for name in spans:
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: the range ({low}, {high}) runs backwards")
        for name, span in (("fov_mode", "fov"), ("elevation_mode", "elevation"), ("framing_median", "framing")):
            value, (low, high) = getattr(self, name), getattr(self, span)
            if not low <= value <= high:
                raise ValueError(f"{name}: {value} leaves {span}, {low} .. {high}; set {name} within it, or {span} too")
        if not (self.elevation[0] >= -90 and self.elevation[1] <= 90):
            raise ValueError(f"elevation: {self.elevation} leaves -90 .. 90 degrees")
        if not (self.scene_pitch[0] >= -89 and self.scene_pitch[1] <= 89):
            raise ValueError(f"scene_pitch: {self.scene_pitch} leaves -89 .. 89; a camera of a room looks ahead")
        if not (self.fov[0] > 0 and self.fov[1] < 175 and self.scene_fov[0] > 0 and self.scene_fov[1] < 175):
            raise ValueError("fov and scene_fov must lie between 0 and 175 degrees")
        if self.framing[0] <= 0 or self.exposure[0] <= 0:
            raise ValueError("framing and exposure must be positive")
        if not (self.aspect[0] >= 0.25 and self.aspect[1] <= 4):
            raise ValueError(f"aspect: {self.aspect} leaves 0.25 .. 4; it is fx / fy, and (1, 1) keeps pixels square")
        if not (self.crop_cut[0] >= 0 and self.crop_cut[1] < 0.5):
            raise ValueError(f"crop_cut: {self.crop_cut} leaves 0 .. 0.5; at least half of the object stays in view")
        if min(self.aim_deviation) < 0:
            raise ValueError(f"aim_deviation: {self.aim_deviation} holds a negative deviation")
        return self

    @model_validator(mode="after")
    def _fits(self) -> "RenderSettings":
        h, w = self.height, self.width
        if self.layers * h * w > STORED_VALUES:
            raise ValueError(
                f"{self.layers} layers of {h} x {w} are more than the {STORED_VALUES} depths that a sample can hold; "
                "lower layers, height or width"
            )
        deepest = max(self.slots, self.slots_limit)
        if deepest * h * w >= PEELED_HITS:
            raise ValueError(
                f"{deepest} surfaces at {h} x {w} pixels are {PEELED_HITS} hits or more; "
                "lower slots_limit, extra_slots, height or width"
            )
        seen = max(COLOR_SLOTS, self.slots, self.slots_limit)
        if seen * h * w * self.samples**2 >= PEELED_HITS:
            raise ValueError(
                f"{seen} surfaces at {self.samples} x {self.samples} samples for each of {h} x {w} pixels are "
                f"{PEELED_HITS} hits or more; lower samples, slots_limit, height or width"
            )
        return self

    def stated(self) -> dict[str, Any]:
        """As dataset.json states them: plain JSON, without `planes` where there are none, as before there were any."""
        values = self.model_dump(mode="json")
        if not self.planes:
            del values["planes"]
        return values

    @property
    def slots(self) -> int:
        """Surfaces kept per pixel by the first peel, before merging."""
        return self.layers + self.extra_slots


def settings_of(values: Mapping[str, Any], assignments: Sequence[str] = ()) -> RenderSettings:
    """RenderSettings from plain values (a config file, a command line) and from texts such as "aspect=0.8,1.25".

    Raises ValueError with one sentence that names the field, or for an unknown key the nearest known one.
    """
    values = {**values, **_assigned(assignments, values)}
    for key in values:
        if key not in RenderSettings.model_fields:
            near = difflib.get_close_matches(key, RenderSettings.model_fields, n=1)
            hint = f"the nearest known setting is {near[0]!r}" if near else "docs/render.md lists the settings"
            raise ValueError(f"render settings: there is no {key!r}; {hint}")
    try:
        return RenderSettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # several settings that do not go together: the message has their values
            raise ValueError(f"render settings: {first['ctx']['error']}") from None
        name = str(first["loc"][0])
        if RenderSettings.model_fields[name].annotation == Span:
            pair, (a, b) = (
                "RIGHT,DOWN" if name == "aim_deviation" else "LOW,HIGH",
                RenderSettings.model_fields[name].default,
            )
            raise ValueError(
                f"render settings: {name}: give {pair}, two numbers such as {a:g},{b:g} (found {values[name]!r})"
            ) from None
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"render settings: {where}: {first['msg']} (found {first.get('input')!r})") from None


def _assigned(texts: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """["fov_mode=54.2", "aspect=0.8,1.25"] -> {"fov_mode": 54.2, "aspect": [0.8, 1.25]}.

    A value is JSON, a list of JSON without its brackets, or else text. ValueError for what is no NAME=VALUE, for a name
    that comes twice and for one that is `given` otherwise.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise ValueError(f"render settings: {text!r} is no NAME=VALUE, such as fov_mode=54.2 or aspect=0.8,1.25")
        if name in values:
            raise ValueError(f"render settings: {name} is set twice; set it once")
        if name in given:
            raise ValueError(f"render settings: {name} has an option of its own; give it by that")
        values[name] = value
        for written in (value, f"[{value}]"):
            with contextlib.suppress(json.JSONDecodeError):
                values[name] = json.loads(written)
                break
    return values
