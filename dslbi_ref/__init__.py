"""The reference: NumPy and SciPy only, float64, written to be read beside the paper.

Here: one file for each algorithm, the tables of penalties and losses, what is said about paths,
estimators, and what judges the answers to the book's exercises. Not here: what makes them fast,
which is :mod:`dslbi_ref.solvers`, and what draws, :mod:`dslbi_ref.figures`; torch is never
imported.
"""

from .dessilbi import dessilbi_states
from .iss import iss_path
from .lbi import lbi_path, lbi_states
from .mirror_descent import mirror_descent_states
from .path import Path, record
from .penalties import group_soft_threshold, soft_threshold
from .split_iss import split_iss_path
from .split_lbi import split_lbi_path, split_lbi_states

__all__ = [
    "Path",
    "dessilbi_states",
    "group_soft_threshold",
    "iss_path",
    "lbi_path",
    "lbi_states",
    "mirror_descent_states",
    "record",
    "soft_threshold",
    "split_iss_path",
    "split_lbi_path",
    "split_lbi_states",
]
