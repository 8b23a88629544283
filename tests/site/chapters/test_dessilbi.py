"""Figures and solutions of the chapter on DessiLBI."""

import numpy as np
from numpy.testing import assert_allclose

from dslbi_ref import dessilbi_states, record


def test_the_quadratic_and_the_births(chapter):
    curves = chapter.quadratic()
    entry = curves["t"][(curves["Gamma"] > 0).argmax(axis=0)]
    assert_allclose(entry, [1, 2, 8], atol=0.06)
    assert_allclose(curves["W"][250], [2, 1, 0.125], atol=1e-3)  # t = 5: the third one waits
    births = chapter.births()
    at = {kappa: np.abs(births["kappa"] - kappa).argmin() for kappa in (0.9, 1.0, 2.0)}
    assert births["he"][at[0.9]] == 1 and births["he"][at[2.0]] == 0 == births["torch"][at[1.0]]


def test_solutions_of_the_chapter_on_dessilbi(chapter):
    for nu, entry, part in ((1.0, [1, 2, 8], 0.5), (3.0, [2, 4, 16], 0.75)):
        path = chapter.quadratic(nu=nu, kappa=50.0, steps=9000)
        assert_allclose(path["t"][(path["Gamma"] > 0).argmax(axis=0)], entry, atol=0.05)
        waiting = part * np.array([2.0, 1.0, 0.25])
        assert_allclose(path["W"][25], waiting, atol=1e-3)  # t = 0.5: all of them wait
    for kappa, lam, enters in ((1.0, 1.0, True), (2.0, 0.74, True), (2.0, 0.76, False)):
        states = dessilbi_states(
            {"w": np.array([[0.9, 1.2]])},
            lambda W: {"w": 0 * W["w"]},
            penalties={"w": "group"},
            alpha=0.1,
            kappa=kappa,
            nu=10.0,
            lam=lam,
            momentum=0.0,
        )
        path = record(states, 2000, every=10)
        assert path.Gamma["w"].any() == enters
