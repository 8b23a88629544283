"""The start of a path: Gamma and V are zero while W trains, until the release.

Twin of ``dslbi_ref/release.py``. A path that starts with the training counts random weights, and
what was born large enters first. Split LBI starts elsewhere: its beta rests at the minimiser for
gamma = 0 until path time starts. This is the same start for a net.
"""

import math

import torch
from torch.optim import Optimizer

from .arguments import check_count, check_flag, check_number
from .penalties import PENALTIES
from .sharding import whole
from .slices import units_of
from .units import Family, families, real
from .wrapped import unwraps


class Release:
    """Let W train with Gamma = 0 for a while, and start the path of all split tensors then.

    Until its release a path rests: V and Gamma are zero, and W follows the loss as if it were not
    split. At the release V is zero, the levels may be set from the scale of the trained weights,
    and path time runs from there. A path that is to start with the first step of a pretrained net
    is released by :func:`release_`.

    It is attached as a pre-step hook: no line of the loop changes. What it has come to is in the
    optimizer's parameter groups, as plain numbers (``rest``: in how many steps the path is
    released, at the beginning of that step; 0: it runs). So the optimizer's checkpoint is enough to
    go on with the same bits, whether it is loaded before or after a Release with the same settings
    is attached.

    Parameters
    ----------
    optimizer : DessiLBI or Split
        Before its path has begun: every V is zero.
    after : int >= 1
        Steps that the path rests.
    pull : float >= 0
        Part of the path's own pull, ``pull * W / nu``, that W feels while the path rests. 0: none.
        1: W tends to the minimiser of ``L + ||W||^2 / (2 nu)``, where Split LBI starts (with
        momentum and the coupling outside, to that of ``L / (1 - momentum) + ||W||^2 / (2 nu)``).
    power, dense
        See :func:`release_`.
    steps : int, optional
        Steps of the whole run; a release after the last one is refused.

    Raises
    ------
    ValueError
        For a value outside these intervals, an optimizer that splits nothing, and a second release.

    Notes
    -----
    A :class:`dslbi_torch.PathRecorder` counts its time from the release, and the ramp of
    :class:`dslbi_torch.TargetDensity` begins with it.
    """

    @unwraps
    def __init__(
        self,
        optimizer: Optimizer,
        after: int,
        *,
        pull: float = 0.0,
        power: float = 0.0,
        dense: bool = False,
        steps: int | None = None,
    ):
        after = check_count("after", after)
        if steps is not None and after >= check_count("steps", steps):
            raise ValueError(f"after must be below {steps}, the steps of the run, got {after}")
        check_number("pull", pull, 0)
        _check_power(power)
        check_flag("dense", dense)
        found = families(optimizer)
        for family in found:  # the pull of a step is this part of W, and V holds it
            rate = pull * optimizer.alpha(family.group) * family.group["kappa"] / family.group["nu"]
            check_number("pull * kappa * lr / nu", rate, 0, torch.finfo(family.Vs[0].dtype).max)
        if power:
            _check_apart(found)
        rests = {family.group.get("rest") for family in found}
        if optimizer.path_release is not None or (rests == {0} and not _begun(found)):
            raise ValueError("a path must be released once, got a second release")
        if rests == {None}:  # no checkpoint has brought one
            check_unbegun(found)
        for family in found:
            family.group.setdefault("rest", after + 1)
            family.group.setdefault("pull", float(pull))
        self.optimizer, self.power, self.dense = optimizer, power, dense
        optimizer.path_release = self
        optimizer.register_step_pre_hook(self._before_step)

    def _before_step(self, *_):
        resting = [g for g in self.optimizer.param_groups if g.get("rest", 0) > 0]
        for group in resting:
            group["rest"] -= 1
        if resting and not resting[0]["rest"]:
            _release(self.optimizer, families(self.optimizer), self.power, self.dense)


