"""Every row of the tables of penalties, in both packages, on families of every kind."""

import numpy as np
import pytest
import torch
import vectors

from dslbi_ref import penalties as reference
from dslbi_ref import units as labelled
from dslbi_torch import penalties as twin
from dslbi_torch import slices

FAMILIES = {
    "rows": ([(6, 5)], dict()),
    "columns": ([(6, 5)], dict(group_dim=1, weight="sqrt")),
    "kernels": ([(4, 3, 2, 2)], dict(group_dim=(0, 1))),
    "whole": ([(6, 5)], dict(group_dim=(), weight="sqrt")),
    "heads": ([(12, 3)], dict(block=2, parts=3, weight="sqrt")),
    "joint": ([(4, 3, 2), (4,), (4, 5)], dict(weight="sqrt")),
    "joint heads": ([(8, 3), (8,)], dict(block=2)),
    "joint columns": ([(2, 4), (3, 4)], dict(group_dim=1)),
}


def test_the_tables_have_the_same_words():
    assert list(reference.PENALTIES) == list(twin.PENALTIES)


@pytest.mark.parametrize("word", reference.PENALTIES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lam", [0.0, 0.3, 1.1, 40.0])
def test_a_row_and_its_twin(word, family, lam, close):
    shapes, options = FAMILIES[family]
    ours = [vectors.array(shape, seed=i) for i, shape in enumerate(shapes)]
    ours[0][:1] = 0.0  # a unit, or a part of one, that is zero already
    theirs = [torch.tensor(x) for x in ours]
    row, other = reference.PENALTIES[word], twin.PENALTIES[word]
    units, slices_ = labelled.Units(**options), slices.Units(**options)
    close(other.value(theirs, lam, slices_), row.value(ours, lam, units))
    for x, y in zip(row.prox(ours, lam, units), other.prox(theirs, lam, slices_), strict=True):
        close(y, x)
        np.testing.assert_array_equal(y.numpy() != 0, x != 0)
    for x, y in zip(row.score(ours, units), other.score(theirs, slices_), strict=True):
        close(y.reshape(x.shape), x)
    close(other.dual_norm(theirs, slices_), row.dual_norm(ours, units))
    inner = row.subgradient(ours, lam, units)
    for x, y in zip(inner, other.subgradient(theirs, lam, slices_), strict=True):
        close(y, x)


@pytest.mark.parametrize("word", twin.PENALTIES)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_selected_is_what_is_not_zero(word, family):
    """Between two scores, in float32 too: an entry is kept exactly if its unit's score exceeds
    lam."""
    shapes, options = FAMILIES[family]
    units, row = slices.Units(**options), twin.PENALTIES[word]
    for dtype in (torch.float32, torch.float64):
        vs = [torch.tensor(vectors.array(s, seed=i), dtype=dtype) for i, s in enumerate(shapes)]
        scores = row.score(vs, units)
        values = torch.cat([s.flatten() for s in scores]).sort().values
        lam = float(values[len(values) // 2 :][:2].mean())
        for k, (v, p) in enumerate(zip(vs, row.prox(vs, lam, units), strict=True)):
            kept = scores[k] if row.entries else slices.laid_over(scores[0], v, units)
            assert torch.equal(p != 0, (kept > lam).expand(v.shape))


@pytest.mark.parametrize("options", [{}, dict(group_dim=1, weight="sqrt"), dict(group_dim=(0, 1))])
def test_the_functions_of_a_single_array_are_twins(options, close):
    x = vectors.array((4, 3, 2))
    y = torch.tensor(x)
    for name in ("l1_norm", "soft_threshold", "l1_dual_norm"):
        close(getattr(twin, name)(y), getattr(reference, name)(x))
    for name in ("group_norm", "group_soft_threshold", "group_dual_norm"):
        close(getattr(twin, name)(y, **options), getattr(reference, name)(x, **options))
    options = {"group_dim": options.get("group_dim", 0)}
    close(twin.group_norms(y, **options), reference.group_norms(x, **options))
