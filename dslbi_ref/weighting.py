"""What weighs: observations in the loss, entries in the penalty. Checks of what a caller gives."""

import numpy as np

from .checks import check_array, check_scale

# Weights, and factors above 0, differ by no more than this: beyond, rounding decides.
SPAN = 1e12


def check_weights(sample_weight, n):
    """Return the weights of n observations over their mean, or None for equal ones.

    The loss is ``sum_i w_i f_i / sum_i w_i``: a weight of 2 counts like a row that is there twice,
    and only ratios matter.
    """
    if sample_weight is None:
        return None
    weights = check_array("sample_weight", sample_weight, (n,))
    if not weights.min() > 0:
        raise ValueError(f"sample_weight must be positive, got {weights.min():g}")
    check_scale("sample_weight", weights)
    _check_span("sample_weight", weights)
    return None if (weights == weights[0]).all() else weights / weights.mean()


def _check_span(name, sizes):
    least, most = sizes.min(), sizes.max()
    if most > SPAN * least:
        raise ValueError(
            f"{name} must differ by a factor of at most {SPAN:g}, got {least:g} and {most:g}"
        )


def check_offset(offset, shape):
    """Return what is known of the linear predictors beforehand, of their shape, or zero."""
    if offset is None:
        return 0.0
    offset = check_array("offset", offset, shape)
    check_scale("offset", offset)
    return offset


def check_factors(penalty_factors, m, what="column of X"):
    """Return the factors of the penalty, one for each of m entries, or None for ones.

    ``Omega(beta) = lam * sum_j factor_j |beta_j|``: an entry of factor 0 is never penalised.
    """
    if penalty_factors is None:
        return None
    factors = check_array("penalty_factors", penalty_factors)
    if factors.shape != (m,):
        raise ValueError(
            f"penalty_factors must have shape ({m},), one for each {what}, got {factors.shape}"
        )
    if factors.min() < 0:
        raise ValueError(f"penalty_factors must be at least 0, got {factors.min():g}")
    if not factors.any():
        raise ValueError("penalty_factors must hold one above 0, got only 0")
    _check_span("penalty_factors", np.append(factors[factors > 0], 1.0))
    return None if (factors == 1).all() else factors


def check_factors_of_groups(factors, groups):
    """Refuse factors that differ within a group: a group is penalised as a whole."""
    if factors is None or groups is None:
        return
    labels = np.asarray(groups)
    if labels.shape != factors.shape or labels.dtype.kind not in "iu":
        raise ValueError(
            f"groups must be {len(factors)} integer labels, got {labels.dtype} of shape "
            f"{labels.shape}"
        )
    for label in np.unique(labels):
        own = factors[labels == label]
        if (own != own[0]).any():
            other = own[own != own[0]][0]
            raise ValueError(
                f"penalty_factors must be equal within a group, got {own[0]:g} and {other:g} in "
                f"group {label}"
            )