@unwraps
def release_(optimizer: Optimizer, *, power: float = 0.0, dense: bool = False) -> None:
    """Let the path of a pretrained net start now, with the levels of its weights, or at Gamma = W.

    Parameters
    ----------
    optimizer : DessiLBI or Split
        Before its path has begun: every V is zero.
    power : float
        The level of each parameter group is multiplied by ``(rms / typical) ** power``, with the
        root mean square of its weights and that of all split weights: a layer of typical weights
        keeps its level. With 1 the weights of all layers take about equally long to enter; with 0
        the levels stay as they are. Each split tensor (each joint family) needs a parameter group
        of its own: ``split_groups(..., apart=True)``.
    dense : bool
        The path begins at Gamma = W, where V is ``W / kappa`` plus a subgradient of the penalty,
        and goes from dense to sparse. Otherwise it begins at zero.

    Raises
    ------
    ValueError
        For a path that was released already or has begun, an optimizer that splits nothing, a
        power that is not finite, and with one: weights that are all zero or not finite, or tensors
        that share a parameter group.

    Notes
    -----
    On the way from dense to sparse the levels rise, and a rise by d would take ``kappa * d / 2``
    from the norm of a group that stays, if the pull acted alone: ``W / kappa + V`` is constant, and
    W meets Gamma there. The loss gives it back, so a ramp must not be shorter than the training
    needs for that.
    """
    _check_power(power)
    check_flag("dense", dense)
    found = families(optimizer)
    if any("rest" in family.group for family in found):
        left = found[0].group["rest"]
        when = f"one in {left} steps" if left else "one before"
        raise ValueError(f"a path must be released once, got {when} and one now")
    check_unbegun(found)
    _release(optimizer, found, power, dense)
    for family in found:
        family.group["rest"], family.group["pull"] = 0, 0.0


@torch.no_grad()
def _release(optimizer, found, power, dense):
    if power:
        _set_levels(found, power)
    for family in found:
        family.group.pop("level", None)  # a TargetDensity takes the new one
        duals = [optimizer.dual(W) for W in family.Ws] if dense else family.Vs
        for V, start in zip(duals, _start(family, duals, dense), strict=True):
            V.copy_(start)


def _start(family, duals, dense):
    """Return V at the release: that of Gamma = 0, or of Gamma = W."""
    if not dense:
        return [torch.zeros_like(V) for V in duals]
    group = family.group
    Ws = [W.to(V.dtype) for W, V in zip(family.Ws, duals, strict=True)]
    xs = [real(W) for W in Ws]
    row = PENALTIES[group["penalty"]]
    inner = row.subgradient(xs, group["lam"], units_of(group))
    found = [x / group["kappa"] + g for x, g in zip(xs, inner, strict=True)]  # (dslbi-dense-start)
    return [
        torch.view_as_complex(V) if W.is_complex() else V for V, W in zip(found, Ws, strict=True)
    ]


def _set_levels(found, power):
    """Multiply the level of every family by a power of the size of its weights."""
    _check_apart(found)
    squares = [_squares(family) for family in found]
    counts = [sum(W.numel() for W in family.Ws) for family in found]
    sizes = [math.sqrt(square / count) for square, count in zip(squares, counts, strict=True)]
    for family, rms in zip(found, sizes, strict=True):
        if not 0 < rms < math.inf:
            raise ValueError(
                f"power needs weights of positive and finite size, got the root mean square {rms} "
                f"of {' and '.join(family.names)}"
            )
    typical, levels = math.sqrt(sum(squares) / sum(counts)), []
    for family, rms in zip(found, sizes, strict=True):
        try:
            level = family.group["lam"] * (rms / typical) ** power  # (dslbi-levels)
        except OverflowError:
            level = math.inf
        if not 0 < level < math.inf:
            raise ValueError(
                f"power must leave every level positive and finite, got {level} for power {power}"
            )
        levels.append(level)
    for family, level in zip(found, levels, strict=True):
        family.group["lam"] = level


def _squares(family):
    return sum(whole(W.detach()).abs().double().square().sum().item() for W in family.Ws)


def _check_power(power):
    check_number("power", power)


def _check_apart(found: list[Family]):
    """Refuse tensors that share a parameter group, and so have one level, without being joint."""
    first = {}
    for family in found:
        other = first.setdefault(id(family.group), family)
        if other is not family:
            raise ValueError(
                "power needs a parameter group for each split tensor (split_groups with "
                f"apart=True), got {other.names[0]} and {family.names[0]} in one"
            )


def _begun(found):
    """Return the name of the first tensor of which V is not zero, or None."""
    rows = (row for f in found for row in zip(f.names, f.Vs, strict=True))
    return next((name for name, V in rows if bool(whole(V).any())), None)


def check_unbegun(found):
    name = _begun(found)
    if name is not None:
        raise ValueError(
            f"a path must be released before it begins, got a V of {name} that is not zero"
        )
