"""The dtype of V, V through a checkpoint, and what a step sees of a tensor."""

from contextlib import contextmanager

import torch
from torch import Tensor

from .prox import axes


def dual_dtype(p: Tensor) -> torch.dtype:
    """dtype of V: the parameter's, or float32 where that is narrower (a bf16 V stalls below
    lam)."""
    return torch.promote_types(p.dtype, torch.float32)


@contextmanager
def duals_kept(optimizer):
    """A block in which ``optimizer.load_state_dict`` leaves V its dtype: torch would cast it to
    the parameter's."""
    saved = {}

    def keep(_, incoming):
        ids = [i for group in incoming["param_groups"] for i in group["params"]]
        saved.update({k: incoming["state"].get(i, {}).get("V") for k, i in enumerate(ids)})

    def restore(_):
        params = [p for group in optimizer.param_groups for p in group["params"]]
        for k, p in enumerate(params):
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


def plain(x, group):
    """x without what a step need not know: the real parts of a complex tensor, as one axis more
    that every group sums over; the shard of a DTensor where no group reaches beyond it."""
    if x is None:
        return x
    if hasattr(x, "to_local"):
        summed = axes(x.ndim, group["group_dim"]) if group["penalty"] == "group" else ()
        if not any(place.is_shard() and place.dim % x.ndim in summed for place in x.placements):
            x = x.to_local()
    return torch.view_as_real(x) if x.is_complex() else x
