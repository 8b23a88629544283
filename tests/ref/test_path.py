"""The recorder, and the path object that every solver returns."""

from typing import NamedTuple

import matplotlib
import numpy as np
import pytest
import vectors

from dslbi_ref.path import Path, follow, record
from dslbi_ref.shrinkage import shrink

matplotlib.use("Agg")


class State(NamedTuple):
    t: float
    x: np.ndarray
    nothing: None
    m: dict
    W: dict


def states():
    k = 0
    while True:
        yield State(0.5 * k, np.array([k, -k]), None, {"a": np.ones(2)} if k else {}, {"a": k})
        k += 1


def linear_path(**changes):
    """The first of two entries touches the threshold at t = 1, the second passes it later."""
    z = np.array([[1.0, 0.5], [2.0, 0.8], [4.0, -3.0]])
    parts = dict(t=np.array([1.0, 2.0, 4.0]), z=z, gamma=shrink(z, kappa=2.0), kappa=2.0)
    return Path(**(parts | changes))


def step_path():
    t = np.array([0.0, 1.0, 3.0])
    z = np.array([[0.0, 0.0], [1.0, -0.5], [1.0, -1.0]])
    gamma = np.array([[0.0, 0.0], [2.0, 0.0], [1.5, -0.25]])
    return Path(t=t, z=z, gamma=gamma, kappa=np.inf, kind="step", stop_reason="t_max")


def test_record_keeps_every_kth_state():
    got = record(states(), 7, every=3)
    assert isinstance(got, State)
    np.testing.assert_array_equal(got.t, [0.0, 1.5, 3.0])
    np.testing.assert_array_equal(got.x, [[0, 0], [3, -3], [6, -6]])
    assert got.nothing is None
    np.testing.assert_array_equal(got.W["a"], [0, 3, 6])
    np.testing.assert_array_equal(got.m["a"], [[np.nan, np.nan], [1, 1], [1, 1]])


def test_record_of_a_short_generator_and_bad_counts():
    two = (s for s, _ in zip(states(), range(2), strict=False))
    assert len(record(two, 10).t) == 2
    with pytest.raises(ValueError, match="n_steps must be at least 0"):
        record(states(), -1)
    with pytest.raises(ValueError, match="every must be at least 1"):
        record(states(), 5, every=0)
    with pytest.raises(ValueError, match="at least one state"):
        record(iter(()), 5)


def test_evaluate_interpolates_and_hits_states_exactly():
    times = np.array([0.0, 0.2, 0.5, 0.75, 2.0])
    (x,) = follow(states(), times, "x")
    np.testing.assert_allclose(x[:, 0], 2 * times, rtol=1e-15, atol=0)
    assert x[2, 0] == 1.0 and x[4, 0] == 4.0


def test_at_returns_the_record_bit_for_bit():
    path = linear_path()
    for k, t in enumerate(path.t):
        for same in (t, t * (1 + 5e-13), t * (1 - 5e-13)):
            if k < 2 or same <= t:
                np.testing.assert_array_equal(path.at(t).gamma, path.gamma[k])
    np.testing.assert_array_equal(path.at(path.t).z, path.z)


def test_at_shrinks_after_interpolation():
    point = linear_path().at(3.0)
    np.testing.assert_allclose(point.z, [3.0, -1.1], rtol=1e-15)
    np.testing.assert_allclose(point.gamma, [4.0, -0.2], rtol=1e-14)
    assert linear_path().at(np.array([1.0, 3.0])).gamma.shape == (2, 2)


def test_step_path_holds_gamma_and_moves_z():
    path = step_path()
    np.testing.assert_array_equal(path.at(2.0).gamma, [2.0, 0.0])
    np.testing.assert_array_equal(path.at(2.0).z, [1.0, -0.75])
    np.testing.assert_array_equal(path.at(3.0 * (1 - 5e-13)).gamma, [1.5, -0.25])
    np.testing.assert_array_equal(path.support(np.array([0.5, 2.0])), [[0, 0], [1, 0]])
    np.testing.assert_array_equal(path.entry_times(), [1.0, 3.0])


def test_linear_path_enters_where_z_passes_the_threshold():
    # z_1 falls from 0.8 at t = 2 to -3 at t = 4 and passes -1 after 1.8 / 3.8 of the way.
    np.testing.assert_allclose(linear_path().entry_times(), [1.0, 2 + 2 * 1.8 / 3.8], rtol=1e-15)
    never = linear_path(gamma=np.zeros((3, 2)))
    np.testing.assert_array_equal(never.entry_times(), [np.inf, np.inf])


def test_entry_of_groups_and_of_classes():
    z = np.array([[0.3, 0.4, 0.0], [0.6, 0.8, 0.0], [1.2, 1.6, 0.5]])
    groups = np.array([7, 7, 2])
    gamma = np.array([shrink(row, kappa=1.0, groups=groups) for row in z])
    path = Path(t=np.array([1.0, 2.0, 4.0]), z=z, gamma=gamma, kappa=1.0, groups=groups)
    np.testing.assert_allclose(path.entry_times(), [2.0, 2.0, np.inf], rtol=1e-15)
    # three features of two classes: a feature is one group over its classes
    zc = np.stack([z, z], axis=2) / np.sqrt(2)
    gamma = np.array([shrink(row, kappa=1.0, groups=groups) for row in zc])
    path = Path(t=path.t, z=zc, gamma=gamma, kappa=1.0, groups=groups)
    np.testing.assert_allclose(path.entry_times()[:2], np.full((2, 2), 2.0), rtol=1e-14)
    assert np.isinf(path.entry_times()[2]).all()


