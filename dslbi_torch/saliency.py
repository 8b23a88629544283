"""What a filter looks for: activation maximisation and guided backpropagation.

Both work on any model, whether its ReLUs are modules or functions, and change neither its
parameters nor its gradients. They return tensors; :func:`dslbi_torch.figures.filters` draws them.
"""

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .arguments import MOST, check_count, check_list, check_model, check_number, check_tensor, shown
from .forward import evaluating
from .text import one_line
from .wrapped import unwraps

MAX_STEPS = 10**6  # of an ascent, each of which is a pass through the net


@unwraps
def activation_maximisation(
    model: nn.Module,
    layer: str,
    channels: Sequence[int],
    *,
    shape: tuple[int, ...],
    norm: float = 1.0,
    steps: int = 100,
    lr: float = 0.5,
    seed: int = 0,
) -> Tensor:
    """Return, for each filter, a picture of given norm that excites it most.

    Maximises the mean over places of ``layer``'s output in a channel, subject to ``|x| = norm``, by
    gradient ascent on the sphere from a picture of faint noise.

    Parameters
    ----------
    model : Module
        Evaluated in eval mode; afterwards in the mode in which it was.
    layer : str
        Name of a module whose output has shape (n, channels, ...), as ``"conv3"``.
    channels : sequence of int
        Filters (or neurons), one picture each.
    shape : (channels, height, width)
        Of the pictures.
    norm : float > 0
        Their Euclidean norm.
    steps : int in [1, 1e6]
    lr : float > 0
        Length of the first step as a share of ``norm``; the last one is a hundredth of it.
    seed : int
        Of the noise.

    Returns
    -------
    Tensor of shape (len(channels), *shape)
        Zero for a filter whose output does not depend on the picture.

    Notes
    -----
    For a filter of the first layer whose output is one number the answer is the filter itself,
    scaled. Deeper the problem is not concave: another seed may give another picture.
    """
    p = _first_parameter(model)
    most = torch.finfo(p.dtype).max ** 0.5  # what squares hold
    for name, value in (("norm", norm), ("lr", lr)):
        if not check_number(name, value, -most, most) > 0:
            raise ValueError(f"{name} must be positive, got {value}")
    if check_count("steps", steps, 0, MAX_STEPS) < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    channels = _checked_channels(channels)
    norm, lr = float(norm), float(lr)
    shape = [check_count("shape", size) for size in check_list("shape", shape)]
    if not shape:
        raise ValueError("shape must have at least one axis, got none")
    seed = check_count("seed", seed, 0, 2**63 - 1)
    noise = torch.randn(len(channels), *shape, generator=torch.Generator().manual_seed(seed))
    x = (1e-3 * norm * _directions(noise)).to(p.device, p.dtype)
    alive = torch.zeros(len(channels), dtype=torch.bool, device=p.device)
    with _Reading(model, layer) as reading:
        for k in range(steps):
            x.requires_grad_(True)
            score = reading(x, channels).mean(dim=1).sum()
            (grad,) = torch.autograd.grad(score, x)
            alive |= grad.flatten(1).any(dim=1)
            length = lr * norm * 0.01 ** (k / max(steps - 1, 1))
            x = norm * _directions(x.detach() + length * _directions(grad))
    return torch.where(alive.view(-1, *[1] * len(shape)), x, 0)


@unwraps
def guided_backprop(
    model: nn.Module, layer: str, channels: Sequence[int], pictures: Tensor
) -> Tensor:
    """Return what in each picture excites a filter: a gradient that each ReLU lets pass only where
    it is positive.

    Parameters
    ----------
    model : Module
        Evaluated in eval mode; afterwards in the mode in which it was.
    layer : str
        Name of a module whose output has shape (n, channels, ...).
    channels : sequence of int
        One filter for each picture. Where its output has several places, the strongest is taken.
    pictures : Tensor of shape (len(channels), ...)

    Returns
    -------
    Tensor of the shape of ``pictures``

    Notes
    -----
    Springenberg et al. (2015): the backward pass of a ReLU keeps a gradient where both the input
    and the gradient are positive. Without a ReLU in between it is the plain gradient.
    """
    channels = _checked_channels(channels)
    _first_parameter(model)
    if check_tensor("pictures", pictures).ndim == 0 or len(pictures) != len(channels):
        raise ValueError(
            f"one picture per filter is needed, got pictures of shape {tuple(pictures.shape)} for "
            f"{channels}"
        )
    x = pictures.detach().clone().requires_grad_(True)
    with _Reading(model, layer) as reading, _GuidedReLUs():
        score = reading(x, channels).amax(dim=1).sum()
        return torch.autograd.grad(score, x)[0]


def _checked_channels(channels):
    found = [check_count("channels", c, -MOST) for c in check_list("channels", channels)]
    if not found:
        raise ValueError("channels must hold at least one filter, got none")
    return found


def _first_parameter(model):
    p = next(check_model(model).parameters(), None)
    if p is None or not p.is_floating_point():
        found = "none" if p is None else p.dtype
        raise ValueError(f"model must have floating parameters, got {found}")
    return p


def _directions(x):
    """Each picture divided by its norm; zero stays zero."""
    norms = x.flatten(1).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
    return x / norms.view(-1, *[1] * (x.ndim - 1))


class _Reading:
    """Within the block: the output of a layer for pictures, one channel each, places flat."""

    def __init__(self, model, layer):
        self.model = model
        modules = dict(model.named_modules())
        if not (isinstance(layer, str) and layer and layer in modules):
            raise ValueError(
                f"layer must be one of {', '.join(filter(None, modules))}, got {shown(layer)}"
            )
        self.layer = modules[layer]

    def __enter__(self):
        self.output = None
        self.block = ExitStack()
        self.block.enter_context(evaluating(self.model))
        self.block.callback(self.layer.register_forward_hook(self._keep).remove)
        return self

    def __exit__(self, *_):
        self.block.close()

    def _keep(self, module, inputs, output):
        self.output = output

    def __call__(self, x, channels):
        with torch.enable_grad():
            try:
                self.model(x)
            except RuntimeError as error:
                raise ValueError(
                    f"the model must take pictures of shape {tuple(x.shape[1:])}, but: "
                    f"{one_line(error)}"
                ) from error
        if self.output is None:
            raise ValueError("the layer must take part in the forward pass, but it was not called")
        if not isinstance(self.output, Tensor) or self.output.ndim < 2:
            raise ValueError("layer must be one whose output has shape (n, channels, ...)")
        count = self.output.shape[1]
        if not all(0 <= c < count for c in channels):
            raise ValueError(f"channels must be in [0, {count}), got {list(channels)}")
        return self.output[torch.arange(len(x)), list(channels)].reshape(len(x), -1)


class _GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp_min(0)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad.clamp_min(0) * (x > 0)


class _GuidedReLUs(TorchFunctionMode):
    """Within the block every ReLU is a guided one; hooks would see the modules only."""

    NAMES = (F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in self.NAMES:
            return _GuidedReLU.apply(args[0])
        return func(*args, **(kwargs or {}))
