"""Every proximal operator minimises what it says, and the penalties fit together."""

import numpy as np
import pytest
import vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from one_tensor import gamma
from scipy.optimize import minimize

from dslbi_ref import penalties as px
from dslbi_ref.units import Units

# Level and step both away from 1: a level used twice, or a step ignored, shows.
LAM, STEP = 0.3, 0.7
SEVEN = np.array([2, 0, 2, 5, 0, 2, -1])  # labels in any order; -1 is a label like another

# Name: shape of v, options of the group penalty (None: l1).
PENALTIES = {
    "l1": ((6, 5), None),
    "rows": ((6, 5), {}),
    "columns": ((6, 5), dict(group_dim=1)),
    "filters": ((4, 3, 2, 2), dict(group_dim=0)),
    "channels": ((4, 3, 2, 2), dict(group_dim=1, weight="sqrt")),
    "kernels": ((4, 3, 2, 2), dict(group_dim=(0, 1), weight="sqrt")),
    "kernels, from the end": ((4, 3, 2, 2), dict(group_dim=(-3, -4))),
    "whole": ((6, 5), dict(group_dim=(), weight="sqrt")),
    "entries": ((6, 5), dict(group_dim=(0, 1))),
    "labels": ((7,), dict(groups=SEVEN)),
    "weighted labels": ((7,), dict(groups=SEVEN, weight="sqrt")),
    "labels of rows": ((7, 3), dict(groups=SEVEN, weight="sqrt")),
    "labels of columns": ((3, 7), dict(groups=SEVEN, group_dim=1)),
    "labels from the end": ((3, 7), dict(groups=SEVEN, group_dim=-1, weight="sqrt")),
}


def functions(name):
    """``penalty(x, lam), prox(v, lam), dual_norm(x)`` of one row of the table."""
    options = PENALTIES[name][1]
    if options is None:
        return px.l1_norm, px.soft_threshold, px.l1_dual_norm
    return (
        lambda x, lam: px.group_norm(x, lam, **options),
        lambda v, lam: px.group_soft_threshold(v, lam, **options),
        lambda x: px.group_dual_norm(x, **options),
    )


def members(name, shape):
    """The groups written out one by one: index arrays into the flattened v, and their factors."""
    options = PENALTIES[name][1]
    index = np.arange(np.prod(shape)).reshape(shape)
    if options is None:
        return [(np.array([i]), 1.0) for i in index.ravel()]
    dims = options.get("group_dim", 0)
    dims = [d % len(shape) for d in ((dims,) if isinstance(dims, int) else dims)]
    if "groups" in options:
        index = np.moveaxis(index, dims[0], 0)
        found = [index[options["groups"] == g].ravel() for g in np.unique(options["groups"])]
    else:
        kept = [shape[d] for d in sorted(dims)]
        index = np.moveaxis(index, sorted(dims), range(len(dims)))
        found = list(index.reshape(int(np.prod(kept)), -1))
    weighted = options.get("weight") == "sqrt"
    return [(g, np.sqrt(len(g)) if weighted else 1.0) for g in found]


def point(name, seed=0):
    """A point with groups that survive, groups that vanish, and one that is zero already."""
    shape = PENALTIES[name][0]
    v = vectors.array(shape, seed).ravel()
    for i, (g, _) in enumerate(members(name, shape)):
        v[g] *= (1.0, 0.05, 0.0)[i % 3]
    return v.reshape(shape)


@pytest.mark.parametrize("name", PENALTIES)
def test_value_is_the_sum_over_the_groups(name, close):
    penalty, _, dual_norm = functions(name)
    v = point(name)
    parts = [(np.linalg.norm(v.ravel()[g]), w) for g, w in members(name, v.shape)]
    close(penalty(v, LAM), LAM * sum(w * norm for norm, w in parts))
    close(dual_norm(v), max(norm / w for norm, w in parts))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", PENALTIES)
def test_argmin(name, seed):
    """F(x) = STEP * Omega(x) + ||x - v||^2 / 2 grows at least as ||x - p||^2 / 2 around its argmin.

    This is strong convexity, and it holds for no other point: nothing may come closer.
    """
    penalty, prox, _ = functions(name)
    v = point(name, seed)
    p = prox(v, STEP * LAM)

    def F(x):
        return STEP * penalty(x, LAM) + ((x - v) ** 2).sum() / 2

    others = [v, 0 * v, -p, *(c * p for c in (0.9, 0.999, 1.001, 1.1))]
    others += [
        p + vectors.array(v.shape, seed=100 + i, scale=s)
        for i in range(20)
        for s in (1e-4, 1e-2, 1.0)
    ]
    others += [np.where(p != 0, p + 1e-3 * vectors.array(v.shape, seed=i), 0) for i in range(20)]
    slack = 1e-13 * F(0 * v)  # rounding of F
    for x in others:
        assert F(x) - F(p) >= ((x - p) ** 2).sum() / 2 - slack


