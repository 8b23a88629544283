"""What trainers put around optimizers and models, taken off again.

A wrapped optimizer has neither the options nor the hooks of the one that splits; the parameters of
a wrapped model have longer names. Every public function takes either.
"""

from functools import wraps

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

_AROUND_MODELS = (DataParallel, DistributedDataParallel, AveragedModel)
_COMPILED, _WRAPPED = "_orig_mod", "module"  # the attributes that hold what is compiled, wrapped
_TRAINERS = ("accelerate", "lightning", "pytorch_lightning")


def unwrapped_model(model: nn.Module) -> nn.Module:
    """Return the model within DistributedDataParallel, torch.compile or AveragedModel, which holds
    a copy; any other as it is."""
    while True:
        if isinstance(model, _AROUND_MODELS):
            model = model.module
        elif isinstance(getattr(model, _COMPILED, None), nn.Module):
            model = getattr(model, _COMPILED)
        else:
            return model


def unwrapped_optimizer(optimizer):
    """Return the optimizer within what Accelerate, Lightning and others put around one."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner
    return optimizer


def of_trainer(optimizer) -> bool:
    """Return whether a trainer has prepared this optimizer: it may then leave out steps."""
    return type(optimizer).__module__.split(".")[0] in _TRAINERS


def unwraps(function):
    """Let a function take wrapped models and optimizers, and masks that are named after them."""

    @wraps(function)
    def unwrapping(*args, **kwargs):
        args, kwargs = [_inner(x) for x in args], {k: _inner(x) for k, x in kwargs.items()}
        model = next((x for x in (*args, *kwargs.values()) if isinstance(x, nn.Module)), None)
        if model is not None:
            args = [_named_as(model, x) for x in args]
            kwargs = {k: _named_as(model, x) for k, x in kwargs.items()}
        return function(*args, **kwargs)

    return unwrapping


def _inner(x):
    if isinstance(x, nn.Module):
        return unwrapped_model(x)
    if isinstance(x, dict) and x and all(isinstance(net, nn.Module) for net in x.values()):
        return {key: unwrapped_model(net) for key, net in x.items()}
    return unwrapped_optimizer(x) if hasattr(x, "param_groups") else x


def _named_as(model, masks):
    """Masks by the names of the model, whichever wrapper they are named after; else what it is."""
    if not (isinstance(masks, dict) and masks and all(_is_named(*row) for row in masks.items())):
        return masks
    own = [name for name, _ in model.named_parameters()]
    if set(masks) <= set(own):
        return masks
    of_plain = {plain_name(name): name for name in own}
    return {
        name if name in own else of_plain.get(plain_name(name), name): mask
        for name, mask in masks.items()
    }


def _is_named(name, mask):
    return isinstance(name, str) and isinstance(mask, Tensor)


def plain_name(name: str) -> str:
    """Return the name of a parameter without what wrappers have put into it."""
    parts = [part for part in name.split(".") if part != _COMPILED]
    while len(parts) > 1 and parts[0] == _WRAPPED:
        parts = parts[1:]
    return ".".join(parts)


def plain_names(names: list[str]) -> list[str]:
    """Return the names of all parameters of a model without what wrappers have put into them.

    A module that is called as a wrapper's is told from one by that its names are not those of all.
    """
    prefix = _WRAPPED + "."
    if names and all(name.removeprefix(f"{_COMPILED}.").startswith(prefix) for name in names):
        return [plain_name(name) for name in names]
    return [name.replace(f"{_COMPILED}.", "") for name in names]
