"""The revised estimator: the nearest vector on which the inactive rows of D vanish."""

import numpy as np
import pytest
import scipy.sparse as sp
import vectors

from dslbi_ref.solvers.projections import kernel_projector
from dslbi_ref.transforms import differences, graph, grid, identity, trend

P = 24
TRANSFORMS = {
    "identity": identity(P),
    "differences": differences(P),
    "grid": grid((4, 6)),
    "graph": graph(vectors.edges(P, 40), P, weights=1.0 + np.arange(40) % 3),
    "fused": sp.vstack([differences(P), identity(P)]),
    "trend": trend(P, 2),
    "trend and identity": sp.vstack([trend(P, 1), identity(P)]),
    "dense": vectors.array((30, P)),
    "sums": sp.csr_array(np.abs(differences(P).toarray())),
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("level", [-9.0, -1.0, 0.5, 9.0])
def test_projection_on_the_kernel_of_the_inactive_rows(name, level, close):
    D = TRANSFORMS[name]
    full = D.toarray() if sp.issparse(D) else D
    beta = vectors.array(P, seed=1)
    inactive = vectors.array(len(full), seed=2) > level
    tilde = kernel_projector(D)(beta, inactive)
    rows = full[inactive]
    close(rows @ tilde, np.zeros(inactive.sum()))
    close(tilde, beta - np.linalg.pinv(rows) @ (rows @ beta))
    close(kernel_projector(full)(beta, inactive), tilde)


def test_equal_neighbours_are_equal_to_the_last_bit():
    D = grid((4, 6))
    inactive = vectors.array(D.shape[0], seed=2) > 0.5
    tilde = kernel_projector(D)(vectors.array(P, seed=1), inactive)
    assert not (D @ tilde)[inactive].any() and (D @ tilde)[~inactive].any()


def test_stored_zeros_are_no_entries(close):
    D = differences(P).copy()
    D.data[:2] = 0.0
    inactive = np.ones(P - 1, dtype=bool)
    close(kernel_projector(D)(vectors.array(P), inactive)[0], vectors.array(P)[0])
    assert D.nnz == 2 * (P - 1)
