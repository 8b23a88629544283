"""Entries of weights that a training holds while it goes on: at zero, or where they are.

Two hooks on the optimizer (before and after its step) and one on each parameter (when its gradient
has been accumulated) do the holding; no line of a training loop changes.
"""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.weak import WeakIdKeyDictionary

from ..arguments import check_optimizer
from ..state import states_alike
from ..wrapped import unwraps
from .checks import check_masks, check_same_tensors

# The parameters of which entries are held now, by whichever optimizer. A parameter is held once,
# and what redraws or widens it must ask here first, since a held entry would be put back.
_HELD_PARAMETERS = WeakIdKeyDictionary()


def check_none_held(model: nn.Module, names) -> None:
    """Refuse parameters, given by name, of which a :class:`HeldEntries` holds entries."""
    parameters = dict(model.named_parameters())
    for name in names:
        if parameters[name] in _HELD_PARAMETERS:
            raise ValueError(f"{name} is under masks already: detach those first")


def check_stepped(optimizer: Optimizer, parameters: dict[str, Tensor], what: str) -> None:
    """Refuse a parameter that is trained, but not by this optimizer.

    ``what`` is the participle that the message says of the parameter: "masked", "widened".
    """
    check_optimizer(optimizer)
    own = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, W in parameters.items():
        if W.requires_grad and id(W) not in own:
            raise ValueError(f"the optimizer must have the {what} parameter {name}")


class HeldEntries:
    """Entries of a model's weights that no step of an optimizer moves.

    Subclasses say in ``_hold`` at what: :class:`MaskedTraining` at zero,
    :class:`dslbi_torch.FrozenTraining` at what they are.

    Parameters
    ----------
    model : Module
    optimizer : Optimizer
        Any that steps all parameters of which entries are held.
    held : dict
        A bool tensor for each of the parameters, True where an entry is held.
    """

    @unwraps
    def __init__(self, model: nn.Module, optimizer: Optimizer, held: dict[str, Tensor]):
        pairs = [(W, entries.clone()) for W, entries in check_masks(model, held)]
        check_stepped(optimizer, {n: W for n, (W, _) in zip(held, pairs, strict=True)}, "masked")
        check_none_held(model, held)
        self.optimizer = optimizer
        self._pairs = pairs
        self._handles = [
            optimizer.register_step_pre_hook(lambda *_: self._mask_gradients()),
            optimizer.register_step_post_hook(lambda *_: self._hold()),
        ]
        for W, entries in self._pairs:
            _HELD_PARAMETERS[W] = True
            if W.requires_grad:
                self._handles.append(W.register_post_accumulate_grad_hook(_gradient_hook(entries)))
        self._hold()
        self._mask_gradients()

    def detach(self) -> None:
        """Train all entries again, from what they are held at."""
        for handle in self._handles:
            handle.remove()
        for W, _ in self._pairs:
            del _HELD_PARAMETERS[W]
        self._handles, self._pairs = [], []

    @torch.no_grad()
    def _mask_gradients(self):
        for W, entries in self._pairs:
            if W.grad is not None:
                W.grad.masked_fill_(entries, 0)

    def _hold(self):
        raise NotImplementedError


def _gradient_hook(entries):
    def hook(W):
        with torch.no_grad():
            W.grad.masked_fill_(entries, 0)

    return hook


class MaskedTraining(HeldEntries):
    """Keep at exactly zero what the masks do not keep, while any optimizer trains the model.

    At these entries three things are zero from now on: the weights and the optimizer's states of
    their shape (momenta, V) after every step, and the gradients as soon as they are accumulated,
    and again when a step begins. Of a parameter that was frozen when this was attached, gradients
    are set to zero when a step begins only. No line of the training loop changes.

    Parameters
    ----------
    model : Module
        Its weights are masked at once.
    optimizer : Optimizer
        Any that steps all of the masked parameters.
    masks : dict
        True: kept, and trained.

    Raises
    ------
    ValueError
        For masks of another model, a masked parameter that is trained, but not by this optimizer,
        and for a model that is already trained under masks, or with frozen entries.
    """

    @unwraps
    def __init__(self, model: nn.Module, optimizer: Optimizer, masks: dict[str, Tensor]):
        check_masks(model, masks)
        super().__init__(model, optimizer, {name: ~mask for name, mask in masks.items()})
        self._names = list(masks)

    def change(self, masks: dict[str, Tensor]) -> None:
        """Hold by other masks of the same tensors from now on; what they keep anew starts at
        zero."""
        if not self._pairs:
            raise ValueError("masks must be attached to be changed, but are detached")
        check_same_tensors(self.masks, masks)
        for name, (_, removed) in zip(self._names, self._pairs, strict=True):
            removed.copy_(~masks[name])
        self._hold()
        self._mask_gradients()

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks as they are now."""
        return {name: ~removed for name, (_, removed) in zip(self._names, self._pairs, strict=True)}

    @torch.no_grad()
    def _hold(self):
        for W, entries in self._pairs:
            W.masked_fill_(entries, 0)
            for value in states_alike(self.optimizer, W).values():
                value.masked_fill_(entries.to(value.device), 0)
