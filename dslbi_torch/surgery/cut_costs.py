"""What a net costs once its dead channels are cut out, as a function of which are alive.

A parameter of the cut net has as many entries as the product of what is left of its axes, and every
entry of a layer's weight is used equally often. So parameters and multiply-accumulates are sums of
products of counts, and the counts follow from which channels are alive: nothing has to be cut to
know what the cut net costs.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..layers import LAYERS, own_parameter, unit_axis, weight_names
from .costs import count_macs
from .live_axes import LiveAxes


class Widths(NamedTuple):
    """The axes of a net's parameters, and the channels that their indices belong to.

    Attributes
    ----------
    rows : dict
        By the name of a parameter, the numbers of its axes among all.
    sizes : Tensor
        The length of every axis.
    channels, axis : Tensor
        The channel of every index that can go, and the axis that it lies on.
    """

    rows: dict[str, list[int]]
    sizes: Tensor
    channels: Tensor
    axis: Tensor

    def counts(self, alive: Tensor) -> Tensor:
        """Return what is left of every axis where these channels are alive; float64."""
        dead = (~alive[self.channels]).double()
        return self.sizes - torch.bincount(self.axis, dead, minlength=len(self.sizes))

    def sizes_of(self, small: nn.Module) -> Tensor:
        """Return the lengths of the axes in a net that was cut; float64."""
        sizes = self.sizes.clone()
        for name, p in small.named_parameters():
            if name in self.rows:  # a bias that is new is in none
                sizes[self.rows[name]] = sizes.new_tensor(p.shape)
        return sizes


def widths_of(axes: LiveAxes) -> Widths:
    """Return the axes of a net."""
    rows, lists = {}, []
    for name, of in axes.of.items():
        rows[name] = list(range(len(lists), len(lists) + len(of)))
        lists += of
    sizes = torch.tensor([len(x) for x in lists], dtype=torch.float64)
    channels = torch.cat(lists)
    axis = torch.arange(len(lists)).repeat_interleave(sizes.long())
    cut = ~axes.always[channels]
    return Widths(rows, sizes, channels[cut], axis[cut])


class Costs(NamedTuple):
    """A sum of products of the lengths of axes.

    Attributes
    ----------
    factors : Tensor
        Of the products.
    axes : Tensor
        Of each product the axes whose lengths are multiplied, in rows of equal length: -1 none.
    """

    factors: Tensor
    axes: Tensor

    def total(self, counts: Tensor) -> float:
        """Return the cost at these lengths."""
        lengths = torch.cat([counts, counts.new_ones(1)])[self.axes]  # -1 is the last: 1
        return float((self.factors * lengths.prod(1)).sum())


def sum_of_products(terms: list[tuple[float, list[int]]]) -> Costs:
    """Return the costs of pairs of a factor and the axes that it is multiplied by."""
    most = max([1, *(len(axes) for _, axes in terms)])
    terms = terms or [(0.0, [])]
    rows = [list(axes) + [-1] * (most - len(axes)) for _, axes in terms]
    return Costs(torch.tensor([f for f, _ in terms], dtype=torch.float64), torch.tensor(rows))


def parameter_costs(axes: LiveAxes, widths: Widths) -> Costs:
    """Return the parameters of a net as a function of the lengths of its axes."""
    return sum_of_products([(1.0, widths.rows[name]) for name, _ in axes.model.named_parameters()])


def mac_costs(axes: LiveAxes, widths: Widths, but: set[str] = frozenset()) -> Costs:
    """Return the multiply-accumulates of a net for one example, in the same way.

    ``but`` are names of weights of layers that are left out. Products of activations (attention) go
    with the inputs of the layer that reads them, or where a module computes layers itself with its
    weights.
    """
    net = axes.model
    macs, terms, inside, names = count_macs(net, axes.example), [], {}, weight_names(net)
    for name, module in net.named_modules():
        children = [child for child, _ in module.named_children()]
        inside[name] = macs[name] - sum(macs[f"{name}.{c}".lstrip(".")] for c in children)
        weight = own_parameter(module, "weight")
        if isinstance(module, LAYERS) and weight is not None and macs[name]:
            row = widths.rows[names[module]]  # of a weight that is tied, the first one's
            terms += [] if names[module] in but else [(macs[name] / weight.numel(), row)]
    for name, rest in inside.items():
        module = net.get_submodule(name)
        if rest > 0 and not isinstance(module, LAYERS):
            terms += _products_of(name, module, rest, macs, widths, names)
    return sum_of_products(terms)


def _products_of(name, module, rest, macs, widths, names):
    """The terms of what a module multiplies itself."""
    prefix = f"{name}.".lstrip(".")
    called = [n for n, m in module.named_modules() if isinstance(m, LAYERS) and macs[prefix + n]]
    own = [n for n, p in module.named_parameters() if p.ndim > 1]
    own = [n for n in own if n.rpartition(".")[0] not in called]
    if own:
        size = sum(module.get_parameter(n).numel() for n in own)
        return [(rest / size, widths.rows[prefix + n]) for n in own]
    if called:
        reader = module.get_submodule(called[-1])
        axis = widths.rows[names[reader]][1 - unit_axis(reader, "weight")]
        return [(rest / float(widths.sizes[axis]), [axis])]
    return [(float(rest), [])]
