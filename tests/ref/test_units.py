"""Units: every entry gets the label of what it enters with, in one array or over several."""

import numpy as np
import pytest
import vectors

from dslbi_ref.penalties import PENALTIES
from dslbi_ref.units import Units, labels, norms, unit_sizes, unit_weights


def test_slices_and_kernels():
    x = np.zeros((2, 3, 2))
    (rows,), count = labels([x], Units())
    assert count == 2 and rows.shape == x.shape
    np.testing.assert_array_equal(rows[:, 0, 0], [0, 1])
    (kernels,), count = labels([x], Units(group_dim=(1, -3)))
    assert count == 6
    np.testing.assert_array_equal(kernels[..., 0], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(kernels[..., 0], kernels[..., 1])
    (whole,), count = labels([x], Units(group_dim=()))
    assert count == 1 and not whole.any()


def test_entries_are_numbered_through_the_family():
    found, count = labels([np.zeros((2, 2)), np.zeros(3)], Units(group_dim=None))
    assert count == 7
    np.testing.assert_array_equal(found[0], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(found[1], [4, 5, 6])


def test_blocks_are_heads():
    (along,), count = labels([np.zeros((6, 2))], Units(block=2))
    assert count == 3
    np.testing.assert_array_equal(along[:, 1], [0, 0, 1, 1, 2, 2])


def test_parts_belong_together():
    """Queries, keys and values of two heads of two rows each, stacked in one array."""
    (along,), count = labels([np.zeros((12, 1))], Units(block=2, parts=3))
    assert count == 2
    np.testing.assert_array_equal(along[:, 0], 3 * [0, 0, 1, 1])
    (along,), _ = labels([np.zeros((1, 4))], Units(group_dim=1, parts=2))
    np.testing.assert_array_equal(along[0], [0, 1, 0, 1])


def test_joint_slices_share_a_label():
    xs = [np.zeros((3, 2)), np.zeros(3), np.zeros((3, 1, 2, 2))]
    found, count = labels(xs, Units())
    assert count == 3
    for x, label in zip(xs, found, strict=True):
        assert label.shape == x.shape
        np.testing.assert_array_equal(label.reshape(3, -1)[:, 0], [0, 1, 2])
    np.testing.assert_array_equal(unit_sizes(found, count), [7, 7, 7])


def test_labels_of_slices_are_renumbered_in_their_order():
    (along,), count = labels([np.zeros((4, 2))], Units(groups=np.array([9, -1, 9, 3])))
    assert count == 3
    np.testing.assert_array_equal(along[:, 0], [2, 0, 2, 1])


JOINT = {
    "slices": ([(4, 3), (4, 2, 2)], Units()),
    "weighted": ([(4, 3), (4, 2, 2)], Units(weight="sqrt")),
    "heads": ([(8, 3), (8,)], Units(block=2, weight="sqrt")),
    "fused": ([(12, 2), (6, 2)], Units(block=1, parts=3)),
    "columns": ([(2, 4), (3, 4)], Units(group_dim=1)),
    "alone": ([(4, 3)], Units(block=2, parts=1, weight="sqrt")),
}
LAM, STEP = 0.3, 0.7


@pytest.fixture(params=[name for name in JOINT if name != "fused"])
def family(request):
    """A family with a unit that survives, one that vanishes, and one that is zero."""
    shapes, units = JOINT[request.param]
    xs = [vectors.array(shape, seed=i) for i, shape in enumerate(shapes)]
    size = np.array([1.0, 0.02, 0.0, 0.5])
    found, _ = labels(xs, units)
    return [size[k] * x for x, k in zip(xs, found, strict=True)], units


def joint_norms(xs, units):
    """Norm and size of each unit, written out unit by unit."""
    found, count = labels(xs, units)
    members = [
        np.concatenate([x[k == g] for x, k in zip(xs, found, strict=True)]) for g in range(count)
    ]
    return np.array([np.linalg.norm(m) for m in members]), np.array([len(m) for m in members])


def test_joint_norm_and_score(family, close):
    xs, units = family
    norm, size = joint_norms(xs, units)
    w = np.sqrt(size) if units.weight else np.ones(len(size))
    k, count = labels(xs, units)
    close(norms(xs, k, count), norm)
    close(unit_weights(k, count, units.weight), w)
    (score,) = PENALTIES["group"].score(xs, units)
    close(score, norm / w)
    close(PENALTIES["group"].value(xs, LAM, units), LAM * (w * norm).sum())
    close(PENALTIES["group"].dual_norm(xs, units), (norm / w).max())


@pytest.mark.parametrize("penalty", PENALTIES)
def test_argmin_of_the_joint_prox(penalty, family):
    """F(x) = STEP * Omega(x) + ||x - v||^2 / 2 grows at least as ||x - p||^2 / 2 around its argmin.

    Norms are those of the whole family.
    """
    vs, units = family
    row = PENALTIES[penalty]
    p = row.prox(vs, STEP * LAM, units)
    assert any(a.any() for a in p)

    def squared(xs, ys):
        return sum(((x - y) ** 2).sum() for x, y in zip(xs, ys, strict=True))

    def F(xs):
        return STEP * row.value(xs, LAM, units) + squared(xs, vs) / 2

    others = [vs, [0 * v for v in vs], [-a for a in p]]
    others += [[c * a for a in p] for c in (0.9, 0.999, 1.001, 1.1)]
    for i in range(20):
        for s in (1e-4, 1e-2, 1.0):
            others.append([a + vectors.array(a.shape, 100 * j + i, s) for j, a in enumerate(p)])
        # one array moves alone: the joint norm couples it to the others
        others.append([p[0] + vectors.array(p[0].shape, 200 + i, 1e-2), *p[1:]])
    slack = 1e-13 * F(others[1])
    for xs in others:
        assert F(xs) - F(p) >= squared(xs, p) / 2 - slack


def test_subgradient(family, close):
    """Of least norm, in the dual ball, and it attains the value."""
    xs, units = family
    for penalty in PENALTIES.values():
        g = penalty.subgradient(xs, LAM, units)
        assert penalty.dual_norm(g, units) <= LAM * (1 + 1e-12)
        close(sum((a * x).sum() for a, x in zip(g, xs, strict=True)), penalty.value(xs, LAM, units))
        assert all(not a[x == 0].any() for a, x in zip(g, xs, strict=True))


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", JOINT)
def test_a_unit_is_selected_exactly_when_its_score_exceeds_lam(penalty, name):
    """Also where the score is the level, or its neighbour among the numbers."""
    shapes, units = JOINT[name]
    if name == "fused":
        shapes = shapes[:1]
    vs = [vectors.array(shape, seed=i) for i, shape in enumerate(shapes)]
    row = PENALTIES[penalty]
    scores = row.score(vs, units)
    level = np.sort(np.concatenate([s.ravel() for s in scores]))[1]
    for lam in (level, np.nextafter(level, 0), np.nextafter(level, 9), 0.0):
        p = row.prox(vs, lam, units)
        if [s.shape for s in scores] == [v.shape for v in vs]:  # units are entries
            kept = [s > lam for s in scores]
        else:
            kept = [(scores[0] > lam)[k] for k in labels(vs, units)[0]]
        for a, on in zip(p, kept, strict=True):
            np.testing.assert_array_equal(a != 0, on)


@pytest.mark.parametrize(
    "xs, units, message",
    [
        (JOINT["fused"][0], Units(), r"joint arrays must have equally many units, got \[12, 6\]"),
        ([(6, 2)], Units(block=4), r"block \* parts must divide the 6 slices .*, got 4 \* 1"),
        ([(6, 2)], Units(block=2, parts=2), r"must divide the 6 slices of an axis, got 2 \* 2"),
        ([(6, 2)], Units(block=0), "block must be at least 1, got 0"),
        ([(6, 2)], Units((0, 1), block=2), r"block and parts need one axis .*, got \(0, 1\)"),
        ([(6, 2)], Units(group_dim=2), "group_dim must name axes of a 2-d array, got 2"),
    ],
)
def test_bad_units_are_one_clear_line(xs, units, message):
    with pytest.raises(ValueError, match=message) as error:
        labels([np.zeros(shape) for shape in xs], units)
    assert "\n" not in str(error.value)
