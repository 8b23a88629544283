"""Weights and multiplications of a model, those that hide included: of attention, which torch
fuses, and of layers without any."""

import pytest
import torch
from on_path import filter_masks, make_net
from torch import nn

from dslbi_torch.surgery.costs import cost_table, count_macs, layer_costs
from dslbi_torch.surgery.measure import size_table


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


def test_macs_and_densities_name_their_denominators():
    net, masks = make_net(), filter_masks()
    x = torch.zeros(3, 1, 8, 8)
    macs = {"0": 6 * 9 * 36, "3": 4 * 54 * 16, "5": 64 * 3}
    assert count_macs(net, x)[""] == sum(macs.values())
    assert net.training
    costs = layer_costs(net, masks, x)
    assert [layer.name for layer in costs.layers] == list(macs)
    kept = {"0": 54 - 18 - 1, "3": 3 * 54, "5": 2 * 64}
    for layer in costs.layers:
        assert layer.macs == macs[layer.name]
        assert layer.nonzero == kept[layer.name]
        share = layer.nonzero / layer.weights
        assert layer.macs_nonzero == round(layer.macs * share)
    assert [layer.filters_alive for layer in costs.layers] == [4, 3, 2]
    weights, rest = 54 + 216 + 192, 6 + 6 + 6 + 3
    assert (costs.masked, costs.masked_nonzero) == (weights, sum(kept.values()))
    assert costs.parameters == weights + rest
    assert costs.parameters_nonzero == sum(kept.values()) + rest
    dense = layer_costs(net, None, x)
    assert dense.macs_nonzero == dense.macs and dense.masked == 0
    text = cost_table(costs)
    assert "4/6" in text and "of the masked tensors" in text and "of all parameters" in text
    assert f"{100 * sum(kept.values()) / weights:.2f} of 462" in text
    with pytest.raises(ValueError, match="example_input must hold at least one example"):
        count_macs(net, x[:0])


def test_macs_of_depthwise_and_grouped_convolutions():
    net = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4, padding=1), nn.Conv2d(4, 8, 1, groups=2))
    assert count_macs(net, torch.zeros(2, 4, 5, 5))[""] == 25 * (4 * 9 + 8 * 2)


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x, y):
        return self.layer(x + y)


@pytest.mark.parametrize("batch", [1, 5])
def test_macs_of_one_example_whatever_holds_the_batch(batch):
    x, y = torch.randn(2, batch, 3)
    for example in ((x, y), [x, y], {"x": x, "y": y}, (torch.tensor(1.0), x)):
        assert count_macs(Sum(), example) == {"": 12, "layer": 12}
    with pytest.raises(ValueError, match="at least one example, got none"):
        count_macs(Sum(), (x[:0], y[:0]))


def test_a_table_of_sizes_takes_a_tuple_or_a_dict_of_tensors():
    x, y = torch.randn(2, 5, 3)
    for example in ((x, y), {"x": x, "y": y}):
        *_, row = size_table({"sum": Sum()}, example).splitlines()
        assert row.split()[:3] == ["sum", "16", "12"]
        assert "of 5" in size_table({"sum": Sum()}, example)
