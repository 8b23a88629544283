"""Classes of wrong calls that the harness of ``tests/fuzz`` found, each by one of its members."""

import numpy as np
import pytest
import vectors
from numpy.testing import assert_allclose

from dslbi_ref import dessilbi_states, iss_path, lbi_path, record
from dslbi_ref.classical_knockoffs import gaussian_knockoffs
from dslbi_ref.graphical import gaussian_loss, ising_loss, symmetric
from dslbi_ref.iss import iss_states
from dslbi_ref.losses import huber
from dslbi_ref.mirror_descent import mirror_descent_states, mirror_flow
from dslbi_ref.mirror_maps import euclidean, simplex_entropy
from dslbi_ref.nets import layer_init, mlp_logits
from dslbi_ref.path import Path
from dslbi_ref.penalties import group_soft_threshold, l1_norm
from dslbi_ref.split_iss import split_iss_path
from dslbi_ref.stability import half_samples
from dslbi_ref.stopping import discrepancy_time, held_out_losses, path_losses
from dslbi_ref.theory import genlasso_conditions, lyapunov, path_length, telescoping_residual
from dslbi_ref.transforms import differences, grid, identity

X, y, one = vectors.array((10, 4)), vectors.array(10, 1), np.ones(6)
W = {"a": np.ones((2, 2))}
PATH = iss_path(X, y)
FLOW = dict(grad=lambda x: x, mirror_map=euclidean(), x0=np.ones(2))
STATES = dict(penalties={"a": "l1"}, alpha=0.1)


@pytest.mark.parametrize(
    "call, message",
    [
        # what is no object of its kind
        (lambda: path_losses(3, X, y, [1.0]), "path must be a Path, got 3"),
        (lambda: discrepancy_time("p", X, y, sigma=1.0), "path must be a Path, got 'p'"),
        (lambda: mirror_flow(**FLOW | {"mirror_map": 3}, times=[1.0]), "must be a MirrorMap, got"),
        (lambda: layer_init((2, 2), 3), "rng must be a Generator, got 3"),
        (lambda: record(3, 2), "states must be a Iterator, got 3"),
        (lambda: PATH.plot(ax=3), "ax must be a Axes, got 3"),
        # what cannot be called, or returns something else
        (lambda: held_out_losses(3, X, y, [1.0], []), "fit must be callable, got 3"),
        (lambda: next(dessilbi_states(W, 3, **STATES)), "grad must be callable, got 3"),
        (lambda: record(dessilbi_states(W, lambda W: 3, **STATES), 2), "grad must be a dict"),
        # shapes and kinds of arrays
        (lambda: symmetric(one, 3), r"theta must have shape \(3,\), got \(6,\)"),
        (lambda: ising_loss(one, "f", X), "field must hold real numbers"),
        (lambda: mlp_logits({"fc1.weight": 3}, X), "params must hold weight and bias"),
        (lambda: held_out_losses(iss_path, X, y, [1.0], [(1, 2)]), "splits must be pairs of rows"),
        (lambda: path_length(np.ones(3), np.ones(2)), "one number of states"),
        (lambda: telescoping_residual(X, X, X, X, y, kappa=1.0), "sum_alpha_u must have shape"),
        (lambda: Path(t=[1.0], z=X, gamma=X, kappa=1.0), "t must be an array, got"),
        (lambda: iss_states(X, y[:4]), r"H must have shape \(4, 4\), got \(10, 4\)"),
        (lambda: PATH.plot(names=["a"]), "names must be 4 words, got"),
        # names that are missing
        (
            lambda: lyapunov(1.0, {}, W, W, W, alpha=1, kappa=1, nu=1, penalty=lambda *_: 0.0),
            "W must hold every tensor of Gamma, missing",
        ),
        # flags
        (lambda: lbi_path(X, y, kappa=1.0, intercept="yes"), "intercept must be True or False"),
        (
            lambda: split_iss_path(X, y, np.eye(4), nu=1.0, positive="no"),
            "positive must be True or False, got 'no'",
        ),
        (lambda: half_samples(10, 2, complementary=3), "complementary must be True or False"),
        # counts that no memory or time has
        (lambda: identity(10**13), "p must be at most 2,147,483,647, got 10000000000000"),
        (lambda: grid((10**6, 10**6)), "shape must be of at most 2,147,483,647 points"),
        (
            lambda: record(mirror_descent_states(**FLOW, alpha=0.1), 10**9),
            "n_steps must be at most",
        ),
        # what float64 does not hold
        (lambda: l1_norm(np.full(3, 1e308)), "must be finite, got overflow .* of x up to 1e.308"),
        (lambda: gaussian_loss(one * 1e200, np.eye(4)), "overflow .* of theta up to 1e.200"),
        (lambda: euclidean().value(np.full(2, 1e200)), "overflow .* of x up to 1e.200"),
        (lambda: simplex_entropy().divergence([0.5, 0.5], [1.0]), "y must have the shape of x"),
        (lambda: lbi_path(X, y, kappa=1.0, lam=5e-324), "lam must be at least 1e-300, got 4.9"),
        (lambda: gaussian_knockoffs(X, y, cov=np.tri(4)), "cov must be symmetric"),
    ],
)
def test_a_wrong_call_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_results_that_overflowed():
    """Single precision in squares, a large delta, a large X: each has its result."""
    v = np.array([[3e30, 4e30], [0.0, 0.0]], dtype=np.float32)
    assert_allclose(group_soft_threshold(v, 1e30), 0.8 * v, rtol=1e-6)
    assert huber(1e300).value(X[:, 0], y) == huber(1e3).value(X[:, 0], y)
    D, signs = differences(4), [1.0, 0.0, 0.0]
    own = genlasso_conditions(X, D, signs)
    assert_allclose(genlasso_conditions(1e9 * X, D, signs), own, rtol=1e-9)
