"""The settings of a run: one typed, strict tree of numbers, whose defaults are the paper's values."""

import math
import re
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

from shards.order import mixture
from shards.order.mixture import Mixed


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

    `start` is a run folder or one of its checkpoints (the EMA weights), an exported .safetensors, a released model
    by name (r75b, r69e, r69g, r69l, r76), as hf://OWNER/REPO[/FILE] or as a file; it must hold the model of this
    config, but for temporal blocks, which may be missing there and then begin as they do without it (WT-D from
    WT-O). `encoder_weights` are of the image encoder alone, where there is no `start`: one brings its own encoder,
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
    """What is learned, and at which times. `regression` is the baseline of section 4.3: the same network, asked once
    and without noise, for the mean of what an image leaves possible. Of a model with masks (`model.masks=true`) points
    are learned where a layer is there, and where that is besides; others fill (Eq. 2)."""

    kind: Literal["flow", "regression"] = "flow"
    schedule: Literal["mixture", "logit_normal", "plateaued"] = (
        "mixture"  # of times: the paper's, or one for all layers
    )
    lambda_mask: float = Field(default=1.0, ge=0)  # of the masks' cross-entropy; the paper gives none
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
    keep: float = Field(default=0.6, ge=0, le=1)  # part of the central square's valid pixels that a draw must show


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
    # Only kernels that add up in the same order every time, which are slower: on CUDA, too, a run that went on is then
    # bit for bit one that was left in peace. On a CPU it is in any case.
    deterministic: bool = False
    peak: float | None = Field(default=None, gt=0)  # FLOP/s of the device, for MFU where it is not one we know

    @field_validator("activations", mode="before")
    @classmethod
    def _size_or_word(cls, given: object) -> object:
        if given in ("auto", "keep", "recompute") or (type(given) in (str, int, float) and _bytes(str(given)) > 0):
            return _bytes(str(given)) if isinstance(given, float) else given
        raise ValueError("expected auto, keep, recompute, or a size such as 20 GB")

    @model_validator(mode="after")
    def _consistent(self) -> "Compute":
        if self.deterministic and self.attention == "cudnn":
            raise ValueError(
                "compute.attention cudnn adds up gradients in any order, and compute.deterministic is true; choose "
                "auto, flash, efficient or math"
            )
        return self

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
