"""Online augmentation (paper, App. C): a sample of a dataset -> what the network is shown, seeded per sample."""

from train.data.augment.compositing import background, composite
from train.data.augment.target import Target, prepare, prepare_clip

__all__ = ["Target", "background", "composite", "prepare", "prepare_clip"]
