"""DessiLBI as a PyTorch optimizer (Fu et al., ICML 2020). Twin of ``dslbi_ref/dessilbi.py``.

The loss L(W) is split from the penalty by a twin variable Gamma of the shape of W:

    Lbar(W, Gamma) = L(W) + ||W - Gamma||^2 / (2 nu)

W follows the gradient of Lbar, and a dual variable V, with ``Gamma = kappa * prox_lam(V)``,
accumulates ``(W - Gamma) / nu``. Gamma is a function of V and is never stored.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import softshrink
from torch.optim import Optimizer

from .prox import group_scale, group_weight, prox


def gamma(V, *, kappa=1.0, lam=1.0, penalty="l1", group_dim=0, weight=None):
    """The sparse iterate ``Gamma = kappa * prox_lam(V)``."""
    shrunk = prox(V, lam, penalty=penalty, group_dim=group_dim, weight=weight)
    return kappa * shrunk  # (dslbi-gamma)


def _gap(W, V, *, kappa, lam, penalty, group_dim, weight):
    """``W - Gamma`` without a pass for Gamma, in the wider dtype of W and V."""
    if penalty == "l1":
        shrunk = softshrink(V, lam)
        return torch.sub(W, shrunk, alpha=kappa, out=shrunk)
    scale = group_scale(V, lam, group_dim=group_dim, weight=weight)
    return torch.addcmul(W.to(V.dtype), V, scale, value=-kappa)


def step_(
    W,
    V,
    m,
    grad,
    *,
    alpha,
    kappa=1.0,
    nu=100.0,
    lam=1.0,
    penalty="l1",
    group_dim=0,
    weight=None,
    momentum=0.9,
    dampening=0.0,
    weight_decay=0.0,
    decoupled=False,
    nesterov=False,
    coupling="outside",
):
    """One DessiLBI iteration of one tensor, in place: see :func:`dslbi_ref.dessilbi.step`.

    W, V and m are overwritten; grad is not. V is None for a tensor that is not split, m is None
    without momentum. The first step of a tensor is the one with ``m = 0`` and ``dampening = 0``.
    The division by nu rides on the step, which saves one pass over memory; so does never forming
    Gamma.
    """
    g = grad
    if weight_decay and not decoupled:
        g = g.add(W, alpha=weight_decay)
    if V is not None:
        gap = _gap(W, V, kappa=kappa, lam=lam, penalty=penalty, group_dim=group_dim, weight=weight)
        if coupling == "inside":
            g = g.add(gap, alpha=1 / nu)
    if m is not None:
        if dampening:
            m.mul_(momentum).add_(g, alpha=1 - dampening)
        else:
            torch.add(g, m, alpha=momentum, out=m)  # (dslbi-m)
        g = g.add(m, alpha=momentum) if nesterov else m
    if decoupled and weight_decay:
        W.add_(W, alpha=-kappa * alpha * weight_decay)  # W.mul_(1 - c) would round 1 - c
    W.add_(g, alpha=-kappa * alpha)  # (dslbi-w)
    if V is not None:
        if coupling == "outside":
            W.add_(gap, alpha=-kappa * alpha / nu)
        V.add_(gap, alpha=alpha / nu)  # (dslbi-v)


# Elements of a piece: small enough that W, V, m, grad and the scratch of one piece stay in the
# processor's cache between the five or six passes of step_.
_PIECE = 1 << 18


def _pieces(tensors, penalty, group_dim):
    """Cut the tensors of one parameter along an axis that cuts no group."""
    W = tensors[0]
    if W.numel() <= _PIECE or W.device.type != "cpu" or (penalty == "group" and group_dim == ()):
        return [tensors]
    dim = 0
    if penalty == "group":
        dim = group_dim if isinstance(group_dim, int) else group_dim[0]
    rows = max(1, _PIECE * W.shape[dim] // W.numel())
    cut = [[None] * -(-W.shape[dim] // rows) if x is None else x.split(rows, dim) for x in tensors]
    return zip(*cut, strict=True)


def dual_dtype(p: Tensor) -> torch.dtype:
    """dtype of V: the parameter's, or float32 where that is narrower (a bf16 V stalls below
    lam)."""
    return torch.promote_types(p.dtype, torch.float32)


def split_tensors(optimizer: Optimizer) -> list[tuple[str, Tensor, Tensor, dict]]:
    """``(name, W, V, group)`` of every tensor that the optimizer splits, V zero before its first
    step.

    Names come from ``named_parameters()``; tensors given without one are called
    ``group<i>.<j>``. An optimizer that splits nothing is refused.
    """
    found = []
    for i, group in enumerate(optimizer.param_groups):
        if group.get("penalty") is None:
            continue
        names = group.get("param_names") or [f"group{i}.{j}" for j in range(len(group["params"]))]
        for name, p in zip(names, group["params"], strict=True):
            V = optimizer.state.get(p, {}).get("V")
            if V is None:
                V = torch.zeros_like(p, dtype=dual_dtype(p), requires_grad=False)
            found.append((name, p, V, group))
    if not found:
        raise ValueError('the optimizer splits nothing: no group has penalty "l1" or "group"')
    return found


def group_gamma(V: Tensor, group: dict) -> Tensor:
    """Gamma of a tensor with the settings of its parameter group."""
    keys = ("kappa", "lam", "penalty", "group_dim", "weight")
    return gamma(V, **{key: group[key] for key in keys})


def selected(V: Tensor, group: dict) -> Tensor:
    """Whether Gamma is non-zero: per entry for l1, per group (with axes of length 1) for group.

    A group is selected as a whole, also where single entries of it happen to be zero.
    """
    if group["penalty"] == "l1":
        return V.abs() > group["lam"]
    keys = ("lam", "group_dim", "weight")
    return group_scale(V, **{key: group[key] for key in keys}) > 0


def _check_number(name, value, low, *, strict, high=math.inf):
    """Refuse a value outside (low, high) or [low, high), NaN included."""
    number = float(value)
    if not ((low < number if strict else low <= number) and number < high):
        want = "positive and finite" if strict else f"at least {low} and finite"
        if high < math.inf:
            want = f"in [{low}, {high})"
        raise ValueError(f"{name} must be {want}, got {value}")


def _check_group(group):
    if isinstance(group["lr"], Tensor) and group["lr"].numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    for name in ("lr", "kappa", "nu", "lam"):
        _check_number(name, group[name], 0, strict=True)
    for name in ("momentum", "dampening"):
        _check_number(name, group[name], 0, strict=False, high=1)
    _check_number("weight_decay", group["weight_decay"], 0, strict=False)
    if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
        raise ValueError("Nesterov momentum requires a momentum and zero dampening")
    if group["coupling"] not in ("outside", "inside"):
        raise ValueError(f'coupling must be "outside" or "inside", got {group["coupling"]!r}')
    if group["penalty"] not in (None, "l1", "group"):
        raise ValueError(f'penalty must be None, "l1" or "group", got {group["penalty"]!r}')


def _check_tensors(group):
    """Refuse tensors that cannot be stepped, or cannot carry the penalty of their group."""
    names = group.get("param_names") or range(len(group["params"]))
    for name, p in zip(names, group["params"], strict=True):
        if not p.is_floating_point():
            raise ValueError(f"parameter {name} must have a real floating dtype, got {p.dtype}")
        if group["penalty"] is None:
            continue
        if p.ndim == 0 or p.numel() == 0:
            raise ValueError(
                f"parameter {name} of shape {tuple(p.shape)} cannot carry the penalty "
                f'"{group["penalty"]}": it needs at least one axis and one entry'
            )
        if group["penalty"] == "group":
            group_weight(p.shape, group_dim=group["group_dim"], weight=group["weight"])


class DessiLBI(Optimizer):
    """DessiLBI: train dense weights and a sparse structure path in one run.

    Parameters
    ----------
    params : iterable of tensors, of (name, tensor) pairs, or of dicts
        As in ``torch.optim``; groups may set any option below. :func:`dslbi_torch.split_groups`
        builds them from a model.
    lr : float > 0
        The step alpha: W moves by ``kappa * lr``, V by ``lr / nu``. A schedule that lowers lr
        slows the clock of the path with it.
    kappa, nu, lam : float > 0
        Damping, coupling, penalty level.
    penalty : None, "l1" or "group"
        What is split: nothing (plain SGD with step ``kappa * lr``), every weight, or the slices
        along ``group_dim``.
    group_dim : int or tuple of int
        0 a filter or neuron, 1 an input channel, (0, 1) a kernel, () the whole tensor.
    weight : None or "sqrt"
        "sqrt": the threshold of a group is ``lam * sqrt(size)``.
    momentum, dampening : float in [0, 1)
    weight_decay : float >= 0
        L2 in the gradient, or taken from W directly with ``decoupled=True``.
    nesterov, maximize : bool
    coupling : "outside" or "inside"
        Whether ``(W - Gamma) / nu`` stays outside the momentum buffer (the authors' code) or
        enters it (the paper's form, as recalled).

    Notes
    -----
    ``state[p]`` holds ``"momentum_buffer"`` and ``"V"``: 8 bytes per float32 parameter. V keeps
    float32 for bf16 and fp16 parameters, also through ``load_state_dict``. ``p.grad`` is never
    changed. A parameter without a gradient is left alone, W and V both.

    Differences from the authors' code: lam can be set, any slice can be a group, tensors that
    cannot carry a penalty are refused instead of silently pulled to zero, decay does not compound
    in the momentum buffer, the closure's loss is returned, and names are kept out of the state.
    """

    def __init__(
        self,
        params,
        lr: float | Tensor = 1e-3,
        *,
        kappa: float = 1,
        nu: float = 100,
        lam: float = 1,
        penalty: str | None = None,
        group_dim: int | tuple[int, ...] = 0,
        weight: str | None = None,
        momentum: float = 0.9,
        dampening: float = 0,
        weight_decay: float = 0,
        decoupled: bool = False,
        nesterov: bool = False,
        coupling: str = "outside",
        maximize: bool = False,
    ):
        defaults = dict(
            lr=lr,
            kappa=kappa,
            nu=nu,
            lam=lam,
            penalty=penalty,
            group_dim=group_dim,
            weight=weight,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            decoupled=decoupled,
            nesterov=nesterov,
            coupling=coupling,
            maximize=maximize,
        )
        _check_group(defaults)
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict) -> None:
        """Add a group; its options are checked before anything changes."""
        unknown = set(param_group) - set(self.defaults) - {"params", "param_names"}
        if unknown:
            raise ValueError(f"unknown options {sorted(unknown)} in a parameter group")
        _check_group({**self.defaults, **param_group})
        params = param_group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        tensors = [p[1] if isinstance(p, tuple) else p for p in params]
        if len(set(map(id, tensors))) < len(tensors):
            raise ValueError("some parameters appear more than once in a parameter group")
        param_group = {**param_group, "params": params}
        n_groups = len(self.param_groups)
        super().add_param_group(param_group)
        try:
            _check_tensors(self.param_groups[n_groups])
        except ValueError:
            del self.param_groups[n_groups]
            raise

    @torch.no_grad()
    def step(self, closure=None):
        """One iteration; returns the loss of the closure, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            options = {key: group[key] for key in _STEP_OPTIONS}
            options["alpha"] = float(group["lr"])
            first = {**options, "dampening": 0.0}
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.grad.is_sparse:
                    raise RuntimeError("DessiLBI does not support sparse gradients")
                grad = -p.grad if group["maximize"] else p.grad
                state = self.state[p]
                now = options
                if group["penalty"] is not None and "V" not in state:
                    state["V"] = torch.zeros_like(p, dtype=dual_dtype(p))
                if group["momentum"] and "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                    now = first
                V = state["V"] if group["penalty"] is not None else None
                m = state["momentum_buffer"] if group["momentum"] else None
                for piece in _pieces((p, V, m, grad), group["penalty"], group["group_dim"]):
                    step_(*piece, **now)
        return loss

    def load_state_dict(self, state_dict: dict) -> None:
        """As in ``torch.optim``, except that V keeps its float32 beside a bf16 or fp16
        parameter."""
        saved = {}

        def keep(_, incoming):
            ids = [i for group in incoming["param_groups"] for i in group["params"]]
            saved.update({k: incoming["state"].get(i, {}).get("V") for k, i in enumerate(ids)})

        def restore(_):
            params = [p for group in self.param_groups for p in group["params"]]
            for k, p in enumerate(params):
                if saved.get(k) is not None:
                    self.state[p]["V"] = saved[k].to(p.device, dual_dtype(p), copy=True)

        hooks = (
            self.register_load_state_dict_pre_hook(keep),
            self.register_load_state_dict_post_hook(restore, prepend=True),
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            for hook in hooks:
                hook.remove()


_STEP_OPTIONS = (
    "kappa",
    "nu",
    "lam",
    "penalty",
    "group_dim",
    "weight",
    "momentum",
    "dampening",
    "weight_decay",
    "decoupled",
    "nesterov",
    "coupling",
)