def test_shrink_is_the_exact_gamma_of_every_kind():
    z = vectors.array((6, 2), scale=2.0)
    scale = np.arange(1.0, 7.0)
    np.testing.assert_array_equal(
        shrink(z, kappa=3.0, lam=0.5, scale=scale)[:, 1],
        shrink(z[:, 1], kappa=3.0, lam=0.5) * scale,
    )


def test_prediction_is_what_interpolates():
    """gamma bends where it passes the threshold, and the intercept must bend with it."""
    centre = np.array([100.0, -30.0])
    level = np.array([1.0, 2.0, 4.0])  # the predictor at the column means: linear in t
    path = linear_path()
    path = linear_path(centre=centre, intercept=level - path.gamma @ centre)
    point = path.at(np.array([1.5, 3.0]))
    np.testing.assert_allclose(point.intercept + point.gamma @ centre, [1.5, 3.0], rtol=1e-13)
    assert path.at(3.0).intercept.shape == ()


@pytest.mark.parametrize(
    "entry, truth, area",
    [
        ([1, 2, 3, 4], [1, 1, 0, 0], 1.0),
        ([1, 2, 3, 4], [0, 0, 1, 1], 0.0),
        ([1, 2, 2, 4], [1, 1, 0, 0], 7 / 8),
        ([1, np.inf, np.inf, np.inf], [1, 1, 0, 0], 3 / 4),
        ([1, 2, np.inf, np.inf], [0, 1, 1, 0], 1 / 2 * 0 + (0 + 1 + 0 + 1 / 2) / 4),
        ([2, 2 * (1 + 1e-14), 5, 6], [0, 1, 1, 0], (1 / 2 + 1 + 0 + 1) / 4),
    ],
)
def test_auc_counts_pairs(entry, truth, area):
    """A pair of a true and a false entry counts 1 in order, 1/2 in a tie."""
    t = np.unique(np.array([e for e in entry if np.isfinite(e)]))
    gamma = np.array([[float(e <= s) for e in entry] for s in t])
    path = Path(t=t, z=gamma, gamma=gamma, kappa=np.inf, kind="step")
    np.testing.assert_allclose(path.auc(truth), area, rtol=1e-15)


def test_auc_is_the_mann_whitney_statistic():
    from scipy.stats import mannwhitneyu

    entry = np.round(np.abs(vectors.array(40, seed=3)), 1) + 0.1
    truth = vectors.array(40, seed=4) > 0.3
    t = np.unique(entry)
    gamma = (entry <= t[:, None]).astype(float)
    path = Path(t=t, z=gamma, gamma=gamma, kappa=np.inf, kind="step")
    u = mannwhitneyu(entry[~truth], entry[truth]).statistic
    np.testing.assert_allclose(path.auc(truth), u / truth.sum() / (~truth).sum(), rtol=1e-14)


@pytest.mark.parametrize(
    "t, message",
    [
        ([], "t must be a non-empty 1-d array"),
        ([[1.0]], "t must be a non-empty 1-d array"),
        ([2.0, 1.0, 3.0], "t must be increasing, got 1.0 after 2.0"),
        ([1.0, 1.0, 3.0], "t must be increasing"),
        ([-1.0, 1.0, 3.0], "t must be at least 0, got -1.0"),
        ([1.0, np.nan, 3.0], "t must be finite, got nan"),
    ],
)
def test_bad_times_of_a_path(t, message):
    with pytest.raises(ValueError, match=message):
        linear_path(t=np.array(t))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda p: p.at(0.9), r"t must be in \[1.0, 4.0\], the range of the path, got 0.9"),
        (lambda p: p.at(4.1), "t must be in"),
        (lambda p: p.at(np.array([2.0, np.nan])), "t must be in"),
        (lambda p: p.support(-1.0), "t must be in"),
        (lambda p: p.auc([1, 0, 1]), r"truth must have shape \(2,\), got \(3,\)"),
        (lambda p: p.auc([1, 1]), "truth must hold true and false entries, got 2 true ones"),
        (
            lambda p: Path(t=np.zeros(1), z=p.z[:1], gamma=p.gamma[:1], kappa=1.0).plot(),
            "a path is drawn on a logarithmic axis, got no positive time",
        ),
        (lambda p: linear_path(kind="cubic"), 'kind must be "linear" or "step"'),
        (lambda p: linear_path(z=np.zeros((3, 1))), "gamma must have the shape of z"),
        (lambda p: linear_path(beta=np.zeros((2, 1))), "beta must have one row per time"),
    ],
)
def test_bad_calls(call, message):
    with pytest.raises(ValueError, match=message):
        call(linear_path())


@pytest.mark.parametrize("make", [linear_path, step_path])
def test_plot_draws_every_entry_that_enters(make):
    import matplotlib.pyplot as plt

    path = make()
    ax = path.plot(names=["a", "b"])
    curves = [line for line in ax.lines if line.get_label() in ("a", "b")]
    assert len(curves) == 2
    for j, line in enumerate(curves):
        expected = path.gamma[path.t > 0, j]
        drawn = line.get_ydata()
        np.testing.assert_array_equal(np.nan_to_num(drawn), expected)
        assert not np.isnan(drawn[np.flatnonzero(expected)[0] - 1 :]).any()
    assert ax.get_xscale() == "log" and "t" in ax.get_xlabel() and ax.get_ylabel()
    assert {text.get_text() for text in ax.texts} == {"a", "b"}
    ax = path.plot(ax, truth=[1, 0])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["true support", "other"]
    plt.close("all")
