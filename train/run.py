"""A run on disk and in memory: the model a config describes, how its targets are normalised, and reading both back."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor

import shards
from model import (
    LogMedian,
    Normalisation,
    WTConfig,
    WTDiT,
    ZScore,
    read_encoder,
)
from model import normalisation as maps
from shards import seed_of
from train import config, weights
from train.config import Config
from train.config.shape import shape_of
from train.data.stream import Stream
from train.weights import Weights

LARGEST = 4096  # pixels a side that a file may ask for; the release's largest is 840


@dataclass(frozen=True, eq=False)
class Run:
    """What a trained run is to those who use it: EMA weights in evaluation mode, the map of its points, its config."""

    model: WTDiT
    normalisation: Normalisation
    config: Config
    step: int
    path: Path


def load_run(source: str | Path, device: torch.device | str = "cpu", say: Callable[[str], None] = print) -> Run:
    """A model that can be used, from whatever `source` names (train/weights.py): a run folder (its newest whole
    checkpoint; says which damaged ones it passed over), one checkpoint, an exported .safetensors, a released model by
    its name (r75b, r69e, r69g, r69l, r76), hf://OWNER/REPO[/FILE] or file.

    FileNotFoundError where there is nothing, ValueError where it is damaged or something else, OSError where it cannot
    be fetched.
    """
    return run_of(weights.find(source, say), device)


def run_of(found: Weights, device: torch.device | str = "cpu") -> Run:
    """The same of weights that were found already. ValueError where they are not of the model they are said to be."""
    others = ValueError(
        f"{found.path}: its weights are not those of the model that its {found.described.name} describes"
    )
    with _describing(found):
        shape = WTConfig.from_dict(found.about["model"])
        normalisation = maps.from_dict(found.about["normalisation"])
        settings = config.from_dict(found.about["config"])
        blocks = shape.decoder_blocks + shape.head_blocks + shape.encoder.depth
        if settings.data.size % shape.patch or settings.data.size > LARGEST:
            raise ValueError(
                f"data.size {settings.data.size} is no multiple of its patch, {shape.patch}, up to {LARGEST} pixels"
            )
        if blocks > found.count:  # each has weights; millions would be built for ever
            raise others
        with torch.device("meta"):  # the weights that are read become the model's own: there is never a second copy
            network = WTDiT(shape)
    tensors = found.read()
    if shapes(tensors) != shapes(network.state_dict()):
        raise others
    network.load_state_dict(tensors, assign=True)
    network.to(device).eval().requires_grad_(False)
    return Run(network, normalisation, settings, found.step, found.path)


def build(
    settings: Config, resumed: bool = False, meta: bool = False, say: Callable[[str], None] = print
) -> tuple[WTDiT, Normalisation | None]:
    """The model of a config on the CPU, its weights from `model.start` or, as a function of the seed alone, at random;
    its image encoder's then from `model.encoder_weights` if there are any.

    Beside it the map under which the weights of `model.start` were trained. Of a `resumed` run the weights are about to
    be replaced by its own, so neither need exist any more. `meta`: shapes without memory, of a rank that gets its part
    from another one.
    """
    shape = shape_of(settings)
    start, encoder = settings.model.start, settings.model.encoder_weights
    with torch.random.fork_rng(devices=[]), torch.device("meta") if meta else nullcontext():
        # torch's initialisers take their numbers from the global generator only
        torch.manual_seed(seed_of(settings.seed, "weights") % 2**63)
        network = WTDiT(shape)
    if resumed or meta:
        return network, None
    if start is None:
        if encoder is not None:
            network.encoder.load_state_dict(read_encoder(encoder, shape), strict=False)  # which has checked the names
        return network, None
    if encoder is not None:
        say(f"model.encoder_weights: {encoder} is not read, because model.start brings an encoder: {start}")
    tensors, inherited = _read_start(start, say)
    own = _of_its_own(start, shapes(tensors), shapes(network.state_dict()))
    if own:
        say(
            f"model.start: {start} is of single frames; the {len(network.temporal)} temporal blocks, which it lacks, "
            "begin as they do without it"
        )
    network.load_state_dict(tensors, strict=not own)
    return network, inherited


def normalisation_for(stream: Stream, kind: str = "auto", inherited: Normalisation | None = None) -> Normalisation:
    """The map of App. A for the regimes of the stream's samples; z-score statistics from the dataset, or measured.

    Weights that come from elsewhere keep the map they were trained under, if `kind` is auto.
    """
    if kind == "auto" and inherited is not None:
        return inherited
    regimes = {
        regime for each in stream.sources for regime in pc.unique(each.columns(["regime"])["regime"]).to_pylist()
    }
    if kind == "log_median" or (kind == "auto" and not regimes <= {"object", "dynamic"}):
        return LogMedian()
    known = [source.statistics or shards.statistics(source) for source in stream.sources]
    for source, measured in zip(stream.data.sources, known):
        if measured is None:
            raise ValueError(
                f"{source.path}: nothing to take mean and deviation from; set model.normalisation=log_median"
            )
    return pooled([measured for measured in known if measured is not None], stream.sequence.shares)


def pooled(statistics: Sequence[Mapping[str, Any]], shares: np.ndarray) -> ZScore:
    """Mean and deviation of a mixture, from those of its parts and their shares (which sum to 1).

    ValueError where points do not deviate along an axis, or by more than a number can hold.
    """
    means = np.array([part["mean"] for part in statistics])
    with np.errstate(over="ignore"):
        squares = np.array([part["std"] for part in statistics]) ** 2 + means**2
    mean = shares @ means
    std = np.sqrt(np.maximum(shares @ squares - mean**2, 0.0))
    if not (np.isfinite(std).all() and (std > 0).all()):
        raise ValueError(
            f"data.path: its points deviate by {', '.join(f'{each:g}' for each in std)} along x, y and z, by which "
            "they cannot be divided; measure them anew with `worldtrace shards stats DIR`, or set "
            "model.normalisation=log_median"
        )
    return ZScore((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def device_of(name: str) -> torch.device:
    """`auto` is CUDA where there is one. ValueError where CUDA is asked for and missing."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: cuda was asked for, but torch sees no CUDA device; use device=cpu or device=auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Name -> shape, as text: what says whether weights are those of a model."""
    return {name: "x".join(map(str, tensor.shape)) or "a number" for name, tensor in tensors.items()}


