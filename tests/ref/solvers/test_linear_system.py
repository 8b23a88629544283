"""Every way of solving with A = nu X'X/n + D'D - minus minus', against the pseudo-inverse of A."""

import numpy as np
import pytest
import scipy.sparse as sp
import vectors

from dslbi_ref.solvers import linear_system
from dslbi_ref.solvers.linear_system import solver
from dslbi_ref.transforms import differences, graph, grid, identity, trend


def dense(M):
    return M.toarray() if sp.issparse(M) else M


def thin(shape, seed=0):
    """A sparse matrix, about one entry in twenty."""
    values = vectors.array(shape, seed)
    return sp.csc_array(np.where(np.abs(values) > 1.95, values, 0.0))


def fused(p):
    return sp.csr_array(sp.vstack([differences(p), identity(p)]))


def two_halves(p):
    """Edges inside each half of the nodes: the kernel of D has two dimensions."""
    a = vectors.edges(p // 2, 3 * p, seed=1)
    return graph(np.vstack([a, a + p // 2]), p)


X = vectors.array((30, 80))
shared = graph(vectors.edges(40, 90), 40)
eye = sp.eye_array

CASES = {
    "cholesky": (vectors.array((90, 80)), differences(80), "_dense"),
    "dense, small": (X, vectors.array((50, 80)), "_dense"),
    "dense, shared kernel": (dense(shared), shared, "_dense"),
    "woodbury, D = I": (X, identity(80), "_updated"),
    "woodbury, total variation": (X, differences(80), "_updated"),
    "woodbury, fused": (X, fused(80), "_updated"),
    "woodbury, trend": (X, trend(80, 1), "_updated"),
    "woodbury, grid": (X, grid((8, 10)), "_updated"),
    "woodbury, shared kernel": (X - X.mean(axis=1, keepdims=True), differences(80), "_updated"),
    "banded": (eye(90, format="csc"), differences(90), "_updated"),
    "banded, shared kernel": (differences(90), differences(90), "_updated"),
    "sparse LU": (thin((60, 200)), identity(200), "_updated"),
    "sparse LU, shared kernel": (two_halves(300), two_halves(300), "_updated"),
    "cosine": (eye(80, format="csc"), grid((8, 10)), "_cosine"),
    "cosine, three axes": (eye(60, format="csc"), grid((3, 4, 5)), "_cosine"),
    "cosine, shared kernel": (grid((8, 10)), grid((8, 10)), "_cosine"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("nu", [0.3, 20.0])
def test_solver_is_the_pseudo_inverse(case, nu, monkeypatch, close):
    X, D, way = CASES[case]
    monkeypatch.setattr(linear_system, "SMALL", 0)
    monkeypatch.setattr(linear_system, "FULL", 0.2)
    taken = []
    for name in ("_dense", "_updated", "_cosine"):
        f = getattr(linear_system, name)
        record = lambda *a, f=f, name=name: taken.append(name) or f(*a)  # noqa: E731
        monkeypatch.setattr(linear_system, name, record)
    solve = solver(X, D, nu)
    assert taken[-1] == ("_dense" if "small" in case else way)
    n, p = X.shape
    A = nu / n * dense(X.T @ X) + dense(D.T @ D)
    b = A @ vectors.array((p, 3), seed=9)
    expected = np.linalg.pinv(A, rcond=1e-11, hermitian=True) @ b
    close(solve(b), expected)
    close(solve(b[:, 1]), expected[:, 1])


@pytest.mark.parametrize(
    "D", [identity(200), differences(200), graph(vectors.edges(200, 400), 200)]
)
def test_minus_centres_a_sparse_design(D, monkeypatch, close):
    monkeypatch.setattr(linear_system, "SMALL", 0)
    X, nu = thin((60, 200)), 2.0
    mean = X.mean(axis=0)
    Xc = X.toarray() - mean
    A = nu / 60 * Xc.T @ Xc + dense(D.T @ D)
    b = A @ vectors.array(200, seed=3)
    got = solver(X, D, nu, minus=np.sqrt(nu) * mean)(b)
    expected = np.linalg.pinv(A, rcond=1e-11, hermitian=True) @ b
    close(got, expected)


@pytest.mark.parametrize("order", [3, 5])
def test_a_hidden_kernel_falls_back_to_the_dense_way(order, monkeypatch):
    """The condition of D'D leaves Woodbury three digits (order 3: seen in the trial), or none."""
    monkeypatch.setattr(linear_system, "SMALL", 0)
    X, D = vectors.array((20, 150)), trend(150, order)
    A = X.T @ X / 20 + dense(D.T @ D)
    b = A @ vectors.array(150, seed=3)
    x = solver(X, D, 1.0)(b)
    np.testing.assert_allclose(A @ x, b, atol=1e-12 * np.abs(b).max())


@pytest.mark.parametrize(
    "X, D, nu, message",
    [
        (np.eye(3), identity(3), 0.0, "nu must be positive and finite, got 0.0"),
        (np.eye(3), identity(3), np.nan, "nu must be positive and finite, got nan"),
        (np.eye(3), identity(4), 1.0, r"D must have the 3 columns of X, got shape \(4, 4\)"),
        (np.zeros((2, 3)), sp.csr_array((1, 3)), 1.0, "X and D hold zeros only"),
    ],
)
def test_bad_systems(X, D, nu, message):
    with pytest.raises(ValueError, match=message):
        solver(X, D, nu)
