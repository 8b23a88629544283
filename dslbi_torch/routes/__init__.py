"""The step of DessiLBI made fast: the same update on pieces, lists and in a GPU kernel.

Here: how the arithmetic is laid out, and ``choose``, which takes the route that fits. Not here:
what is computed, which is :func:`dslbi_torch.dessilbi.step_`; every route agrees with it to
rounding.
"""
