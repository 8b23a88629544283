"""The start of a path: levels from the scale of trained weights, and V where Gamma = W.

Until its release a path rests: Gamma = 0, V = 0 and W trains, as beta of Split LBI rests at the
minimiser until path time starts. :func:`dslbi_ref.dessilbi.dessilbi_states` has it as an option.
"""

from numbers import Integral

import numpy as np

from .checks import (
    INF,
    check_in,
    check_kind,
    check_list,
    check_number,
    check_positive,
    no_overflow,
    real,
    shown,
)
from .penalties import penalty_named
from .units import Units


def check_release(release, pull, power):
    """Refuse a release that is no step, a negative pull, a power that is not finite."""
    whole = isinstance(release, Integral) and not isinstance(release, bool)
    if not (whole and release >= 0):
        raise ValueError(f"release must be an integer of at least 0, got {release!r}")
    check_in(0, INF, pull=pull)
    _check_power(power)


def _check_power(power):
    number = check_number("power", power)
    if not np.isfinite(number):
        raise ValueError(f"power must be finite, got {shown(power)}")
    return number


@no_overflow
def scaled_levels(W, families, *, lam, power):
    """Return the level of every split tensor, in proportion to a power of the size of its family.

    ``lam * (rms / typical) ** power``, with the root mean square of the weights of the family, and
    that of all families: a family of typical weights keeps the level.

    Parameters
    ----------
    W : dict[str, ndarray]
    families : list of lists of str
        Names of the tensors that share units.
    lam : float > 0
    power : float
        0: every level is lam, whatever the weights.

    Raises
    ------
    ValueError
        For a lam that is not positive and finite; with a power, for a family of zeros.
    """
    (lam,), power = check_positive(lam=lam), _check_power(power)
    check_kind("W", W, dict)
    families = [check_list("families", names) for names in check_list("families", families)]
    for name in (name for names in families for name in names):
        if name not in W:
            raise ValueError(f"families must name tensors of W, got {shown(name)}")
    if not (power and families):
        return {name: lam for names in families for name in names}
    W = {name: real(W[name], f"W[{name!r}]") for names in families for name in names}
    squares = [sum(np.square(W[name]).sum() for name in names) for names in families]
    counts = [sum(W[name].size for name in names) for names in families]
    if not all(counts):
        raise ValueError("families must hold tensors that are not empty, got one of no entries")
    typical = np.sqrt(sum(squares) / sum(counts))
    levels = {}
    for names, square, count in zip(families, squares, counts, strict=True):
        rms = np.sqrt(square / count)
        if not 0 < rms < np.inf:
            raise ValueError(
                f"power needs weights of positive and finite size, got the root mean square {rms} "
                f"of {' and '.join(names)}"
            )
        levels |= dict.fromkeys(names, lam * (rms / typical) ** power)  # (dslbi-levels)
    return levels


@no_overflow
def dense_start(Ws, *, kappa, lam, penalty, **units):
    """Return the V of a family at which Gamma is W: ``W / kappa`` plus a subgradient of Omega."""
    kappa, lam = check_positive(kappa=kappa, lam=lam)
    inner = penalty_named(penalty).subgradient(Ws, lam, Units(**units))
    return [W / kappa + g for W, g in zip(Ws, inner, strict=True)]  # (dslbi-dense-start)
