"""DessiLBI as a PyTorch optimizer (Fu et al., ICML 2020). Twin of ``dslbi_ref/dessilbi.py``.

The loss L(W) is split from the penalty by a twin variable Gamma of the shape of W:

    Lbar(W, Gamma) = L(W) + ||W - Gamma||^2 / (2 nu)

W follows the gradient of Lbar, and a dual variable V, with ``Gamma = kappa * prox_lam(V)``,
accumulates ``(W - Gamma) / nu``. Gamma is a function of V and is never stored.
"""

import torch
from torch import Tensor
from torch.optim import Optimizer

from .arguments import check_number, check_tensor, shown
from .options import check_group, check_tensors, plain
from .penalties import penalty_named
from .routes.choose import Kept, step_by_route
from .routes.gaps import add_scaled_
from .routes.views import Tensors, collect
from .slices import Units, check_units, checked_units
from .state import at_rest, dual_dtype, duals_kept, rests
from .torch_private import use_grad_for_differentiable

GAMMA_OPTIONS = ("kappa", "lam", "penalty", *Units._fields)  # what Gamma depends on, but V
STEP_OPTIONS = ("momentum", "dampening", "weight_decay", "decoupled", "nesterov", "coupling")


def gamma(Vs, *, kappa=1.0, lam=1.0, penalty="l1", **units):
    """Return ``Gamma = kappa * prox_lam(V)`` of a family, one tensor for each V.

    ``group_dim, block, parts, weight``, the fields of :class:`dslbi_torch.slices.Units`, say what a
    unit is. A unit extends over all tensors of the family.
    """
    units = checked_units(Units(**units))
    if not (isinstance(Vs, list | tuple) and Vs):
        raise ValueError(f"a family must be a list of tensors, at least one, got {shown(Vs)}")
    Vs = [check_tensor("a family", V) for V in Vs]
    most = torch.finfo(Vs[0].dtype).max
    kappa = check_number("kappa", kappa, 0, most, open_at="low")
    lam = check_number("lam", lam, 0, most, open_at="low")
    if penalty_named(penalty).sliced:
        check_units(Vs, list(range(len(Vs))), units)
    return unchecked_gamma(Vs, kappa=kappa, lam=lam, penalty=penalty, **units._asdict())


def unchecked_gamma(Vs, *, kappa=1.0, lam=1.0, penalty="l1", **units):
    """Return :func:`gamma` of a family whose options an optimizer has checked."""
    shrunk = penalty_named(penalty).prox(Vs, lam, Units(**units))
    return [kappa * x for x in shrunk]  # (dslbi-gamma)


def step_(
    W,
    V,
    Gamma,
    m,
    grad,
    *,
    alpha,
    kappa=1.0,
    nu=100.0,
    momentum=0.9,
    dampening=0.0,
    weight_decay=0.0,
    decoupled=False,
    nesterov=False,
    coupling="outside",
):
    """Take one DessiLBI step of one tensor, in place: twin of :func:`dslbi_ref.dessilbi.step`.

    Gamma is :func:`gamma` of the old V. W, V and m are overwritten; grad and Gamma are not. V and
    Gamma are None for a tensor that is not split, and m is None without momentum. For the first
    step of a tensor pass ``m = 0`` and ``dampening = 0``.
    """
    g = grad
    if weight_decay and not decoupled:
        g = g.add(W, alpha=weight_decay)
    if V is not None:
        r = (W - Gamma) / nu  # (dslbi-r)
        if coupling == "inside":
            g = g + r
    u = g
    if m is not None:
        m.mul_(momentum).add_(g, alpha=1 - dampening)  # (dslbi-m)
        u = g.add(m, alpha=momentum) if nesterov else m
    if decoupled and weight_decay:
        add_scaled_(W, W, -kappa * alpha * weight_decay)
    add_scaled_(W, u, -kappa * alpha)  # (dslbi-w)
    if V is not None:
        if coupling == "outside":
            add_scaled_(W, r, -kappa * alpha)
        add_scaled_(V, r, alpha)  # (dslbi-v)


def one_by_one_(tensors: Tensors, options: dict) -> None:
    """Take :func:`step_` for every tensor of a list: what the fast routes agree with."""
    shrink = {key: options[key] for key in GAMMA_OPTIONS}
    rest = {key: options[key] for key in ("alpha", "kappa", "nu", *STEP_OPTIONS)}
    for k, (W, grad) in enumerate(zip(tensors.Ws, tensors.grads, strict=True)):
        V = Gamma = None
        if tensors.Vs is not None:
            V = tensors.Vs[k]
            # The graph of a differentiable step keeps what Gamma was made of.
            old = V.clone() if torch.is_grad_enabled() else V
            if tensors.Gammas is not None:
                Gamma = tensors.Gammas[k]
            elif tensors.scales is not None:
                Gamma = options["kappa"] * (tensors.scales[k] * old)
            else:
                (Gamma,) = unchecked_gamma([old], **shrink)
        step_(W, V, Gamma, None if tensors.ms is None else tensors.ms[k], grad, **rest)


