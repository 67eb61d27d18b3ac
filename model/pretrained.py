"""Weights for the image encoder alone: the backbone of MoGe v1, or DINOv2, in our encoder's names.

The names were read in the public sources: microsoft/MoGe (moge/model/v1.py), facebookresearch/dinov2
(dinov2/models/vision_transformer.py), huggingface/transformers (models/dinov2/convert_dinov2_to_hf.py).
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from model.config import WTConfig
from model.encoder import ImageEncoder
from model.files import read_tensors, state_dict
from model.hub import HUB, fetched

KNOWN = {
    "moge": "hf://Ruicheng/moge-vitl/model.pt",
    "dinov2": "hf://facebook/dinov2-large/model.safetensors",
}
_PROJECTION = "final_project."
# Where a state dict lies: MoGe's under "model", others' under one of these, or there is no more in the file.
_KEYS = ("ema_state_dict", "model_state_dict", "model", "state_dict")
# (theirs, ours) of transformers' DINOv2, whose queries, keys and values are apart
_TRANSFORMERS = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.(cls_token|mask_token|register_tokens)$", r"\1"),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
)
_PARTS = ("query", "key", "value")


def read_encoder(source: str, config: WTConfig) -> dict[str, Tensor]:
    """Weights of `WTDiT(config).encoder` in its own names, float32, from what `source` names.

    `source`: "moge", "dinov2" (what the paper's encoder is, and what that was trained from), hf://OWNER/REPO/FILE, or a
    local .pt, .pth or .safetensors. Which network they are of is seen from their names: MoGe v1 (its backbone is
    taken), DINOv2 as its authors (also in chunks of blocks) or transformers save it, a released World Tracing model.

    Only the last of these has the projection of the last blocks (final_project): of the others it is not in the result,
    and stays as it was initialised. The encoder's constants (image_mean, image_std) are never in it. A grid of
    positions of another size is refused rather than resampled: the config's `grid` can say what there is, and the
    encoder resamples that to the image anyway.

    ValueError, in one sentence: weights that are of no known network, or do not fit the config (the first one is
    named), or would leave a frozen projection random. FileNotFoundError, OSError: no file, or it cannot be fetched.
    """
    path = _local(KNOWN.get(source, source))
    try:
        state = state_dict(read_tensors(path), _KEYS, path)
    except ValueError as error:
        raise ValueError(f"model.encoder_weights: {error}") from None
    kind, tensors = _ours(state, source)
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    _check(tensors, config, f"{source} ({kind})")
    projected = any(name.startswith(_PROJECTION) for name in tensors)
    if config.encoder.frozen and not config.encoder.train_projection and not projected:
        raise ValueError(
            f"model.encoder_weights: {source} ({kind}) has no projection of the last blocks, so the frozen one would "
            "stay random; set model.encoder.train_projection=true"
        )
    return tensors


def _local(source: str) -> str:
    """The file itself: of hf://OWNER/REPO/FILE the copy in the hub's cache, fetched if it is not there."""
    if source.startswith(HUB):
        try:
            return fetched(source)
        except (ValueError, OSError) as error:
            kind = ValueError if isinstance(error, ValueError) else OSError
            raise kind(f"model.encoder_weights: {error}") from None
    if "." not in source.rsplit("/", 1)[-1] and "/" not in source:
        raise ValueError(
            f"model.encoder_weights: {source!r} is neither {' nor '.join(KNOWN)}, nor hf://OWNER/REPO/FILE, nor a "
            ".pt, .pth or .safetensors file"
        )
    return source


def _ours(state: Mapping[str, Tensor], source: str) -> tuple[str, dict[str, Tensor]]:
    """(what network it is, its encoder in our names): told by the name of its patch embedding."""
    for kind, prefix, embedding, translate in (
        ("MoGe v1", "backbone.", "patch_embed.proj.weight", _original),
        ("World Tracing", "net.encoder.", "patch_embed.proj.weight", _original),
        ("DINOv2", "", "patch_embed.proj.weight", _original),
        ("DINOv2 of transformers", "", "embeddings.patch_embeddings.projection.weight", _transformers),
        ("DINOv2 of transformers", "dinov2.", "embeddings.patch_embeddings.projection.weight", _transformers),
    ):
        if prefix + embedding in state:
            own = {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
            return kind, translate(own)
    raise ValueError(
        f"model.encoder_weights: {source} holds the weights of no encoder that is known here (MoGe, DINOv2, World "
        f"Tracing); its first weight is {next(iter(state))}"
    )


def _original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DINOv2's names are ours, but for blocks in chunks: blocks.CHUNK.BLOCK, counted through."""
    named = ((re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name), x) for name, x in state.items())
    return {name: x for name, x in named if name not in ("image_mean", "image_std")}


def _transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = {}
    for name, x in state.items():
        for theirs, ours in _TRANSFORMERS:
            name = re.sub(theirs, ours, name)
        named[name] = x
    for name in [name for name in named if ".attn.query." in name]:
        parts = [name.replace("query", part) for part in _PARTS]
        if all(part in named for part in parts):
            named[name.replace("query", "qkv")] = torch.cat([named.pop(part) for part in parts])
    return named


def _check(found: dict[str, Tensor], config: WTConfig, source: str) -> None:
    """ValueError for the first weight that our encoder does not have, lacks, or has in another shape."""
    with torch.device("meta"):
        expected = dict(ImageEncoder(config.encoder, config.patch, config.width).named_parameters())
    if "register_tokens" in found:
        raise ValueError(
            f"model.encoder_weights: {source} has register tokens, and our encoder, as MoGe v1's, has none; give the "
            "weights of a DINOv2 without registers"
        )
    found.setdefault("mask_token", torch.zeros(1, config.encoder.width))  # unused after pre-training: some leave it out
    grid = found.get("pos_embed")
    if grid is not None and grid.ndim == 3 and grid.shape[1] != expected["pos_embed"].shape[1]:
        raise ValueError(
            f"model.encoder_weights: {source} has {grid.shape[1] - 1} positions, a grid of side "
            f"{(grid.shape[1] - 1) ** 0.5:g}, and the config's is {config.encoder.grid}; set model.encoder.grid to it"
        )
    optional = {name for name in expected if name.startswith(_PROJECTION)}
    if optional <= found.keys():
        optional = set()
    shapes = {name: tuple(x.shape) for name, x in found.items()}
    for name, weight in expected.items():
        if name not in optional and shapes.get(name) != tuple(weight.shape):
            there = "x".join(map(str, shapes[name])) if name in shapes else "absent"
            raise ValueError(
                f"model.encoder_weights: {source} is another network than the config's encoder; {name} is {there} "
                f"there and {'x'.join(map(str, weight.shape))} here"
            )
    unknown = sorted(found.keys() - expected.keys())
    if unknown:
        raise ValueError(
            f"model.encoder_weights: {source} is another network than the config's encoder; {unknown[0]} is there and "
            f"not here, and so on for {len(unknown)} weights"
        )
