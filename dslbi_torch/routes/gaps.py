"""``W - Gamma`` without an array for Gamma, and tensors cut into pieces that a cache holds."""

import torch
from torch import Tensor

from ..penalties import PENALTIES, Penalty, factor
from ..slices import Units, laid_over
from .views import Tensors, may_look

# Elements of a piece: few enough that what one pass leaves is in the processor's cache for the
# next, and so many that the calls of a piece cost little beside its arithmetic.
PIECE = 3 << 17


def gap_of(W, V, scale, kappa, lam, row: Penalty, units: Units, out=None):
    """Return ``W - Gamma``, in ``out`` if given; None where Gamma is zero, and it is W.

    ``scale`` is the factor of prox where it is known already.
    """
    if scale is None:
        if not row.scaled:
            shrunk = row.prox([V], lam, units)[0]
            return torch.sub(W, shrunk, alpha=kappa, out=shrunk if out is None else out)
        (score,) = row.score([V], units)
        if may_look(score) and (not score.numel() or score.max().item() <= lam):  # not for a NaN
            return None
        scale = laid_over(factor(score, lam), V, units)
    return torch.addcmul(W, V, scale, value=-kappa, out=out)


def axis(W, row: Penalty, units: Units, scale=None) -> int | None:
    """Return the axis along which W can be cut without cutting a unit; None: there is none."""
    if W.numel() <= PIECE or not W.is_cpu or type(W.data) is not Tensor:
        return None
    if scale is not None or not row.sliced:
        return 0
    if units.group_dim == () or not units.single:
        return None
    dim = units.group_dim if isinstance(units.group_dim, int) else units.group_dim[0]
    return dim % W.ndim


def cut(tensors: tuple, dim: int | None):
    """Return pieces of the tensors along an axis; what is None or of length 1 there stays whole."""
    if dim is None:
        return (tensors,)
    W = tensors[0]
    size = max(1, PIECE * W.shape[dim] // W.numel())
    count = -(-W.shape[dim] // size)
    return zip(
        *([x] * count if x is None or x.shape[dim] == 1 else x.split(size, dim) for x in tensors),
        strict=True,
    )


def pull_(tensors: Tensors, outs, down, *, alpha, kappa, nu, lam, penalty, **units):
    """Move every V by ``alpha * r``.

    With ``outs``, tensors like V, ``W - Gamma`` of the old W and V is left there; without them W is
    moved at once, by ``down`` times ``W - Gamma``.
    """
    row, units, up = PENALTIES[penalty], Units(**units), alpha * (1 / nu)
    none = [None] * len(tensors.Ws)
    columns = tensors.Ws, tensors.Vs, outs or none, tensors.scales or none, tensors.Gammas or none
    for W, V, out, scale, Gamma in zip(*columns, strict=True):
        if "pieces" not in row.routes:
            if Gamma is None:
                Gamma = kappa * row.prox([V], lam, units)[0]
            _pull_piece(W, V, torch.sub(W, Gamma, out=out), out, up, down)
            continue
        for w, v, o, s in cut((W, V, out, scale), axis(W, row, units, scale)):
            wide = w if w.dtype == v.dtype else w.to(v.dtype)
            gap = None
            if not tensors.silent:
                gap = gap_of(wide, v, s, kappa, lam, row, units, out=o)
            if gap is None:
                gap = wide if o is None else o.copy_(wide)
            _pull_piece(w, v, gap, o, up, down)


def _pull_piece(W, V, gap, out, up, down):
    add_scaled_(V, gap, up)  # (dslbi-v)
    if out is None:
        add_scaled_(W, gap, down)


def add_scaled_(x, y, c):
    """Add ``c * y`` to x in place; c is a number, or a tensor of one element."""
    if isinstance(c, Tensor):
        # Under autograd the product keeps y for the derivative in c, and y is written to later.
        x.add_((y.clone() if torch.is_grad_enabled() else y) * c.to(y.device))
    else:
        x.add_(y, alpha=c)
