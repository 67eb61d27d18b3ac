"""Floating point operations of a WT-DiT, counted from its config: no weights, no device.

What is counted is what matrix units do, two operations per multiply-add: every linear layer, the products of queries
with keys and of weights with values. Norms, activations, softmax and sums are not (under 1 % of the operations; what
they cost is bytes).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from model.attention import Shape, shape_of
from model.blocks import TimeConditioning
from model.config import WTConfig


@dataclass(frozen=True)
class Flops:
    """Operations of one forward pass over one sample (a clip: all of its frames), by what they are spent on.

    `parts` of the denoiser: "conditioning" (time and layer), "fusion", "projections" (to queries, keys and values, and
    back), "layer", "ray", "global" and "time" (the attentions themselves), "mlp", "output"; the head's blocks are among
    them. `encoder` is the image encoder, of which `projection` is its last linear layer.
    """

    parts: Mapping[str, int]
    encoder: int
    projection: int

    @property
    def denoiser(self) -> int:
        """Everything behind the encoder: what a sampler does at each step."""
        return sum(self.parts.values())

    @property
    def forward(self) -> int:
        return self.encoder + self.denoiser


def flops(config: WTConfig, height: int, width: int, frames: int = 1) -> Flops:
    """Operations of a forward pass over one sample of `frames` images of height x width pixels, one time per sample.

    ValueError where a side is not a multiple of the patch.
    """
    if height % config.patch or width % config.patch or min(height, width, frames) < 1:
        raise ValueError(
            f"flops: {frames} frames of {height}x{width} pixels were asked for; sides must be multiples of the patch, "
            f"{config.patch}, and there is at least one frame"
        )
    patches = (height // config.patch) * (width // config.patch)
    tokens, channels = frames * config.layers * patches, config.width
    seen: dict[Shape, int] = {"layer": patches, "ray": config.layers, "global": config.layers * patches, "time": frames}
    shapes: list[Shape] = [shape_of(i) for blocks in (config.decoder_blocks, config.head_blocks) for i in range(blocks)]
    if config.temporal and frames > 1:
        shapes += ["time"] * (config.decoder_blocks // 3)

    values = 3 * config.patch**2
    half = channels // 2
    parts: dict[str, int] = {
        "conditioning": _conditioning(config, frames),
        "fusion": 2 * tokens * (channels * half + 2 * values * (channels - half)),
        "projections": len(shapes) * 2 * tokens * 4 * channels**2,
        **{shape: shapes.count(shape) * 4 * tokens * seen[shape] * channels for shape in seen},
        "mlp": len(shapes) * 2 * tokens * 2 * config.mlp_ratio * channels**2,
        "output": 2 * tokens * channels * config.answers * config.patch**2,
    }

    encoder, sequence = config.encoder, 1 + patches  # the class token
    block = 2 * sequence * 12 * encoder.width**2 + 4 * sequence**2 * encoder.width
    projection = frames * 2 * patches * encoder.taps * encoder.width * channels
    embedding = 2 * patches * values * encoder.width
    return Flops(parts, frames * (embedding + encoder.depth * block) + projection, projection)


def training_flops(config: WTConfig, height: int, width: int, frames: int = 1) -> int:
    """Operations of one training step over one sample.

    Three times a forward pass (the backward one is twice it: a gradient of inputs, one of weights); of a frozen encoder
    one forward pass. What is computed twice to save memory is not counted: that is how MFU is defined.
    """
    count = flops(config, height, width, frames)
    if not config.encoder.frozen:
        return 3 * count.forward
    trained = count.projection if config.encoder.train_projection else 0
    return 3 * (count.denoiser + trained) + count.encoder - trained


def tokens_of(config: WTConfig, height: int, width: int, frames: int = 1) -> int:
    """Tokens of a sample in the decoder: one per frame, layer and patch."""
    return frames * config.layers * (height // config.patch) * (width // config.patch)


def _conditioning(config: WTConfig, frames: int) -> int:
    """The time's MLP and projection, once for the decoder and once for the head, and the layers' FiLM and AdaLN.

    Every frame is counted with a time of its own, as the network computes it.
    """
    channels = config.width
    time = 2 * frames * (2 * TimeConditioning.frequencies * channels + channels**2 + 6 * channels**2)
    film = 2 * config.layers * (channels**2 + 2 * channels**2)
    adaln = 2 * config.layers * 6 * channels**2 if config.film_adaln else 0
    return 2 * time + 2 * film + adaln
