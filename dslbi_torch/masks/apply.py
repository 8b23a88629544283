"""Masks applied: for an evaluation, in training, for good; and what goes with a filter."""

from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.weak import WeakIdKeyDictionary

from ..surgery.constants import LAYERS, NORM, TRANSPOSED
from ..tensors import states_alike
from ..text import one_line
from .support import check_masks, check_same_tensors, restored, weight_names


@torch.no_grad()
def apply_masks_(model: nn.Module, masks: dict[str, Tensor]) -> nn.Module:
    """Set to zero, in place and for good, what the masks do not keep; returns the model."""
    for W, mask in check_masks(model, masks):
        W.masked_fill_(~mask, 0)
    return model


@contextmanager
def masked(model: nn.Module, masks: dict[str, Tensor]):
    """Context in which what the masks do not keep is zero; restored bit for bit afterwards."""
    with restored([W for W, _ in check_masks(model, masks)]):
        apply_masks_(model, masks)
        yield


class HeldEntries:
    """Entries of a model's weights that no step of an optimizer moves; what they are held at is up
    to :class:`MaskedTraining` and :class:`dslbi_torch.FrozenTraining`.

    ``held`` says of every parameter which entries, as masks do.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, held: dict[str, Tensor]):
        pairs = [(W, entries.clone()) for W, entries in check_masks(model, held)]
        refuse_other(optimizer, {n: W for n, (W, _) in zip(held, pairs, strict=True)}, "masked")
        refuse_held(model, held)
        self.optimizer = optimizer
        self._pairs = pairs
        self._handles = [
            optimizer.register_step_pre_hook(lambda *_: self._mask_gradients()),
            optimizer.register_step_post_hook(lambda *_: self._hold()),
        ]
        for W, entries in self._pairs:
            _HELD[W] = True
            if W.requires_grad:
                self._handles.append(W.register_post_accumulate_grad_hook(_gradient_hook(entries)))
        self._hold()
        self._mask_gradients()

    def detach(self) -> None:
        """Train all entries again, from what they are held at."""
        for handle in self._handles:
            handle.remove()
        for W, _ in self._pairs:
            del _HELD[W]
        self._handles, self._pairs = [], []

    @torch.no_grad()
    def _mask_gradients(self):
        for W, entries in self._pairs:
            if W.grad is not None:
                W.grad.masked_fill_(entries, 0)

    def _hold(self):
        raise NotImplementedError


class MaskedTraining(HeldEntries):
    """Keep at exactly zero what the masks do not keep, while any optimizer trains the model.

    From now on, at these entries: the weights are zero after every step, so are the optimizer's
    states of the weights' shape (momenta, V) and the gradients, as soon as they are accumulated and
    again when a step begins (of a parameter that was frozen when this was attached, only then). No
    line of the training loop changes.

    Parameters
    ----------
    model : Module
        Its weights are masked at once.
    optimizer : Optimizer
        Any that steps all of the masked parameters.
    masks : dict

    Raises
    ------
    ValueError
        For masks of another model, a masked parameter that is trained, but not by this optimizer,
        and for a model that is already trained under masks, or with frozen entries.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, masks: dict[str, Tensor]):
        check_masks(model, masks)
        super().__init__(model, optimizer, {name: ~mask for name, mask in masks.items()})
        self._names = list(masks)

    def change(self, masks: dict[str, Tensor]) -> None:
        """Other masks of the same tensors from now on; what they keep anew starts from zero."""
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


def refuse_held(model: nn.Module, names) -> None:
    """ValueError where one of the parameters is held by a :class:`HeldEntries`."""
    parameters = dict(model.named_parameters())
    for name in names:
        if parameters[name] in _HELD:
            raise ValueError(f"{name} is under masks already: detach those first")


def refuse_other(optimizer: Optimizer, parameters: dict[str, Tensor], what: str) -> None:
    """ValueError where one of the parameters is trained, but not by this optimizer; ``what``
    happens to it."""
    own = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, W in parameters.items():
        if W.requires_grad and id(W) not in own:
            raise ValueError(f"the optimizer must have the {what} parameter {name}")


