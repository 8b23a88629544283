"""What the operations that move and take entries do with the axes of their tensors.

A rule takes the trace, the arguments and the result, and returns the axes of the result (for an
operation with several results: of each).
"""

import numpy as np
import torch

from .plain_rules import kept_whole, pointwise, same
from .relations import FREE, MIXED


def viewed(trace, args, out):
    """Axes are split and merged: a line is read as a grid, and a grid as a line."""
    x, relations = args[0], trace.relations
    inner, outer = _spans(x.shape), _spans(out.shape)
    cuts = sorted({1, *(high for _, high in (*inner, *outer))})
    if not x.numel() or any(b % a for a, b in zip(cuts, cuts[1:], strict=False)):
        return kept_whole(trace, args, out)
    pieces = {}  # by where it ends, size and axis of every piece that both shapes are made of
    for (low, high), axis in zip(inner, trace.axes(x), strict=True):
        ends, sizes = _pieces(cuts, low, high)
        if not ends:  # an axis of length 1
            relations.pin(axis, trace.reason())
            continue
        parts = relations.split(axis, sizes)
        pieces.update({c: (n, part) for c, n, part in zip(ends, sizes, parts, strict=True)})
        if len(sizes) > 1:
            trace.note_sizes([axis, *parts])
    axes = []
    for low, high in outer:
        ends, sizes = _pieces(cuts, low, high)
        parts = [pieces[c][1] for c in ends]
        axes.append(relations.merge(parts, sizes, trace.reason()) if ends else None)
        trace.note_sizes([*parts, axes[-1]] if len(ends) > 1 else axes[-1:], made=len(ends) > 1)
    return axes


def _spans(shape):
    """Where each axis begins and ends among the products of the lengths."""
    ends = [int(n) for n in np.cumprod([int(n) for n in shape], dtype=np.int64)]
    return list(zip([1, *ends], ends, strict=False))


