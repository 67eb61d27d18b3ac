"""The model that a config describes, and what is refused before there is one, by a training and a dry run alike."""

from model import WTConfig, preset
from train.config.settings import Config


def shape_of(settings: Config) -> WTConfig:
    """The shape of the model. ValueError, one sentence, where the settings of a run do not go with it: a size that the
    patch does not divide, clips that no block looks along, an encoder that would stay random.
    """
    shape = preset(settings.model.preset, **settings.model.overrides)
    if settings.data.size % shape.patch:
        raise ValueError(f"data.size: {settings.data.size} is not a multiple of the model's patch, {shape.patch}")
    if settings.data.frames > 1 and not shape.temporal:
        raise ValueError(
            f"data.frames: {settings.data.frames}, but {settings.model.preset} has no temporal blocks, so that no "
            "frame would know of the others; set model.preset=wt_d or model.temporal=true, or data.frames=1"
        )
    if shape.encoder.frozen and settings.model.start is None and settings.model.encoder_weights is None:
        raise ValueError(
            "model.start: not set, and model.encoder_weights neither, but the image encoder of "
            f"{settings.model.preset} is frozen and would stay random; give a run folder, an exported "
            ".safetensors or a released model (r75b, hf://OWNER/REPO, a model.pt) as model.start, "
            "model.encoder_weights=moge, or set model.encoder.frozen=false"
        )
    return shape
