"""What the operations that combine channels do with axes: products, convolutions, norms.

Here outputs need inputs: where a weight between the two is not zero, and the input is no constant
that can be folded into a bias.
"""

import numpy as np
import torch

from .plain_rules import kept_whole
from .relations import MIXED

aten = torch.ops.aten


def multiplied(trace, args, out):
    """A product of two matrices, or of two batches of them."""
    a, b = args[:2] if len(args) == 2 else args[1:3]
    axes_a, axes_b = trace.axes(a), trace.axes(b)
    join = trace.relations.join
    batch = [join([i, j], MIXED) for i, j in zip(axes_a[:-2], axes_b[:-2], strict=True)]
    rows, columns = axes_a[-2], axes_b[-1]
    inner = join([axes_a[-1], axes_b[-2]], MIXED)
    weight, given = (trace.weight_of(x) if x.ndim == 2 else None for x in (b, a))
    if weight is not None:
        trace.layer_reads(weight, a, columns, inner, b.T)
    elif given is not None:
        trace.layer_reads(given, b.T, rows, inner, a)
    elif isinstance(inner, np.ndarray):
        needed = used(a, -2) & used(b, -1)
        trace.heads_need(batch[0] if batch else None, inner, needed)
    axes = [*batch, rows, columns]
    if len(args) > 2:  # what is added
        trace.expect(args[0], axes)
    return axes


def used(x, axis):
    """Return whether x is anything but 0 along an axis; shape (examples or heads, indices)."""
    x = (x != 0) if x.ndim > 2 else (x != 0)[None]
    return x.any(axis).numpy(force=True)


def of_vector(trace, args, out):
    """A matrix times a vector."""
    kept_whole(trace, args[:2], out)
    return [trace.axes(args[0])[0]]