def _pieces(cuts, low, high):
    """The cuts within an axis, and the lengths of the pieces between them."""
    ends = [c for c in cuts if low < c <= high]
    return ends, tuple(b // a for a, b in zip([low, *ends], ends, strict=False))


def permuted(trace, args, out):
    """Axes change their places."""
    axes = trace.axes(args[0])
    return [axes[d] for d in args[1]]


def transposed(trace, args, out):
    """Two axes change their places."""
    axes = list(trace.axes(args[0]))
    i, j = args[1:3] if len(args) > 1 else (0, -1)
    if axes:
        axes[i], axes[j] = axes[j], axes[i]
    return axes


def unsqueezed(trace, args, out):
    """An axis of length 1 comes in."""
    axes = list(trace.axes(args[0]))
    axes.insert(args[1] % out.ndim, None)
    return axes


def squeezed(trace, args, out):
    """Axes of length 1 go."""
    x, dims = args[0], args[1] if len(args) > 1 else range(args[0].ndim)
    dims = {d % x.ndim for d in ([dims] if isinstance(dims, int) else dims)}
    gone = [d for d in dims if x.shape[d] == 1]
    axes = trace.axes(x)
    for d in gone:
        trace.relations.pin(axes[d], trace.reason())
    return [axis for d, axis in enumerate(axes) if d not in gone]


def expanded(trace, args, out):
    """Axes of length 1 become longer, and new ones come before."""
    x = args[0]
    axes = [FREE] * (out.ndim - x.ndim)
    for n, m, axis in zip(x.shape, out.shape[out.ndim - x.ndim :], trace.axes(x), strict=True):
        if n != m:
            trace.relations.pin(axis, trace.reason())
        axes.append(axis if n == m else FREE)
    return axes


def selected(trace, args, out):
    """One index of an axis is taken: the axis has as many as the code says."""
    axes = list(trace.axes(args[0]))
    trace.relations.pin(axes.pop(args[1] if len(args) > 1 else 0), trace.reason())
    return axes


def unbound(trace, args, out):
    """All indices of an axis are taken apart."""
    d = args[1] if len(args) > 1 else 0
    return [selected(trace, (args[0], d), part) for part in out]


def sliced(trace, args, out):
    """Some indices of an axis are taken."""
    x, d, low, high, step = (*args, *(None, 0, None, None, 1)[len(args) :])
    axes = list(trace.axes(x))
    if isinstance(axes[d], np.ndarray):
        if len(range(*slice(low, high, step).indices(x.shape[d]))) < x.shape[d]:
            axes[d] = axes[d][slice(low, high, step)]
            trace.note_sizes([axes[d]])
    trace.bases[out] = trace.bases[x] if x in trace.bases else x
    return axes


def parted(trace, args, out):
    """An axis is cut into pieces; equal ones stay equal: what stays of one, stays of all."""
    x, d = args[0], args[2] if len(args) > 2 else 0
    axes, sizes = trace.axes(x), [part.shape[d] for part in out]
    axis = axes[d]
    if not isinstance(axis, np.ndarray):
        return [list(axes) for _ in out]
    if len(set(sizes)) == 1 and len(sizes) > 1:
        parts, within = trace.relations.split(axis, (len(sizes), sizes[0]))
        trace.relations.pin(parts, trace.reason())
        trace.note_sizes([within])
    pieces = np.split(axis, np.cumsum(sizes)[:-1])
    trace.note_sizes(pieces)
    return [[piece if i == d % x.ndim else a for i, a in enumerate(axes)] for piece in pieces]


def concatenated(trace, args, out):
    """Axes are put one after another."""
    d = (args[1] if len(args) > 1 else 0) % out.ndim
    xs = [x for x in args[0] if x.ndim == out.ndim]
    axes = [
        trace.relations.join([trace.axes(x)[i] for x in xs], MIXED) if i != d else None
        for i in range(out.ndim)
    ]
    pieces = [trace.axes(x)[d] for x in xs]
    if any(isinstance(piece, np.ndarray) for piece in pieces):
        axes[d] = np.concatenate(
            [trace.atoms(p, x.shape[d]) for p, x in zip(pieces, xs, strict=True)]
        )
    return axes


def padded(trace, args, out):
    """Indices come in before and after."""
    x, pads = args[0], args[1]
    axes = list(trace.axes(x))
    for k in range(len(pads) // 2):
        d, before, after = x.ndim - 1 - k, pads[2 * k], pads[2 * k + 1]
        if not isinstance(axes[d], np.ndarray) or not (before or after):
            continue
        if before < 0 or after < 0:
            trace.relations.pin(axes[d], trace.reason())
            axes[d] = None
        else:
            ends = [trace.atoms(None, n) for n in (before, after)]
            axes[d] = np.concatenate([ends[0], axes[d], ends[1]])
    return axes


def rolled(trace, args, out):
    """Indices go around."""
    axes, dims = list(trace.axes(args[0])), args[2] if len(args) > 2 else ()
    shifts = [args[1]] if isinstance(args[1], int) else args[1]
    if not dims:
        return kept_whole(trace, args, out)
    for shift, d in zip(shifts, [dims] if isinstance(dims, int) else dims, strict=True):
        if isinstance(axes[d], np.ndarray):
            axes[d] = np.roll(axes[d], shift)
    return axes


def flipped(trace, args, out):
    """Indices run backwards."""
    axes = list(trace.axes(args[0]))
    for d in args[1]:
        axes[d] = axes[d][::-1] if isinstance(axes[d], np.ndarray) else axes[d]
    return axes


def repeated(trace, args, out):
    """A tensor is laid beside itself."""
    x, times = args[0], args[1]
    axes = [None] * (out.ndim - x.ndim) + list(trace.axes(x))
    return [
        np.tile(a, n) if isinstance(a, np.ndarray) else (None if n > 1 else a)
        for a, n in zip(axes, times, strict=True)
    ]


def indexed(trace, args, out):
    """Entries are taken by tensors of indices: what these run over stays."""
    x, indices = args
    axes, held = trace.axes(x), [d for d, i in enumerate(indices) if i is not None]
    for d in held:
        trace.relations.pin(axes[d], trace.reason())
    for i in trace.tensors(indices):
        kept_whole(trace, (i,), out)
    if held != list(range(held[0], held[-1] + 1)) or any(
        indices[d].dtype == torch.bool for d in held
    ):
        return kept_whole(trace, (x,), out)
    rest = [a for d, a in enumerate(axes) if d not in held]
    return [*rest[: held[0]], *[None] * (out.ndim - len(rest)), *rest[held[0] :]]


def embedded(trace, args, out):
    """Rows of a table are taken by number."""
    rows, columns = trace.axes(args[0])
    trace.relations.pin(rows, trace.reason())
    kept_whole(trace, args[1:2], out)
    if trace.weight_of(args[0]) and isinstance(columns, np.ndarray):
        trace.written.append((trace.weight_of(args[0]), columns))
    return [None] * (out.ndim - 1) + [columns]


def shuffled(trace, args, out):
    """Channels are dealt out anew among groups."""
    axes = list(trace.axes(args[0]))
    sizes = (args[1], args[0].shape[1] // args[1])
    parts = trace.relations.split(axes[1], sizes)
    axes[1] = trace.relations.merge(parts[::-1], sizes[::-1], trace.reason())
    return axes


def unshuffled(trace, args, out):
    """Pixels of a finer picture lie in consecutive channels."""
    axes, square = list(trace.axes(args[0])), args[1] ** 2
    if isinstance(axes[-3], np.ndarray):
        axes[-3], inner = trace.relations.split(axes[-3], (out.shape[-3], square))
        trace.relations.pin(inner, trace.reason())
    axes[-2:] = [None, None]
    return axes


def copied(trace, args, out):
    """One tensor is written over another, or over a part of one."""
    target, source = args[:2]
    axes = pointwise(trace, (target, source), out)
    base = trace.bases[target] if target in trace.bases else target
    if base.ndim != target.ndim or (
        base is target
        and target.untyped_storage().nbytes() > target.numel() * target.element_size()
    ):
        return kept_whole(trace, args[:2], out)
    if base is not target:
        whole = trace.axes(base)
        for d, axis in enumerate(axes):
            if base.shape[d] == target.shape[d]:
                whole[d] = trace.relations.join([axis, whole[d]], MIXED)
            else:
                trace.relations.pin(axis, trace.reason())
        trace.table[base] = whole
    return axes


def strided(trace, args, out):
    """A tensor is laid out anew in memory."""
    alike = trace.before == [tuple(out.shape)]
    return same(trace, args, out) if alike else kept_whole(trace, args[:1], out)
