"""The public World Tracing checkpoints: which there are, reading one into our names, writing one in theirs.

What is not in the weights (image size, frames, the map of the points) is told by the name of the model, or of its kind.
Facts from the public release (github.com/haoz19/world-tracing, wt/checkpoint.py and README); none of its code is here.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.config import EncoderConfig, WTConfig
from model.files import read_tensors, state_dict
from model.hub import HUB, parsed
from model.normalisation import LogMedian, Normalisation, ZScore
from model.released_names import from_released, our_name, their_name, to_released
from model.wt_dit import WTDiT


@dataclass(frozen=True)
class Release:
    """One of the released models. `size`: pixels a side that it was trained at; `frames` of a clip."""

    name: str
    kind: str  # object, scene or dynamic, which the weights tell as well
    repository: str
    size: int
    frames: int = 1

    @property
    def source(self) -> str:
        return f"{HUB}{self.repository}/{FILE}"


FILE = "model.pt"
# r69e and r69g have one repository and so one file there. r69g was trained with one median for each batch instead of
# one for each sample ("median_log_global"); to predict, both are inverted with m = 1, so that they differ in nothing.
RELEASED = {
    each.name: each
    for each in (
        Release("r75b", "object", "haoz19/object-model-6layer", 504),
        Release("r69e", "scene", "haoz19/scene-model-6layer", 504),
        Release("r69g", "scene", "haoz19/scene-model-6layer", 504),
        Release("r69l", "scene", "haoz19/scene-model-6layer-840", 840),
        Release("r76", "dynamic", "haoz19/dynamic-model-16frame", 336, frames=16),
    )
}
LICENCE = (
    "CC BY-NC-ND 4.0 (https://creativecommons.org/licenses/by-nc-nd/4.0/): non-commercial use, name the authors of "
    "World Tracing, pass on no changed weights, which fine-tuned ones are too"
)
NOTE = "worldtrace"  # in a .pt that we wrote: what its weights are, as JSON beside the state dicts
_KEYS = ("ema_state_dict", "model_state_dict")
_NAMED = 3  # names of weights that an error gives
# Of the released object and dynamic models, from 500K samples (facts, 18); scene models, which alone have an AdaLN term
# per layer, use the log-median.
_ZSCORE = ZScore((-0.002366, -0.004008, 1.904278), (0.280865, 0.315927, 0.706423))
_ENCODER = EncoderConfig()  # the release always builds this one: ViT-L/14
_FIXED = {"patch": 14, "mlp_ratio": 4, "time_shift": 1.0}
_HEAD = 64  # width of a head of every ViT of DINOv2, the one size that weights do not tell


@dataclass(frozen=True, eq=False)
class ReleasedWeights:
    """What a released file holds: `tensors` in our names, float32, all of `WTDiT(shape)`'s; `kind` as in `Release`.

    `note` is what a file that we wrote says of itself (`write_released`); None of one that the authors wrote.
    """

    tensors: dict[str, Tensor]
    shape: WTConfig
    kind: str
    normalisation: Normalisation
    note: dict[str, Any] | None


def release_named(source: str, kind: str) -> Release | None:
    """The released model of which `source` speaks: by its name (r75b), by its repository (hf://...), or, of a file of
    that `kind`, by a name or repository that stands in its path, as in the hub's own cache."""
    if source in RELEASED:
        return RELEASED[source]
    if source.startswith(HUB):
        repository = parsed(source, FILE)[0]
        return next((each for each in RELEASED.values() if each.repository == repository), None)
    for each in RELEASED.values():
        repository = each.repository.split("/")[1]
        words = re.compile(rf"(?<![0-9a-z]){each.name}(?![0-9a-z])|{re.escape(repository)}(?![\w-])", re.IGNORECASE)
        if each.kind == kind and words.search(source):
            return each
    return None


def release_of(source: str, kind: str) -> Release:
    """The same; where nothing is named, the first of that kind: of scenes r69e, at 504 pixels."""
    found = release_named(source, kind)
    return found or next(each for each in RELEASED.values() if each.kind == kind)


def read_released(path: str | Path) -> ReleasedWeights:
    """A released `model.pt` (or the same tensors as .safetensors): the averaged weights where there are any.

    The shape of the model is inferred from names and shapes, so that reduced models load too; then the weights must be
    all of that model's, no more and no fewer. Tensors stay on the disk until they are used, but for one look at each,
    which finds numbers that are none. FileNotFoundError where there is no such file; ValueError, one sentence, where it
    is something else. Nothing in it is run (`weights_only=True`): a checkpoint is data.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"released checkpoint {path} does not exist; give the path of its {FILE}")
    content = read_tensors(path)
    theirs = state_dict(content, _KEYS, path)
    strange = [name for name in theirs if not _known(name)]
    if len(strange) == len(theirs):
        raise ValueError(
            f"{path} holds no World Tracing weights in the release's names: {_some(strange)} mean nothing there"
        )
    tensors = from_released({name: tensor for name, tensor in theirs.items() if name not in strange})
    try:
        shape = _shape_of(tensors)
    except (LookupError, ValueError, ZeroDivisionError) as error:
        what = f"without {error}" if isinstance(error, LookupError) else str(error)
        raise ValueError(f"{path} holds no World Tracing model: {what}") from None
    with torch.device("meta"):
        expected = {name: tuple(x.shape) for name, x in WTDiT(shape).state_dict().items()}
    missing = [their_name(name) for name in expected if name not in tensors]
    strange += [their_name(name) for name in tensors if name not in expected]
    if missing or strange:
        both = ((missing, "missing"), (strange, "too many"))
        counts = [f"{len(names)} are {what} ({_some(names)})" for names, what in both if names]
        raise ValueError(
            f"{path} holds other weights than a model of {shape.decoder_blocks} + {shape.head_blocks} blocks has: "
            f"{' and '.join(counts)}"
        )
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != expected[name]:
            raise ValueError(
                f"{path}: {their_name(name)} is {_x(tensor.shape)}, and {_x(expected[name])} fits the rest"
            )
        if not tensor.is_floating_point():
            raise ValueError(f"{path}: {their_name(name)} has numbers of {tensor.dtype}; weights are floats")
        if not (single := tensor.float()).sum().isfinite() and not single.isfinite().all():
            raise ValueError(f"{path}: {their_name(name)} has numbers that are not finite; the file is damaged")
    kind = "scene" if shape.film_adaln else "dynamic" if shape.temporal else "object"
    plain = {name: tensors[name].float().contiguous() for name in expected}
    return ReleasedWeights(plain, shape, kind, released_normalisation(plain), _note(content, path))


def write_released(path: str | Path, state: Mapping[str, Tensor], shape: WTConfig, note: Mapping[str, Any]) -> None:
    """Write our weights as a `model.pt` that the release's own code reads. ValueError where that has no such model.

    The same tensors stand under both keys, once on the disk: without `model_state_dict` the release takes the whole
    file for a state dict, finds none of its names there, says so in passing and goes on with random weights. `note`
    (plain JSON) is for `read_released`.
    """
    reason = unlike_released(shape)
    if reason is not None:
        raise ValueError(f"the release knows no such model ({reason}); export a .safetensors, without --released")
    theirs = {name: x.detach().cpu().float().contiguous() for name, x in to_released(state).items()}
    torch.save({"model_state_dict": theirs, "ema_state_dict": theirs, NOTE: json.dumps(dict(note))}, path)


def unlike_released(shape: WTConfig) -> str | None:
    """Why the released code has no model of this shape, in some words; None where it has one."""
    if shape.masks:
        return "it has no masks: its layers fill"
    fixed = {name: getattr(_ENCODER, name) for name in ("width", "depth", "heads", "taps", "grid")}
    for name, value in fixed.items():
        if getattr(shape.encoder, name) != value:
            return f"its image encoder is ViT-L/14: {name} {value}, here {getattr(shape.encoder, name)}"
    for name, value in _FIXED.items():
        if getattr(shape, name) != value:
            return f"there {name} is {value}, here {getattr(shape, name)}"
    if shape.temporal and shape.film_adaln:
        return "its models of clips have no AdaLN term per layer"
    return None


def released_normalisation(state: Mapping[str, Tensor]) -> Normalisation:
    """The map of points that the released model with these weights (in our names) was trained under."""
    return LogMedian() if any(name.startswith("layer.adaln.") for name in state) else _ZSCORE


def _shape_of(tensors: Mapping[str, Tensor]) -> WTConfig:
    """From the names and shapes of weights in our names. LookupError for a weight that it takes, ValueError."""
    width, channels = _size(tensors, "feature_projection.weight", 1), _size(tensors, "encoder.cls_token", 2)
    positions = _size(tensors, "encoder.pos_embed", 1) - 1
    return WTConfig(
        width=width,
        heads=width // _size(tensors, "decoder.0.attn.q_norm.weight", 0),
        decoder_blocks=_count(tensors, "decoder"),
        head_blocks=_count(tensors, "head.blocks"),
        layers=_size(tensors, "layer.embed.weight", 0),
        patch=_size(tensors, "encoder.patch_embed.proj.weight", 3),
        mlp_ratio=_size(tensors, "decoder.0.mlp.fc1.weight", 0) // width,
        film_adaln=any(name.startswith("layer.adaln.") for name in tensors),
        temporal=any(name.startswith("temporal.") for name in tensors),
        encoder=EncoderConfig(
            width=channels,
            depth=_count(tensors, "encoder.blocks"),
            heads=max(1, channels // _HEAD),
            taps=_size(tensors, "encoder.final_project.weight", 1) // channels,
            grid=round(positions**0.5) if positions > 0 else 0,
        ),
    )


def _size(tensors: Mapping[str, Tensor], name: str, axis: int) -> int:
    if name not in tensors or tensors[name].ndim <= axis:
        raise LookupError(their_name(name))
    return tensors[name].shape[axis]


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """Blocks of which there is any weight."""
    return len({name.removeprefix(f"{prefix}.").partition(".")[0] for name in tensors if name.startswith(f"{prefix}.")})


def _known(theirs: str) -> bool:
    try:
        return their_name(our_name(theirs)) == theirs
    except ValueError:
        return False


def _note(content: Any, path: str | Path) -> dict[str, Any] | None:
    text = content.get(NOTE)
    if text is None:
        return None
    try:
        note = json.loads(text)
        if isinstance(note, dict):
            return note
    except (TypeError, ValueError, RecursionError):
        pass
    raise ValueError(f"{path}: what it says of its weights under {NOTE!r} is no JSON object")


def _some(names: list[str]) -> str:
    return ", ".join(name[:100] for name in names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _x(sizes: Any) -> str:
    return "x".join(map(str, sizes)) or "a number"