@pytest.mark.parametrize("name", PENALTIES)
def test_prox_against_a_solver(name):
    """v - prox(v) is the point nearest to v in the dual ball, found by a general solver (SLSQP)."""
    _, prox, _ = functions(name)
    v = point(name).ravel()
    groups = members(name, PENALTIES[name][0])

    def slack(u):
        return np.array([(STEP * LAM * w) ** 2 - (u[g] ** 2).sum() for g, w in groups])

    def slack_jacobian(u):
        J = np.zeros((len(groups), v.size))
        for i, (g, _) in enumerate(groups):
            J[i, g] = -2 * u[g]
        return J

    found = minimize(
        lambda u: ((u - v) ** 2).sum() / 2,
        np.zeros(v.size),
        jac=lambda u: u - v,
        method="SLSQP",
        constraints=dict(type="ineq", fun=slack, jac=slack_jacobian),
        options=dict(ftol=1e-15, maxiter=1000),
    )
    p = prox(v.reshape(PENALTIES[name][0]), STEP * LAM)
    # the solver's own accuracy; measured: 2.5e-9
    np.testing.assert_allclose(p.ravel(), v - found.x, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", PENALTIES)
def test_moreau(name, close):
    """u = v - p is a subgradient of Omega at p = prox(v): in the dual ball, <p, u> = Omega(p)."""
    penalty, prox, dual_norm = functions(name)
    v = point(name)
    p = prox(v, LAM)
    assert p.any()
    u = v - p
    assert dual_norm(u) <= LAM * (1 + 1e-12)
    close((p * u).sum(), penalty(p, LAM))
    close(dual_norm(prox(v, 0.0) - v), 0.0)


@pytest.mark.parametrize("name", PENALTIES)
def test_dual_norm_is_the_level_at_which_the_first_group_enters(name):
    _, prox, dual_norm = functions(name)
    v = point(name)
    level = dual_norm(v)
    assert not prox(v, level * (1 + 1e-12)).any()
    assert prox(v, level * (1 - 1e-12)).any()


@pytest.mark.parametrize("name", PENALTIES)
def test_dual_norm_bounds_the_product_and_is_attained(name, close):
    penalty, _, dual_norm = functions(name)
    v = point(name)
    for seed in range(10):
        x = vectors.array(v.shape, seed)
        assert abs((x * v).sum()) <= penalty(x, 1.0) * dual_norm(v) * (1 + 1e-12)
    g, _ = max(members(name, v.shape), key=lambda m: np.linalg.norm(v.ravel()[m[0]]) / m[1])
    x = np.zeros(v.size)
    x[g] = v.ravel()[g]
    x = x.reshape(v.shape)
    close((x * v).sum(), penalty(x, 1.0) * dual_norm(v))


@pytest.mark.parametrize("kappa", [0.5, 4.0])
@pytest.mark.parametrize("name", ["l1", "rows", "channels", "kernels", "whole"])
def test_gamma_inverts_the_mirror_map(name, kappa):
    """V is a subgradient of Omega + ||.||^2 / (2 kappa) at Gamma = kappa * prox(V)."""
    shape, options = PENALTIES[name]
    penalty, _, dual_norm = functions(name)
    V = point(name)
    options = dict(penalty="l1") if options is None else dict(penalty="group", **options)
    G = gamma(V, kappa=kappa, lam=LAM, **options)
    g = V - G / kappa
    assert dual_norm(g) <= LAM * (1 + 1e-12)
    np.testing.assert_allclose((g * G).sum(), penalty(G, LAM), rtol=1e-12)


def test_closed_forms():
    v = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    np.testing.assert_allclose(px.group_soft_threshold(v, 1.0), [[2.4, 3.2], [0, 0], [0, 0]])
    wide = px.group_soft_threshold(v, 1.0, weight="sqrt")[0]
    np.testing.assert_allclose(wide, v[0] * (1 - np.sqrt(2) / 5))
    np.testing.assert_allclose(px.soft_threshold(v, 0.35), [[2.65, 3.65], [0, 0.05], [0, 0]])
    assert px.group_dual_norm(v) == 5.0
    np.testing.assert_allclose(px.group_dual_norm(v, weight="sqrt"), 5 / np.sqrt(2))


def test_a_group_exactly_at_the_threshold_stays_out():
    assert not px.soft_threshold(np.array([0.25, -0.25]), 0.25).any()
    assert not px.group_soft_threshold(np.array([[3.0, 4.0]]), 5.0).any()


# ---- Shapes of any kind ----------------------------------------------------------------------

SEEDS = st.integers(0, 10**6)


@st.composite
def arrays_with_groups(draw):
    """A shape with possibly empty axes, and axes to group along, counted from either end."""
    shape = tuple(draw(st.lists(st.integers(0, 4), min_size=1, max_size=4)))
    dims = draw(st.lists(st.integers(-len(shape), len(shape) - 1), max_size=4, unique=True))
    group_dim = dims[0] if len(dims) == 1 and draw(st.booleans()) else tuple(dims)
    return vectors.array(shape, draw(SEEDS)), group_dim, draw(st.sampled_from([None, "sqrt"]))


@settings(derandomize=True, deadline=None)
@given(arrays_with_groups(), st.floats(0, 3))
def test_any_shape(drawn, lam):
    v, group_dim, weight = drawn
    options = dict(group_dim=group_dim, weight=weight)
    p = px.group_soft_threshold(v, lam, **options)
    assert p.shape == v.shape and p.dtype == np.float64
    u = v - p
    scale = 1 + np.abs(v).sum()
    assert px.group_dual_norm(u, **options) <= lam + 1e-12 * scale
    difference = (p * u).sum() - px.group_norm(p, lam, **options)
    np.testing.assert_allclose(difference, 0, atol=1e-12 * scale**2)
    if v.ndim and set(np.atleast_1d(group_dim).astype(int) % v.ndim) == set(range(v.ndim)):
        np.testing.assert_allclose(p, px.soft_threshold(v, lam), atol=1e-15)


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(-3, 3), max_size=9), st.integers(0, 3), SEEDS, st.booleans())
def test_any_labels(groups, width, seed, weighted):
    """Labels gather slices: the prox of the whole is the prox of every group on its own."""
    groups = np.array(groups, dtype=int)
    v = vectors.array((len(groups), width), seed)
    weight = "sqrt" if weighted else None
    p = px.group_soft_threshold(v, LAM, groups=groups, weight=weight)
    assert p.shape == v.shape
    for g in np.unique(groups):
        alone = px.group_soft_threshold(v[groups == g], LAM, group_dim=(), weight=weight)
        np.testing.assert_allclose(p[groups == g], alone, atol=1e-15)


