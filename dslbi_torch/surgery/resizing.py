"""Smaller tensors in the modules of a net, and the sizes that modules know of them."""

import re

import numpy as np
import torch
from torch import Tensor, nn

from ..layers import CONV, NORM, TRANSPOSED
from .tracing import is_conv1d, is_layer_norm, is_rms_norm
from .whole_norm import WholeLayerNorm

_SIZES = re.compile(
    r"head|dim|size|channel|feature|width|group|inner|embed|hidden|planes|^n[fx]$|split|rep"
)
_NOT_SIZES = re.compile(
    r"window|patch|kernel|stride|grid|img|image|vocab|max|block_size|seq|resolution|pad|pos|layer"
)


@torch.no_grad()
def resize_(model: nn.Module, trace, kept: np.ndarray) -> dict:
    """Cut, in place, all tensors of a net to the atoms that are kept.

    Parameters
    ----------
    model : Module
        A copy of the one that was traced.
    trace : Trace
    kept : bool array
        Of the atoms.

    Returns
    -------
    dict
        By the name of a parameter or buffer, the axes along which it was cut and what is left.
    """
    left = {}
    for name, axes in trace.own.items():
        stays = [kept[atoms] for atoms in axes]
        cut = [(d, torch.from_numpy(s.nonzero()[0])) for d, s in enumerate(stays) if not s.all()]
        if cut:
            left[name] = cut
    names = {module: name for name, module in trace.model.named_modules()}
    norms = [(names[module], *rest) for module, *rest in trace.norms]
    shapes = {names[module]: axes for module, axes in trace.sizes.items()}
    least = trace.relations.classes()
    of_heads = np.concatenate([*trace.heads, np.zeros(0, dtype=int)]).astype(int)
    heads = np.isin(least, least[of_heads])
    _cut_tensors(model, left)
    for name, module in list(model.named_modules()):
        _fit_sizes_(module, name, trace, kept)
        if not isinstance(module, (nn.Linear, CONV)) and not is_conv1d(module):
            _fit_attributes_(module, shapes.get(name, ()), kept, heads)
    for name, ids, values, axis in norms:
        if not kept[ids].all() and not isinstance(model.get_submodule(name), WholeLayerNorm):
            _keep_statistics_(model, name, kept[ids], values, axis)
    return left


def _cut_tensors(model, left):
    """Replace the tensors that are cut, in all modules that hold them."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    smaller = {}
    for name, cut in left.items():
        x = old = tensors[name]
        for axis, index in cut:
            x = x.detach().index_select(axis, index.to(x.device))
        if isinstance(old, nn.Parameter):
            x = nn.Parameter(x, requires_grad=old.requires_grad)
        smaller[id(old)] = x
    for module in model.modules():
        for key, x in [*module._parameters.items(), *module._buffers.items()]:
            if id(x) in smaller:
                setattr(module, key, smaller[id(x)])


def _fit_sizes_(module, name, trace, kept):
    """Let the sizes that torch's modules know be those of their tensors."""
    W = getattr(module, "weight", None)
    if isinstance(module, NORM):
        sized = module.running_mean if W is None else W
        module.num_features = module.num_features if sized is None else len(sized)
    elif isinstance(module, nn.RNNBase):
        module.input_size = module.weight_ih_l0.shape[1]
    elif not isinstance(W, Tensor):
        return
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = W.shape
    elif isinstance(module, CONV):
        groups = trace.groups.get(f"{name}.weight".lstrip("."))
        if isinstance(groups, np.ndarray):
            module.groups = int(kept[groups].sum())
        sizes = W.shape[:2][::-1] if isinstance(module, TRANSPOSED) else W.shape[:2]
        if isinstance(module, TRANSPOSED):
            module.in_channels, module.out_channels = sizes[1], sizes[0] * module.groups
        else:
            module.out_channels, module.in_channels = sizes[0], sizes[1] * module.groups
    elif is_layer_norm(module) or isinstance(module, nn.RMSNorm):
        module.normalized_shape = tuple(W.shape)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(W)
    elif isinstance(module, nn.Embedding):
        module.embedding_dim = W.shape[1]
    elif is_conv1d(module):
        module.nx, module.nf = W.shape


def _fit_attributes_(module, axes, kept, heads):
    """Let whole numbers that a module keeps as sizes be those of the axes that it makes.

    An attribute is one if it is called like a size and all axes of its value that were cut were cut
    alike; one that counts heads is of axes of heads, and the size of a head of others. What it was
    taken for wrongly, the comparison of outputs finds.
    """
    sizes = {True: {}, False: {}}
    for atoms in axes:
        own = sizes[bool(heads[atoms].all())]
        own.setdefault(len(atoms), set()).add(int(kept[atoms].sum()))
    for key, value in vars(module).items():
        if not isinstance(value, int) or isinstance(value, bool) or key.startswith("_"):
            continue
        of_heads = "head" in key and not re.search("dim|size", key)
        found = [of_heads] if "head" in key and "all" not in key else [True, False]
        new = set().union(*(sizes[side].get(value, ()) for side in found)) - {value}
        if _SIZES.search(key) and not _NOT_SIZES.search(key) and len(new) == 1:
            setattr(module, key, *new)


def _keep_statistics_(model, name, stays, values, axis):
    """Let a norm of which channels were cut count them on."""
    norm, whole = model.get_submodule(name), len(stays)
    if is_rms_norm(norm):
        share = whole / int(stays.sum())
        norm.weight.data.mul_(share**0.5)
        key = "eps" if hasattr(norm, "eps") else "variance_epsilon"
        eps = getattr(norm, key)
        setattr(norm, key, (torch.finfo(norm.weight.dtype).eps if eps is None else eps) * share)
    else:
        model.set_submodule(name, WholeLayerNorm.of(norm, whole, values[~stays], axis))
