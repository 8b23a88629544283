"""Which layers must grow together: the dependency graph of Torch-Pruning."""

import warnings
from collections import Counter
from contextlib import contextmanager

import torch
from torch import nn

from ..arguments import check_model
from ..layers import LAYERS, own_parameter
from ..optional import brought_by
from ..text import one_line


def check_layers(model: nn.Module) -> None:
    """Refuse a model without layers, and layers whose weight is computed."""
    check_model(model)
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, LAYERS)]
    if not layers:
        raise ValueError("the model must have a convolution or a linear layer, has none")
    for name, layer in layers:
        if own_parameter(layer, "weight") is None:
            raise ValueError(
                f"the weight of {name or 'the model'} must be a parameter, but is computed: remove "
                "its parametrization (weight_norm, spectral_norm, ...) first"
            )


def shared_modules(model: nn.Module) -> set[nn.Module]:
    """Return the modules that hold a parameter which another one holds too."""
    own = [(m, p) for m in model.modules() for p in m.parameters(recurse=False)]
    count = Counter(id(p) for _, p in own)
    return {m for m, p in own if count[id(p)] > 1}


def dependency_graph(model, x):
    """Return Torch-Pruning's graph of the model, as it runs in the dtype of x.

    Raises
    ------
    ImportError
        Where Torch-Pruning is not installed.
    ValueError
        For a model that it cannot follow.
    """
    with brought_by("surgery", "widening"):
        import torch_pruning
    try:
        with _in_dtype(model, x.dtype), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it cannot follow is refused below
            graph = torch_pruning.DependencyGraph().build_dependency(
                model, x, forward_fn=lambda model, x: model(x), verbose=False
            )
    except Exception as error:
        raise cannot_follow(error) from error
    for node in graph.module2node.values():
        if node.type == torch_pruning.ops.OPTYPE.CONCAT and node.module.offsets is None:
            _number_channels(graph, node)
    return graph


@contextmanager
def _in_dtype(model, dtype):
    """Let what is float64 have another dtype within the block.

    An LSTM is one operation in float32; in float64 it is many, which the graph cannot follow.
    """
    tensors = [t for t in (*model.parameters(), *model.buffers()) if t.dtype == torch.float64]
    kept = [t.data for t in tensors]
    try:
        for t in tensors if dtype.is_floating_point else ():
            t.data = t.data.to(dtype)
        yield
    finally:
        for t, data in zip(tensors, kept, strict=True):
            t.data = data


def _number_channels(graph, node):
    """Tell the graph where channels lie in a concatenation that is flattened later.

    It does so itself for other concatenations only.
    """
    if getattr(node.grad_fn, "_saved_dim", None) != 1:
        return
    first = 0
    for source in node.inputs:
        count = _count_channels(graph, source)
        for dep in (d for d in source.dependencies if d.target is node):
            dep.index_mapping[1] = lambda at, first=first: [
                i._replace(idx=i.idx + first) for i in at
            ]
        for dep in (d for d in node.dependencies if d.target is source):
            dep.index_mapping[1] = lambda at, first=first, count=count: [
                i._replace(idx=i.idx - first) for i in at if first <= i.idx < first + count
            ]
        first += count


def _count_channels(graph, node):
    """The number of channels in the output of a node of the graph."""
    count = graph.get_out_channels(node)
    if count is None:
        counts = [_count_channels(graph, source) for source in node.inputs]
        return sum(counts) if node.name.startswith("_Concat") else max(counts, default=0)
    return count


def cannot_follow(error: Exception | str) -> ValueError:
    """Return what is to be raised where the graph, or the comparison of outputs, fails."""
    return ValueError(f"the dependency graph cannot follow this model: {one_line(error)}")


def is_operation(module):
    """Return whether a node of the graph stands for an operation without a module."""
    return type(module).__module__.startswith("torch_pruning")


def is_grouped(module):
    """Return whether a convolution has groups of more than one channel."""
    groups = getattr(module, "groups", 1)
    return groups > 1 and not groups == module.in_channels == module.out_channels
