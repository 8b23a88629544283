"""One forward pass of a net, and what it says of the axes of its tensors.

Why not the dependency graph of Torch-Pruning: it follows gradients, so it does not see what needs
none (token ids, masks, caches), multiplies index maps out (32-fold for each merging of windows),
divides by group counts that a shuffle leaves zero, and knows layers only, not their heads. Here the
pass itself is watched, operation by operation below autograd: what modules, functions and methods a
net is written with does not matter, the rules are those of about a hundred operations, and a rule
that is missing keeps what it is given.
"""

import numpy as np
import torch
from torch import Tensor, nn

from ..forward import call, map_tensors
from ..layers import LAYERS, cuts_border, own_parameter
from ..torch_private import OperationMode, TensorTable, leaves
from .axis_rules import RULES
from .contraction_rules import CONTRACTIONS
from .coupling import cannot_follow
from .plain_rules import kept_whole, pointwise
from .relations import MIXED, Read, Relations
from .unknowns import NAN_RULES, constants

OUTPUTS = "the outputs of the net"


class Reader:
    """A weight that channels are read with: what it needs, and what it is given."""

    def __init__(self, module, name, layer):
        self.module, self.name, self.layer = module, name, layer
        self.values, self.matrix, self.reads, self.outs, self.ins = None, None, [], None, None

    def given(self, values):
        """Note what one call is given."""
        before = values if self.values is None else self.values
        self.values = np.where(before == values, values, np.nan)

    @property
    def foldable(self) -> np.ndarray:
        """Which inputs are constants that the layer can do without."""
        known, layer = ~np.isnan(self.values), self.layer
        grouped = getattr(layer, "groups", 1) > 1
        if layer is None or grouped or (isinstance(layer, LAYERS) and cuts_border(layer)):
            known = known & (self.values == 0)
        return known


class Trace(OperationMode):
    """The axes of all tensors of a forward pass, and their relations."""

    def __init__(self, model: nn.Module, slack: float = 0.0):
        super().__init__()
        self.model, self.slack, self.relations = model, slack, Relations()
        self.names = {module: name for name, module in model.named_modules()}
        self.table, self.weights, self.bases = TensorTable(), TensorTable(), TensorTable()
        self.own, self.readers, self.groups, self.norms = {}, {}, {}, []
        self.shapes, self.sizes, self.heads, self.kwargs, self.told = {}, {}, [], {}, {}
        self.written, self.running, self.func = [], [], None
        for name, x in (*model.named_parameters(), *model.named_buffers()):
            if x.ndim:
                self.own[name] = [self.relations.fresh(n) for n in x.shape]
                self.table[x], self.weights[x] = list(self.own[name]), name

    def run(self, x):
        """Watch one forward pass."""
        handles = []
        for module in self.model.modules():
            handles.append(module.register_forward_pre_hook(self._enter))
            handles.append(module.register_forward_hook(self._leave, always_call=True))
        try:
            with torch.no_grad(), self:
                result = call(self.model, x)
        finally:
            for handle in handles:
                handle.remove()
        for y in leaves(result):
            if isinstance(y, Tensor):
                for axis in self.axes(y):
                    self.relations.pin(axis, OUTPUTS)
        for reader in self.readers.values():
            for read in reader.reads:
                read.needed = reader.matrix & ~reader.foldable
        return self

    def _enter(self, module, _):
        self.running.append(module)

    def _leave(self, module, _, result):
        self.running.pop()
        if self.norms and self.norms[-1][0] is module and result.ndim > 2:
            middle = self.axes(result)[1]
            if isinstance(middle, np.ndarray) and np.array_equal(middle, self.norms[-1][1]):
                self.norms[-1][3] = 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.kwargs, self.func = kwargs or {}, func
        self.before = [tuple(x.shape) for x in args[:1] if isinstance(x, Tensor)]
        out = NAN_RULES.get(func, lambda f, a, k: f(*a, **k))(func, args, self.kwargs)
        rule = RULES.get(func) or CONTRACTIONS.get(func)
        if rule is None:
            rule = pointwise if torch.Tag.pointwise in func.tags else kept_whole
        if isinstance(out, Tensor):
            self._note(out, rule(self, args, out))
            if func in _VIEWS and args[0] in self.weights:
                self.weights[out] = self.weights[args[0]]
        elif isinstance(out, (tuple, list)):
            for y, axes in zip(out, rule(self, args, out) or [None] * len(out), strict=True):
                if isinstance(y, Tensor):
                    self._note(y, axes)
        self.relations.check_time()
        return out

    def _note(self, y, axes):
        if axes is not None and any(axis is not None for axis in axes):
            self.table[y] = list(axes)
        elif y in self.table:  # written over
            self.table[y] = [None] * y.ndim

    # What the rules ask for

    def axes(self, x):
        """Return the axes of a tensor."""
        return self.table[x] if x in self.table else [None] * x.ndim

    def atoms(self, axis, n):
        """Return the atoms of an axis; new ones, that stay, where it has none."""
        if isinstance(axis, np.ndarray):
            return axis
        fresh = self.relations.fresh(n)
        self.relations.pin(fresh, MIXED)
        return fresh

    def tensors(self, args):
        """Return all tensors among the arguments."""
        return [x for x in leaves(list(args)) if isinstance(x, Tensor)]

    def place(self):
        """Return the name and the type of the module that runs."""
        module = self.running[-1] if self.running else self.model
        return f"{self.names[module] or 'the model'} ({type(module).__name__})"

    def reason(self):
        """Return why an operation keeps what it is given; of all modules of a type, the first is
        named."""
        operation = self.func.overloadpacket.__name__
        kind = type(self.running[-1] if self.running else self.model), operation
        return self.told.setdefault(kind, f"{self.place()} needs all of them in {operation}")

    def expect(self, x, axes):
        """Let the last axes of a tensor that is added be those of what it is added to."""
        for d in range(1, x.ndim + 1):
            if isinstance(axes[-d], np.ndarray) and x.shape[-d] == len(axes[-d]):
                self.relations.join([axes[-d], self.axes(x)[-d]], MIXED)
            else:
                self.relations.pin(self.axes(x)[-d], MIXED)

    def note_sizes(self, axes, made=True):
        """Note axes whose sizes the code of the running module may know: it made them, or passes
        them on."""
        module = self.running[-1] if self.running else self.model
        found = [axis for axis in axes if isinstance(axis, np.ndarray)]
        self.sizes.setdefault(module, []).extend(found)
        if made:
            self.shapes.setdefault(module, []).extend(found)

    def weight_of(self, x):
        """Return the name of the parameter that a tensor is, up to the order of its axes."""
        return self.weights[x] if x in self.weights else None

    def heads_need(self, heads, inner, needed):
        """Note which dimensions the products of queries and keys have to do with, by heads."""
        held = isinstance(heads, np.ndarray)
        self.heads += [heads] if held else []
        if isinstance(inner, np.ndarray):
            needed = needed if held else needed.any(0, keepdims=True)
            self.relations.steps.append(Read(heads if held else None, inner, needed))

    def layer_reads(self, name, x, outs, ins, W):
        """Note that channels are read with a weight, and what it is given."""
        axis = -1 if self.func is not torch.ops.aten.convolution.default else 1
        reader = self._reader(name, len(self.readers))
        reader.given(constants(x, axis, self.slack))
        if reader.matrix is None:
            matrix = W != 0
            reader.matrix = (matrix.flatten(2).any(2) if W.ndim > 2 else matrix).numpy(force=True)
        reader.outs, reader.ins = outs, ins
        if isinstance(outs, np.ndarray):
            self.written.append((name, outs))
        if isinstance(ins, np.ndarray):
            read = Read(outs if isinstance(outs, np.ndarray) else None, ins, None)
            reader.reads.append(read)
            self.relations.steps.append(read)

    def _reader(self, name, otherwise):
        owner, _, key = (name or "").rpartition(".")
        module = self.model.get_submodule(owner) if name else None
        layer = module if name and key == "weight" and is_layer(module) else None
        if layer is not None and (not self.running or self.running[-1] is not layer):
            layer = None  # its weight is read by other code
        return self.readers.setdefault(name or otherwise, Reader(module, name, layer))

    def layer_passes(self, name, x, outs, groups):
        """Note the groups of a convolution."""
        if name is None:
            return
        self.written.append((name, outs))
        self.groups[name] = groups

    def norm_reads(self, x, ids, any_constant):
        """Note what the statistics of a norm need."""
        values = constants(x, -1, self.slack)
        known = ~np.isnan(values) if any_constant else values == 0
        module = self.running[-1] if self.running else self.model
        ours = is_layer_norm(module) if any_constant else is_rms_norm(module)
        if not ours:
            self.relations.pin(ids, self.reason())
        self.norms.append([module, ids, values, -1])
        self.relations.steps.append(Read(None, ids, ~known[None]))

    def squares(self, x, d):
        """Return whether a mean is that of the squares of an RMSNorm, and note what it needs."""
        ours = self.running and is_rms_norm(self.running[-1])
        if ours and d in (-1, x.ndim - 1) and isinstance(self.axes(x)[d], np.ndarray):
            self.norm_reads(x, self.axes(x)[d], any_constant=False)
            return True
        return False


