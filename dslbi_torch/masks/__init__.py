"""Masks of what is selected: taken from a path, combined, saved, applied and held.

Here: tensors of True and False beside a model that keeps its shape. They come from the support or
from a ranking, cover single weights, whole filters or 2:4, and hold for a block, for a training or
for good. Not here: models that become physically smaller, which is :mod:`dslbi_torch.surgery`.
"""
