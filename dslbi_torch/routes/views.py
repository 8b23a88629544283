"""What a step sees of a parameter group: columns of plain tensors.

A complex tensor is seen as its real parts, as one axis more that every unit extends along. A
DTensor is seen as the shard of this process where no unit reaches beyond it.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from ..penalties import PENALTIES, factor
from ..sharding import aligned, is_sharded
from ..slices import axes, laid_over, units_of


class Tensors(NamedTuple):
    """The tensors of one parameter group that have a gradient, column by column.

    Attributes
    ----------
    params : list of Tensor
        The parameters themselves, of which the other columns are views and states.
    Ws, grads : list of Tensor
    Vs, ms : list of Tensor, or None
        None without a penalty, or without momentum.
    firsts : list of bool
        Whether this is the tensor's first step, in which m becomes the gradient.
    scales : list of Tensor, or None
        The factors of prox, where units extend over several tensors.
    Gammas : list of Tensor, or None
        Gamma, where units extend over several tensors and prox is no factor.
    silent : bool
        Whether the factors are known to be all zero, so that ``W - Gamma`` is W.
    """

    params: list
    Ws: list
    Vs: list | None
    ms: list | None
    grads: list
    firsts: list
    scales: list | None = None
    Gammas: list | None = None
    silent: bool = False

    def rows(self, places: list[int]) -> "Tensors":
        """Return the rows at these places."""
        columns = (None if x is None else [x[k] for k in places] for x in self[:-1])
        return Tensors(*columns, self.silent)


def collect(
    group: dict, dual, momentum_buffer=None, *, others
) -> tuple[Tensors | None, Tensors | None]:
    """Return what a step moves: tensors with all of their units here, and DTensors without.

    Either part is None where it is empty. A joint family is one or the other as a whole.

    Parameters
    ----------
    group : dict
    dual : callable (p) -> Tensor
        V of a parameter that has a gradient.
    momentum_buffer : callable (p) -> (Tensor, bool), optional
        m, and whether this is the first step; without it, there is no momentum.
    others : callable (p) -> Tensor or None
        V of a parameter of a joint family that has no gradient: it does not move, but counts.
    """
    split = group["penalty"] is not None
    near, far = [], []
    local = not group.get("joint") or _joint_stays(group)
    for p in group["params"]:
        grad = p.grad
        if grad is None:
            continue
        if grad.is_sparse:
            raise RuntimeError("DessiLBI does not support sparse gradients")
        W, V = p, dual(p) if split else None
        m, first = momentum_buffer(p) if momentum_buffer else (None, False)
        if type(p) not in (Tensor, Parameter) or p.is_complex():
            W, V, m, grad = (view(aligned(x, p), group, local) for x in (p, V, m, grad))
            if is_sharded(W):
                far.append((p, W, V, m, grad, first))
                continue
        near.append((p, W, V, m, grad, first))
    parts = [_columns(rows, split, momentum_buffer) for rows in (near, far)]
    if split and group.get("joint"):
        parts = [part and _with_joint_prox(part, others, group, local) for part in parts]
    return tuple(parts)


def _columns(rows, split, momentum):
    if not rows:
        return None
    params, Ws, Vs, ms, grads, firsts = map(list, zip(*rows, strict=True))
    return Tensors(params, Ws, Vs if split else None, ms if momentum else None, grads, firsts)


def _with_joint_prox(tensors, others, group, local):
    """Return the tensors with what prox does to each, from the V of the whole family."""
    row, units = PENALTIES[group["penalty"]], units_of(group)
    moved = dict(zip(map(id, tensors.params), tensors.Vs, strict=True))
    family = {}
    for p in group["params"]:
        V = moved.get(id(p)) if id(p) in moved else view(others(p), group, local)
        if V is not None:
            # The graph of a differentiable step keeps V, which will be written to.
            family[id(p)] = V.clone() if torch.is_grad_enabled() else V
    Vs = list(family.values())
    if row.scaled:
        (score,) = row.score(Vs, units)
        scale = factor(score, group["lam"])
        silent = may_look(score) and score.max().item() <= group["lam"]  # not for a NaN
        scales = [laid_over(scale, V, units) for V in tensors.Vs]
        return tensors._replace(scales=scales, silent=silent)
    shrunk = dict(zip(family, row.prox(Vs, group["lam"], units), strict=True))
    return tensors._replace(Gammas=[group["kappa"] * shrunk[id(p)] for p in tensors.params])


def may_look(x: Tensor) -> bool:
    """Return whether reading a number costs no synchronisation and breaks no graph."""
    return x.is_cpu and type(x) is Tensor and not torch.compiler.is_compiling()


def view(x: Tensor | None, group: dict, local: bool = True) -> Tensor | None:
    """Return x as a plain real tensor, where a step need not know that it is more.

    Complex numbers become pairs; a shard that holds all of its units becomes a local tensor.
    """
    if x is None:
        return x
    if is_sharded(x) and local and _stays(x, group):
        x = x.to_local()
    return torch.view_as_real(x) if x.is_complex() else x


def _stays(x, group):
    """Return whether every process holds its units of x whole, which a pending sum is not."""
    units, row = units_of(group), PENALTIES.get(group["penalty"])
    summed = axes(x.ndim, units.group_dim) if row and row.sliced else ()
    for place in x.placements:
        if place.is_replicate():
            continue
        if not hasattr(place, "dim") or place.dim % x.ndim in summed:
            return False
        if row and row.sliced and not units.single:
            if units.parts > 1 or x.to_local().shape[place.dim] % units.block:
                return False
    return True


def _joint_stays(group):
    """Return whether the shards of a joint family hold the same units, whole, in every process."""
    if not any(map(is_sharded, group["params"])):
        return True
    if not all(is_sharded(p) and _stays(p, group) for p in group["params"]):
        return False
    places = {(p.device_mesh, p.placements) for p in group["params"]}
    return len(places) == 1
