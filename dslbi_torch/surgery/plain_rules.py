"""What the operations that leave entries in their places, or take them together, do with axes.

A rule takes the trace, the arguments and the result, and returns the axes of the result (for an
operation with several results: of each).
"""

import torch

from .relations import FREE, MIXED


def pointwise(trace, args, out):
    """Indices meet those at the same place, axes of length 1 are expanded."""
    tensors, axes = [x for x in args if isinstance(x, torch.Tensor)], []
    for d in range(out.ndim, 0, -1):
        met = []
        for x in tensors:
            if x.ndim < d:
                continue
            axis = trace.axes(x)[-d]
            if x.shape[-d] == out.shape[-d]:
                met.append(axis)
            else:  # expanded
                trace.relations.pin(axis, MIXED)
        axes.append(trace.relations.join(met, MIXED))
    return axes


def same(trace, args, out):
    """The first argument's axes are those of the result."""
    return list(trace.axes(args[0]))


def free(trace, args, out):
    """A tensor that is filled takes any size."""
    return [FREE] * out.ndim


def kept_whole(trace, args, out, what=None):
    """All indices of all arguments stay."""
    for x in trace.tensors(args):
        for axis in trace.axes(x):
            trace.relations.pin(axis, what or trace.reason())
    return None


def reduced(trace, args, out):
    """What is summed over stays."""
    x, outs = args[0], out if isinstance(out, (tuple, list)) else [out]
    dims = args[1] if len(args) > 1 and not isinstance(args[1], bool) else None
    if dims is None or dims == []:
        return kept_whole(trace, args, out)
    dims = {d % max(1, x.ndim) for d in ([dims] if isinstance(dims, int) else dims)}
    axes = trace.axes(x)
    for d in dims:
        if not trace.squares(x, d):
            trace.relations.pin(axes[d], trace.reason())
    left = [a for d, a in enumerate(axes) if d not in dims]
    if outs[0].ndim == x.ndim:
        left = [None if d in dims else a for d, a in enumerate(axes)]
    return [left] * len(outs) if isinstance(out, (tuple, list)) else left


def norm_of(trace, args, out):
    """A vector norm, whose order comes before the axes."""
    return reduced(trace, (args[0], *args[2:3]), out)


def along(trace, args, out):
    """What is normalised or summed up along an axis stays."""
    axes = list(trace.axes(args[0]))
    trace.relations.pin(axes[args[1]], trace.reason())
    return [axes] * len(out) if isinstance(out, (tuple, list)) else axes


def pooled(spatial):
    def rule(trace, args, out):
        """Places are taken together."""
        x = args[0]
        axes = list(trace.axes(x))
        for axis in axes[x.ndim - spatial :]:
            trace.relations.pin(axis, trace.reason())
        axes[x.ndim - spatial :] = [None] * spatial
        return [axes] * len(out) if isinstance(out, (tuple, list)) else axes

    return rule