@settings(derandomize=True, deadline=None)
@given(arrays_with_groups(), st.floats(0, 3), SEEDS)
def test_firmly_non_expansive(drawn, lam, seed):
    v, group_dim, weight = drawn
    w = v + vectors.array(v.shape, seed)
    p, q = (px.group_soft_threshold(x, lam, group_dim=group_dim, weight=weight) for x in (v, w))
    assert ((p - q) * (v - w)).sum() >= ((p - q) ** 2).sum() - 1e-12 * (1 + (v * v + w * w).sum())


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)])
@pytest.mark.parametrize("weight", [None, "sqrt"])
def test_empty_arrays(shape, weight):
    v = np.zeros(shape)
    assert px.soft_threshold(v, LAM).shape == shape
    assert px.l1_norm(v, LAM) == px.l1_dual_norm(v) == 0
    for group_dim in (*range(len(shape)), ()):
        options = dict(group_dim=group_dim, weight=weight)
        assert px.group_soft_threshold(v, LAM, **options).shape == shape
        assert px.group_norm(v, LAM, **options) == px.group_dual_norm(v, **options) == 0


def test_labels_that_are_all_different_are_slices(close):
    v = vectors.array((5, 4))
    groups = [3, 1, 4, 0, 9]
    close(px.group_soft_threshold(v, LAM, groups=groups), px.group_soft_threshold(v, LAM))


@pytest.mark.parametrize("name", PENALTIES)
def test_arguments_are_not_written_to(name):
    penalty, prox, dual_norm = functions(name)
    v = point(name)
    before = v.copy()
    penalty(v, LAM), prox(v, LAM), dual_norm(v)
    np.testing.assert_array_equal(v, before)


# ---- Bad input -------------------------------------------------------------------------------

V = np.ones((3, 2))
BAD_INPUT = [
    (lambda: px.soft_threshold(V, -0.1), "lam must be at least 0 and finite, got -0.1"),
    (lambda: px.soft_threshold(V, np.nan), "lam must be at least 0 and finite, got nan"),
    (lambda: px.group_soft_threshold(V, -1), "lam must be at least 0 and finite, got -1"),
    (lambda: px.group_soft_threshold(V, np.inf), "lam must be at least 0 and finite, got inf"),
    (lambda: px.group_norms(V, group_dim=2), "group_dim must name axes of a 2-d array, got 2"),
    (lambda: px.group_soft_threshold(V, group_dim=(0, -3)), r"2-d array, got \(0, -3\)"),
    (lambda: px.group_soft_threshold(np.float64(1.0)), "axes of a 0-d array, got 0"),
    (lambda: px.group_soft_threshold(V, weight="n"), "weight must be None or .*, got 'n'"),
    (lambda: px.group_soft_threshold(V, groups=[0, 1]), r"3 integer labels, got int64 of shape"),
    (lambda: px.group_norm(V, groups=[0.0, 1.0, 1.0]), "3 integer labels, got float64"),
    (lambda: px.group_norm(V, groups=[0, 1, 1], group_dim=(0,)), r"one axis group_dim, got \(0,\)"),
    (lambda: px.penalty_named("l2"), "penalty must be \"l1\".* or .*, got 'l2'"),
]


@pytest.mark.parametrize("call, message", BAD_INPUT, ids=range(len(BAD_INPUT)))
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_prox_by_name(close):
    v = vectors.array((4, 3, 2, 2))
    units = Units(group_dim=(0, 1), weight="sqrt")
    close(px.PENALTIES["l1"].prox([v], LAM, units)[0], px.soft_threshold(v, LAM))
    expected = px.group_soft_threshold(v, LAM, group_dim=(0, 1), weight="sqrt")
    close(px.PENALTIES["group"].prox([v], LAM, units)[0], expected)