@contextmanager
def _describing(found: Weights) -> Iterator[None]:
    """What a file says of a run and cannot be understood in the block is a ValueError that names it."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        if str(found.path) in str(error):
            raise
        text = " ".join(str(error).split())[:300]
        what = text if isinstance(error, ValueError) else f"{type(error).__name__} {text}"
        raise ValueError(f"{found.described}: describes no run that this version can read: {what}") from None


def _read_start(start: str, say: Callable[[str], None]) -> tuple[dict[str, Tensor], Normalisation]:
    """The weights that a run begins with, averaged where there is an average, and the map they were trained under."""
    try:
        found = weights.find(start, say)
    except (ValueError, OSError) as error:
        kind = next(kind for kind in (FileNotFoundError, OSError, ValueError) if isinstance(error, kind))
        raise kind(f"model.start: {error}") from None
    with _describing(found):
        return found.read(), maps.from_dict(found.about["normalisation"])


def _of_its_own(start: str, there: Mapping[str, str], here: Mapping[str, str]) -> set[str]:
    """The weights of which `start` has none. They may only be all temporal blocks, which do nothing to single frames
    (App. B); ValueError where weights are not those of the model that the config describes."""
    temporal = {name for name in here if name.startswith("temporal.")}
    own = temporal if not temporal & there.keys() else set()
    wrong = [name for name in {**here, **there} if name not in own and there.get(name) != here.get(name)]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"model.start: {start} holds another model than the config describes; {name} is "
            f"{there.get(name, 'absent')} there and {here.get(name, 'absent')} here, and so on for {len(wrong)} of "
            f"{len(here)} weights; give the model.* settings that it was trained with"
        )
    return own
