"""Channels, heads and groups as units: what writes them, and what hangs on each.

A unit is all that one channel is written by: filters of the convolutions that are added on a
residual stream, the depthwise filter that it passes, branches, gates, both sides of a gated linear
unit; the rows of queries, keys and values of a head; of a grouped convolution a whole group, or the
same channel of every group, of which there are more (equally many: the latter, which costs the
square of what is left). It is zero-invariant (Chen et al., *Only Train Once*, 2021): only writers
belong to it, so units do not overlap, and a unit that is zero emits zero once what follows it
(biases, scales, shifts, positions) is masked with it, as :func:`dslbi_torch.whole_filters` does.
"""

from typing import NamedTuple

import numpy as np
from torch import nn

from ..arguments import check_model
from ..forward import evaluating, run_example
from ..text import text_table
from ..wrapped import unwraps
from .costs import attention_in_parts, count_macs
from .needed import Reasons
from .relations import MIXED, Product, Same
from .tracing import OUTPUTS, traced


class Channels(NamedTuple):
    """Tensors of which the k-th units are one, as an optimizer's parameter group has it."""

    names: list[str]
    units: int
    group_dim: int
    block: int  # of the first tensor
    parts: int
    heads: bool  # whether they are heads of attention
    size: int  # entries of a unit
    macs: float  # multiply-accumulates of one example that go with a unit


class Coupling(NamedTuple):
    """The units of a net: families of tensors, and what belongs to none, with the reason."""

    families: list[Channels]
    alone: dict[str, str]
    axes: dict[str, int]  # by the name of every weight that writes channels, their axis


@unwraps
def coupled_channels(model: nn.Module, example_input) -> Coupling:
    """Return the channels of a net with all that writes each of them.

    Parameters
    ----------
    model : Module
        Left as it is.
    example_input : Tensor, or tuple or dict of tensors
        What the model takes.

    Raises
    ------
    ValueError
        For a model that does not take the example, or that cannot be followed.
    """
    check_model(model)
    run_example(model, example_input)
    with evaluating(model), attention_in_parts():
        trace = traced(model, example_input)
    units = _Units(trace)
    found, alone, axes = {}, {}, {}
    for name, axis in units.writers():
        axes[name] = axis
        rows = units.rows(name, axis)
        layout = None if rows is None else _layout(rows)
        if layout is None:
            alone[name] = units.reason(trace.own[name][axis])
        else:
            found[name] = (*layout, axis)
    families = []
    for names in _families(found):
        tables = [n for n in names if isinstance(_owner(model, n), nn.Embedding)]
        kept = _alike([n for n in names if n not in tables] + tables, found, alone)
        parts, _, classes, axis = found[kept[0]]
        blocks = {name: found[name][1] for name in kept}
        size = sum(model.get_parameter(name).numel() for name in kept) // len(classes)
        macs = 0.0
        heads = bool(np.isin(classes, units.heads).all())
        families.append(
            Channels(kept, len(classes), axis, blocks[kept[0]], parts, heads, size, macs)
        )
    macs = count_macs(model, example_input)
    return Coupling([_costed(f, found, units, macs) for f in families], alone, axes)


def _owner(model, name):
    return model.get_submodule(name.rpartition(".")[0])


