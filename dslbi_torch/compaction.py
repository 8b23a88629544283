"""A physically smaller model, equal to the masked one.

Which channels can go is decided here, exactly: one forward pass shows which inputs of every layer
no longer depend on the input of the net, and what they are instead. What else must be cut with a
channel (its BatchNorm, the columns of its readers, other writers of a residual stream) is found by
the dependency graph of Torch-Pruning.
"""

import copy
import warnings

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .constants import LAYERS, NORM, TRANSPOSED, constant_inputs, cuts_border, reads_of
from .masking import apply_masks_, evaluating

# What a channel may pass through without meeting the others.
_CHANNELWISE = (*LAYERS, NORM, nn.PReLU)


def compact(model: nn.Module, masks: dict[str, Tensor] | None, example_input: Tensor) -> nn.Module:
    """A copy of the model from which dead filters and neurons are cut out.

    Its outputs in evaluation mode are those of the masked model: ``W * mask`` in place of W. A
    channel goes where none of its readers needs it: it no longer depends on the input (its filter
    is masked, and so is every other writer of a residual stream), or the weights that read it are
    all zero. What such a channel still emits (its bias, the shift of its BatchNorm) is a constant,
    and is folded into the biases of its readers. A convolution with zero padding sees the constant
    end at the border; there the channel stays, and a warning says so. With the masks of
    :func:`dslbi_torch.whole_filters` a removed filter emits 0, and can always go.

    Parameters
    ----------
    model : Module
        Left as it is. A module without weights that changes the number of channels (a shortcut that
        pads) may offer ``as_convolution(in_channels)``, an equal convolution without bias, which
        takes its place in the copy.
    masks : dict, or None
        None: what is zero in the model already.
    example_input : Tensor
        A batch of at least one example, of any values.

    Returns
    -------
    Module
        Of the same classes as the model, with smaller layers.

    Raises
    ------
    ValueError
        For masks of another model (or of this one before it was compacted), a layer of which all
        filters are dead, and a model that the dependency graph cannot follow, which is found out by
        comparing outputs.
    """
    if not (len(example_input) and example_input.is_floating_point()):
        raise ValueError(
            "example_input must hold at least one example of floating-point numbers, "
            f"got shape {tuple(example_input.shape)} and {example_input.dtype}"
        )
    masked = copy.deepcopy(model)
    if masks is not None:
        apply_masks_(masked, masks)
    small = copy.deepcopy(masked)
    with evaluating(small):
        replace_padding(small, example_input)
        frozen = {name for name, p in small.named_parameters() if not p.requires_grad}
        while _cut(small.requires_grad_(True), example_input):
            pass
    for name, p in small.named_parameters():
        p.requires_grad_(name not in frozen)
    compare_outputs(masked, small, example_input)
    return small


def replace_padding(model, x):
    """Put ``as_convolution`` of the modules that offer it in their place, frozen."""
    found, handles = {}, []
    for name, module in model.named_modules():
        if hasattr(module, "as_convolution"):
            handles.append(
                module.register_forward_pre_hook(
                    lambda m, inputs, name=name: found.__setitem__(name, inputs[0].shape[1])
                )
            )
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    reference = next(model.parameters())
    for name, channels in found.items():
        conv = model.get_submodule(name).as_convolution(channels)
        conv.requires_grad_(False).train(model.training)
        model.set_submodule(name, conv.to(reference.device, reference.dtype))


# What can go, and its cutting


def _cut(model, x):
    """Cut all that can go as the model is now; whether anything went."""
    graph = dependency_graph(model, x)
    names = {module: name for name, module in model.named_modules()}
    try:
        values = constant_inputs(model, x)
    except ValueError as error:
        raise lost(error) from None
    cuts, kept, emptied = [], {}, {}
    for group in graph.get_all_groups(root_module_types=LAYERS):
        channels = _removable(graph, group, values, names, kept, emptied)
        if channels:
            root = group[0].dep
            cuts.append(graph.get_pruning_group(root.target.module, root.handler, channels))
    for name in (name for name in names.values() if name in emptied):  # the first: others follow
        raise ValueError(f"all {emptied[name]} filters of {name} are dead: keep at least one")
    # By layer, in the numbers that all groups have: a cut changes them.
    indices = {}
    for item in (item for group in cuts for item in group):
        module, handler = item.dep.target.module, item.dep.handler
        if not is_operation(module):
            indices.setdefault((module, handler), set()).update(item.idxs)
    for (module, handler), gone in indices.items():
        if isinstance(module, LAYERS) and not graph.is_out_channel_pruning_fn(handler):
            _fold(module, sorted(gone), values)
    for (module, handler), gone in indices.items():
        handler(module, sorted(gone))
    if not cuts:
        _tell(kept)
    return bool(cuts)


def dependency_graph(model, x):
    """Torch-Pruning's graph of the model."""
    import torch_pruning

    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it cannot follow is refused below
            graph = torch_pruning.DependencyGraph().build_dependency(
                model, x, forward_fn=lambda model, x: model(x), verbose=False
            )
    except Exception as error:
        raise lost(error) from None
    for node in graph.module2node.values():
        if node.type == torch_pruning.ops.OPTYPE.CONCAT and node.module.offsets is None:
            _number_channels(graph, node)
    return graph


