"""The sizes of a WT-DiT and the family's presets (paper, App. B; the `wt_` models as released)."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, get_type_hints

_EXPECTED = {
    int: "a positive whole number",
    float: "a positive number",
    bool: "true or false",
}


def _check_values(config: Any, where: str) -> None:
    """ValueError for the first field whose value is not of its type, or, of a number, not positive and finite."""
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if kind in (int, float):
            numbers = int if kind is int else int | float
            right = isinstance(value, numbers) and not isinstance(value, bool) and 0 < value < math.inf
        else:
            right = isinstance(value, kind)
        if not right:
            expected = _EXPECTED.get(kind, "a mapping of its fields")
            raise ValueError(f"{where}.{name}: expected {expected}, found {value!r}")


@dataclass(frozen=True)
class EncoderConfig:
    """The image encoder: a plain ViT whose last `taps` blocks are concatenated and projected to the decoder's width.

    `grid` is the side of the learned grid of positions; it is resampled to the image's patches. `layer_scale` is the
    initial LayerScale; DINOv2's weights bring their own. A `frozen` encoder gets no gradient, and neither does its
    projection (as in the release) unless `train_projection` says so (as the paper has it, App. B): then the projection
    learns on top of frozen blocks, which is what weights of MoGe or DINOv2 need, for they have none.
    """

    width: int = 1024
    depth: int = 24
    heads: int = 16
    taps: int = 4
    grid: int = 37
    layer_scale: float = 1.0
    frozen: bool = True
    train_projection: bool = False

    def __post_init__(self) -> None:
        _check_values(self, "model.encoder")


@dataclass(frozen=True)
class WTConfig:
    """Everything that fixes the shapes of a WT-DiT's weights, and their initialisation.

    `masks`: per layer and pixel a fourth value, the logit that the layer is there, of models that say where a ray has
    ended instead of repeating its last point (the alternative to filling in section 4.3).
    `film_adaln` adds a term per layer to the AdaLN of layer-wise blocks (the scene models). `temporal` adds a block
    through time after each global block of the decoder (WT-D). `layer_scale` is 1e-4 in
    the paper (App. F.3), whose runs are 200K steps long; a model trained for some hundred steps needs a larger one,
    because a block whose residual starts at 1e-4 contributes nothing until its LayerScale has grown.
    `time_shift` moves the times of training and sampling towards noise; the paper's are unshifted, 1. Geometry is
    smooth, so x_t shows its coarse shape to anyone who averages over a patch, until t is about 0.95. Logit-normal times
    hardly ever go there, and a short training never learns to read the image, all that the first step has to go by.
    """

    width: int = 1536
    heads: int = 24
    decoder_blocks: int = 42
    head_blocks: int = 6
    layers: int = 6
    patch: int = 14
    mlp_ratio: int = 4
    film_adaln: bool = False
    temporal: bool = False
    masks: bool = False
    layer_scale: float = 1e-4
    time_shift: float = 1.0
    encoder: EncoderConfig = field(default_factory=EncoderConfig)

    def __post_init__(self) -> None:
        _check_values(self, "model")
        if self.width % self.heads or (self.width // self.heads) % 4:
            raise ValueError(
                f"model: width {self.width} over {self.heads} heads gives a head of {self.width / self.heads:g}; "
                "choose them so that it is a multiple of 4 (two axes of RoPE, two halves each)"
            )
        if self.encoder.width % self.encoder.heads:
            raise ValueError(
                f"model: encoder width {self.encoder.width} is not a multiple of its {self.encoder.heads} heads"
            )
        if not 0 < self.encoder.taps <= self.encoder.depth:
            raise ValueError(
                f"model: encoder taps {self.encoder.taps} must lie between 1 and its depth {self.encoder.depth}"
            )

    @property
    def answers(self) -> int:
        """Values that the network gives per layer and pixel: x, y, z and, with masks, the logit that it is there."""
        return 4 if self.masks else 3

    def to_dict(self) -> dict[str, Any]:
        """Plain dict for a checkpoint or a YAML file; `WTConfig.from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "WTConfig":
        """Inverse of `to_dict`; missing keys keep their defaults. ValueError on an unknown key, naming the nearest."""
        return _build(cls(), values, "model")


_SMALL_ENCODER = EncoderConfig(width=192, depth=6, heads=6, taps=4, grid=16, frozen=False)

presets: dict[str, WTConfig] = {
    "tiny": WTConfig(
        width=128,
        heads=4,
        decoder_blocks=6,
        head_blocks=2,
        layer_scale=1.0,
        time_shift=10.0,
        encoder=EncoderConfig(width=128, depth=4, heads=4, taps=2, grid=8, frozen=False),
    ),
    "small": WTConfig(width=384, heads=6, decoder_blocks=12, head_blocks=3, layer_scale=0.01, encoder=_SMALL_ENCODER),
    "wt_o": WTConfig(),
    "wt_s": WTConfig(decoder_blocks=36, film_adaln=True),
    "wt_d": WTConfig(temporal=True),
}


def preset(name: str, **changes: Any) -> WTConfig:
    """The named preset, some fields changed (`encoder` may be a dict). ValueError names the nearest preset or field."""
    if name not in presets:
        raise ValueError(f"model preset {name!r} is unknown; {_nearest(name, presets)}")
    return _build(presets[name], changes, f"model preset {name}")


def _build(base: Any, values: Mapping[str, Any], where: str) -> Any:
    """`base` with `values` in place of its fields, nested dataclasses included."""
    known = {f.name for f in fields(base)}
    changes: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}; {_nearest(key, known)}")
        old = getattr(base, key)
        changes[key] = (
            _build(old, value, f"{where}.{key}") if is_dataclass(old) and isinstance(value, Mapping) else value
        )
    return replace(base, **changes)


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(sorted(known))}"
