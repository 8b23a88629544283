"""Densities, and which whole they are shares of."""

import pytest
from on_path import trained_filters
from torch import nn

from dslbi_torch import density, density_table, support_masks


def test_density_names_both_denominators():
    net, optimizer, _, _ = trained_filters()
    report = density(optimizer, net)
    masks = support_masks(optimizer)
    kept = sum(int(m.sum()) for m in masks.values())
    split = sum(m.numel() for m in masks.values())
    rest = 6 + 3  # the biases count as kept
    assert report.nonzero_split == kept / split
    assert report.nonzero_all == (kept + rest) / (split + rest)
    conv = report.layers[0]
    filters = int(masks["0.weight"].flatten(1).any(1).sum())
    assert (conv.units_selected, conv.units) == (filters, 6)
    text = density_table(report)
    assert f"{filters}/6" in text
    assert "of all parameters" in text
    with pytest.raises(ValueError, match="is not a parameter of this model"):
        density(optimizer, nn.Linear(2, 2))
