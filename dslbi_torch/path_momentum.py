"""Momentum for the path: V moves by a running sum of its pulls, as W does with its gradients."""

import torch
from torch import Tensor
from torch.optim import Optimizer

from .arguments import check_number
from .units import families
from .wrapped import unwraps


class GammaMomentum:
    """Give V a momentum, around whatever route the optimizer's step takes.

    With r = (W - Gamma) / nu from the old values, as in :class:`dslbi_torch.DessiLBI`,

        b = momentum * b + alpha * r        b = 0 before the first step
        V = V + b

    in place of ``V = V + alpha * r``; W is stepped as before. A pull that stays the same moves V by
    ``1 / (1 - momentum)`` times as much, so units enter earlier. Pulls that change their sign from
    batch to batch cancel. b is a sum of steps, not of pulls, so a change of lr leaves it as it is.
    At momentum 0 nothing changes.

    It is attached as hooks around the step: no line of the loop changes, and DessiLBI (tensor by
    tensor, in lists or fused) and Split take it alike. b is kept in the optimizer's state, under
    ``"V_buffer"``, so checkpoints hold it.

    Parameters
    ----------
    optimizer : DessiLBI or Split
    momentum : float in [0, 1)

    Raises
    ------
    ValueError
        For a momentum outside this interval, and for an optimizer that splits nothing or has such
        a momentum already.

    Notes
    -----
    It costs a copy of V during the step, and a state of V's size and dtype. The identities of the
    plain update (the constant ``W/kappa + V + sum of alpha*u``, the Lyapunov function) do not hold.
    Attach a recorder, a target density or a freeze after it, so that they see what it leaves. After
    loading a state beside bf16 or fp16 parameters, b is in their dtype for a step.

    Source: an option of the authors' weight-pruning example. There the pull is not added to the
    buffer in place, so that the buffer decays to zero and V stands still.
    """

    @unwraps
    def __init__(self, optimizer: Optimizer, momentum: float = 0.9):
        check_number("momentum", momentum, 0, 1, open_at="high")
        families(optimizer)  # refuses one that splits nothing
        if getattr(optimizer, "path_momentum", None) is not None:
            raise ValueError("the optimizer has a GammaMomentum already: detach that first")
        optimizer.path_momentum = self
        self.optimizer, self.momentum = optimizer, momentum
        self._before: list[tuple[Tensor, Tensor | None]] = []
        self._handles = [
            optimizer.register_step_pre_hook(lambda *_: self._remember()),
            optimizer.register_step_post_hook(lambda *_: self._move()),
        ]

    def detach(self) -> None:
        """Go on without momentum, and drop what was gathered."""
        if not self._handles:
            return
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.optimizer.path_momentum = None
        for W in self._weights():
            self.optimizer.state.get(W, {}).pop("V_buffer", None)

    def _weights(self):
        return [W for family in families(self.optimizer) for W in family.Ws]

    @torch.no_grad()
    def _remember(self):
        self._before = []
        for W in self._weights():
            V = self.optimizer.state.get(W, {}).get("V")
            self._before.append((W, None if V is None else V.clone()))

    @torch.no_grad()
    def _move(self):
        found_inf = getattr(self.optimizer, "found_inf", None)
        if found_inf is not None and found_inf.item():  # nothing moved
            return
        for W, old in self._before:
            if W.grad is None or "V" not in self.optimizer.state.get(W, {}):
                continue
            state = self.optimizer.state[W]
            V, b = state["V"], state.get("V_buffer")
            if b is not None and b.dtype != V.dtype:
                b = b.to(V.dtype)
            step = V.clone() if old is None else V - old
            if b is not None:
                V.add_(b, alpha=self.momentum)
                step.add_(b, alpha=self.momentum)
            state["V_buffer"] = step
        self._before = []
