"""Designs that more than one chapter draws."""

import numpy as np

C = np.array([2.0, -1.25, 0.8, 0.3])  # correlations of the orthogonal design


def orthogonal():
    """A design with X'X/n = I and X'y/n = C."""
    X = np.linalg.qr(np.random.default_rng(0).standard_normal((20, 4)))[0] * 20**0.5
    return X, X @ C
