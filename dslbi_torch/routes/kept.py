"""What the kernel keeps between steps: its tables, and the squared norms of the groups.

Nothing here is state: after loading a checkpoint, or any other change of V, the norms are made anew
from V to the same bits.
"""

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from ..torch_private import by_device_and_dtype, version
from .views import Tensors


class Kept:
    """Tables and norms of one optimizer, for the lists that the kernel steps."""

    def __init__(self):
        self.tables = {}  # by parameter group, device and dtype
        self.norms = WeakTensorKeyDictionary()  # parameter -> (V, its version, squared norms)

    def step_(
        self, key, tensors: Tensors, options: dict, *, maximize, grad_scale, found_inf
    ) -> list[Tensors]:
        """Step all that the kernel can take; return the rest."""
        from . import launch  # it loads triton

        outer = dict(maximize=maximize, grad_scale=grad_scale, found_inf=found_inf)
        options = {name: options[name] for name in launch.OPTIONS}
        rest = []
        for place, rows in by_device_and_dtype(tensors.Ws).items():
            part = tensors.rows(rows)
            table = self.tables.setdefault((key, place), launch.Table())
            columns = part.Ws, part.Vs, part.ms, part.grads
            norms = None
            try:
                if options["penalty"] in launch.CARRIES_NORMS:
                    norms, fresh = self._norms(part)
                    if not fresh:
                        launch.norms_(*columns, norms, table=table, **outer, **options)
                launch.step_(*columns, norms, table=table, **outer, **options)
            except launch.Unsupported:
                rest.append(part)
        return rest

    def _norms(self, tensors):
        """Return a vector for every V, and whether each holds the squared norms of V as it is."""
        norms, fresh = [], True
        for p, V in zip(tensors.params, tensors.Vs, strict=True):
            kept, was, norm = self.norms.get(p, (None, None, None))
            same = kept is not None and kept.data_ptr() == V.data_ptr() and kept.shape == V.shape
            if not same:
                norm = torch.zeros(V.shape[:1], dtype=V.dtype, device=V.device)
            if not same or was != version(V):
                self.norms[p] = V, version(V), norm  # the kernel's own writes count no version
                fresh = False
            norms.append(norm)
        return norms, fresh
