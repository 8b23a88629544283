"""Multiplications that hide: of attention, which torch fuses, and of layers without any."""

import pytest
import torch
from torch import nn

from dslbi_torch.surgery.costs import cost_table, count_macs, layer_costs


def test_attention_is_counted_as_by_hand():
    """T tokens of size d: four projections of d*d each, two products of T*T*d, and the two layers
    of f units behind them."""
    torch.manual_seed(0)
    T, d, f = 5, 8, 12
    net = nn.TransformerEncoderLayer(d, 2, f, batch_first=True)
    fused = torch.backends.mha.get_fastpath_enabled()
    for training in (True, False):
        net.train(training)
        macs = count_macs(net, torch.randn(3, T, d))
        assert macs[""] == 4 * T * d * d + 2 * T * T * d + 2 * T * d * f
        assert macs["self_attn"] == 4 * T * d * d + 2 * T * T * d
        assert macs["linear1"] == macs["linear2"] == T * d * f
    assert torch.backends.mha.get_fastpath_enabled() == fused


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_layers_without_weights_cost_nothing():
    net = nn.Sequential(nn.Linear(4, 0), nn.Linear(0, 2))
    costs = layer_costs(net, None, torch.randn(2, 4))
    assert costs.macs == costs.macs_nonzero == 0
    assert "all layers" in cost_table(costs)
