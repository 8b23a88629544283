"""Revised estimator of Split LBI: beta projected on the kernel of the inactive rows of D.

    tilde = argmin_b |b - beta|^2   subject to   D_J b = 0,   J = {j : gamma_j = 0}

It has the structure that gamma selects exactly: equal neighbours are equal to the last bit.
"""

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from ..checks import check_array, check_design, no_overflow


def kernel_projector(D):
    """Return the function ``(beta, inactive) -> projection of beta on the kernel of D[inactive]``.

    Parameters
    ----------
    D : ndarray or scipy.sparse, (m, p)

    Returns
    -------
    project : callable
        Takes beta (p,) and a mask (m,) that is true, or not 0, at the rows that must vanish;
        returns an array (p,).
        Where every row of D is one entry, or one difference (identity, differences, grids, graphs,
        any stack of these), that is the mean over connected components, in O(m + p). Otherwise a
        sparse LU of the optimality conditions, or dense least squares if that fails.
    """
    D = sp.csr_array(check_design(D, "D"), copy=True)
    D.eliminate_zeros()
    entries = np.diff(D.indptr)
    sums = D @ np.ones(D.shape[1])
    if (entries <= 2).all() and (sums[entries == 2] == 0).all():
        means = _component_means(D, entries)
    else:
        means = None

    def project(beta, inactive):
        beta = check_array("beta", beta, (D.shape[1],))
        off = check_array("inactive", inactive, (D.shape[0],)) != 0
        return means(beta, off) if means else _project(D[off], beta)

    return project


@no_overflow
def revise(D, beta, gamma):
    """Return tilde (T, p): every beta, on the kernel of the rows of D at which its gamma is 0."""
    project, (m, p) = kernel_projector(D), np.shape(D)
    beta = check_array("beta", beta)
    beta = check_array("beta", beta, (len(beta) if beta.ndim else 0, p))
    gamma = check_array("gamma", gamma, (len(beta), m))
    return np.array([project(b, g == 0) for b, g in zip(beta, gamma, strict=True)])


def _component_means(D, entries):
    p = D.shape[1]
    single = D.indices[D.indptr[:-1][entries == 1]]
    pairs = D.indptr[:-1][entries == 2]
    tails, heads = D.indices[pairs], D.indices[pairs + 1]

    def project(beta, inactive):
        joined = inactive[entries == 2]
        links = (np.ones(joined.sum()), (tails[joined], heads[joined]))
        labels = connected_components(sp.coo_array(links, shape=(p, p)), directed=False)[1]
        means = np.bincount(labels, beta) / np.bincount(labels)
        means[labels[single[inactive[entries == 1]]]] = 0.0
        return means[labels]

    return project


def _project(rows, beta):
    m, p = rows.shape
    if m == 0:
        return beta
    # x + rows' multiplier = beta and rows x = 0; singular where rows depend on one another.
    system = sp.block_array([[sp.eye_array(p), rows.T], [rows, None]], format="csc")
    try:
        x = splu(system).solve(np.append(beta, np.zeros(m)))[:p]
        size = np.abs(rows).max() * np.abs(beta).max()
        if np.abs(rows @ x).max() <= 1e-13 * size and abs(x @ (beta - x)) <= 1e-12 * (beta @ beta):
            return x
    except RuntimeError:
        pass
    dense = rows.toarray()
    return beta - np.linalg.lstsq(dense, dense @ beta, rcond=None)[0]
