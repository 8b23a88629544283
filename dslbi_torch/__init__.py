"""DessiLBI for PyTorch: one training run, a dense model and a whole path of sparse ones."""

from .dessilbi import DessiLBI
from .groups import split_groups, split_table
from .masks import density, density_table, gamma_weights, sparse_weights, support_masks
from .path import PathRecorder
from .split import Split
from .target import TargetDensity

__all__ = [
    "DessiLBI",
    "PathRecorder",
    "Split",
    "TargetDensity",
    "density",
    "density_table",
    "gamma_weights",
    "sparse_weights",
    "split_groups",
    "split_table",
    "support_masks",
]
