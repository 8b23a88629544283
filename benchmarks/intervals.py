"""What is said of several seeds: mean, standard deviation, and paired differences."""

import numpy as np
from scipy import stats


def summary(values) -> dict:
    """Return mean and standard deviation of one number for each seed."""
    values = np.asarray(values, float)
    sd = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return {"mean": float(values.mean()), "sd": sd, "n": len(values)}


def half_width(values, level: float = 0.95) -> float:
    """Return half the width of Student's interval for the mean of at least two values."""
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two seeds, got {len(values)}")
    sd = np.std(np.asarray(values, float), ddof=1)
    return float(stats.t.ppf((1 + level) / 2, len(values) - 1) * sd / np.sqrt(len(values)))


def paired(values, others, level: float = 0.95) -> dict:
    """Return the mean of ``values - others``, of the same seeds in the same order, and the interval
    of Student's t for it."""
    if len(values) != len(others):
        sizes = f"{len(values)} and {len(others)}"
        raise ValueError(f"a pair needs as many values as others, got {sizes}")
    d = np.asarray(values, float) - np.asarray(others, float)
    half, mean = half_width(d, level), float(d.mean())
    return {"difference": mean, "low": mean - half, "high": mean + half}