class _Units:
    """The unit that every atom belongs to: of a grid, heads, else its longest axis."""

    def __init__(self, trace):
        self.trace, relations = trace, trace.relations
        least, pinned = relations.classes(), np.zeros(relations.count, dtype=bool)
        for atoms, _ in relations.pins:
            pinned[least[atoms]] = True
        marked = least[np.concatenate(trace.heads)] if trace.heads else np.zeros(0, dtype=int)
        rows = []
        for grid in (step for step in relations.steps if isinstance(step, Product)):
            subs = [d for d, sub in enumerate(grid.subs) if sub is not None]
            free = [d for d in subs if not pinned[least[grid.subs[d]]].all()]
            first = [d for d in free if np.isin(least[grid.subs[d]], marked).all()]
            if not free:
                pinned[least[grid.flat]] = True
                continue
            d = max(first or reversed(free), key=lambda d: grid.sizes[d])
            shape = [-1 if i == d else 1 for i in range(len(grid.sizes))]
            laid = np.broadcast_to(grid.subs[d].reshape(shape), grid.sizes).reshape(-1)
            rows.append(Same(grid.flat, laid))
        self.least = relations.classes(rows)
        self.stays = np.zeros(relations.count, dtype=bool)
        for c in np.nonzero(pinned)[0]:
            self.stays[self.least[c]] = True
        self.heads = np.unique(self.least[np.concatenate(trace.heads)]) if trace.heads else []
        self.why = None

    def writers(self):
        """Yield the name of every weight that writes channels, and the axis that they lie on."""
        least, seen = self.trace.relations.classes(), set()
        for name, outs in self.trace.written:
            own = self.trace.own.get(name)
            if own is None or name in seen or not isinstance(outs, np.ndarray):
                continue
            for axis, atoms in enumerate(own):
                if len(atoms) == len(outs) and (least[atoms] == least[outs]).all():
                    seen.add(name)
                    yield name, axis
                    break

    def rows(self, name, axis):
        """The units of the rows of a weight; None where some of them stay in any case."""
        rows = self.least[self.trace.own[name][axis]]
        return None if self.stays[rows].any() else rows

    def reason(self, atoms):
        """Why rows belong to no unit."""
        self.why = self.why or Reasons(self.trace)
        reasons = [self.why.of(atom) for atom in atoms[self.stays[self.least[atoms]]]]
        other = "its channels are read in several orders"
        return next((r for r in reasons if r != MIXED), MIXED if reasons else other)


def _layout(rows):
    """Parts, block and units of rows that are equal parts of blocks; None where they are not."""
    count = len(np.unique(rows))
    block = int(np.argmax(rows != rows[0])) or len(rows)
    if len(rows) % (count * block):
        return None
    classes = rows[::block][:count]
    parts = len(rows) // (count * block)
    regular = np.array_equal(np.tile(np.repeat(classes, block), parts), rows)
    return (parts, block, classes) if regular else None


def _families(found):
    """The names of tensors that have a unit in common, together, in the order of the net."""
    families, of = [], {}
    for name, (_, _, classes, _) in found.items():
        met = {id(of[c]): of[c] for c in classes if c in of}
        joined = [n for names in met.values() for n in names] + [name]
        families = [names for names in families if id(names) not in met] + [joined]
        for n in joined:
            of.update(dict.fromkeys(found[n][2].tolist(), joined))
    return families


def _alike(names, found, alone):
    """The tensors of a family of which units lie alike; the others are noted as alone."""
    parts, _, classes, axis = found[names[0]]
    kept = []
    for name in names:
        other = found[name]
        if not np.array_equal(other[2], classes):
            alone[name] = f"its channels are some of those of {names[0]}, in another order"
        elif other[3] != axis or other[0] != parts:
            alone[name] = f"its channels lie along another axis than those of {names[0]}"
        else:
            kept.append(name)
    return kept


def _costed(family, found, units, macs):
    """The family, with what goes with each of its units."""
    trace, cost, classes = units.trace, 0.0, found[family.names[0]][2]
    for name in family.names:
        cost += macs.get(name.rpartition(".")[0], 0) / family.units
    for reader in trace.readers.values():
        if reader.name and isinstance(reader.ins, np.ndarray):
            read = np.isin(units.least[reader.ins], classes).mean()
            cost += macs.get(reader.name.rpartition(".")[0], 0) * read / family.units
    return family._replace(macs=cost)


@unwraps
def channel_table(model: nn.Module, example_input) -> str:
    """Return the units of a net as a table: families, tensors, sizes, and what hangs on a unit.

    Below it stands what belongs to no unit, and why.
    """
    coupling = coupled_channels(model, example_input)
    rows = []
    for family in coupling.families:
        kind = "heads" if family.heads else "groups" if family.block > 1 else "channels"
        first, *others = family.names
        rows.append((first, kind, family.units, f"{family.size:,}", f"{family.macs:,.0f}"))
        rows += [(f"  {name}", "", "", "", "") for name in others]
    head = ("written by", "units", "number", "weights of one", "MACs with one")
    left = {}
    for name, reason in coupling.alone.items():
        left.setdefault(reason, []).append(name)
    return "\n".join(
        [text_table(head, rows, "<<>>>")]
        + [f"{', '.join(names)}: {reason}" for reason, names in left.items()]
    )


def is_output(reason: str) -> bool:
    """Return whether channels belong to no unit because they are the outputs of the net."""
    return reason == OUTPUTS
