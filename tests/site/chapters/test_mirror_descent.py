"""Figures and solutions of the chapter on mirror descent."""

import numpy as np
from numpy.testing import assert_allclose

from dslbi_ref.mirror_maps import elastic_net, orthant_entropy


def test_mirrors_and_gap(chapter):
    curves = chapter.mirrors()
    z, net = curves["z"], curves[r"elastic net, $\kappa = 1$"]
    assert_allclose(net, np.sign(z) * np.maximum(np.abs(z) - 1, 0), atol=1e-12)
    gap = chapter.gap()
    x = gap["x"]
    assert_allclose(gap["phi"] - gap["tangent"], x * np.log(x) - x + 1, atol=1e-12)


def test_solutions_of_the_chapter_on_mirror_descent():
    net, one, zero = elastic_net(1.0), np.ones(1), np.zeros(1)
    assert_allclose(net.inverse(np.array([2.5, -1.0, 0.3, 1.0])), [1.5, 0, 0, 0], atol=1e-12)
    for z, distance in ((0.5, 1.0), (1.0, 0.5)):
        assert_allclose(net.divergence(one, zero, np.array([z])), distance)
    entropy = orthant_entropy()
    assert_allclose(entropy.divergence(2 * one, one), 0.386, atol=5e-4)
    assert_allclose(entropy.divergence(one, 2 * one), 0.307, atol=5e-4)
