"""What a training run is: one typed, strict tree of numbers, read from YAML and overridden with `key=value`.

A key that does not exist is an error that names the nearest one that does; the tree a run used is written to its
folder as `config.yaml`. The paper's values are the defaults; the shipped files in `configs/` say the paper's line
beside each number they set.
"""

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from shards.order import mixture
from shards.order.mixture import Mixed

SHIPPED = Path(__file__).parent / "configs"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Split = Literal["train", "val", "test", "all"]


class Cache(_Section):
    """Where shards that come over a network are kept on this machine, and how much of its disk they may take."""

    folder: str
    limit: str | int  # bytes, or text such as "200 GB" or "200 GiB"

    @field_validator("limit", mode="before")
    @classmethod
    def _size(cls, given: object) -> object:
        if type(given) not in (str, int, float) or _bytes(str(given)) < 1:
            raise ValueError("a cache needs room: write a number of bytes, or text such as 200 GB or 200 GiB")
        return _bytes(str(given)) if isinstance(given, float) else given

    @property
    def bytes(self) -> int:
        return _bytes(str(self.limit))


def _bytes(text: str) -> int:
    """Of a size such as 5000, 1e12, 200 GB (of 1000), 200 GiB (of 1024) or 1.5T; 0 where it is none."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?(?:e\+?\d+)?)\s*(?:([KMGT])(i?))?B?\s*", text, re.IGNORECASE)
    if match is None:
        return 0
    size = float(match[1]) * (1024 if match[3] else 1000) ** " KMGT".index((match[2] or " ").upper())
    return int(size) if math.isfinite(size) else 0


class Data(_Section):
    """`path` is one dataset (a folder or URL), to which `split`, `where` and `window` apply, or a list of sources and
    groups (shards/order/mixture.py), each of which has its own.
    """

    path: str | list[dict[str, Any]]
    split: Split = "train"
    where: str | None = None  # SQL over the manifest: only these samples
    window: int | None = Field(default=None, gt=0)  # shards in use at a time; None: a permutation of all samples
    cache: Cache | None = None  # for a `path` that is a URL; without it each sample is fetched when it is needed
    size: int = Field(default=504, gt=0)  # pixels a side, after augmentation; a multiple of the model's patch
    frames: int = Field(default=1, gt=0)  # of a clip, one after the other, that a sample has; 16 for WT-D (App. B)
    batch: int = Field(default=mixture.BATCH, gt=0)  # samples per optimizer step, over all ranks and accumulation steps
    # decoding processes of each rank; the sequence of samples does not depend on it
    workers: int = Field(default=2, ge=0)
    prefetch: int = Field(default=2, gt=0)  # batches each worker holds ready

    @property
    def mixed(self) -> Mixed:
        if isinstance(self.path, str):
            return (mixture.source("data", self.path, self.split, self.where, self.window),)
        return mixture.parse(self.path)

    @property
    def sources(self) -> list[mixture.Source]:
        return mixture.leaves(self.mixed)

    @model_validator(mode="after")
    def _of_one_folder(self) -> "Data":
        known = type(self).model_fields
        alone = [name for name in ("split", "where", "window") if getattr(self, name) != known[name].default]
        if alone and not isinstance(self.path, str):
            raise ValueError(f"data.{alone[0]} stands beside a list of sources: write it into those that it is for")
        return self


class Model(BaseModel):
    """A preset of the model room, any field of its `WTConfig` to override, and what the weights and targets start from.

    `start` is a run folder or one of its checkpoints (the EMA weights), or a released `model.pt`; it must hold the
    model of this config, but for temporal blocks, which may be missing there and then begin as they do without it (WT-D
    from WT-O). `encoder_weights` are of the image encoder alone, where there is no `start`: one brings its own encoder,
    and these are then not read, which is said. A frozen encoder needs either. A run that goes on needs neither.
    `normalisation` auto: the one that `start` was trained under; without `start`, z-score where all samples are objects
    or dynamic objects, else log-median (App. A).
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    preset: str = "wt_o"
    start: str | None = None
    encoder_weights: str | None = None  # moge, dinov2, hf://OWNER/REPO/FILE or a file (model/pretrained.py)
    normalisation: Literal["auto", "zscore", "log_median"] = "auto"

    @property
    def overrides(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Objective(_Section):
    lambda_mono: float = Field(default=0.1, ge=0)  # App. A, Eq. 8
    # step at which all layers share one t (App. B, phase ii); "stable": once the loss of no layer falls any more
    shared_times_from: NonNegativeInt | Literal["stable"] = 20_000
    noise_correlation: float = Field(default=0.5, ge=0, le=1)  # rho of the prior noise of a clip's frames (released)


class Geometric(_Section):
    """Image-plane affine maps and rotations of the camera (train/data/augment/geometry.py says what is exact)."""

    flip: float = Field(default=0.5, ge=0, le=1)  # probability
    zoom: tuple[float, float] = (0.8, 1.4)  # magnification, log-uniform: crop above 1, shrink below
    shift: float = Field(default=0.1, ge=0, le=1)  # translation, +- this part of the image side
    rotate: float = Field(default=15.0, ge=0)  # degrees, +-, about the optical axis
    aspect: float = Field(default=0.1, ge=0, lt=1)  # anisotropic scale, +- this part
    shear: float = Field(default=0.05, ge=0, lt=1)  # +- tangent
    keep: float = Field(default=0.6, ge=0, le=1)  # a draw that loses more than 1 - keep of the valid pixels is not used


class Photometric(_Section):
    """Strengths: a value is drawn within +- the number. Probabilities: how often an operation is applied at all."""

    brightness: float = Field(default=0.15, ge=0, lt=1)
    contrast: float = Field(default=0.2, ge=0, lt=1)
    saturation: float = Field(default=0.3, ge=0, le=1)
    hue: float = Field(default=0.03, ge=0, le=0.5)  # turns of the colour wheel
    gamma: float = Field(default=0.2, ge=0, lt=1)
    exposure: float = Field(default=0.4, ge=0)  # stops
    white_balance: float = Field(default=0.1, ge=0, lt=1)
    blur: float = Field(default=0.1, ge=0, le=1)  # probability
    sharpen: float = Field(default=0.1, ge=0, le=1)  # probability
    jpeg: float = Field(default=0.15, ge=0, le=1)  # probability
    noise: float = Field(default=0.15, ge=0, le=1)  # probability
    drift: float = Field(default=0.1, ge=0, le=1)  # over a clip, by this part of the range that values are drawn from


class MaskJitter(_Section):
    """Jitter of the validity mask (App. B, "Robust silhouettes"). Lengths are parts of the image side."""

    probability: float = Field(default=0.5, ge=0, le=1)
    radius: float = Field(default=0.008, ge=0, lt=0.5)  # dilation or erosion, 4 px at 504
    boundary: float = Field(default=0.004, ge=0, lt=0.5)  # amplitude of the boundary's wobble
    thin: float = Field(default=0.1, ge=0, le=1)  # probability of losing thin structures
    holes: float = Field(default=0.1, ge=0, le=1)  # probability of filling small holes
    pierced: float = Field(default=0.1, ge=0, le=1)  # probability of small holes where there is a surface
    weight: float = Field(default=0.25, ge=0, le=1)  # of pseudo-labelled pixels ("reduced"; the paper has no number)


class Augment(_Section):
    enabled: bool = True
    background: Literal["black", "white", "random"] = "black"
    geometric: Geometric = Geometric()
    photometric: Photometric = Photometric()
    mask: MaskJitter = MaskJitter()


class Optimizer(_Section):
    """AdamW under a linear warm-up and a cosine (App. B, "Optimizer")."""

    lr: float = Field(default=1e-4, gt=0)
    min_lr: float = Field(default=1e-5, ge=0)
    warmup: int = Field(default=2000, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = Field(default=1.0, gt=0)
    spike: float = Field(default=4.0, gt=1)  # a step whose loss exceeds this multiple of its running mean is skipped


class Log(_Section):
    every: int = Field(default=50, gt=0)
    tensorboard: bool = True
    wandb: str | None = Field(default=None, min_length=1)  # a project of Weights & Biases


class Evaluation(_Section):
    """Of the averaged weights on held-out samples, while training goes on."""

    every: int = Field(default=0, ge=0)  # steps; 0: never
    split: Split = "val"
    samples: int = Field(default=256, gt=0)  # whose loss is taken, always the same ones
    pictures: int = Field(default=4, ge=0)  # of them, whose predictions are drawn


class Checkpoint(_Section):
    every: int = Field(default=1000, gt=0)
    keep: int = Field(default=3, gt=0)


class Compute(_Section):
    """How a step is computed; what it computes depends on none of this but for rounding."""

    compile: bool | Literal["auto"] = "auto"  # torch.compile, block by block; auto: on CUDA
    # Memory for what the forward pass keeps for the backward one: a size such as "20 GB", or what is left on the device
    # (auto). Blocks beyond it are computed twice.
    activations: int | str = "auto"  # auto, keep, recompute or a size
    attention: Literal["auto", "cudnn", "flash", "efficient", "math"] = "auto"  # the kernel; auto: torch chooses
    peak: float | None = Field(default=None, gt=0)  # FLOP/s of the device, for MFU where it is not one we know

    @field_validator("activations", mode="before")
    @classmethod
    def _size_or_word(cls, given: object) -> object:
        if given in ("auto", "keep", "recompute") or (type(given) in (str, int, float) and _bytes(str(given)) > 0):
            return _bytes(str(given)) if isinstance(given, float) else given
        raise ValueError("expected auto, keep, recompute, or a size such as 20 GB")

    @property
    def activation_bytes(self) -> int:
        """The size that `activations` is; 0 where it is a word."""
        return _bytes(str(self.activations))


class Parallel(_Section):
    # ranks that weights, gradients and moments are shared out over (FSDP2): all, those of a node, or a number; groups
    # of so many hold the same (HSDP)
    shard: PositiveInt | Literal["node", "all"] = "node"
    timeout: float = Field(default=600.0, gt=0)  # seconds that ranks wait for one another before the run ends


class Config(_Section):
    data: Data
    model: Model = Model()
    objective: Objective = Objective()
    augment: Augment = Augment()
    optimizer: Optimizer = Optimizer()
    log: Log = Log()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpoint = Checkpoint()
    compute: Compute = Compute()
    parallel: Parallel = Parallel()
    out: str
    steps: int = Field(default=100_000, gt=0)
    ema: float = Field(default=0.9995, ge=0, lt=1)
    accumulation: int = Field(default=1, gt=0)
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        if self.data.batch % self.accumulation:
            raise ValueError(f"data.batch {self.data.batch} is not a multiple of accumulation {self.accumulation}")
        if self.optimizer.min_lr > self.optimizer.lr:
            raise ValueError(f"optimizer.min_lr {self.optimizer.min_lr} exceeds optimizer.lr {self.optimizer.lr}")
        return self


# What may differ between the ranks of one run: where things lie on their machines, and how these read and compute.
FREE_AMONG_RANKS = ("out", "device", "log", "data.path", "data.cache", "data.workers", "data.prefetch")

# What may change between the runs that share an out folder: neither the samples nor the arithmetic depend on these.
# (`steps` moves the end of the cosine, which is what someone who prolongs a run asks for. A dataset may have moved: its
# hash says whether it is the same.)
FREE_ON_RESUME = (*FREE_AMONG_RANKS, "steps", "checkpoint", "compute", "evaluation", "parallel")


def load(config: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file (or a shipped one by name: `tiny`), apply `key=value` overrides, check everything.

    Raises FileNotFoundError or ValueError, one sentence each: an unknown key names the nearest known one.
    """
    return from_dict(_override(_read(config), overrides))


def from_dict(tree: Mapping[str, Any]) -> Config:
    """Check a nested dict, as found in YAML or in a checkpoint."""
    _reject_unknown(tree)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        first = max(error.errors(), key=lambda e: len(e["loc"]))  # of a union, the branch that got furthest
        path = ".".join(str(part) for part in first["loc"] if part != "str" and not str(part).startswith("list["))
        if first["type"] == "missing":
            raise ValueError(f"{path}: not set; put it in the file or write {path}=VALUE after it") from None
        message = first["msg"].removeprefix("Value error, ")
        names = not path or isinstance(first["input"], Mapping)  # what is said of a section names its values itself
        raise ValueError(message if names else f"{path}: {message}; found {first['input']!r}") from None


def to_dict(config: Config) -> dict[str, Any]:
    """The whole tree as plain JSON values; `from_dict` reads it back."""
    return config.model_dump(mode="json")


def save(config: Config, path: Path) -> None:
    path.write_text(yaml.safe_dump(to_dict(config), sort_keys=False))


def alike(config: Config) -> dict[str, Any]:
    """Path -> value of all that the ranks of one run must have in common. Of `data.path` all but where datasets lie."""
    own = {path: value for path, value in _leaves(to_dict(config), "") if not _within(path, FREE_AMONG_RANKS)}
    return {**own, "the sources of data.path": mixture.placeless(config.data.mixed)}


def differences(old: Config, new: Config) -> list[str]:
    """`path: old -> new` for every value that differs, those that may change on resume left out."""
    return differing(to_dict(old), to_dict(new), FREE_ON_RESUME)


def differing(old: Mapping[str, Any], new: Mapping[str, Any], free: Sequence[str] = ()) -> list[str]:
    """`path: old -> new` for every value that differs between two trees, but for the paths in `free`."""
    before, after = dict(_leaves(old, "")), dict(_leaves(new, ""))
    return [
        f"{path}: {before.get(path)} -> {after.get(path)}"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path) and not _within(path, free)
    ]


def _within(path: str, sections: Sequence[str]) -> bool:
    return any(path == each or path.startswith(f"{each}.") for each in sections)


def shipped() -> list[str]:
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def _read(config: str | Path) -> dict[str, Any]:
    path = Path(config)
    if not path.is_file() and str(config) in shipped():
        path = SHIPPED / f"{config}.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"{config}: no such file, and the shipped configs are {', '.join(shipped())}")
    try:
        tree = yaml.load(path.read_text(), Loader=mixture.Yaml)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: expected a mapping of sections, found {type(tree).__name__}")
    return tree


def _override(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise ValueError(f"{text}: expected key=value, such as optimizer.lr=3e-4")
        *sections, leaf = path.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise ValueError(f"{text}: {section} is a value, it has no {leaf}")
        try:
            node[leaf] = yaml.load(value, Loader=mixture.Yaml)
        except yaml.YAMLError:
            raise ValueError(f"{text}: {value!r} is not a YAML value") from None
    return tree


Known = dict[str, "Known | None"]  # key -> the keys below it, or None for a value


def _known() -> Known:
    """The keys of a config file. The model's are those of its own `WTConfig`."""
    from model import WTConfig  # imported here, so that looking at a config's type needs no torch

    tree = _section(Config)
    tree["model"] = {**_section(Model), **_dataclass(WTConfig)}
    return tree


def _section(section: type[BaseModel]) -> Known:
    known: Known = {}
    for name, info in section.model_fields.items():
        kinds = [k for k in (info.annotation, *get_args(info.annotation)) if isinstance(k, type)]  # also `Cache | None`
        below = next((k for k in kinds if issubclass(k, BaseModel)), None)
        known[name] = None if below is None else _section(below)
    return known


def _dataclass(kind: Any) -> Known:
    """Keys of a dataclass; a field whose type is a dataclass is a section."""
    types = get_type_hints(kind)
    return {f.name: _dataclass(types[f.name]) if is_dataclass(types[f.name]) else None for f in fields(kind)}


def _reject_unknown(tree: Mapping[str, Any]) -> None:
    known = _known()
    paths = list(_paths(known, ""))
    sources = tree.get("data", {}).get("path") if isinstance(tree.get("data"), Mapping) else None
    if isinstance(sources, list):
        mixture.parse(sources)
    for path in _used(tree, ""):
        if path not in paths and not path.startswith("data.path."):
            raise ValueError(f"{path}: unknown; {_suggestion(path, paths)}")


def _suggestion(path: str, known: Sequence[str]) -> str:
    """The nearest sibling; else the same name in another section; else what the section has."""
    parent, _, leaf = path.rpartition(".")
    siblings = {p.rpartition(".")[2]: p for p in known if p.rpartition(".")[0] == parent}
    leaves = {p.rpartition(".")[2]: p for p in known}
    for names, cutoff in ((siblings, 0.5), (leaves, 0.75)):
        near = difflib.get_close_matches(leaf, names, n=1, cutoff=cutoff)
        if near:
            return f"did you mean {names[near[0]]}?"
    return f"{parent or 'the top level'} has {', '.join(siblings) or 'no keys of its own'}"


def _paths(known: Known, prefix: str) -> Iterator[str]:
    for key, below in known.items():
        yield f"{prefix}{key}"
        if below is not None:
            yield from _paths(below, f"{prefix}{key}.")


def _used(tree: Any, prefix: str) -> Iterator[str]:
    """Paths of all keys, parents first; the items of a list count as keys 0, 1, ... where they are sections."""
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        if not isinstance(tree, list):
            yield f"{prefix}{key}"
        if isinstance(value, Mapping | list):
            yield from _used(value, f"{prefix}{key}.")


def _leaves(tree: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree
