"""DessiLBI for PyTorch: one training run, a dense model and a whole path of sparse ones."""

from .dessilbi import DessiLBI
from .groups import split_groups
from .masks import density, density_table, gamma_weights, sparse_weights, support_masks
from .path import PathRecorder
from .split import Split

__all__ = [
    "DessiLBI",
    "PathRecorder",
    "Split",
    "density",
    "density_table",
    "gamma_weights",
    "sparse_weights",
    "split_groups",
    "support_masks",
]
