"""Masks of what is selected: taken from a path, combined, saved, applied and held.

Here: tensors of True and False beside a model that keeps its shape. Not here: models that become
physically smaller, which is :mod:`dslbi_torch.surgery`.
"""
