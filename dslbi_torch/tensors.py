"""The dtype of V, V through a checkpoint, states of a weight's shape, and what a step sees of a
tensor."""

from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from .penalties import axes


def dual_dtype(p: Tensor) -> torch.dtype:
    """dtype of V: the parameter's, or float32 where that is narrower (a bf16 V stalls below
    lam)."""
    return torch.promote_types(p.dtype, torch.float32)


@contextmanager
def duals_kept(optimizer):
    """A block in which ``optimizer.load_state_dict`` leaves V its dtype, where torch would cast it
    to the parameter's, and ``group_dim`` its form: gathering a sharded checkpoint turns a tuple
    into a list, and loses an empty one."""
    saved = {}
    dims = [group.get("group_dim") for group in optimizer.param_groups]

    def own():
        return [p for group in optimizer.param_groups for p in group["params"]]

    def keep(_, incoming):
        ids = [i for group in incoming["param_groups"] for i in group["params"]]
        saved.update({k: incoming["state"].get(i, {}).get("V") for k, i in enumerate(ids)})
        for k, p in enumerate(own()):
            if saved.get(k) is not None and is_sharded(saved[k]) != is_sharded(p):
                raise ValueError(
                    f"V of parameter {k} must be a {type(p.data).__name__} as the parameter is, "
                    f"got a {type(saved[k]).__name__}: load it with set_optimizer_state_dict of "
                    "torch.distributed.checkpoint.state_dict"
                )

    def restore(_):
        for group, dim in zip(optimizer.param_groups, dims, strict=True):
            dim = group.setdefault("group_dim", dim)
            group["group_dim"] = tuple(dim) if isinstance(dim, list) else dim
        for k, p in enumerate(own()):
            if saved.get(k) is not None:
                optimizer.state[p]["V"] = saved[k].to(p.device, dual_dtype(p), copy=True)

    hooks = (
        optimizer.register_load_state_dict_pre_hook(keep),
        optimizer.register_load_state_dict_post_hook(restore, prepend=True),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def add_scaled_(x, y, c):
    """``x += c * y`` in place; c is a number, or a tensor of one element."""
    if isinstance(c, Tensor):
        # Under autograd the product keeps y for the derivative in c, and y is written to later.
        x.add_((y.clone() if torch.is_grad_enabled() else y) * c.to(y.device))
    else:
        x.add_(y, alpha=c)


def states_alike(optimizer: Optimizer, W: Tensor) -> dict[str, Tensor]:
    """The optimizer's states of a parameter that have its shape: momenta, V."""
    states = optimizer.state.get(W, {}).items()
    return {k: x for k, x in states if isinstance(x, Tensor) and x.shape == W.shape}


def is_sharded(x: Tensor) -> bool:
    """Whether x is a DTensor (asked so that torch.distributed is not imported for it)."""
    return type(x) not in (Tensor, Parameter) and hasattr(x, "to_local")


def shard(x: Tensor) -> Tensor:
    """What this process holds of a DTensor; any other tensor as it is."""
    return x.to_local() if is_sharded(x) else x


def whole(x: Tensor) -> Tensor:
    """A DTensor gathered, which every process of its mesh must ask for; any other tensor as it
    is."""
    return x.full_tensor() if is_sharded(x) else x


def aligned(x, p):
    """x laid over the processes as p is: a replicated parameter may have a gradient that is still
    to be summed."""
    if x is None or not is_sharded(p) or x.placements == p.placements:
        return x
    return x.redistribute(placements=p.placements)


def plain(x, group):
    """x without what a step need not know: the real parts of a complex tensor, as one axis more
    that every group sums over; the shard of a DTensor where no group reaches beyond it."""
    if x is None:
        return x
    if is_sharded(x):
        summed = axes(x.ndim, group["group_dim"]) if group["penalty"] == "group" else ()
        if all(_stays(place, x.ndim, summed) for place in x.placements):
            x = x.to_local()
    return torch.view_as_real(x) if x.is_complex() else x


def _stays(place, ndim, summed):
    """Whether a placement leaves every group whole on its process; a pending sum does not."""
    if place.is_replicate():
        return True
    return hasattr(place, "dim") and place.dim % ndim not in summed