def attended(trace, args, out):
    """Attention of heads: dimensions of queries meet those of keys, and values pass."""
    q, k, v = args[:3]
    (batch, *_), join = trace.axes(q), trace.relations.join
    heads, shared = trace.axes(q)[1], join([trace.axes(x)[1] for x in (k, v)], MIXED)
    if k.shape[1] != q.shape[1]:  # every key serves several queries
        sizes = (k.shape[1], q.shape[1] // k.shape[1])
        of_key, within = trace.relations.split(heads, sizes)
        trace.relations.pin(within, trace.reason())
        join([of_key, shared], MIXED)
        trace.note_sizes([of_key])
        trace.heads += [of_key] if isinstance(of_key, np.ndarray) else []
        k = k.repeat_interleave(sizes[1], 1)
    else:
        heads = join([heads, shared], MIXED)
    inner = join([trace.axes(x)[-1] for x in args[:2]], MIXED)
    if trace.kwargs.get("scale") is None:
        trace.relations.pin(inner, f"{trace.place()} scales its products by the number of them")
    elif isinstance(inner, np.ndarray):
        needed = ((q != 0).any(-2) & (k != 0).any(-2)).any(0).numpy(force=True)
        trace.heads_need(heads, inner, needed)
    for x in args[1:3]:
        trace.relations.pin(trace.axes(x)[-2], trace.reason())
    trace.heads += [heads] if isinstance(heads, np.ndarray) else []
    axes = [batch, heads, trace.axes(q)[-2], trace.axes(v)[-1]]
    return [axes, axes[:3], *[None] * (len(out) - 2)]


def convolved(trace, args, out):
    """A convolution: one that is grouped sees a grid of groups and of channels within each."""
    x, W, bias = args[:3]
    transposed, groups = args[6], args[8]
    outs, ins, *kernel = trace.axes(W)
    relations = trace.relations
    for axis in (*kernel, *trace.axes(x)[2:]):
        relations.pin(axis, trace.reason())
    channels, weight = trace.axes(x)[1], trace.weight_of(W)
    if transposed:
        outs, ins = ins, outs
    if groups == 1:
        inner = relations.join([channels, ins], MIXED)
        if weight is not None:
            trace.layer_reads(weight, x, outs, inner, W.transpose(0, 1) if transposed else W)
    elif transposed and W.shape[1] > 1:
        kept_whole(trace, args[:3], out)
        return [trace.axes(x)[0], None, *[None] * (out.ndim - 2)]
    else:
        outs = _grouped(trace, x, W, groups, channels, trace.axes(W)[0], weight)
    axes = [trace.axes(x)[0], outs, *[None] * (out.ndim - 2)]
    if bias is not None:
        relations.join([outs, trace.axes(bias)[0]], MIXED)
    return axes


def _grouped(trace, x, W, groups, channels, outs, weight):
    """Relate inputs, groups, and outputs of a grouped convolution; return its outputs."""
    relations, inner = trace.relations, trace.axes(W)[1]
    if not isinstance(channels, np.ndarray) or not isinstance(outs, np.ndarray):
        kept_whole(trace, (x, W), None)
        return None
    within = (len(outs) // groups, len(channels) // groups)
    if within == (1, 1):  # depthwise
        if isinstance(inner, np.ndarray):
            relations.pin(inner, trace.reason())
        relations.equate(channels, outs)
        trace.layer_passes(weight, x, outs, outs)
        return outs
    gates = relations.split(channels, (groups, within[1])) if within[1] > 1 else [channels, None]
    relations.join([gates[1] if isinstance(gates[1], np.ndarray) else None, inner], MIXED)
    kinds = relations.split(outs, (groups, within[0])) if within[0] > 1 else [outs, None]
    relations.join([gates[0], kinds[0]], MIXED)
    full = torch.block_diag(*(W != 0).flatten(2).any(2).chunk(groups)).bool()
    trace.layer_reads(weight, x, outs, channels, full)
    trace.layer_passes(weight, None, outs, gates[0])
    return outs


def batch_normed(trace, args, out):
    """A scale and a shift of every channel, and its statistics."""
    x, first = args[0], out[0] if isinstance(out, (tuple, list)) else out
    axes = list(trace.axes(x))
    own = [trace.axes(p)[0] for p in args[1:5] if isinstance(p, torch.Tensor)]
    axes[1] = trace.relations.join([axes[1], *own], MIXED)
    return [axes, *[None] * (len(out) - 1)] if first is not out else axes


def layer_normed(trace, args, out):
    """Scales and shifts along the last axis, of which the statistics need all that varies."""
    x, shape, weight, bias = args[:4]
    axes = list(trace.axes(x))
    if len(shape) > 1 or not isinstance(axes[-1], np.ndarray):
        kept_whole(trace, args[:1] + args[2:4], out)
        return [axes, None, None]
    own = [trace.axes(p)[0] for p in (weight, bias) if p is not None]
    axes[-1] = trace.relations.join([axes[-1], *own], MIXED)
    trace.norm_reads(x, axes[-1], any_constant=True)
    return [axes, [*axes[:-1], None], [*axes[:-1], None]]


def root_mean_squared(trace, args, out):
    """Scales along the last axis, of which the mean square needs all that is not zero."""
    x, shape, weight = args[:3]
    axes = list(trace.axes(x))
    if len(shape) > 1 or not isinstance(axes[-1], np.ndarray):
        kept_whole(trace, args[:1] + args[2:3], out)
        return [axes, None]
    own = [trace.axes(weight)[0]] if weight is not None else []
    axes[-1] = trace.relations.join([axes[-1], *own], MIXED)
    trace.norm_reads(x, axes[-1], any_constant=False)
    return [axes, None]


CONTRACTIONS = {
    aten.mm.default: multiplied,
    aten.addmm.default: multiplied,
    aten.bmm.default: multiplied,
    aten.baddbmm.default: multiplied,
    aten.mv.default: of_vector,
    aten.convolution.default: convolved,
    aten._scaled_dot_product_flash_attention_for_cpu.default: attended,
    aten._scaled_dot_product_efficient_attention.default: attended,
    aten._scaled_dot_product_flash_attention.default: attended,
    aten.native_batch_norm.default: batch_normed,
    aten._native_batch_norm_legit_no_training.default: batch_normed,
    aten.cudnn_batch_norm.default: batch_normed,
    aten.native_layer_norm.default: layer_normed,
    aten._fused_rms_norm.default: root_mean_squared,
}
