"""The splitting of DessiLBI around any torch optimizer: AdamW, Muon, a third-party one."""

import torch
from torch import optim
from torch.optim import LBFGS, Optimizer
from torch.utils.weak import WeakTensorKeyDictionary

from .dessilbi import GAMMA_OPTIONS, DessiLBI
from .options import check_splitting, check_tensors, plain
from .penalties import one_of
from .routes.gaps import add_scaled_, pull_
from .routes.views import collect
from .slices import Units
from .state import at_rest, dual_dtype, duals_kept, rests
from .wrapped import of_trainer, unwrapped_optimizer


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
    everything in a step that a GradScaler skips.

    W is pulled after the base's step. Until then ``W - Gamma`` of all split tensors is held in
    arrays that are kept from step to step. Some optimizers of torch look at W for its decay only;
    where they have none, W is pulled before the base's step, which is the same to rounding.

    What :class:`dslbi_torch.DessiLBI` says of several machines holds here, as far as base can be
    sharded.
    """

    path_release = None  # a Release, if one is attached

    def __init__(self, base: Optimizer, *, kappa: float = 1, nu: float = 100, lam: float = 1):
        if isinstance(unwrapped_optimizer(base), (Split, DessiLBI)):
            raise TypeError(f"base must not split already, got {type(base).__name__}")
        if of_trainer(base):
            raise TypeError(
                f"base must be split before a trainer prepares it, got a {type(base).__name__}"
            )
        if isinstance(base, LBFGS):
            raise TypeError("base must take one gradient a step, got LBFGS")
        if not isinstance(base, Optimizer):
            raise TypeError(f"base must be a torch optimizer, got {type(base).__name__}")
        own = dict(kappa=kappa, nu=nu, lam=lam, penalty=None, joint=False, **Units()._asdict())
        taken = sorted(set(own) & set(base.defaults))
        if taken:
            raise ValueError(f"{type(base).__name__} has options {taken} of its own")
        check_splitting(own)
        for group in base.param_groups:
            _complete(group, own)
        self.__setstate__({"base": base, "own": own})
        if all(group["penalty"] is None for group in base.param_groups):
            raise ValueError(
                f"a group of base must have a penalty, {one_of()}, "
                f"got none in {len(base.param_groups)} groups: make them with split_groups"
            )

    def __setstate__(self, state):
        super().__setstate__(state)
        self.begun = {}  # V of parameters that the base has not stepped yet
        self._rooms = WeakTensorKeyDictionary()

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
        """Return the step of V: the base's lr is kappa * alpha."""
        return float(group["lr"]) / group["kappa"]

    @torch.no_grad()
    def step(self, closure=None):
        """Step the base and the path; return the loss of the closure, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found_inf = getattr(self, "found_inf", None)
        if found_inf is not None and found_inf.item():
            return loss
        pulled = [pull for group in self.param_groups for pull in self._pull(group)]
        if hasattr(self, "grad_scale"):  # a GradScaler's, for a fused base
            self.base.grad_scale, self.base.found_inf = self.grad_scale, self.found_inf
        self.base.step()
        if hasattr(self, "grad_scale"):
            del self.base.grad_scale, self.base.found_inf
        for tensors, gaps, c in pulled:
            for W, gap in zip(tensors.Ws, gaps, strict=True):
                add_scaled_(W, gap, c)
        for p in [p for p in self.begun if p.grad is not None]:
            self.state[p]["V"] = self.begun.pop(p)
        return loss

    def _pull(self, group):
        """Move V of a group's tensors, and yield what is still to be done to W.

        These are the tensors, their ``W - Gamma``, and the factor of it that W moves by.
        """
        resting = rests(group)
        if resting:
            group = at_rest(self, group)
        if group["penalty"] is None:
            return
        lr = group["lr"]
        options = {key: group[key] for key in (*GAMMA_OPTIONS, "nu")}
        down = lr * (-1 / group["nu"])
        # A base that does not look at W may step what is pulled already, which saves an array.
        blind = type(self.base) in _BLIND_WITHOUT_DECAY and not group["weight_decay"]
        for tensors in collect(group, self.dual, others=self._known_dual):
            if tensors is not None:
                pairs = zip(tensors.params, tensors.Vs, strict=True)
                gaps = None if blind else [self._room(p, V) for p, V in pairs]
                pull_(tensors, gaps, down, alpha=lr * (1 / group["kappa"]), **options)
                if resting:
                    for V in tensors.Vs:
                        V.zero_()
                if gaps:
                    yield tensors, gaps, down

    def _known_dual(self, p):
        return self.state.get(p, {}).get("V", self.begun.get(p))

    def dual(self, p: torch.Tensor) -> torch.Tensor:
        """Return V of a parameter.

        A new V joins the state after the base's step, because a base may ask whether its state is
        empty.
        """
        V = self._known_dual(p)
        if V is None:
            V = self.begun[p] = torch.zeros_like(p, dtype=dual_dtype(p), requires_grad=False)
        return V

    def _room(self, p, V):
        """Return a tensor like V for ``W - Gamma``, kept from step to step."""
        room = self._rooms.get(p)
        if (
            room is None
            or room.shape != V.shape
            or room.dtype != V.dtype
            or room.device != V.device
        ):
            room = self._rooms[p] = torch.empty_like(V)
        return room

    def load_state_dict(self, state_dict: dict) -> None:
        """Load as the base does, but keep V in float32 beside a bf16 or fp16 parameter."""
        if not all("penalty" in group for group in state_dict["param_groups"]):
            raise ValueError("state_dict must be of a Split, got groups without penalty")
        with duals_kept(self.base):
            self.base.load_state_dict(state_dict)
        loaded = [p for p in self.begun if "V" in self.state.get(p, {})]
        for p in loaded:  # it would take the place of the one that is loaded
            del self.begun[p]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Do what the base does."""
        self.base.zero_grad(set_to_none)


# Steps that depend on W through their weight decay alone.
_BLIND_WITHOUT_DECAY = {
    getattr(optim, name)
    for name in "SGD Adam AdamW Adamax NAdam RAdam RMSprop Adagrad Adadelta".split()
}


def _complete(group, own):
    """Give a group of the base what it does not set, and check it."""
    full = plain({**own, **group})
    check_splitting(full)
    check_tensors({**full, "fused": False})
    check_tensors({**full, "fused": False, "lr": float(full["lr"]) / full["kappa"]})  # V's step
    group.update({key: full[key] for key in own})
