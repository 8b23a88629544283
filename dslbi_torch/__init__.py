"""DessiLBI for PyTorch: one training run, a dense model and a whole path of sparse ones.

Here: the optimizers, what is split and what enters as one, the course and the record of the path,
and what is read off it; folders for masks, for surgery, and for the routes of the step. Not here:
data, nets and training loops, which are the laboratory, :mod:`dslbi_torch.training`: only the
command line imports it.
"""

from .clock import FallingNu, forecast, suggest
from .dessilbi import DessiLBI
from .groups import split_groups
from .masks.apply import apply_masks_, masked
from .masks.budget import density_curve, random_masks, ranked_masks
from .masks.crossing import crossing_masks, crossing_weights
from .masks.density import density, density_table
from .masks.files import load_masks, save_masks
from .masks.freezing import FrozenTraining, reinitialise_
from .masks.hold import MaskedTraining
from .masks.ranking import entry_ranking, gamma_ranking, magnitude_ranking
from .masks.support import recorded_masks, support_masks
from .masks.swap import gamma_weights, sparse_weights
from .masks.whole_filters import whole_filters
from .path import PathRecorder
from .path_momentum import GammaMomentum
from .recorded_path import RecordedPath
from .release import Release, release_
from .split import Split
from .split_table import split_table
from .surgery.compact import compact
from .surgery.fold_norms import fold_norms
from .surgery.int8 import save_int8
from .surgery.layer_times import layer_times
from .surgery.saving import load_compact, save_compact
from .surgery.shrink import renew_statistics_, shrink
from .surgery.widen import widen_
from .target import TargetDensity
from .target_cost import TargetCost
from .weighing import weigh_units_

__all__ = [
    "DessiLBI",
    "FallingNu",
    "FrozenTraining",
    "GammaMomentum",
    "MaskedTraining",
    "PathRecorder",
    "RecordedPath",
    "Release",
    "Split",
    "TargetCost",
    "TargetDensity",
    "apply_masks_",
    "compact",
    "crossing_masks",
    "crossing_weights",
    "density",
    "density_curve",
    "density_table",
    "entry_ranking",
    "fold_norms",
    "forecast",
    "gamma_ranking",
    "gamma_weights",
    "layer_times",
    "load_compact",
    "load_masks",
    "magnitude_ranking",
    "masked",
    "random_masks",
    "ranked_masks",
    "recorded_masks",
    "reinitialise_",
    "release_",
    "renew_statistics_",
    "save_compact",
    "save_int8",
    "save_masks",
    "shrink",
    "sparse_weights",
    "split_groups",
    "split_table",
    "suggest",
    "support_masks",
    "weigh_units_",
    "whole_filters",
    "widen_",
]
