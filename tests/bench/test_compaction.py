"""The benchmark of compaction: at most half of the MACs, and close to it; what it compares."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import compaction
from dslbi_torch import compact, masked, whole_filters
from dslbi_torch.surgery.costs import count_macs
from dslbi_torch.training.nets import zoo

RECORD = Path(compaction.__file__).parent / "results" / "compaction.json"


@pytest.mark.parametrize("name", compaction.NETS)
def test_the_kept_filters_cost_half(name):
    chosen = compaction.NETS[name]
    net = zoo.build(chosen.model).eval()
    x = torch.zeros(1, *((1, 28, 28) if chosen.dataset == "mnist" else (3, 32, 32)))
    found = compaction.kept(net, chosen.shares, chosen.train, chosen.stream)
    masks = whole_filters(net, found, x)
    small = compact(net, masks, x)
    assert 0.47 < count_macs(small, x)[""] / count_macs(net, x)[""] <= 0.5


def test_the_largest_norms_are_kept():
    net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Linear(4, 3))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 1], [3, 0], [0, 0], [0, 2]]))
    masks = compaction.kept(net, {"0": 0.5}, by_norm=True)
    assert list(masks) == ["0.weight"]
    assert masks["0.weight"][:, 0].tolist() == [False, True, False, True]


def test_a_net_that_says_something_else_is_counted():
    net = torch.nn.Linear(2, 2, bias=False)
    other = torch.nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.eye(2))
        other.weight.copy_(torch.tensor([[0.0, 1], [1, 0]]))

    class Pictures:
        def __len__(self):
            return 2

        def batches(self, size):
            yield torch.eye(2), None

    masks = {"weight": torch.ones(2, 2, dtype=torch.bool)}
    with masked(net, masks):
        assert compaction.compared(net, masks, [net], Pictures()) == (0, 2, 0.0)
    assert compaction.compared(net, masks, [net, other], Pictures()) == (2, 2, 1.0)


def test_the_record_is_of_these_nets():
    record = json.loads(RECORD.read_text())
    assert set(record["result"]) == set(compaction.NETS)
    for row in record["result"].values():
        assert row["differing"] == 0 and row["gap"] < 1e-5
        assert 2 * row["macs"]["compact"] <= row["macs"]["dense"]
