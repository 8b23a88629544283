"""DessiLBI as a PyTorch optimizer (Fu et al., ICML 2020). Twin of ``dslbi_ref/dessilbi.py``.

The loss L(W) is split from the penalty by a twin variable Gamma of the shape of W:

    Lbar(W, Gamma) = L(W) + ||W - Gamma||^2 / (2 nu)

W follows the gradient of Lbar, and a dual variable V, with ``Gamma = kappa * prox_lam(V)``,
accumulates ``(W - Gamma) / nu``. Gamma is a function of V and is never stored.
"""

from itertools import compress

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import _default_to_fused_or_foreach, _use_grad_for_differentiable

from .options import check_group, check_tensors
from .penalties import prox
from .routes import lists
from .routes import pieces as cpu
from .routes.fused import Fused, unscaled
from .routes.gap import gap_of
from .tensors import add_scaled_, aligned, dual_dtype, duals_kept, is_sharded, plain

GAMMA_OPTIONS = ("kappa", "lam", "penalty", "group_dim", "weight")  # what Gamma depends on, but V


def gamma(V, *, kappa=1.0, lam=1.0, penalty="l1", group_dim=0, weight=None):
    """The sparse iterate ``Gamma = kappa * prox_lam(V)``."""
    shrunk = prox(V, lam, penalty=penalty, group_dim=group_dim, weight=weight)
    return kappa * shrunk  # (dslbi-gamma)


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
        gap = gap_of(
            W, V, kappa=kappa, lam=lam, penalty=penalty, group_dim=group_dim, weight=weight
        )
        if coupling == "inside":
            g = g.add(gap, alpha=1 / nu)
    if m is not None:
        if dampening or torch.is_grad_enabled():
            m.mul_(momentum).add_(g, alpha=1 - dampening)
        else:
            torch.add(g, m, alpha=momentum, out=m)  # (dslbi-m)
        g = g.add(m, alpha=momentum) if nesterov else m
    if V is not None:
        add_scaled_(V, gap, alpha / nu)  # (dslbi-v)
    if decoupled and weight_decay:
        if V is not None and gap is W:
            gap = W.clone()
        add_scaled_(W, W, -kappa * alpha * weight_decay)  # W.mul_(1 - c) would round 1 - c
    if V is not None and coupling == "outside":
        add_scaled_(W, gap, -kappa * alpha / nu)  # the last use of gap: it may be W
    add_scaled_(W, g, -kappa * alpha)  # (dslbi-w)


def _alpha(group):
    """The step: a number, or a tensor where reading it would break a graph."""
    lr = group["lr"]
    if not isinstance(lr, Tensor):
        return lr
    if group["capturable"] or group["differentiable"] or torch.compiler.is_compiling():
        return lr.reshape(())
    return lr.item()


def _in_lists(group, Ws):
    """Whether a group takes the foreach route: as asked, else as torch.optim decides."""
    if group["foreach"] is not None or group["differentiable"] or Ws[0].is_cpu:
        return bool(group["foreach"])
    return _default_to_fused_or_foreach(Ws, False)[1]


def _same_device_and_dtype(*columns):
    """The lists of a group, cut into lists of one device and dtype; an empty column is None."""
    cut = Optimizer._group_tensors_by_device_and_dtype(list(columns))
    for place, (lists_, _) in cut.items():
        yield place, [None if column[0] is None else column for column in lists_]


