"""Transforms: their rows against numpy.diff, their kernels, and what they refuse."""

import numpy as np
import pytest
import scipy.sparse as sp
import vectors
from scipy.linalg import null_space
from scipy.sparse.csgraph import connected_components

from dslbi_ref import transforms


def is_csr(D):
    assert isinstance(D, sp.csr_array) and D.dtype == np.float64
    return D.toarray()


@pytest.mark.parametrize("p", [2, 5])
def test_identity_and_differences(p):
    x = vectors.array(p)
    np.testing.assert_array_equal(is_csr(transforms.identity(p)), np.eye(p))
    D = transforms.differences(p)
    assert is_csr(D).shape == (p - 1, p)
    np.testing.assert_array_equal(D @ x, np.diff(x))


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_trend_is_repeated_differences_and_spares_polynomials(order):
    x = vectors.array(12)
    D = transforms.trend(12, order)
    np.testing.assert_allclose(D @ x, np.diff(x, n=order + 1), atol=1e-14)
    powers = np.vander(np.linspace(-1, 1, 12), order + 1)
    np.testing.assert_allclose(D @ powers, 0, atol=1e-14)
    assert np.linalg.matrix_rank(is_csr(D)) == 12 - order - 1  # so that is the whole kernel


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (1, 5), (2, 1, 2, 3)])
def test_grid_is_numpy_diff_along_every_axis(shape):
    x = vectors.array(shape)
    D = transforms.grid(shape)
    rows = [np.diff(x, axis=a).ravel() for a in range(len(shape))]
    np.testing.assert_array_equal(D @ x.ravel(), np.concatenate(rows))
    kernel = null_space(is_csr(D))
    assert kernel.shape[1] == 1
    np.testing.assert_allclose(kernel, np.full_like(kernel, kernel[0, 0]), rtol=1e-12)


def test_graph_takes_head_minus_tail_and_spares_components():
    edges = vectors.edges(n_nodes=10, m=7)
    w = 1.0 + np.arange(7)
    D = transforms.graph(edges, 10, weights=w)
    x = vectors.array(10)
    np.testing.assert_array_equal(D @ x, w * x[edges[:, 1]] - w * x[edges[:, 0]])
    links = sp.coo_array((w, edges.T), shape=(10, 10))
    parts, label = connected_components(links, directed=False)
    assert null_space(is_csr(D)).shape[1] == parts
    np.testing.assert_allclose(D @ vectors.array(parts)[label], 0, atol=1e-14)


def test_a_chain_is_a_path_graph():
    chain = np.stack([np.arange(5), np.arange(1, 6)], axis=1)
    np.testing.assert_array_equal(
        transforms.graph(chain, 6).toarray(), transforms.differences(6).toarray()
    )
    np.testing.assert_array_equal(
        transforms.grid((6,)).toarray(), transforms.differences(6).toarray()
    )


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: transforms.identity(0), "p must be at least 1, got 0"),
        (lambda: transforms.identity(2.5), "p must be an integer, got 2.5"),
        (lambda: transforms.differences(1), "p must be at least 2, got 1"),
        (lambda: transforms.trend(4, 3), "p must be at least 5, got 4"),
        (lambda: transforms.trend(4, -1), "order must be at least 0, got -1"),
        (lambda: transforms.grid((1, 1)), "shape must have an axis of length 2 or more"),
        (lambda: transforms.grid((0, 3)), "shape must be at least 1, got 0"),
        (lambda: transforms.grid(()), "shape must have an axis of length 2 or more"),
        (lambda: transforms.graph(np.zeros((0, 2), int), 3), "edges must be an integer array"),
        (lambda: transforms.graph([[0.0, 1.0]], 3), "edges must be an integer array"),
        (lambda: transforms.graph([[0, 3]], 3), "edges must join nodes 0 to 2, got node 3"),
        (lambda: transforms.graph([[1, 1]], 3), r"edges must join different nodes, got \(1, 1\)"),
        (lambda: transforms.graph([[0, 1]], 3, [0.0]), "weights must be 1 positive finite numbers"),
        (
            lambda: transforms.graph([[0, 1]], 3, [1, 2]),
            "weights must be 1 positive finite numbers",
        ),
    ],
)
def test_bad_transforms(call, message):
    with pytest.raises(ValueError, match=message):
        call()