_HELD = WeakIdKeyDictionary()  # the parameters of which entries are held


def _gradient_hook(entries):
    def hook(W):
        with torch.no_grad():
            W.grad.masked_fill_(entries, 0)

    return hook


def whole_filters(
    model: nn.Module, masks: dict[str, Tensor], example_input: Tensor
) -> dict[str, Tensor]:
    """The masks, extended to all that belongs to a removed filter or neuron, which then emits
    exactly 0.

    A filter (a neuron, a row of a linear layer) is removed where its mask keeps none of its
    weights. With it go its bias, and scale and shift of the BatchNorm that takes its output, and no
    other that is alive.

    Parameters
    ----------
    model : Module
        Left as it is, its mode and its running statistics included.
    masks : dict
    example_input : Tensor
        What the model takes: one forward pass shows which BatchNorm follows which layer.
    """
    check_masks(model, masks)
    extended = {name: mask.clone() for name, mask in masks.items()}
    names = {p: name for name, p in model.named_parameters()}
    weights = weight_names(model)
    needed = {}  # by bias, scale or shift: what is alive in any of the layers that it serves
    touched, device = {}, next(iter(masks.values())).device
    for layer, norm in followed(model, example_input):
        key = weights.get(layer)
        whole = torch.ones(layer.weight.shape, dtype=torch.bool, device=device)
        alive = alive_outputs(layer, masks.get(key, whole))
        own = [layer._parameters.get("bias")]
        if norm is not None:
            own += [norm._parameters.get("weight"), norm._parameters.get("bias")]
        for p in own:
            if p is not None:
                needed[p] = needed[p] | alive if p in needed else alive
                if key in masks:
                    touched[p] = names[p]
    for p, name in touched.items():
        alive = needed[p]
        extended[name] = extended[name] & alive if name in extended else alive.clone()
    return extended


def output_rows(layer: nn.Module, x: Tensor) -> Tensor:
    """A tensor of the shape of a layer's weight, one row for each output channel."""
    if isinstance(layer, TRANSPOSED):
        # input channels first; within each of the groups the outputs are numbered from 0
        return x.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1).flatten(1)
    return x.flatten(1)


def alive_outputs(layer: nn.Module, mask: Tensor) -> Tensor:
    """Of which output channels of a layer the mask of its weight keeps anything."""
    return output_rows(layer, mask).any(1)


def followed(model: nn.Module, example_input: Tensor) -> list[tuple[nn.Module, nn.Module | None]]:
    """Every layer that was called, and every layer with the BatchNorm that takes its output.

    A BatchNorm is of layers if it takes nothing else, and if what it scales are their units (those
    of a linear layer lie along the last axis, which is not that of a BatchNorm behind tokens).
    """
    outputs, pairs, strangers, handles = [], [], set(), []

    def after(layer, _, output):
        outputs.append((output, layer))
        pairs.append((layer, None))

    def before(norm, inputs, named):
        x = inputs[0] if inputs else named["input"]
        found = [layer for y, layer in outputs if y is x and x.ndim == layer.weight.ndim]
        pairs.extend((layer, norm) for layer in found)
        if not found:
            strangers.add(norm)

    for module in model.modules():
        if isinstance(module, LAYERS):
            handles.append(module.register_forward_hook(after))
        elif isinstance(module, NORM):
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
    try:
        forward(model, example_input)
    finally:
        for handle in handles:
            handle.remove()
    return [(layer, norm) for layer, norm in pairs if norm not in strangers]


@torch.no_grad()
def forward(model: nn.Module, example_input: Tensor) -> None:
    """One pass in evaluation mode; ValueError where the model does not take the example."""
    if not isinstance(example_input, Tensor):
        raise ValueError(f"example_input must be a tensor, got a {type(example_input).__name__}")
    with evaluating(model):
        try:
            model(example_input)
        except Exception as error:
            raise ValueError(
                f"the model must take example_input of shape {tuple(example_input.shape)}, "
                f"but: {one_line(error)}"
            ) from None


@contextmanager
def evaluating(model: nn.Module):
    """A block in evaluation mode; every module has its own mode again after it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
