"""Arithmetic with NaN as "any finite number": what of a net does not depend on its input.

A product with 0 is 0, a layer passes NaN on along weights that are not zero only, a norm with a
scale that is not zero only, and an average of equal values is their value; everything else does as
floating-point arithmetic does. So a number that arrives is the same for every input.
"""

import numpy as np
import torch

aten = torch.ops.aten


def _product(func, args, kwargs):
    """0 times NaN is 0: a channel that is zero stays so, whatever its gate is."""
    result = func(*args, **kwargs)
    zero = (args[0] == 0) | (args[1] == 0)
    return result.masked_fill_(zero, 0) if isinstance(zero, torch.Tensor) else result


def _matrix_product(func, args, kwargs):
    a, b = args[-2:] if len(args) == 2 else args[1:3]
    unknown, other = a.isnan(), b.isnan()
    if not (unknown.any() or other.any()):
        return func(*args, **kwargs)
    pair = a.masked_fill(unknown, 0), b.masked_fill(other, 0)
    result = func(*args[:-2], *pair, **kwargs)
    reached = unknown.float() @ ((b != 0) | other).float()
    if other.any():
        reached += ((a != 0) | unknown).float() @ other.float()
    return result.masked_fill_(reached > 0, torch.nan)


def _convolution(func, args, kwargs):
    x, W, *rest = args
    unknown = x.isnan()
    if not unknown.any():
        return func(*args, **kwargs)
    result = func(x.masked_fill(unknown, 0), W, *rest, **kwargs)
    transposed, groups = args[6], args[8]
    seen = unknown.any(0).flatten(1).any(1)
    read = (W != 0).flatten(2).any(2)
    parts = zip(read.chunk(groups), seen.chunk(groups), strict=True)
    reached = [((part.T if transposed else part) & some).any(1) for part, some in parts]
    return _fill(result, torch.cat(reached), torch.nan, 1)


def _fill(x, where, value, axis):
    """x with a value (or the values of a vector) at some indices of an axis."""
    shape = [1] * x.ndim
    shape[axis] = -1
    if isinstance(value, torch.Tensor):
        return torch.where(where.view(shape), value.view(shape).to(x.dtype), x)
    return x.masked_fill_(where.view(shape), value)


def _norm(axis, at):
    """A norm whose scale is 0 gives its shift."""

    def rule(func, args, kwargs):
        result, (weight, bias) = func(*args, **kwargs), args[at : at + 2]
        if weight is None or not (weight == 0).any():
            return result
        first = result[0] if isinstance(result, (tuple, list)) else result
        shift = torch.zeros_like(weight) if bias is None else bias
        first = _fill(first, weight == 0, shift, axis)
        return (first, *result[1:]) if isinstance(result, (tuple, list)) else first

    return rule


def _attention(func, args, kwargs):
    """Rows of weights that sum to one: what all values agree on is what comes out."""
    v = args[2]
    if not any(x.isnan().any() for x in args[:3]):
        return func(*args, **kwargs)
    result = func(*(x.nan_to_num(0) for x in args[:3]), *args[3:], **kwargs)
    agreed = torch.where((v == v[..., :1, :]).all(-2, keepdim=True), v[..., :1, :], torch.nan)
    agreed = agreed.repeat_interleave(args[0].shape[1] // v.shape[1], 1)  # several queries a value
    return (agreed.expand_as(result[0]).clone(), *result[1:])


def _embedding(func, args, kwargs):
    """A row that is not known gives what all rows agree on."""
    result, table = func(*args, **kwargs), args[0]
    return _fill(result, (table != table[:1]).any(0), torch.nan, -1)


NAN_RULES = {
    aten.mul.Tensor: _product,
    aten.mul_.Tensor: _product,
    aten.mm.default: _matrix_product,
    aten.addmm.default: _matrix_product,
    aten.bmm.default: _matrix_product,
    aten.baddbmm.default: _matrix_product,
    aten.convolution.default: _convolution,
    aten.native_batch_norm.default: _norm(1, 1),
    aten._native_batch_norm_legit_no_training.default: _norm(1, 1),
    aten.cudnn_batch_norm.default: _norm(1, 1),
    aten.native_layer_norm.default: _norm(-1, 2),
    aten._scaled_dot_product_flash_attention_for_cpu.default: _attention,
    aten._scaled_dot_product_efficient_attention.default: _attention,
    aten._scaled_dot_product_flash_attention.default: _attention,
    aten.embedding.default: _embedding,
}


def constants(x: torch.Tensor, axis: int, slack: float) -> np.ndarray:
    """Return the value that every index of an axis has at all places; NaN where it has none.

    Values may differ by the slack, relative to their size.
    """
    rest = [d for d in range(x.ndim) if d != axis % x.ndim]
    low, high = (x.amin(rest), x.amax(rest)) if rest else (x, x)
    same = high - low <= slack * (1 + low.abs())  # false where a NaN is
    return torch.where(same, low, torch.nan).double().numpy(force=True)
