"""Input that once gave a silent wrong result, an endless loop or a message of NumPy's own."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal

from dslbi_ref import (
    group_soft_threshold,
    iss_path,
    lbi_path,
    mirror_descent,
    mirror_descent_states,
    record,
    soft_threshold,
    split_iss_path,
    split_lbi_path,
)
from dslbi_ref.design import spectral_norm_squared
from dslbi_ref.dessilbi import dessilbi_states, gamma, step
from dslbi_ref.graphical import gaussian_path, ising_path
from dslbi_ref.losses import LOSSES
from dslbi_ref.mirror_descent import mirror_flow
from dslbi_ref.mirror_maps import euclidean, p_norm
from dslbi_ref.penalties import PENALTIES, group_dual_norm, group_norm, group_norms, l1_norm
from dslbi_ref.release import dense_start, scaled_levels
from dslbi_ref.solvers.projections import kernel_projector
from dslbi_ref.solvers.reduced import split_reduced_path
from dslbi_ref.stopping import cross_validate, discrepancy_time
from dslbi_ref.theory import genlasso_conditions, irrepresentable, step_bound, stopping_time
from dslbi_ref.transforms import differences, identity, trend
from dslbi_ref.units import Units

rng = np.random.default_rng(0)
X, y = rng.normal(size=(10, 4)), rng.normal(size=10)
D = differences(4)
PATHS = {
    "lbi": lambda X, y, **o: lbi_path(X, y, **{"kappa": 10.0} | o),
    "iss": iss_path,
    "split lbi": lambda X, y, **o: split_lbi_path(X, y, D, **{"kappa": 10.0, "nu": 1.0} | o),
    "split iss": lambda X, y, **o: split_iss_path(X, y, D, **{"nu": 1.0} | o),
    "reduced": lambda X, y, **o: split_reduced_path(X, y, D, **{"kappa": 9.0, "nu": 1.0} | o),
}


def refused(message, call, *args, **options):
    with pytest.raises(ValueError, match=message) as error:
        call(*args, **options)
    assert "\n" not in str(error.value)


# ---- Sizes beyond what squares hold ----------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_data_of_a_size_that_squares_do_not_hold_are_refused(path):
    for size in (1e155, 1e-160, 1e300, 1e-200):
        refused("y must have a largest entry between", PATHS[path], X, y * size)
        refused("X must have a largest entry between", PATHS[path], X * size, y)
    refused("D must have a largest entry between", split_iss_path, X, y, D * 1e300, nu=1.0)


@pytest.mark.parametrize("size", [1e130, 1e-130])
def test_data_of_large_and_small_sizes_have_their_path(size):
    assert_allclose(iss_path(X, y * size).gamma, iss_path(X, y).gamma * size, rtol=1e-9)
    assert_allclose(iss_path(X * size, y).gamma, iss_path(X, y).gamma / size, rtol=1e-9)
    assert np.isfinite(lbi_path(X, y * size, kappa=1.0 * size).gamma).all()


@pytest.mark.parametrize("size", [1e200, 1e-200, 5e-324])
def test_units_of_a_size_that_squares_do_not_hold_are_refused(size):
    v = np.array([[3.0, 4.0], [0.0, 0.0]]) * size
    for call in (group_norms, group_norm, group_dual_norm, group_soft_threshold):
        refused("must have a largest entry between 1e-140 and 1e[+]140", call, v)
        assert not np.any(call(0.0 * v))


# ---- Types of arrays -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.float16, bool])
def test_narrow_arrays_are_promoted(dtype):
    v = np.array([[100, 100], [-128 if np.dtype(dtype).kind in "if" else 0, 0]]).astype(dtype)
    wide, units = v.astype(np.float64), Units()
    assert_array_equal(group_soft_threshold(v, 1.0), group_soft_threshold(wide, 1.0))
    assert_array_equal(soft_threshold(v, 1.0), soft_threshold(wide, 1.0))
    assert l1_norm(v) == l1_norm(wide) and group_dual_norm(v) == group_dual_norm(wide)
    for row in PENALTIES.values():
        assert row.dual_norm([v], units) == row.dual_norm([wide], units)
        assert row.value([v], 1.0, units) == row.value([wide], 1.0, units)
        assert_array_equal(row.prox([v], 1.0, units), row.prox([wide], 1.0, units))
    halves = dessilbi_states({"a": v}, lambda W: W, penalties={"a": "l1"}, alpha=0.1)
    doubles = dessilbi_states({"a": wide}, lambda W: W, penalties={"a": "l1"}, alpha=0.1)
    assert_array_equal(record(halves, 3).W["a"], record(doubles, 3).W["a"])


@pytest.mark.parametrize("path", PATHS)
def test_complex_numbers_and_texts_are_refused(path):
    refused("X must hold real numbers, got complex128", PATHS[path], X * 1j, y)
    refused("X must hold real numbers, got complex128", PATHS[path], sp.csc_array(X * 1j), y)
    refused("y must hold real numbers, got complex128", PATHS[path], X, y * 1j)
    refused("X must hold real numbers, got <U", PATHS[path], X.astype(str), y)
    refused("D must hold real numbers", split_iss_path, X, y, D * 1j, nu=1.0)
    refused("must hold real numbers", soft_threshold, y * 1j)
    refused("X must be an array, but ", PATHS[path], [[1.0], [1.0, 2.0]], y)


@pytest.mark.parametrize("word", ["squared", "logistic"])
def test_a_sparse_design_where_only_dense_ones_are_taken(word):
    S = sp.csc_array(np.sign(X))
    refused("X must be dense, got a sparse array", ising_path, S, kappa=1.0)
    refused("X must be dense, got a sparse array", gaussian_path, S, kappa=1.0)
    refused("X must be dense, got a sparse array", irrepresentable, S, [1, 0, 0, 0])
    refused("X must be dense, got a sparse array", stopping_time, S, [1, 0, 0, 0], sigma=1.0)


# ---- Numbers and words -----------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("wrong", ["1", None, [1.0], True, 1j, np.array([1.0])], ids=repr)
def test_what_is_no_number_is_refused(path, wrong):
    for name in {"iss": ("t_max",), "split iss": ("nu", "t_max")}.get(path, ("kappa", "lam")):
        if (name, wrong) != ("t_max", None):
            refused(f"{name} must be a number, got ", PATHS[path], X, y, **{name: wrong})


def test_a_family_is_a_list_of_arrays():
    """The rows of an array alone would be taken for arrays that are joint."""
    for call in (gamma, lambda V, **o: dense_start(V, kappa=1.0, lam=1.0, **o)):
        refused(r"a list of arrays, .* got an array of shape \(10, 4\)", call, X, penalty="group")
        refused("a list of arrays, at least one, got none", call, [], penalty="sparse group")
    refused("weight must be None or .*, got array", gamma, [X], penalty="group", weight=y[:2])
    for wrong in ("0", 0.5):
        refused(
            f"group_dim must name axes of a 2-d array, got {wrong!r}",
            gamma,
            [X],
            penalty="group",
            group_dim=wrong,
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(joint=["a", "b"]), "joint must be lists of names, got 'a' alone"),
        (dict(joint="ab"), "joint must be lists of names, got 'a' alone"),
        (dict(penalties=["a"]), r"penalties must be a dict .*, got \['a'\]"),
        (dict(penalties="l1"), "penalties must be a dict .*, got 'l1'"),
        (dict(power=1.0, lam="1"), "lam must be a number, got '1'"),
        (dict(dense=True, kappa="2"), "kappa must be a number, got '2'"),
        (dict(dense=True, kappa=0), "kappa must be positive and finite, got 0"),
        (dict(pull=1.0, release=2, nu="2"), "nu must be a number, got '2'"),
    ],
)
def test_what_a_path_of_a_net_is_given(options, message):
    options = dict(penalties={"a": "group", "b": "group"}, alpha=0.1) | options
    states = dessilbi_states({"a": X, "b": X}, lambda W: W, **options)
    refused(message, next, states)


def test_a_step_takes_v_and_gamma_together():
    refused(
        "V and Gamma must be given together, .* got V alone", step, X, X, None, None, X, alpha=1
    )
    refused("given together, .* got Gamma alone", step, X, None, X, None, X, alpha=1)


def test_a_path_that_splits_nothing_has_no_levels():
    states = dessilbi_states({"a": X}, lambda W: W, penalties={}, alpha=0.1, power=1.0)
    assert record(states, 2).V == {}
    refused("lam must be positive and finite, got 0", scaled_levels, {}, [], lam=0, power=0.0)
    refused("kappa must be positive and finite", dense_start, [X], kappa=0, lam=1, penalty="l1")


def test_words_may_be_anything_and_are_refused():
    for wrong in (["squared"], {"a": 1}, None, 3, np.array(["squared", "logistic"])):
        refused("loss must be one of squared, ", lbi_path, X, y, kappa=1.0, loss=wrong)
        refused("loss must be one of squared, ", iss_path, X, y, loss=wrong)
        refused("start must be one of", split_lbi_path, X, y, D, nu=1.0, kappa=1.0, start=wrong)


def test_the_precision_of_a_number_does_not_enter():
    for narrow in (np.float16, np.float32, np.int64):
        own, other = split_iss_path(X, y, D, nu=narrow(1)), split_iss_path(X, y, D, nu=1.0)
        assert_array_equal(own.beta, other.beta)
        own, other = lbi_path(X, y, kappa=narrow(3)), lbi_path(X, y, kappa=3.0)
        assert_array_equal(own.gamma, other.gamma)
        options = dict(penalties={"a": "group"}, momentum=0.0)
        own, other = (
            record(dessilbi_states({"a": X}, lambda W: W, kappa=k, alpha=a, **options), 5)
            for k, a in ((narrow(3), np.float32(0.1)), (3.0, float(np.float32(0.1))))
        )
        assert own.t.dtype == np.float64
        assert_array_equal(own.t, other.t)
        assert_array_equal(own.W["a"], other.W["a"])


def test_whole_numbers():
    def states():
        return mirror_descent_states(lambda x: x, euclidean(), np.ones(2), alpha=0.1)

    assert len(record(states(), np.int64(4), np.int32(2)).t) == 3
    refused("n_steps must be an integer, got 3.7", record, states(), 3.7)
    refused("every must be an integer, got True", record, states(), 3, True)
    refused("p must be an integer, got True", identity, True)
    refused("p must be a number, got '2'", p_norm, "2")
    times = iss_path(X, y).t[1:3]
    for folds in (2.5, "2", True):
        refused("folds must be an integer", cross_validate, iss_path, X, y, times, folds=folds)
    longer = np.append(y, 1.0)
    refused(r"y must have shape \(10,\), got \(11,\)", cross_validate, iss_path, X, longer, times)


# ---- What never ended ------------------------------------------------------------------------


def test_an_iteration_of_too_many_steps_is_refused_with_their_number():
    far = dict(kappa=1.0, times=[1e12])
    refused(r"within 100,000,000 steps, .* takes 1e\+13 of 0.1 ", lbi_path, X, y, alpha=0.1, **far)
    options = dict(lam=1e16, kappa=1e16, alpha=1e-300)
    refused("takes endlessly many", lbi_path, X, y, **options)
    refused("times must be reached", split_lbi_path, X, y, D, nu=1.0, **options)
    refused("times must be reached", ising_path, np.sign(X), **options)


def test_a_flow_of_too_many_gradients_ends(monkeypatch):
    monkeypatch.setattr(mirror_descent, "MAX_GRADIENTS", 1000)
    options = dict(x0=np.ones(2), times=[1e12])
    refused(
        "within 1,000 gradients, got t = ", mirror_flow, lambda x: 1e6 * x, euclidean(), **options
    )


@pytest.mark.parametrize("wrong", ["a", [1j, 2.0], [[1.0], [1.0, 2.0]]], ids=str)
def test_a_start_is_of_real_numbers(wrong):
    message = "x0 must hold real numbers|x0 must be an array, but "
    refused(message, mirror_descent_states(lambda x: x, euclidean(), wrong, alpha=0.1).__next__)


def test_a_projector_checks_what_it_is_given():
    wrong = differences(5).toarray()
    wrong[0, 1] = np.inf
    refused("D must be finite, got inf", kernel_projector, wrong)
    rows = ((1.0, -1.0, 0.0), (0.0, 1.0, -1.0), (1.0, 0.0, -1.0))  # not data, indices, indptr
    project = kernel_projector(rows)
    assert_allclose(project([1.0, 2.0, 6.0], [1, 0, 0]), [1.5, 1.5, 6.0])
    refused("beta must be finite", project, [1.0, np.nan, 6.0], [1, 0, 0])
    refused(r"inactive must have shape \(3,\)", project, [1.0, 2.0, 6.0], [1, 0])


# ---- Wrong values ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12, 5), (5, 12)])
@pytest.mark.parametrize("kind", [np.asarray, sp.csc_array])
def test_the_norm_of_a_design_less_any_mean(shape, kind):
    A, mean = rng.normal(size=shape), rng.normal(size=shape[1])
    expected = np.linalg.norm(A - mean, 2) ** 2
    assert_allclose(spectral_norm_squared(kind(A), mean), expected, rtol=1e-12)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_support_must_be_finite(wrong):
    support = [wrong, 0.0, 0.0, 0.0]
    refused("support must be finite", irrepresentable, X, support)
    refused("support must be finite", stopping_time, X, support, sigma=1.0)


def test_the_step_bound_is_of_numbers_that_have_one():
    refused("kappa must be positive and finite, got 0", step_bound, 1.0, kappa=0)
    refused("kappa must be positive and finite, got -1.0", step_bound, 1.0, kappa=-1.0)
    refused("nu must be positive and finite, got 0", step_bound, 1.0, kappa=1.0, nu=0)
    refused("step bound .* must be a positive float", step_bound, 1e-320, kappa=1.0)
    refused("step bound .* must be a positive float", step_bound, 1e300, kappa=1e300)


def test_a_signal_without_a_gradient_has_no_path():
    for seed in range(40):
        draw = np.random.default_rng(seed)
        constant, target = np.ones((10, 7)) * draw.normal(), draw.normal(size=10)
        for order in (0, 1):
            path = split_iss_path(constant, target, trend(7, order), nu=10.0, t_max=np.inf)
            assert path.t.tolist() == [0.0] and path.stop_reason.startswith("saturated")


def test_stopping_times_take_lists_and_check_their_numbers():
    few = np.array([3.0, 0.0, 0.0, 0.0])
    wide = np.linalg.qr(X)[0]
    assert stopping_time(wide.tolist(), few.tolist(), sigma=1) == stopping_time(wide, few, sigma=1)
    refused("D must have the 4 columns of X", genlasso_conditions, X, np.eye(3), [1, 0, 0])
    for sigma in (np.nan, -1.0, np.inf, "1"):
        refused("sigma must be ", discrepancy_time, iss_path(X, y), X, y, sigma=sigma)


def test_one_class_has_no_intercept():
    refused(r"both classes -1 and \+1, got only \+1", LOSSES["logistic"].null_intercept, np.ones(3))