def _step_each(Ws, Vs, ms, grads, firsts, options):
    """Tensor by tensor, the large ones on a CPU piece by piece; momentum on a CPU by torch's fused
    SGD."""
    rows = list(zip(Ws, Vs, ms, grads, strict=True))
    if cpu.takes(options) and not (options["dampening"] and any(firsts)):
        fit = list(map(cpu.fits, Ws, ms, grads))
        cpu.step_(list(compress(rows, fit)), **options)
        if all(fit):
            return
        left = [not ok for ok in fit]
        rows, firsts = compress(rows, left), compress(firsts, left)
    first = {**options, "dampening": 0.0}
    for row, is_first in zip(rows, firsts, strict=True):
        for piece in cpu.pieces(row, options["penalty"], options["group_dim"]):
            step_(*piece, **(first if is_first else options))


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
    foreach, fused : bool or None
        The route of the arithmetic: tensor by tensor (cut into pieces that stay in the processor's
        cache), lists of tensors, or one pass of a GPU kernel over l1 tensors and groups along
        dimension 0. None: lists on a GPU, tensor by tensor on a CPU. All agree to rounding.
    capturable : bool
        A tensor ``lr`` is not read by the host, so that a CUDA graph can hold the step.
    differentiable : bool
        Autograd goes through the step; tensor by tensor only.

    Notes
    -----
    ``state[p]`` holds ``"momentum_buffer"`` and ``"V"``: 8 bytes per float32 parameter. V keeps
    float32 for bf16 and fp16 parameters, also through ``load_state_dict``. ``p.grad`` is never
    changed. A parameter without a gradient is left alone, W and V both. A complex parameter is
    treated as its real and imaginary parts: l1 shrinks each, a group holds both.

    On several machines: replicas (DDP) need nothing, since equal gradients move W, m and V equally.
    Shards are DTensors (``fully_shard``, tensor parallelism): build the optimizer from the sharded
    parameters, and V is cut as they are. Single weights, and groups that one shard holds whole
    (filters, where dimension 0 is cut), are stepped without communication. Groups that reach across
    shards have their norms reduced in every step, one number a group, and go tensor by tensor
    whatever ``foreach`` and ``fused`` say; there every process must have gradients of the same
    parameters. Checkpoints are those of ``torch.distributed.checkpoint.state_dict``. Paths, masks
    and densities read from shards are those of whole weights, and every process must ask for them.
    ``ZeroRedundancyOptimizer`` deals out whole tensors, and wants them without names; each process
    then has the V of its own, in the attribute ``optim``. The older FSDP flattens its shards, which
    leaves l1 as the only penalty.

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
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
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
            foreach=foreach,
            fused=fused,
            capturable=capturable,
            differentiable=differentiable,
        )
        check_group(defaults)
        self._fused = Fused()
        super().__init__(params, defaults)

    def __setstate__(self, state):
        super().__setstate__(state)
        self._fused = Fused()
        for group in self.param_groups:  # saved before these existed
            for key in ("foreach", "fused"):
                group.setdefault(key, None)
            for key in ("capturable", "differentiable"):
                group.setdefault(key, False)

    def add_param_group(self, param_group: dict) -> None:
        """Add a group; its options are checked before anything changes."""
        unknown = set(param_group) - set(self.defaults) - {"params", "param_names"}
        if unknown:
            raise ValueError(f"unknown options {sorted(unknown)} in a parameter group")
        check_group({**self.defaults, **param_group})
        params = param_group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        tensors = [p[1] if isinstance(p, tuple) else p for p in params]
        if len(set(map(id, tensors))) < len(tensors):
            raise ValueError("some parameters appear more than once in a parameter group")
        param_group = {**param_group, "params": params}
        n_groups = len(self.param_groups)
        super().add_param_group(param_group)
        try:
            check_tensors(self.param_groups[n_groups])
        except (ValueError, RuntimeError):
            del self.param_groups[n_groups]
            raise
        # The fused step takes the gradients as a GradScaler left them.
        self._step_supports_amp_scaling = any(group["fused"] for group in self.param_groups)

    def alpha(self, group: dict) -> float:
        """The step of V: the group's lr."""
        return float(group["lr"])

    @_use_grad_for_differentiable
    def step(self, closure=None):
        """One iteration; returns the loss of the closure, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found_inf = getattr(self, "found_inf", None)  # of a GradScaler, where a group is fused
        if found_inf is not None and any(group["dampening"] for group in self.param_groups):
            if found_inf.item():  # a first step that was skipped must stay the first
                return loss
        for index, group in enumerate(self.param_groups):
            self._step_group(index, group)
        return loss

    def _step_group(self, index, group):
        """One iteration of a parameter group, by the route that its flags ask for."""
        rows, spread = self._collect(group)
        if not (rows or spread):
            return
        options = {key: group[key] for key in _STEP_OPTIONS}
        options["alpha"] = _alpha(group)
        outer = dict(
            maximize=group["maximize"],
            grad_scale=getattr(self, "grad_scale", None),
            found_inf=getattr(self, "found_inf", None),
        )
        for part in filter(None, (spread, rows)):
            Ws, Vs, ms, grads, firsts = map(list, zip(*part, strict=True))
            # The first step, m = g, happens once, so it needs no lists.
            each = part is spread or (options["dampening"] and any(firsts))
            if group["fused"] and not each:
                for place, columns in _same_device_and_dtype(Ws, Vs, ms, grads):
                    self._fused.step((index, *place), *columns, options=options, **outer)
                continue
            grads = unscaled(grads, **outer)
            if grads is None:
                continue
            if each or not _in_lists(group, Ws):
                _step_each(Ws, Vs, ms, grads, firsts, options)
                continue
            for _, columns in _same_device_and_dtype(Ws, Vs, ms, grads):
                lists.step_(*columns, **options)

    def _collect(self, group):
        """``(W, V, m, grad, first)`` of all that has a gradient; V and m start with the first one.

        Returned apart are the DTensors that have groups in several shards: no list may mix them
        with tensors.
        """
        rows, spread = [], []
        split, momentum = group["penalty"] is not None, group["momentum"] != 0
        for p in group["params"]:
            grad = p.grad
            if grad is None:
                continue
            if grad.is_sparse:
                raise RuntimeError("DessiLBI does not support sparse gradients")
            state = self.state[p]
            if split and "V" not in state:
                state["V"] = torch.zeros_like(p, dtype=dual_dtype(p), requires_grad=False)
            first = momentum and "momentum_buffer" not in state
            if first:
                state["momentum_buffer"] = torch.zeros_like(p, requires_grad=False)
            V = state["V"] if split else None
            m = state["momentum_buffer"] if momentum else None
            W = p
            if p.is_complex() or is_sharded(p):
                W, V, m, grad = (plain(aligned(x, p), group) for x in (p, V, m, grad))
                if is_sharded(W):
                    spread.append((W, V, m, grad, first))
                    continue
            rows.append((W, V, m, grad, first))
        return rows, spread

    def load_state_dict(self, state_dict: dict) -> None:
        """As in ``torch.optim``, except that V keeps its float32 beside a bf16 or fp16
        parameter."""
        with duals_kept(self):
            super().load_state_dict(state_dict)


_STEP_OPTIONS = (
    *GAMMA_OPTIONS,
    "nu",
    "momentum",
    "dampening",
    "weight_decay",
    "decoupled",
    "nesterov",
    "coupling",
)
