"""DTensors: what a process holds of a tensor, and the whole of it."""

from torch import Tensor
from torch.nn import Parameter


def is_sharded(x: Tensor) -> bool:
    """Return whether x is a DTensor, without importing torch.distributed to ask."""
    return type(x) not in (Tensor, Parameter) and hasattr(x, "to_local")


def shard(x: Tensor) -> Tensor:
    """Return what this process holds of a DTensor; any other tensor as it is."""
    return x.to_local() if is_sharded(x) else x


def whole(x: Tensor) -> Tensor:
    """Gather a DTensor, which every process of its mesh must ask for; any other tensor as it is."""
    return x.full_tensor() if is_sharded(x) else x


def aligned(x: Tensor | None, p: Tensor) -> Tensor | None:
    """Lay x over the processes as p is.

    A replicated parameter may have a gradient that is still to be summed.
    """
    if x is None or not is_sharded(p) or x.placements == p.placements:
        return x
    return x.redistribute(placements=p.placements)


def beside(x: Tensor, p: Tensor) -> Tensor:
    """Return a tensor that every process holds whole in the form in which it can meet p."""
    if not is_sharded(p) or is_sharded(x):
        return x
    from torch.distributed.tensor import DTensor, Replicate

    mesh = p.device_mesh
    return DTensor.from_local(x, mesh, [Replicate()] * mesh.ndim, run_check=False)