def _number_channels(graph, node):
    """Tell the graph where channels come to lie in a concatenation that is flattened later, which
    it leaves out."""
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
    """Channels of what a node of the graph gives on."""
    count = graph.get_out_channels(node)
    if count is None:
        counts = [_count_channels(graph, source) for source in node.inputs]
        return sum(counts) if node.name.startswith("_Concat") else max(counts, default=0)
    return count


def lost(error):
    """What is raised where the graph or the comparison of outputs fails."""
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return ValueError(f"the dependency graph cannot follow this model: {reason}")


def _removable(graph, group, values, names, kept, emptied):
    """Which channels of a group of coupled layers can go; what stays or is empty is noted."""
    root = group[0].dep.target.module
    count = graph.get_out_channels(root)
    # of each channel: its readers do not need it; they know it; they know it but for the border
    needless, known, border = (torch.full((count,), x) for x in (True, True, False))
    has_readers, strange, dead_filters = False, None, 0
    for item in group:
        node, module = item.dep.target, item.dep.target.module
        reads = graph.is_in_channel_pruning_fn(item.dep.handler)
        writes = graph.is_out_channel_pruning_fn(item.dep.handler)
        layer = isinstance(module, LAYERS)
        if writes and not node.outputs:  # the output of the net
            return []
        if is_operation(module):
            continue
        if not isinstance(module, _CHANNELWISE) or is_grouped(module) or None in item.root_idxs:
            strange = names.get(module, graph._param_to_name.get(module)), type(module).__name__
        elif layer and writes and not reads:
            dead_filters += int((~reads_of(module).any(1))[item.idxs].sum())
        elif layer and reads and not writes:
            has_readers = True
            roots = torch.tensor(item.root_idxs)
            value, read = _input_of(module, values, item.idxs, names)
            foldable = (value == 0) | ~value.isnan() & (not cuts_border(module))
            needless[roots[~foldable & read]] = False
            known[roots[value.isnan()]] = False
            border[roots[~value.isnan() & ~foldable & read]] = True
    if strange and dead_filters:
        raise ValueError(
            f"compact cannot follow {strange[0]} ({strange[1]}), which takes the outputs of "
            f"{dead_filters} dead filters of {names[root]}"
        )
    if strange or not has_readers:
        return []
    if known.all():
        emptied[names[root]] = count
    elif needless.all():  # read by nobody, but a layer needs a channel
        needless[int((~known).nonzero()[0])] = False
    if (border & known & ~needless).any():
        kept[names[root]] = int((border & known & ~needless).sum())
    return needless.nonzero().flatten().tolist()


def _input_of(layer, values, inputs, names):
    """Of some inputs of a layer: their constants, and whether a weight that is not zero reads
    them."""
    read = reads_of(layer).any(0)
    if max(inputs) >= len(read):
        raise lost(f"{names[layer]} has {len(read)} inputs, but not number {max(inputs)}")
    value = values.get(layer, layer.weight.new_full(read.shape, torch.nan))  # not called: unknown
    return value[inputs].cpu(), read[inputs].cpu()


def is_operation(module):
    """Whether a node of the graph stands for an operation without a module."""
    return type(module).__module__.startswith("torch_pruning")


def is_grouped(module):
    """Whether a convolution has groups of more than one channel."""
    groups = getattr(module, "groups", 1)
    return groups > 1 and not groups == module.in_channels == module.out_channels


@torch.no_grad()
def _fold(layer, inputs, values):
    """Add what constant inputs contribute to the bias of their reader."""
    if layer not in values:  # never called
        return
    value = values[layer][inputs].nan_to_num(0).double()  # NaN: read by zero weights only
    W = layer.weight.detach().double()
    W = W[:, inputs] if not isinstance(layer, TRANSPOSED) else W[inputs].transpose(0, 1)
    added = W.flatten(2).sum(2) @ value if W.ndim > 2 else W @ value
    if not added.any():
        return
    old = 0 if layer.bias is None else layer.bias.double()
    layer.bias = nn.Parameter((old + added).to(layer.weight.dtype))


def _tell(kept):
    """Say which dead channels stay because of zero padding."""
    if kept:
        where = ", ".join(f"{n} of {name}" for name, n in list(kept.items())[:4])
        more = ", ..." if len(kept) > 4 else ""
        warnings.warn(
            f"{sum(kept.values())} dead channels stay ({where}{more}): they emit a constant that "
            "zero padding cuts at the border; with the masks of whole_filters they emit 0 and go",
            stacklevel=4,
        )


@torch.no_grad()
def compare_outputs(model, changed, example_input, refused=lost):
    """Refuse a changed model whose outputs are not those of the model, by what ``refused`` makes of
    the reason."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(example_input.shape, generator=generator, dtype=torch.float64)
    with evaluating(model), evaluating(changed):
        for x in (example_input, noise.to(example_input)):
            try:
                pairs = zip(
                    pytree.tree_leaves(model(x)), pytree.tree_leaves(changed(x)), strict=True
                )
                gaps = [((a - b).abs().max() / a.abs().max().clamp(min=1), a) for a, b in pairs]
            except Exception as error:
                raise refused(error) from None
            for gap, a in gaps:
                if not gap <= torch.finfo(a.dtype).eps ** 0.5:
                    raise refused(f"its outputs would differ by {gap.item():.1e}")
