"""Filters that stop training, and filters that start again, in the middle of a run.

:class:`FrozenTraining` freezes the selected filters while the others train on;
:func:`reinitialise_` draws the others anew. Both take masks of what is kept; those of
:func:`dslbi_torch.whole_filters` carry a filter's bias and its BatchNorm along.
"""

import copy

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..arguments import check_flag, check_optimizer, shown
from ..layers import LAYERS, NORM, unit_rows
from ..state import states_alike
from ..wrapped import unwraps
from .checks import check_masks
from .hold import HeldEntries, check_none_held


class FrozenTraining(HeldEntries):
    """Keep some entries bit-equal, while any optimizer trains the rest of the model.

    A gradient of zero does not freeze a weight: momentum, weight decay and the pull to Gamma still
    move it, and V. So after every step the frozen entries of the weights, and of all states of
    their shape (V, momenta), are put back to what they were when this was attached. A state that
    the optimizer had not made yet is held at zero, where it would have begun. Gradients of these
    entries are zero, as soon as they are accumulated. No line of the training loop changes.

    Parameters
    ----------
    model : Module
    optimizer : Optimizer
        Any that steps all of the masked parameters.
    masks : dict
        True: kept, as everywhere. Those of the selected filters, with their biases and BatchNorms,
        are ``whole_filters(model, support_masks(optimizer), x)``. A parameter without a mask trains
        on.
    freeze : "kept" or "removed"
        Which entries of the masked parameters are frozen: "kept" freezes what was selected while
        the others train on, "removed" the others while the selected ones train on.

    Raises
    ------
    ValueError
        As :class:`dslbi_torch.MaskedTraining`, and for another word.

    Notes
    -----
    Gamma of a frozen group is frozen as long as its level is: Gamma is a function of V and lam.
    Running statistics of a BatchNorm describe the data that arrive, and go on. A recorder sees what
    is left of a step if it is attached after this.
    """

    @unwraps
    def __init__(
        self, model: nn.Module, optimizer: Optimizer, masks: dict[str, Tensor], *, freeze: str
    ):
        if not (isinstance(freeze, str) and freeze in ("kept", "removed")):
            raise ValueError(f'freeze must be "kept" or "removed", got {shown(freeze)}')
        check_optimizer(optimizer)
        check_masks(model, masks)
        frozen = {name: mask if freeze == "kept" else ~mask for name, mask in masks.items()}
        self._values = {}  # by weight: of it (None) and of its states, the frozen entries
        for W, entries in check_masks(model, frozen):
            tensors = {None: W.detach(), **states_alike(optimizer, W)}
            self._values[W] = {k: x[entries.to(x.device)].clone() for k, x in tensors.items()}
        super().__init__(model, optimizer, frozen)

    @torch.no_grad()
    def _hold(self):
        for W, frozen in self._pairs:
            values = self._values[W]
            W.masked_scatter_(frozen, values[None])
            for key, state in states_alike(self.optimizer, W).items():
                entries = frozen.to(state.device)
                if key in values:
                    state.masked_scatter_(entries, values[key])
                else:
                    state.masked_fill_(entries, 0)


@unwraps
@torch.no_grad()
def reinitialise_(
    model: nn.Module,
    optimizer: Optimizer,
    masks: dict[str, Tensor],
    *,
    orthogonal: bool = False,
) -> None:
    """Draw anew, in place, what the masks do not keep; what they keep is left bit for bit.

    Weights get the values that their layer draws when it is made (``reset_parameters``); so do
    biases, and a BatchNorm's scale, shift and running statistics, where masks name them. The
    optimizer's states of the weights' shape (momenta, V) become zero there, so a filter that is
    drawn anew has to be selected anew.

    Parameters
    ----------
    model : Module
    optimizer : Optimizer
        Whatever it does not have yet, or does not step, is drawn anew all the same.
    masks : dict
        True: kept. ``whole_filters(model, support_masks(optimizer), x)`` are those of the selected
        filters.
    orthogonal : bool
        Filters (rows of a linear layer) that are drawn anew as a whole are made orthogonal to all
        that stay in their layer, and to each other; their norms are those that were drawn.

    Raises
    ------
    ValueError
        For masks of another model, entries that are held, a module that cannot draw its parameters,
        and orthogonal filters in a layer that has more filters than a filter has weights. Nothing
        has changed then.

    Notes
    -----
    Random numbers are torch's own (``torch.manual_seed``).
    """
    check_optimizer(optimizer)
    check_flag("orthogonal", orthogonal)
    check_masks(model, masks)
    check_none_held(model, masks)
    fresh, changes = {}, []
    for name, mask in masks.items():
        owner, _, key = name.rpartition(".")
        module = model.get_submodule(owner)
        if owner not in fresh:
            fresh[owner] = _drawn(module, owner)
        W, mask = getattr(module, key), mask.to(getattr(module, key).device)
        drawn = getattr(fresh[owner], key).detach()
        if orthogonal and W.ndim > 1:
            drawn = _orthogonal(module, drawn, torch.where(mask, W.detach(), drawn), mask, name)
        changes.append((W, mask, drawn))
        if isinstance(module, NORM) and key == "weight" and module.running_mean is not None:
            for buffer in ("running_mean", "running_var"):
                changes.append((getattr(module, buffer), mask, getattr(fresh[owner], buffer)))
    for W, mask, drawn in changes:
        W.copy_(torch.where(mask, W, drawn))
        for value in states_alike(optimizer, W).values():
            value.masked_fill_(~mask.to(value.device), 0)


def _drawn(module, name):
    """A copy of a module with freshly drawn parameters."""
    if not hasattr(module, "reset_parameters"):
        raise ValueError(
            f"{name or 'the model'} must be able to draw its parameters anew, but a "
            f"{type(module).__name__} has no reset_parameters"
        )
    module = copy.deepcopy(module)
    module.reset_parameters()
    return module


def _orthogonal(module, drawn, W, mask, name):
    """The drawn tensor, with the rows of which no entry is kept made orthogonal to the other rows
    of W, as these will be, and to each other."""

    def rows(x):
        return unit_rows(module, x) if isinstance(module, LAYERS) else x.flatten(1)

    new = ~rows(mask).any(1)
    fresh, kept = rows(drawn)[new].double(), rows(W)[~new].double()
    count, size = rows(W).shape
    if count > size:
        raise ValueError(
            f"orthogonal filters need a layer with at most as many filters as a filter has "
            f"weights, got {count} of {size} in {name}"
        )
    # The columns of Q after those of the kept rows are orthogonal to all of them.
    Q = torch.linalg.qr(torch.cat([kept, fresh]).T).Q[:, len(kept) :].T
    places = rows(torch.arange(W.numel(), device=W.device).view(W.shape))[new]
    orthogonal = (Q * fresh.norm(dim=1, keepdim=True)).to(drawn.dtype)
    return drawn.flatten().index_put((places,), orthogonal).view(drawn.shape)
