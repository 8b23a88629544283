"""The published simulation, on a few replicates of the benchmark's own seeds."""

import numpy as np
import pytest

from benchmarks import simulation

SEEDS = range(12)


def check(values, reference):
    """The mean agrees with one over 100 replicates, within three standard errors of both."""
    mean, sd = reference
    error = sd * np.sqrt(1 / len(values) + 1 / 100)
    assert abs(np.mean(values) - mean) < 3 * error
    return error


@pytest.mark.parametrize("transform", ["identity", "fused"])
def test_auc_of_exact_split_iss(transform):
    means = []
    for nu, reference in zip(simulation.NUS, simulation.AUC[transform], strict=True):
        values = [simulation.exact_auc(seed, transform, nu) for seed in SEEDS]
        check(values, reference)
        means.append(np.mean(values))
    assert (np.diff(means) > 0).all()  # the larger nu, the better the order
    unsplit = [simulation.exact_auc(seed, transform, 1e-3) for seed in SEEDS]
    assert np.mean(unsplit) < means[0] - 0.01


def test_split_lbi_has_the_order_of_its_limit():
    for seed in range(2):
        exact = simulation.exact_auc(seed, "fused", 1.0)
        assert abs(simulation.iterated_auc(seed, "fused", 1.0, kappa=50.0) - exact) < 0.01


def test_conditions_of_the_simulation():
    values = np.transpose([simulation.conditions(seed) for seed in SEEDS])
    for number, reference in zip(values, simulation.CONDITIONS.values(), strict=True):
        error = check(number, reference)
        assert error < 0.1 * reference[0]
    assert (values[1] < values[0]).all()


def test_iss_is_less_biased_than_the_lasso():
    values = np.transpose([simulation.bias(seed) for seed in range(100)])
    # the same seeds and design as the reference, which is rounded to four places
    for number, (mean, _) in zip(values, simulation.LASSO_EXAMPLE.values(), strict=True):
        assert abs(np.mean(number) - mean) < 6e-5
    assert (values[1] < values[0]).mean() > 0.95
