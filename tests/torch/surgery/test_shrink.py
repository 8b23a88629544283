"""One call from a path to a smaller net, and new statistics for its norms."""

import copy

import pytest
import torch
from torch import nn

from dslbi_torch import (
    DessiLBI,
    compact,
    renew_statistics_,
    shrink,
    split_groups,
    support_masks,
    whole_filters,
)
from dslbi_torch.surgery.costs import count_macs
from dslbi_torch.training.nets.cifar import ResNet


def walked(net, x):
    """An optimizer of which about half of the filters are selected."""
    optimizer = DessiLBI(split_groups(net, linear=None, apart=True), lr=1.0, nu=1.0)
    net(x).square().mean().backward()
    optimizer.step()
    for group in optimizer.param_groups:
        if group["penalty"] is not None:
            V = optimizer.state[group["params"][0]]["V"]
            group["lam"] = float(V.flatten(1).norm(dim=1).median())
    return optimizer


def residual():
    torch.manual_seed(0)
    return ResNet((1, 1), (6, 8), "B").train(), torch.randn(4, 3, 8, 8)


def test_it_is_what_the_calls_one_after_the_other_give():
    net, x = residual()
    optimizer = walked(net, x)
    before = copy.deepcopy(net.state_dict())
    found = shrink(net, optimizer, x)
    masks = whole_filters(net, support_masks(optimizer), x)
    assert all(torch.equal(found.masks[name], mask) for name, mask in masks.items())
    small = compact(net, masks, x)
    for name, p in small.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], p)
    torch.testing.assert_close(found.folded(x), small.eval()(x), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in found.folded.modules())
    assert all(torch.equal(p, before[name]) for name, p in net.state_dict().items())
    rows = {line.split()[0]: line.split()[1:] for line in found.table.splitlines()[2:]}
    assert list(rows) == ["dense", "compact", "folded"]
    for name, model in (("dense", net), ("compact", small), ("folded", found.folded)):
        sizes = sum(p.numel() for p in model.parameters()), count_macs(model, x)[""]
        assert [int(word.replace(",", "")) for word in rows[name][:2]] == list(sizes)
    numbers = {name: [float(word.replace(",", "")) for word in row] for name, row in rows.items()}
    assert numbers["compact"][3] < numbers["dense"][3]  # bytes


def test_a_net_without_norms_has_nothing_to_fold():
    torch.manual_seed(0)
    net, x = (
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 1)),
        torch.randn(2, 3, 5, 5),
    )
    optimizer = walked(net, x)
    optimizer.param_groups[1]["lam"] = 1e-9
    found = shrink(net, optimizer, x)
    assert found.folded is None and "folded" not in found.table
    assert len(found.model[0].weight) == 3


def test_statistics_are_the_mean_of_those_of_the_batches():
    """Of the first norm: mean and unbiased variance of each batch, averaged."""
    net, x = residual()
    net.eval()
    batches = [torch.randn(5, 3, 8, 8), 2 + torch.randn(5, 3, 8, 8)]
    labels = torch.zeros(5)
    first = [net.conv1(batch) for batch in batches]
    momentum, weights = net.bn1.momentum, copy.deepcopy(dict(net.named_parameters()))
    by_name = [{"x": batch} for batch in batches]
    for given in (batches, [(batch, labels) for batch in batches], by_name):
        net.bn1.running_mean.fill_(7.0)
        assert renew_statistics_(net, iter(given)) is net
        mean = sum(y.mean((0, 2, 3)) for y in first) / 2
        var = sum(y.transpose(0, 1).flatten(1).var(1) for y in first) / 2
        torch.testing.assert_close(net.bn1.running_mean, mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(net.bn1.running_var, var, rtol=1e-5, atol=1e-6)
    assert not any(module.training for module in net.modules())
    assert net.bn1.momentum == momentum and net.bn1.num_batches_tracked == 2
    assert all(torch.equal(p, weights[name]) for name, p in net.named_parameters())


def test_shrink_renews_them_on_the_cut_net():
    net, x = residual()
    optimizer, batches = walked(net, x), [torch.randn(6, 3, 8, 8), torch.randn(6, 3, 8, 8)]
    found = shrink(net, optimizer, x, batches)
    again = renew_statistics_(shrink(net, optimizer, x).model, batches)
    for name, value in again.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value)
    plain = shrink(net, optimizer, x).model
    gap = plain.bn1.running_mean - found.model.bn1.running_mean
    assert gap.abs().max() > 1e-3
    y = found.model.eval()(x)
    torch.testing.assert_close(found.folded(x), y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "batches must hold at least one batch, got none"),
        ([torch.randn(2, 4, 8, 8)], "must take every batch in training, but of batch 1: "),
    ],
)
def test_batches_that_give_no_statistics_are_refused_and_leave_the_modes(batches, message):
    net, _ = residual()
    momentum = net.bn1.momentum
    with pytest.raises(ValueError, match=message):
        renew_statistics_(net, batches)
    assert all(module.training for module in net.modules()) and net.bn1.momentum == momentum
