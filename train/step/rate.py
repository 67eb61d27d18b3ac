"""The learning rate of each step; what a step does with it is in train/step/update.py."""

import math

from train.config import Optimizer


def learning_rate(step: int, steps: int, settings: Optimizer) -> float:
    """Of step 0, 1, ...: linear over `warmup` steps, then a cosine from `lr` to `min_lr` at the last one (App. B)."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, steps - 1 - settings.warmup)
    return settings.min_lr + (settings.lr - settings.min_lr) * (1 + math.cos(math.pi * min(1.0, done))) / 2
