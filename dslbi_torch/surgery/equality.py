"""Whether a changed net computes what it did before, in float64 and layer by layer."""

import copy
import warnings

import torch
from torch import Tensor, nn

from ..forward import call, evaluating, map_tensors, run_example, tensors_of
from ..text import one_line
from ..torch_private import convert_tensors, leaves
from .coupling import cannot_follow

OUTPUTS = "its outputs"


@torch.no_grad()
def in_float64(model: nn.Module, x) -> tuple:
    """Return a copy of a model, without gradients, and its example, both in float64.

    There a difference between two models is one of structure, and not of rounding. Where the model
    does not run so, the copies keep their own dtypes, and a warning says it.
    """
    exact, y = copy.deepcopy(model), x
    try:
        if any(part.device.type == "mps" for part in tensors_of(x)):  # which has no float64
            exact, y = exact.cpu(), map_tensors(lambda part: part.cpu(), x)
        exact = exact.double()
        y = map_tensors(lambda part: part.double() if part.is_floating_point() else part, y)
        with evaluating(exact):
            call(exact, y)
        exact.zero_grad()
        return exact, y
    except Exception as error:
        reason = error
    exact = copy.deepcopy(model)
    run_example(exact, x)
    dtype = next(model.parameters()).dtype
    warnings.warn(
        f"the outputs are compared in {dtype} only, since the model does not run in float64: "
        f"{one_line(reason)}",
        stacklevel=4,
    )
    exact.zero_grad()
    return exact, x


def moved_like(changed: nn.Module, model: nn.Module) -> nn.Module:
    """Return the changed copy with the dtypes and devices of the model."""
    before = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    first = next(model.parameters())
    like = {}
    for name, x in [*changed.named_parameters(), *changed.named_buffers()]:
        beside = before.get(f"{name.rpartition('.')[0]}.weight".lstrip("."), first)
        like[id(x)] = before.get(name, beside)  # beside: of a bias that is new
    return convert_tensors(changed, lambda x: x.to(like[id(x)]) if id(x) in like else x)


@torch.no_grad()
def compare_outputs(
    model: nn.Module, changed: nn.Module, x, units: dict, refused=cannot_follow
) -> None:
    """Refuse a changed model whose outputs, or those of its layers, are not those of the model.

    Parameters
    ----------
    model, changed : Module
        As :func:`in_float64` gives them.
    x : Tensor, or tuple or dict of tensors
        The example. Noise is compared beside it; whole numbers may be choices (tokens, labels), of
        which noise is none, and change places instead.
    units : dict
        By the name of a module whose outputs are compared: which units of the model, and which of
        the changed one; None is all. Without them, a head that is small or zero would hide what is
        wrong before it.
    refused : callable
        Makes the exception to be raised, of a reason.
    """
    other = map_tensors(_other_values(torch.Generator().manual_seed(0)), x)
    axes = {name: _channel_axis(changed.get_submodule(name)) for name in units}
    with evaluating(model), evaluating(changed):
        for example in (x, other):
            try:
                before, after = (
                    _outputs_of(net, example, {n: (axes[n], u[side]) for n, u in units.items()})
                    for side, net in enumerate((model, changed))
                )
            except Exception as error:
                raise refused(error) from error
            if example is x:
                _check_outputs([a for what, a in before if what == OUTPUTS])
            _check_equal(before, after, refused)


def _other_values(generator):
    def change(x):
        """Noise for real numbers; whole ones are choices: the same ones, elsewhere."""
        if x.is_floating_point():
            return torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
        return x.roll(1, -1) if x.ndim > 1 else x

    return change


def _channel_axis(module):
    """The axis of a layer's output along which its units lie, counted from the end."""
    weight = getattr(module, "weight", None)
    return 1 if weight is None else 1 - weight.ndim


def _outputs_of(model, x, units):
    """The outputs of a model and, for two examples, those of its modules: pairs of words for what
    it is, and the tensor."""
    found, handles = [], []

    def keep(name, axis, chosen):
        def hook(module, inputs, output):
            some = output[:2].clone()
            if chosen is not None:
                some = some.index_select(axis, chosen.to(some.device))
            found.append((f"the outputs of {name or 'its layer'}", some))

        return hook

    for name, chosen in units.items():
        handles.append(model.get_submodule(name).register_forward_hook(keep(name, *chosen)))
    try:
        tensors = [y for y in leaves(call(model, x)) if isinstance(y, Tensor)]
    finally:
        for handle in handles:
            handle.remove()
    return [(OUTPUTS, tensor) for tensor in tensors] + found


def _check_outputs(tensors):
    """Refuse outputs that say nothing of the layers: none, choices, NaN."""
    if not any(a.is_floating_point() or a.is_complex() for a in tensors):
        found = ", ".join(str(a.dtype) for a in tensors) or "no tensors"
        raise ValueError(f"the outputs of the model must be floating-point numbers, got {found}")
    if any(a.isnan().any() for a in tensors):
        raise ValueError("the outputs of the model must be numbers, got NaN")


def _check_equal(before, after, refused):
    """Refuse tensors that differ from their counterparts, relative to their own largest entries."""
    if [what for what, _ in before] != [what for what, _ in after]:
        raise refused("it would not call its layers as before")
    pairs = []
    for (what, a), (_, b) in zip(before, after, strict=True):
        if a.shape != b.shape:
            raise refused(f"{what} would have the shape {tuple(b.shape)}, not {tuple(a.shape)}")
        real = a.is_floating_point() or a.is_complex()
        pairs.append((what, a, b) if real else (what, a.double(), b.double()))
    of_all = max(_largest(a) for _, a, _ in pairs)
    for what, a, b in pairs:
        eps = torch.finfo(a.dtype).eps
        same = (a == b) | (a.isnan() & b.isnan())
        gap = _largest((a - b).abs().masked_fill(same, 0), nan=torch.inf)
        # Half of the digits, in float64 six. What is small beside the rest of the net may be the
        # rounding of a sum that cancels.
        if gap > max(1e-6, eps**0.5) * _largest(a) + eps**0.75 * of_all:
            raise refused(f"{what} would differ by {gap / max(_largest(a), 1e-300):.1e}")


def _largest(x, nan=0.0):
    """The largest absolute value of the entries that are finite; 0 where there are none."""
    x = x.abs().flatten()
    return x.nan_to_num(nan, nan, nan).max().item() if x.numel() else 0.0
