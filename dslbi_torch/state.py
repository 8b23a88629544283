"""What an optimizer keeps: the dtype of V, V through a checkpoint, whether its path rests."""

from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import Optimizer

from .sharding import is_sharded


def dual_dtype(p: Tensor) -> torch.dtype:
    """Return the dtype of V: that of the parameter, or float32 where the parameter's is narrower.

    A V in bf16 would stall below lam.
    """
    return torch.promote_types(p.dtype, torch.float32)


def rests(group: dict) -> bool:
    """Return whether the path of a parameter group waits for its release."""
    return group.get("rest", 0) > 0


def steps_of_rest(group: dict, steps: int) -> int:
    """Return how many of the coming steps the path of a parameter group rests; refuse all."""
    left = max(0, group.get("rest", 0) - 1)
    if left >= steps:
        raise ValueError(
            f"the path must be released before the last of {steps} steps, got {left} steps of rest"
        )
    return left


def at_rest(optimizer: Optimizer, group: dict) -> dict:
    """Return the options by which a group is stepped whose path waits for its release.

    Without a pull those of a group that is not split; with one those of a split group of the
    coupling ``nu / pull``, whose V is to stay zero.
    """
    if optimizer.path_release is None:
        raise RuntimeError(
            f"the path is to be released in {group['rest']} steps, and nothing will do it: attach "
            "a Release to the optimizer"
        )
    if group["pull"]:
        return {**group, "nu": group["nu"] / group["pull"]}
    return {**group, "penalty": None, "joint": False, "block": 1, "parts": 1}


def check_holds(state: dict, keys, what: str) -> None:
    """Refuse a state to load that lacks one of its keys."""
    for key in sorted(keys):
        if not (isinstance(state, dict) and key in state):
            raise ValueError(f"the state of {what} must have {key!r}, got one without")


@contextmanager
def duals_kept(optimizer):
    """Keep V and ``group_dim`` as they were saved, where the block calls ``load_state_dict``.

    torch would cast V to the parameter's dtype. Gathering a sharded checkpoint turns a tuple
    ``group_dim`` into a list, and loses an empty one. An option that the checkpoint lacks stays as
    it was.
    """
    saved = {}
    before = [{k: x for k, x in g.items() if k != "params"} for g in optimizer.param_groups]

    def parameters():
        return [p for group in optimizer.param_groups for p in group["params"]]

    def keep(_, incoming):
        if not all("penalty" in group for group in incoming["param_groups"]):
            raise ValueError(
                f"state_dict must be of a {type(optimizer).__name__}, got groups without penalty"
            )
        ids = [i for group in incoming["param_groups"] for i in group["params"]]
        saved.update({k: incoming["state"].get(i, {}).get("V") for k, i in enumerate(ids)})
        for k, p in enumerate(parameters()):
            if saved.get(k) is not None and is_sharded(saved[k]) != is_sharded(p):
                raise ValueError(
                    f"V of parameter {k} must be a {type(p.data).__name__} as the parameter is, "
                    f"got a {type(saved[k]).__name__}: load it with set_optimizer_state_dict of "
                    "torch.distributed.checkpoint.state_dict"
                )

    def restore(_):
        for group, own in zip(optimizer.param_groups, before, strict=True):
            for key, value in own.items():
                group.setdefault(key, value)
            if isinstance(group.get("group_dim"), list):
                group["group_dim"] = tuple(group["group_dim"])
        for k, p in enumerate(parameters()):
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


def states_alike(optimizer: Optimizer, W: Tensor) -> dict[str, Tensor]:
    """Return the optimizer's states of a parameter that have its shape: momenta, V."""
    states = optimizer.state.get(W, {}).items()
    return {k: x for k, x in states if isinstance(x, Tensor) and x.shape == W.shape}