_VIEWS = {
    getattr(torch.ops.aten, name).default
    for name in ("t", "permute", "detach", "alias", "lift_fresh")
} | {torch.ops.aten.transpose.int}


def is_layer(module) -> bool:
    """Return whether a module combines channels: a layer of torch, or Hugging Face's Conv1D."""
    return isinstance(module, LAYERS) or is_conv1d(module)


def is_conv1d(module) -> bool:
    """Return whether a module is Hugging Face's Conv1D: a linear layer, its inputs first."""
    weight = own_parameter(module, "weight")
    return type(module).__name__ == "Conv1D" and weight is not None and weight.ndim == 2


def is_layer_norm(module) -> bool:
    """Return whether a module is a LayerNorm, of any class derived from torch's."""
    return isinstance(module, nn.LayerNorm)


def is_rms_norm(module) -> bool:
    """Return whether a module is an RMSNorm with a scale: torch's, or one called so."""
    named = isinstance(module, nn.RMSNorm) or "RMSNorm" in type(module).__name__
    return named and getattr(own_parameter(module, "weight"), "ndim", 0) == 1


def traced(model: nn.Module, x) -> Trace:
    """Return what two passes say of a net: one of anything, which shows the constants, and one of
    the example itself, in which they must be the same.

    Raises
    ------
    ValueError
        For a net that cannot be followed: what it does depends on the data, or an operation hides
        what depends on the input.
    """
    anything = map_tensors(lambda y: torch.full_like(y, torch.nan) if _is_real(y) else y, x)
    try:
        trace = Trace(model).run(anything)
        seen = Trace(model, slack=1e-3).run(x)
    except Exception as error:
        raise cannot_follow(error) from error
    if list(trace.readers) != list(seen.readers):
        raise cannot_follow("it calls other layers for other inputs")
    for key, reader in trace.readers.items():
        value, real = reader.values, seen.readers[key].values
        same = np.isclose(value, real, rtol=1e-3, atol=1e-5) | np.isnan(value)
        if not same.all():
            before = reader.name.rpartition(".")[0] if reader.name else "a product"
            raise cannot_follow(f"an operation before {before} hides what depends on the input")
    return trace


def _is_real(x):
    return x.is_floating_point() or x.is_complex()
