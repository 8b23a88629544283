"""What the fused step keeps between iterations: its tables, and the squared norms of the groups.

Nothing here is state: after loading a checkpoint, or any other change of V, the norms are made anew
from V to the same bits.
"""

import torch

from . import lists


class Fused:
    """The fused kernel for the lists of one optimizer."""

    def __init__(self):
        self.tables = {}  # of the kernel, by parameter group, device and dtype
        self.norms = {}  # W -> (V, its version, squared norms): of this V as it was left

    def step(self, key, Ws, Vs, ms, grads, *, options, maximize, grad_scale, found_inf):
        """One iteration of lists of one device and dtype; by foreach where the kernel cannot."""
        from . import kernel as kernels  # it loads triton

        table = self.tables.setdefault(key, kernels.Table())
        outer = dict(maximize=maximize, grad_scale=grad_scale, found_inf=found_inf)
        norms = None
        try:
            if options["penalty"] == "group":
                norms, fresh = self._norms(Ws, Vs)
                if not fresh:
                    kernels.norms_(Ws, Vs, ms, grads, norms, table=table, **outer, **options)
            kernels.step_(Ws, Vs, ms, grads, norms, table=table, **outer, **options)
        except kernels.Unsupported:
            grads = unscaled(grads, **outer)
            if grads is not None:
                lists.step_(Ws, Vs, ms, grads, **options)

    def _norms(self, Ws, Vs):
        """A vector for every V, and whether all hold its squared norms as it is now."""
        norms, fresh = [], True
        for W, V in zip(Ws, Vs, strict=True):
            kept, version, norm = self.norms.get(W, (None, None, None))
            if kept is not V:
                norm = torch.zeros(V.shape[:1], dtype=V.dtype, device=V.device)
            if kept is not V or version != V._version:
                self.norms[W] = V, V._version, norm  # the kernel's own writes count no version
                fresh = False
            norms.append(norm)
        return norms, fresh


def unscaled(grads, *, maximize, grad_scale, found_inf):
    """The gradients for a step that knows nothing of maximize and of gradient scaling; None: no
    step."""
    if found_inf is not None and found_inf.item():
        return None
    if grad_scale is not None:
        grads = [g / grad_scale.to(g.device) for g in grads]
    return torch._foreach_neg(grads) if maximize else grads
