"""The splitting of DessiLBI around any torch optimizer: AdamW, Muon, a third-party one."""

import torch
from torch.optim import LBFGS, Optimizer

from .dessilbi import GAMMA_OPTIONS, DessiLBI
from .options import check_splitting, check_tensors
from .routes.gap import gap_of
from .tensors import add_scaled_, dual_dtype, duals_kept, plain


class Split(Optimizer):
    """Let a base optimizer take its step on the loss, and add the pull to Gamma and the path.

    With ``r = (W - Gamma) / nu`` from the old W and V, and ``alpha = lr / kappa``:

        base.step()                  W follows the base's own direction
        W = W - kappa * alpha * r
        V = V + alpha * r            Gamma = kappa * prox_lam(V)

    Around SGD this is :class:`dslbi_torch.DessiLBI` with ``coupling="outside"``, option for option.
    Around Adam it is *not* the published method: there W descends the augmented loss in one metric,
    and the balance between loss and pull is that of two gradients. Here the loss enters through
    Adam's normalised direction, whose entries are of the size of lr whatever the loss's scale,
    while the pull stays a plain gradient: r is not normalised, and does not enter Adam's moments.
    So a lam or nu tuned with SGD does not carry over, and the identities that need a gradient (the
    Lyapunov function, ``W/kappa + V + sum of alpha*u``) do not hold.

    Parameters
    ----------
    base : Optimizer
        Built from :func:`dslbi_torch.split_groups`, or from groups with a key ``penalty``. Its lr
        is ``kappa * alpha``. LBFGS, which evaluates the loss several times a step, is refused.
    kappa, nu, lam : float > 0
        For the groups of base that do not set them.

    Notes
    -----
    Groups and state are those of base: schedulers, checkpoints and recorders take either. V joins
    the state after the base's first step. A parameter without a gradient is left alone, and so is
    everything in a step that a GradScaler skips. During a step, W - Gamma of all split tensors is
    held at once. What :class:`dslbi_torch.DessiLBI` says of several machines holds here, as far as
    base can be sharded.
    """

    def __init__(self, base: Optimizer, *, kappa: float = 1, nu: float = 100, lam: float = 1):
        if isinstance(base, (Split, DessiLBI)):
            raise TypeError(f"base must not split already, got {type(base).__name__}")
        if isinstance(base, LBFGS):
            raise TypeError("base must take one gradient a step, got LBFGS")
        if not isinstance(base, Optimizer):
            raise TypeError(f"base must be a torch optimizer, got {type(base).__name__}")
        own = dict(kappa=kappa, nu=nu, lam=lam, penalty=None, group_dim=0, weight=None)
        taken = sorted(set(own) & set(base.defaults))
        if taken:
            raise ValueError(f"{type(base).__name__} has options {taken} of its own")
        check_splitting(own)
        for group in base.param_groups:
            _complete(group, own)
        self.__setstate__({"base": base, "own": own})

    # The base's groups and state are the only ones.
    param_groups = property(lambda self: self.base.param_groups)
    state = property(lambda self: self.base.state)
    defaults = property(lambda self: self.base.defaults)

    def __getstate__(self):
        return {"base": self.base, "own": self.own}

    @property
    def _step_supports_amp_scaling(self):
        return getattr(self.base, "_step_supports_amp_scaling", False)

    def add_param_group(self, param_group: dict) -> None:
        """Add a group to the base; its splitting is checked before anything changes."""
        check_splitting({**self.own, **param_group})
        n_groups = len(self.base.param_groups)
        self.base.add_param_group(param_group)
        try:
            _complete(self.base.param_groups[n_groups], self.own)
        except ValueError:
            del self.base.param_groups[n_groups]
            raise

    def alpha(self, group: dict) -> float:
        """The step of V: the base's lr is kappa * alpha."""
        return float(group["lr"]) / group["kappa"]

    @torch.no_grad()
    def step(self, closure=None):
        """One step of the base and of the path; returns the loss of the closure, if one is
        given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found_inf = getattr(self, "found_inf", None)
        if found_inf is not None and found_inf.item():
            return loss
        pulls = [pull for group in self.param_groups for pull in self._pulls(group)]
        if hasattr(self, "grad_scale"):  # a GradScaler's, for a fused base
            self.base.grad_scale, self.base.found_inf = self.grad_scale, self.found_inf
        self.base.step()
        if hasattr(self, "grad_scale"):
            del self.base.grad_scale, self.base.found_inf
        for p, V, gap, group in pulls:
            # W by kappa * alpha = lr, V by alpha
            add_scaled_(plain(p, group), gap, group["lr"] * (-1 / group["nu"]))
            add_scaled_(plain(V, group), gap, group["lr"] * (1 / (group["kappa"] * group["nu"])))
            self.state[p]["V"] = V
        return loss

    def _pulls(self, group):
        """Parameter, V and ``W - Gamma`` of a group's tensors that have a gradient."""
        if group["penalty"] is None:
            return
        options = {key: group[key] for key in GAMMA_OPTIONS}
        for p in group["params"]:
            if p.grad is None:
                continue
            V = self.state[p].get("V") if p in self.state else None
            if V is None:
                V = torch.zeros_like(p, dtype=dual_dtype(p))
            W = plain(p, group)
            gap = gap_of(W, plain(V, group), **options)
            yield p, V, gap.clone() if gap is W else gap, group

    def load_state_dict(self, state_dict: dict) -> None:
        """As the base loads it, except that V keeps its float32 beside a bf16 or fp16 parameter."""
        if not all("penalty" in group for group in state_dict["param_groups"]):
            raise ValueError("state_dict must be of a Split, got groups without penalty")
        with duals_kept(self.base):
            self.base.load_state_dict(state_dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As the base does it."""
        self.base.zero_grad(set_to_none)


def _complete(group, own):
    """Give a group of the base what it does not set, and check it."""
    full = {**own, **group}
    check_splitting(full)
    check_tensors({**full, "fused": False})
    group.update({key: full[key] for key in own})
