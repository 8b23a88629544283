"""The course of lr: what it is multiplied by, as a function of the step alone."""

import math

from ..config import Config


def lr_factor(config: Config, step: int, steps_per_epoch: int) -> float:
    """What lr is multiplied by in step 0, 1, ... of the run: a function of the step alone."""
    warm = math.ceil(config.warmup * steps_per_epoch)
    if step < warm:
        return (step + 1) / (warm + 1)
    if config.schedule == "step":
        passed = sum(step >= epoch * steps_per_epoch for epoch in config.milestones)
        return config.factor**passed
    if config.schedule in _FALLS:
        # From 1 in the first step after the warm-up towards the end of the last one; never quite
        # lr_min, because an optimizer refuses lr = 0.
        low = config.lr_min / config.lr
        steps = config.epochs * steps_per_epoch - warm
        done = min(step - warm, steps - 1)
        return low + (1 - low) * _FALLS[config.schedule](done / steps)
    return 1.0


# From 1 at 0 to 0 at 1: half a cosine, or a straight line, which with a warm-up is a triangle.
_FALLS = {
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "triangle": lambda done: 1 - done,
}
