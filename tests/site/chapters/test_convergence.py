"""Figures and solutions of the chapter on global convergence."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dslbi_ref import dessilbi_states, record
from dslbi_ref.theory import step_bound


def test_the_gap_changes_by_the_factor_of_the_table(chapter):
    gaps = chapter.bounds()
    assert_allclose(list(map(float, gaps)), [0.45, 0.55, 0.95])
    for (part, gap), factor in zip(gaps.items(), (0.8, 1.2, 2.8), strict=True):
        assert gap[0] == 15
        assert abs(1 - 4 * float(part)) == pytest.approx(factor)  # I - alpha kappa M on (1, -1)
        assert_allclose(gap[-5:] / gap[-6:-1], factor, rtol=1e-2)
    assert gaps["0.45"][-1] < 0.02 and gaps["0.95"][14] > 1e6


def test_from_every_start_the_lyapunov_function_falls_to_a_critical_point(chapter):
    runs = chapter.falls()
    for run in runs.values():
        assert (np.diff(run["F"]) <= 1e-16).all()
        W = run["W"][-1]
        assert_allclose((W.prod() - 1) * W[::-1], 0, atol=1e-6)
        assert_allclose(run["Gamma"][-1], W, atol=1e-6)
    *valley, saddle = (run["W"][-1] for run in runs.values())
    assert_allclose([w.prod() for w in valley], 1, atol=1e-6)
    assert_allclose(saddle, 0, atol=1e-6)
    assert list(runs.values())[-1]["F"][-1] == pytest.approx(0.01)  # alpha L(0)


def line(loss_gradient, start, steps, *, alpha, nu, kappa=1.0):
    states = dessilbi_states(
        {"w": np.array([start])},
        lambda W: {"w": loss_gradient(W["w"])},
        penalties={"w": "l1"},
        momentum=0.0,
        **dict(alpha=alpha, nu=nu, kappa=kappa),
    )
    return record(states, steps)


def test_solutions_of_the_chapter_on_convergence():
    safe, nu = step_bound(1.0, kappa=1.0, nu=2.0), 2.0
    theta = np.linalg.eigvalsh([[1 + 1 / nu, -1 / nu], [-1 / nu, 1 / nu]]).max()
    assert (safe, round(theta, 3), round(2 / theta, 3)) == (1, 1.707, 1.172)
    assert round(2 / (1 + 1 / nu), 3) == 1.333
    assert np.abs(line(lambda w: w, 50.0, 400, alpha=1.3, nu=nu).W["w"][-1]) > 1e6
    assert np.abs(line(lambda w: w, 50.0, 400, alpha=0.99, nu=nu).W["w"][-1]) < 1e-6

    for nu in (0.5, 3.0):
        path = line(lambda w: w - 2, 0.0, 4000, alpha=0.05, nu=nu)
        W, V, Gamma = (part["w"][-1, 0] for part in (path.W, path.V, path.Gamma))
        assert_allclose([W, Gamma, V], [2, 2, 3], atol=1e-9)
        assert_allclose(0.05 * (path.W["w"][:-1] - 2).sum(), -5, atol=1e-9)
