"""Figures and solutions of the chapter on the inverse scale space."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dslbi_ref import iss_path, lbi_path

C = np.array([2.0, -1.25, 0.8, 0.3])


def test_clocks_and_speeds(chapter):
    curves = chapter.clocks()
    t, apart = curves["t"][:, None], np.abs(curves["t"][:, None] - 1 / np.abs(C)) > 1e-9
    assert_allclose(curves["z"], np.clip(t * C, -1, 1), atol=1e-9)
    gamma = np.where(t >= 1 / np.abs(C), C, 0)
    assert_allclose(np.where(apart, curves["gamma"], gamma), gamma, atol=1e-9)
    curves = chapter.speeds()
    for kappa in (2, 10):
        closed = 2 * (1 - np.exp(-kappa * (curves["t"] - 0.5)))
        assert_allclose(curves[rf"$\kappa = {kappa}$"], closed, atol=2e-3)


def test_the_states_lie_on_the_staircase(chapter):
    curves = chapter.staircase()
    gamma, rho = curves["flow"]
    assert_allclose(gamma, np.where(np.abs(C) >= 1, C, 0), atol=1e-9)
    assert_allclose(rho, np.clip(C, -1, 1), atol=1e-9)
    gamma, z = curves["slow"]
    assert_allclose(gamma, 2 * np.sign(z) * np.maximum(np.abs(z) - 1, 0), atol=1e-12)
    assert_allclose(gamma, np.interp(z, *curves["ramp"][::-1]), atol=0.02)
    assert_allclose(gamma[:2], C[:2] * (1 - np.exp(-2 * (1 - 1 / np.abs(C[:2])))), atol=2e-3)


def test_solutions_of_the_chapter_on_inverse_scale_space(chapter):
    X, y = chapter.orthogonal()
    assert_allclose(iss_path(X, y).at(1.0).gamma, [2, -1.25, 0, 0], atol=1e-9)
    assert_allclose(np.sign(C) * np.maximum(np.abs(C) - 1, 0), [1, -0.25, 0, 0], atol=1e-12)
    late = 0.5 + np.log(100) / 2
    assert late == pytest.approx(2.80, abs=5e-3)
    path = lbi_path(X, y, kappa=2.0, alpha=2e-4, times=[late])
    assert_allclose(path.gamma[0, 0], 0.99 * 2, atol=1e-3)
    assert_allclose(2 * (1 - 0.5 / 50), 0.99 * 2)
