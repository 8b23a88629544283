"""DessiLBI for PyTorch: one training run, a dense model and a whole path of sparse ones."""

from .dessilbi import DessiLBI
from .groups import split_groups, split_table
from .masks.apply import MaskedTraining, apply_masks_, masked, whole_filters
from .masks.freezing import FrozenTraining, reinitialise_
from .masks.ranking import (
    density_curve,
    entry_ranking,
    gamma_ranking,
    magnitude_ranking,
    random_masks,
    ranked_masks,
)
from .masks.support import (
    density,
    density_table,
    gamma_weights,
    load_masks,
    recorded_masks,
    save_masks,
    sparse_weights,
    support_masks,
)
from .path import PathRecorder
from .path_momentum import GammaMomentum
from .split import Split
from .surgery.compact import compact
from .surgery.fold_norms import fold_norms
from .surgery.saving import load_compact, save_compact
from .surgery.widen import widen_
from .target import TargetDensity

__all__ = [
    "DessiLBI",
    "FrozenTraining",
    "GammaMomentum",
    "MaskedTraining",
    "PathRecorder",
    "Split",
    "TargetDensity",
    "apply_masks_",
    "compact",
    "density",
    "density_curve",
    "density_table",
    "entry_ranking",
    "fold_norms",
    "gamma_ranking",
    "gamma_weights",
    "load_compact",
    "load_masks",
    "magnitude_ranking",
    "masked",
    "random_masks",
    "ranked_masks",
    "recorded_masks",
    "reinitialise_",
    "save_compact",
    "save_masks",
    "sparse_weights",
    "split_groups",
    "split_table",
    "support_masks",
    "whole_filters",
    "widen_",
]
