"""Which atoms of a traced net must stay, and why dead units are among them."""

import warnings

import numpy as np
import torch
from torch import nn

from ..layers import LAYERS, connections, cuts_border, unit_axis
from .coupling import shared_modules
from .relations import MIXED
from .tracing import OUTPUTS, is_conv1d, is_layer

BORDER = (
    "they emit a constant that zero padding cuts at the border; whole_filters makes it 0 where the "
    "layer, or the BatchNorm that takes its output, adds it"
)
TIED = "weights are shared with another layer"


def needed_atoms(trace) -> np.ndarray:
    """Return which atoms must stay: the least set that the outputs need.

    Raises
    ------
    ValueError
        For a layer of which no unit would be left.
    """
    relations = trace.relations
    written = np.zeros(relations.count, dtype=bool)
    for _, outs in trace.written:
        written[outs] = True
    kept = ~relations.close(written, reads=False)  # what no layer writes is not cut
    for atoms, _ in relations.pins:
        kept[atoms] = True
    relations.close(kept)
    varying = _varying(trace)
    for name, atoms in _layer_outputs(trace):
        if not kept[atoms].any():
            if not varying[atoms].any():
                raise _empty(trace.model.get_submodule(name), name)
            kept[atoms[varying[atoms]][0]] = True  # read by nobody, but a layer needs a channel
            relations.close(kept)
    for axes in trace.own.values():
        for atoms in axes:
            if len(atoms) and not kept[atoms].any():
                kept[atoms[0]] = True
                relations.close(kept)
    return kept


def _layer_outputs(trace):
    """The layers, and the atoms of their units."""
    for name, module in trace.model.named_modules():
        weight = trace.own.get(f"{name}.weight".lstrip("."))
        if is_layer(module) and weight is not None:
            axis = 1 if is_conv1d(module) else unit_axis(module, "weight")
            yield name, weight[axis]


def _varying(trace):
    """Which atoms reach a reader as anything but a constant."""
    varying = np.zeros(trace.relations.count, dtype=bool)
    for reader in trace.readers.values():
        if isinstance(reader.ins, np.ndarray):
            varying[reader.ins[np.isnan(reader.values)]] = True
    for _, atoms, values, _ in trace.norms:
        varying[atoms[np.isnan(values)]] = True
    return trace.relations.close(varying, reads=False)


def _rows(layer):
    """Which units of a layer have a weight that is not zero."""
    if is_conv1d(layer):
        return (layer.weight != 0).any(0).numpy(force=True)
    return connections(layer).any(1).numpy(force=True)


def _empty(layer, name):
    alive = _rows(layer)
    if not alive.any():
        return ValueError(f"all {len(alive)} filters of {name} are dead: keep at least one")
    return ValueError(
        f"what {name} gives must depend on the input where it is read, but all {len(alive)} "
        "channels are constants there"
    )


def warn_of_what_stays(trace, kept: np.ndarray) -> None:
    """Warn of the dead units that stay, once for each reason.

    A channel is dead where all layers that write it are: one that lives on is no loss.
    """
    writers, stay = {}, {}
    for name, atoms in _layer_outputs(trace):
        layer = trace.model.get_submodule(name)
        if f"{name}.weight".lstrip(".") in trace.readers:  # a depthwise filter writes nothing new
            writers[name] = atoms, _rows(layer)
    if all(alive[kept[atoms]].all() for atoms, alive in writers.values()):
        return
    why = Reasons(trace)
    lives = np.zeros(trace.relations.count, dtype=bool)
    for atoms, alive in writers.values():
        lives[why.least[atoms[alive]]] = True
    for name, (atoms, alive) in writers.items():
        for atom in atoms[~alive & kept[atoms] & ~lives[why.least[atoms]]]:
            layers = stay.setdefault(why.of(atom), {})
            layers[name] = layers.get(name, 0) + 1
    stay.pop(OUTPUTS, None)
    for reason, layers in stay.items():
        where = ", ".join(f"{n} of {name}" for name, n in list(layers.items())[:4])
        more = ", ..." if len(layers) > 4 else ""
        warnings.warn(
            f"{sum(layers.values())} dead channels stay ({where}{more}): {reason}", stacklevel=6
        )


class Reasons:
    """Why an atom stays."""

    def __init__(self, trace):
        self.least = trace.relations.classes()
        self.pinned, self.tied, self.border = {}, set(), set()
        for atoms, reason in trace.relations.pins:
            for c in np.unique(self.least[atoms]):
                if self.pinned.get(c, MIXED) == MIXED:
                    self.pinned[c] = reason
        for module in filter(is_layer, shared_modules(trace.model)):
            for axes in (trace.own.get(trace.weights.get(p)) for p in module.parameters(False)):
                for atoms in axes or ():
                    self.tied.update(self.least[atoms])
        for reader in trace.readers.values():
            if isinstance(reader.layer, LAYERS) and isinstance(reader.ins, np.ndarray):
                cut = cuts_border(reader.layer) & ~np.isnan(reader.values) & (reader.values != 0)
                self.border.update(self.least[reader.ins[cut & reader.matrix.any(0)]])
        self.varying = _varying(trace)
        self.grids = [step for step in trace.relations.steps if hasattr(step, "subs")]

    def of(self, atom):
        """Return the reason in words."""
        c = self.least[atom]
        said = self.pinned.get(c, MIXED)
        if said == OUTPUTS:
            return said
        if c in self.tied:
            return TIED
        if said != MIXED:
            return said
        if c in self.border and not self.varying[atom]:
            return BORDER
        return MIXED if c in self.pinned else self._of_grid(c)

    def _of_grid(self, c):
        """Where an atom lies in a grid, of which whole rows go only."""
        for grid in self.grids:
            if c in self.least[grid.flat]:
                return f"of the grid {grid.sizes} that they are read as, whole rows go only"
        return MIXED


def fold_constants_(small: nn.Module, trace, kept: np.ndarray) -> None:
    """Add what constants that were cut contribute to the biases of their readers."""
    for reader in trace.readers.values():
        grouped = getattr(reader.layer, "groups", 1) > 1  # what it does not read goes, no constant
        if reader.layer is None or grouped or not isinstance(reader.ins, np.ndarray):
            continue
        gone = np.nonzero(~kept[reader.ins])[0]
        value = torch.from_numpy(np.nan_to_num(reader.values[gone]))  # NaN: of zero weights
        if not len(gone) or not value.any():
            continue
        layer = small.get_submodule(trace.names[reader.module])
        added = _matrix(reader.layer, gone) @ value.to(layer.weight.device)
        if not added.any():
            continue
        if isinstance(reader.outs, np.ndarray):
            added = added[torch.from_numpy(kept[reader.outs])]
        old = 0 if layer.bias is None else layer.bias.detach().double()
        layer.bias = nn.Parameter((old + added).to(layer.weight.dtype))


def _matrix(layer, inputs):
    """The weights of some inputs, summed over the places of a kernel; shape (outputs, inputs)."""
    W = layer.weight.detach().double()
    if is_conv1d(layer):
        return W[inputs].T
    W = W[inputs].transpose(0, 1) if unit_axis(layer, "weight") else W[:, inputs]
    return W.flatten(2).sum(2) if W.ndim > 2 else W