def _alpha(group):
    """Return the step: a number, or a tensor where reading it would break a graph."""
    lr = group["lr"]
    if not isinstance(lr, Tensor):
        return lr
    if group["capturable"] or group["differentiable"] or torch.compiler.is_compiling():
        return lr.reshape(())
    return lr.item()


class DessiLBI(Optimizer):
    """Train dense weights and a path of sparse ones in one run.

    Parameters
    ----------
    params : iterable of tensors, of (name, tensor) pairs, or of dicts
        As in ``torch.optim``; groups may set any option below. :func:`dslbi_torch.split_groups`
        builds them from a model.
    lr : float > 0
        The step alpha: W moves by ``kappa * lr``, V by ``lr / nu``. A schedule that lowers lr
        slows path time with it.
    kappa, nu, lam : float > 0
        Speed of Gamma, coupling, penalty level.
    penalty : None, or a word of ``dslbi_torch.penalties.PENALTIES``
        What is split: nothing (plain SGD with step ``kappa * lr``), every weight ("l1"), slices of
        the tensors ("group"), or weights within slices ("sparse group").
    group_dim : int or tuple of int
        The axes along which slices are taken: 0 a filter or neuron, 1 an input channel, (0, 1) a
        kernel, () the whole tensor.
    block : int >= 1
        So many consecutive slices are one unit: a head of an attention layer.
    parts : int >= 1
        The axis is cut into so many equal parts first, and the k-th block of every part belongs to
        unit k: queries, keys and values in one matrix.
    joint : bool
        The k-th units of all tensors of the parameter group are one unit: a channel with all that
        writes it. They enter together, by their joint norm.
    weight : None or "sqrt"
        "sqrt": the threshold of a unit is ``lam * sqrt(size)``, size its number of entries.
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

    path_release = None  # a Release, if one is attached

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
        block: int = 1,
        parts: int = 1,
        joint: bool = False,
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
            block=block,
            parts=parts,
            joint=joint,
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
        defaults = plain(defaults)
        check_group(defaults)
        self._kept = Kept()
        super().__init__(params, defaults)

    def __setstate__(self, state):
        super().__setstate__(state)
        self._kept = Kept()

    def add_param_group(self, param_group: dict) -> None:
        """Add a group; its options are checked before anything changes."""
        unknown = set(param_group) - set(self.defaults) - {"params", "param_names"}
        if unknown:
            raise ValueError(f"unknown options {sorted(unknown)} in a parameter group")
        param_group = plain(param_group)
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
        """Return the step of V: the group's lr."""
        return float(group["lr"])

    @use_grad_for_differentiable
    def step(self, closure=None):
        """Take one step; return the loss of the closure, if one is given."""
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

    def dual(self, p: Tensor) -> Tensor:
        """Return V of a parameter, which starts at zero with its first gradient."""
        state = self.state[p]
        if "V" not in state:
            state["V"] = torch.zeros_like(p, dtype=dual_dtype(p), requires_grad=False)
        return state["V"]

    def _momentum_buffer(self, p):
        """Return m of a parameter, and whether this is its first step."""
        state = self.state[p]
        first = "momentum_buffer" not in state
        if first:
            state["momentum_buffer"] = torch.zeros_like(p, requires_grad=False)
        return state["momentum_buffer"], first

    def _step_group(self, index, group):
        """Step a parameter group by the route that its flags ask for."""
        resting = rests(group)
        if resting:
            group = at_rest(self, group)
        near, far = collect(
            group,
            self.dual,
            self._momentum_buffer if group["momentum"] else None,
            others=lambda p: self.state.get(p, {}).get("V"),
        )
        if near is None and far is None:
            return
        options = {key: group[key] for key in (*GAMMA_OPTIONS, "nu", *STEP_OPTIONS)}
        options["alpha"] = _alpha(group)
        scaler = dict(
            grad_scale=getattr(self, "grad_scale", None),
            found_inf=getattr(self, "found_inf", None),
        )
        for tensors in (far, near):
            if tensors is not None:
                step_by_route(
                    tensors,
                    group,
                    options,
                    one_by_one=one_by_one_,
                    far=tensors is far,
                    scaler=scaler,
                    kept=self._kept,
                    key=index,
                )
                if resting and tensors.Vs is not None:
                    for V in tensors.Vs:
                        V.zero_()

    def load_state_dict(self, state_dict: dict) -> None:
        """Load as ``torch.optim`` does, but keep V in float32 beside a bf16 or fp16 parameter."""
        with duals_kept(self):
            super().load_state_dict(state_dict)
