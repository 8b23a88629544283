"""Which route a step takes: the kernel, lists of tensors, pieces on a CPU, or one by one."""

from ..penalties import PENALTIES
from ..torch_private import by_device_and_dtype, foreach_neg, foreach_pays
from . import lists, pieces
from .kept import Kept
from .views import Tensors

_ALL = ("kernel", "lists", "pieces")  # what is not split can take every route


def step_by_route(
    tensors: Tensors,
    group: dict,
    options: dict,
    *,
    one_by_one,
    far: bool,
    scaler: dict,
    kept: Kept,
    key,
) -> None:
    """Step the tensors of a parameter group, in place, by the route that fits.

    Parameters
    ----------
    tensors : Tensors
    group : dict
        The parameter group, for its flags ``foreach, fused, maximize, differentiable``.
    options : dict
        What the step depends on: alpha, kappa, nu, lam, the penalty and its units, momentum, ...
    one_by_one : callable (tensors, options) -> None
        The step that takes everything.
    far : bool
        Whether units reach across processes: no list may mix such DTensors with tensors.
    scaler : dict
        ``grad_scale`` and ``found_inf`` of a GradScaler, or None.
    kept : Kept
        What the kernel keeps between steps; ``key`` is the name of this parameter group in it.
    """
    row = PENALTIES.get(options["penalty"])
    routes = () if far else row.routes if row else _ALL
    outer = dict(maximize=group["maximize"], **scaler)
    parts = [(tensors, options)]
    if options["dampening"] and any(tensors.firsts):
        # m = g in a first step, which is the step from m = 0 without dampening.
        places = [
            [k for k, first in enumerate(tensors.firsts) if first == is_first]
            for is_first in (1, 0)
        ]
        undamped = {**options, "dampening": 0.0}
        parts = [
            (tensors.rows(p), o) for p, o in zip(places, (undamped, options), strict=True) if p
        ]
    elif group["fused"] and "kernel" in routes and _kernel_knows(tensors, options):
        rest = kept.step_(key, tensors, options, **outer)
        parts = [(part, options) for part in rest]
    for part, choice in parts:
        grads = unscaled(part.grads, **outer)
        if grads is None:
            continue
        if grads is not part.grads:
            part = part._replace(grads=grads)
        if "lists" in routes and _in_lists(group, part.Ws):
            for rows in by_device_and_dtype(part.Ws).values():
                lists.step_(part.rows(rows), **choice)
            continue
        if "pieces" in routes and pieces.can_take(choice):
            part = pieces.step_(part, **choice)
        if part is not None:
            one_by_one(part, choice)


def _kernel_knows(tensors, options):
    """Return whether every slice is a unit by itself, as the kernel counts on."""
    return tensors.scales is None and options["block"] == options["parts"] == 1


def _in_lists(group, Ws):
    """Return whether a group takes the route of lists: as asked, else as torch.optim decides."""
    if group["fused"]:
        return True  # what the kernel could not take
    if group["foreach"] is not None or group["differentiable"] or Ws[0].is_cpu:
        return bool(group["foreach"])
    return foreach_pays(Ws)


def unscaled(grads, *, maximize, grad_scale, found_inf):
    """Return the gradients for a step that knows nothing of maximize and of gradient scaling.

    None where the scaler found infinities, and no step is to be taken.
    """
    if found_inf is not None and found_inf.item():
        return None
    if grad_scale is not None:
        grads = [g / grad_scale.to(g.device) for g in grads]
    return foreach_neg(grads) if maximize else grads
