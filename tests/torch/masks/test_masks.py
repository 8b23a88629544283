"""Masks: where they come from, their order and density, and what they do to a model."""

import copy

import pytest
import torch
import vectors
from torch import nn

from dslbi_torch import (
    DessiLBI,
    MaskedTraining,
    PathRecorder,
    apply_masks_,
    density_curve,
    entry_ranking,
    gamma_ranking,
    load_masks,
    magnitude_ranking,
    masked,
    random_masks,
    ranked_masks,
    recorded_masks,
    save_masks,
    split_groups,
    support_masks,
    whole_filters,
)
from dslbi_torch.masks.algebra import intersection, nested, union
from dslbi_torch.masks.checks import check_masks
from dslbi_torch.surgery.costs import cost_table, count_macs, layer_costs
from dslbi_torch.units import group_gamma, split_tensors


def make_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3, bias=False),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


def trained(n_steps=40, elements=True, every=1, attach_at=0):
    """A small net after some steps on injected gradients, its record, and every support."""
    net = make_net()
    groups = split_groups(net, nu=1.0, lam={"conv": 1.0, "linear": 0.8})
    optimizer = DessiLBI(groups, lr=0.1)
    params = [p for group in optimizer.param_groups for p in group["params"]]
    streams = [vectors.gradients(tuple(p.shape), n_steps, i) for i, p in enumerate(params)]
    path, supports = None, []
    for k in range(n_steps + 1):
        if k == attach_at:
            path = PathRecorder(optimizer, every=every, elements=elements)
        supports.append(support_masks(optimizer))
        if k == n_steps:
            break
        for p, stream in zip(params, streams, strict=True):
            # slices of different strength enter one after the other, and turn back in the end
            strength = torch.logspace(-1.7, 0, len(p)).view(-1, *[1] * (p.ndim - 1))
            sign = 1 if k < 20 else -2
            p.grad = 0.3 * sign * torch.tensor(next(stream), dtype=torch.float32) * strength
        optimizer.step()
    return net, optimizer, path, supports


def equal(a, b):
    assert list(a) == list(b)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0)


def some_masks(net, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(p.shape, generator=g) < 0.5
        for name, p in net.named_parameters()
        if name.endswith("weight") and p.ndim > 1
    }


# Where masks come from


def test_recorded_masks_are_the_supports_at_the_snapshots():
    _, _, path, supports = trained(every=4)
    assert path.steps == list(range(0, 41, 4))
    for step in path.steps:
        equal(recorded_masks(path, step), supports[step])
    # there is something to see: single weights left the support again, so entries do not tell it
    left = [supports[k]["5.weight"] & ~supports[-1]["5.weight"] for k in path.steps]
    assert torch.stack(left).any()
    with pytest.raises(ValueError, match=r"step must be one of the recorded ones, got 5: every 4"):
        recorded_masks(path, 5)
    other = trained(n_steps=1, every=4)[2]
    other.load_state_dict(path.state_dict())
    equal(recorded_masks(other, 12), supports[12])
    with pytest.raises(ValueError, match="single weights need elements=True"):
        recorded_masks(trained(elements=False)[2], 40)


def test_the_entry_order_is_that_of_the_supports():
    _, optimizer, path, supports = trained()
    order = entry_ranking(path)
    assert sum(p.numel() for p in order.place.values()) == 6 + 4 + 192
    flat = torch.cat([p.flatten() for p in order.place.values()])
    torch.testing.assert_close(flat.sort().values, torch.arange(202), rtol=0, atol=0)
    entered = supports[0]
    for k in (8, 15, 20, 40):
        entered = union(*supports[: k + 1])  # what had entered by then, at that very density
        n = sum(int(m.sum()) for m in entered.values())
        total = sum(m.numel() for m in entered.values())
        assert 0 < n < total
        equal(ranked_masks(order, n / total), entered)
    # ties by the norm in Gamma
    steps, place = path.entry_steps("0.weight"), order.place["0.weight"].flatten()
    norms = gamma_norms(optimizer, "0.weight")
    pairs = [(i, j) for i in range(6) for j in range(6) if steps[i] == steps[j] and i != j]
    for i, j in pairs:
        assert norms[i] <= norms[j] or place[i] < place[j]


def gamma_norms(optimizer, wanted):
    (V, group) = next((V, g) for name, _, V, g in split_tensors(optimizer) if name == wanted)
    return group_gamma(V, group).flatten(1).norm(dim=1)


def test_the_gamma_order_puts_the_nearest_to_entering_behind_what_is_selected():
    _, optimizer, _, supports = trained()
    order = gamma_ranking(optimizer)
    selected = sum(int(m.sum()) for m in supports[-1].values())
    total = sum(m.numel() for m in supports[-1].values())
    equal(ranked_masks(order, selected / total), supports[-1])
    for name, _, V, group in split_tensors(optimizer):
        key = V.abs() if group["penalty"] == "l1" else V.flatten(1).norm(dim=1)
        place = order.place[name].flatten()
        # within a tensor of one level both keys grow with the norm of V
        torch.testing.assert_close(place.argsort(), key.flatten().argsort(descending=True))


def test_magnitude_ranks_groups_of_any_net_by_their_norm():
    net = make_net()
    groups = split_groups(net, conv="group", linear="l1")
    masks = ranked_masks(magnitude_ranking(groups), 0.5, per_layer=True)
    norms = net[0].weight.detach().flatten(1).norm(dim=1)
    expected = norms >= norms.sort().values[3]
    torch.testing.assert_close(masks["0.weight"].flatten(1).all(1), expected)
    torch.testing.assert_close(masks["0.weight"].flatten(1).any(1), expected)
    size = net[5].weight.detach().abs()
    torch.testing.assert_close(masks["5.weight"], size > size.median())
    equal(ranked_masks(magnitude_ranking(DessiLBI(groups, lr=0.1)), 0.5, per_layer=True), masks)
    with pytest.raises(ValueError, match="the groups split nothing"):
        magnitude_ranking([dict(params=[("w", net[0].weight)], penalty=None)])


@pytest.mark.parametrize("per_layer", [False, True])
def test_masks_of_one_order_are_nested_and_as_dense_as_asked(per_layer):
    _, _, path, _ = trained()
    densities = (1e-9, 0.01, 0.1, 0.35, 0.7, 0.99, 1)
    masks = [ranked_masks(entry_ranking(path), d, per_layer=per_layer) for d in densities]
    assert nested(*masks)
    assert not nested(*masks[::-1])
    for d, mask in zip(densities, masks, strict=True):
        parts = (
            list(mask.values()) if per_layer else [torch.cat([m.flatten() for m in mask.values()])]
        )
        for part in parts:
            share = part.float().mean()
            largest = max(54, 9) / part.numel()  # a filter of 1x3x3 or 6x3x3
            assert share <= d + 1e-6 or part.sum() in (1, 9, 54)  # one group at least
            assert share > d - largest
    assert all(m.all() for m in masks[-1].values())


@pytest.mark.parametrize("density", [0, -0.5, 1.5, float("nan"), "0.5", None])
def test_a_density_outside_its_interval_is_refused(density):
    order = gamma_ranking(trained()[1])
    with pytest.raises(ValueError, match=r"density must be in \(0, 1\], got"):
        ranked_masks(order, density)


def test_tensors_may_have_densities_of_their_own():
    order = magnitude_ranking(split_groups(make_net()))
    names = list(order.place)[:2]
    masks = ranked_masks(order, dict(zip(names, (0.5, 0.25), strict=True)))
    assert list(masks) == names
    for share in (0.5, 0.25):
        one = ranked_masks(order, share, per_layer=True)
        name = names[0] if share == 0.5 else names[1]
        torch.testing.assert_close(masks[name], one[name])
    with pytest.raises(ValueError, match="density must name ranked tensors, got 'x'"):
        ranked_masks(order, {"x": 0.5})


def test_a_curve_sees_the_net_under_each_mask_and_leaves_it_as_it_was():
    net = make_net()
    order = magnitude_ranking(split_groups(net, conv="l1", linear="l1"))
    weights = [net[0].weight, net[3].weight, net[5].weight]
    total = sum(W.numel() for W in weights)
    before = copy.deepcopy(net.state_dict())
    curve = density_curve(net, order, lambda net: sum(int(W.count_nonzero()) for W in weights))
    assert curve == {D: int(D * total + 1e-9) for D in (1, 0.2, 0.1, 0.05, 0.025, 0.01)}
    equal(net.state_dict(), before)


def test_random_masks_have_the_layers_densities_and_keep_whole_filters():
    masks = trained()[3][-1]
    drawn = random_masks(masks, seed=1)
    equal(drawn, random_masks(masks, seed=1))
    for name, mask in masks.items():
        assert drawn[name].sum() == mask.sum()
        assert 0 < mask.sum() < mask.numel()
    for name in ("0.weight", "3.weight"):
        filters = drawn[name].flatten(1)
        torch.testing.assert_close(filters.any(1), filters.all(1))
    many = torch.stack([random_masks(masks, seed=s)["5.weight"] for s in range(200)]).float()
    mean, share = many.mean(0), masks["5.weight"].float().mean()
    torch.testing.assert_close(mean, share.expand(mean.shape), atol=0.2, rtol=0)


def test_a_recorder_that_was_attached_late_knows_no_order():
    _, _, path, supports = trained(attach_at=20)
    assert any(m.any() for m in supports[20].values())
    with pytest.raises(ValueError, match="but was attached late"):
        entry_ranking(path)
    assert len(entry_ranking(trained(attach_at=1)[2]).place) == 3  # nothing was selected yet


def test_what_diverged_is_not_ranked():
    net, optimizer, path, _ = trained()
    optimizer.state[net[0].weight]["V"][0, 0, 0, 0] = torch.nan
    for rank in (lambda: gamma_ranking(optimizer), lambda: entry_ranking(path)):
        with pytest.raises(ValueError, match="must not be NaN"):
            rank()


# Sets and files


def test_union_intersection_and_nestedness():
    net = make_net()
    a, b = some_masks(net, 0), some_masks(net, 1)
    both, either = intersection(a, b), union(a, b)
    for name in a:
        torch.testing.assert_close(both[name], a[name] & b[name])
        torch.testing.assert_close(either[name], a[name] | b[name])
    assert nested(both, a, either)
    assert nested(a, a)
    assert not nested(a, b)
    with pytest.raises(ValueError, match="masks must be of the same tensors"):
        union(a, {"0.weight": a["0.weight"]})
    for combine in (union, intersection, nested):
        with pytest.raises(ValueError, match="at least one dict of masks must be given, got none"):
            combine()
        with pytest.raises(ValueError, match="masks must hold at least one tensor, got none"):
            combine({}, {})
        with pytest.raises(ValueError, match="must be a bool tensor, got torch.float32"):
            combine({"w": torch.tensor([0.5])}, {"w": torch.tensor([0.5])})


def test_masks_through_a_file(tmp_path):
    masks = {**some_masks(make_net()), "empty": torch.ones(0, 3, dtype=bool)}
    masks["scalar"] = torch.tensor(True)
    save_masks(masks, tmp_path / "masks.pt")
    equal(load_masks(tmp_path / "masks.pt"), masks)
    assert [f.name for f in tmp_path.iterdir()] == ["masks.pt"]
    bad = tmp_path / "bad.pt"
    whole = (tmp_path / "masks.pt").read_bytes()
    for content in (b"", b"no masks", whole[: len(whole) // 2]):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match="must be a file of dslbi masks 1, but: "):
            load_masks(bad)
    torch.save({"0.weight": torch.ones(2)}, bad)
    with pytest.raises(ValueError, match="must be a file of dslbi masks 1, but: "):
        load_masks(bad)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_masks(tmp_path / "none.pt")


def wrong_masks(net):
    good = torch.ones(6, 1, 3, 3, dtype=bool)
    yield {}, "masks must hold at least one tensor"
    yield {"conv9.weight": good}, "has no parameter 'conv9.weight'"
    yield {"0.weight": good[:5]}, r"must have its shape \(6, 1, 3, 3\), got \(5, 1, 3, 3\)"
    yield {"0.weight": good.float()}, "must be a bool tensor, got torch.float32"
    yield {"0.weight": [True]}, "must be a bool tensor, got list"


def test_masks_of_another_model_are_refused_and_nothing_is_changed():
    net = make_net()
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x = torch.zeros(1, 1, 8, 8)
    for masks, message in wrong_masks(net):
        for call in (
            lambda m: check_masks(net, m),
            lambda m: apply_masks_(net, m),
            lambda m: masked(net, m).__enter__(),
            lambda m: MaskedTraining(net, optimizer, m),
            lambda m: whole_filters(net, m, x),
        ):
            with pytest.raises(ValueError, match=message):
                call(masks)
    equal(net.state_dict(), before)


# Applied


def test_masked_is_zero_inside_and_restored_bit_for_bit():
    net = make_net()
    masks, before = some_masks(net), copy.deepcopy(net.state_dict())
    with masked(net, masks):
        for name, p in net.state_dict().items():
            expected = before[name] * masks[name] if name in masks else before[name]
            torch.testing.assert_close(p, expected, rtol=0, atol=0)
    equal(net.state_dict(), before)
    with pytest.raises(KeyError, match="stop"), masked(net, masks):
        raise KeyError("stop")
    equal(net.state_dict(), before)
    with masked(net, masks):
        inside = copy.deepcopy(net.state_dict())
    assert apply_masks_(net, masks) is net
    equal(net.state_dict(), inside)


OPTIMIZERS = {
    "sgd": lambda net: torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1),
    "adamw": lambda net: torch.optim.AdamW(net.parameters(), lr=0.1, amsgrad=True),
    "adagrad": lambda net: torch.optim.Adagrad(net.parameters(), initial_accumulator_value=0.1),
    "rprop": lambda net: torch.optim.Rprop(net.parameters()),
    "lbfgs": lambda net: torch.optim.LBFGS(net.parameters(), max_iter=2),
    "dessilbi": lambda net: DessiLBI(split_groups(net, nu=1.0, lam=0.01), lr=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_gradients_and_states_stay_zero_under_any_optimizer(name):
    net = make_net()
    optimizer = OPTIMIZERS[name](net)
    masks = some_masks(net)
    x, y = (torch.tensor(a) for a in vectors.images(16, (1, 8, 8), 3))
    x, held = x.float(), False

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        if held:
            for W, mask in pairs:
                assert not W.grad[~mask].any()  # before any clipping of their norm
        return loss

    for _ in range(2):  # momenta are there before the masks
        optimizer.step(closure)
    pairs = check_masks(net, masks)
    training, held = MaskedTraining(net, optimizer, masks), True
    start = copy.deepcopy(net.state_dict())
    for _ in range(3):
        optimizer.step(closure)
        for W, mask in pairs:
            states = [W, W.grad]
            for value in optimizer.state[W].values():
                if torch.is_tensor(value) and value.shape == W.shape:
                    states.append(value)
            for value in states:
                assert not value[~mask].any()
            assert len(states) > 2 or name == "lbfgs"
    moved = {k: (v != start[k]) & masks.get(k, True) for k, v in net.state_dict().items()}
    assert all(moved[k].any() for k in masks)
    training.detach()
    held = False
    for _ in range(3):
        optimizer.step(closure)
    assert any(W[~mask].any() for W, mask in pairs)


def test_a_gradient_from_outside_does_not_pass_the_masks():
    net = make_net()
    masks = some_masks(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    training = MaskedTraining(net, optimizer, masks)
    for _ in range(2):
        for p in net.parameters():
            p.grad = torch.full_like(p, torch.inf)
        optimizer.step()
    for W, mask in check_masks(net, masks):
        assert not W[~mask].any() and not optimizer.state[W]["momentum_buffer"][~mask].any()
    training.detach()


def test_masked_training_equals_training_of_the_masked_net_by_hand():
    nets = [make_net().double() for _ in range(2)]
    masks = some_masks(nets[0])
    optimizers = [torch.optim.SGD(n.parameters(), lr=0.1, momentum=0.9) for n in nets]
    MaskedTraining(nets[0], optimizers[0], masks)
    apply_masks_(nets[1], masks)
    x, y = (torch.tensor(a) for a in vectors.images(16, (1, 8, 8), 3))
    for _ in range(5):
        for net, optimizer in zip(nets, optimizers, strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            if net is nets[1]:
                for W, mask in check_masks(net, masks):
                    W.grad *= mask
            optimizer.step()
    for a, b in zip(*(n.parameters() for n in nets), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_masked_training_refuses_what_it_cannot_hold():
    net = make_net()
    masks = some_masks(net)
    with pytest.raises(ValueError, match="the optimizer must have the masked parameter 0.weight"):
        MaskedTraining(net, torch.optim.SGD(net[5].parameters(), lr=0.1), masks)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    training = MaskedTraining(net, optimizer, masks)
    with pytest.raises(ValueError, match="0.weight is under masks already"):
        MaskedTraining(net, optimizer, masks)
    copy.deepcopy(net)
    training.detach()
    with pytest.raises(ValueError, match="masks must be attached to be changed, but are detached"):
        training.change(masks)
    MaskedTraining(net, optimizer, masks).detach()


# What belongs to a filter


def filter_masks():
    masks = {name: torch.ones_like(p, dtype=bool) for name, p in make_net().named_parameters()}
    masks = {name: masks[name] for name in ("0.weight", "3.weight", "5.weight")}
    masks["0.weight"][[1, 4]] = False
    masks["0.weight"][2, 0, 0, 0] = False  # one weight less is no filter less
    masks["3.weight"][0] = False
    masks["5.weight"][2] = False
    return masks


def test_a_removed_filter_emits_exactly_zero():
    net, masks = make_net(), filter_masks()
    x = torch.tensor(vectors.images(4, (1, 8, 8), 3)[0]).float()
    net(x)  # running statistics of their own
    before = copy.deepcopy(net.state_dict())
    whole = whole_filters(net, masks, x)
    equal(net.state_dict(), before)
    assert net.training
    assert set(whole) == {*masks, "0.bias", "1.weight", "1.bias", "5.bias"}
    alive = torch.tensor([True, False, True, True, False, True])
    for name in ("0.bias", "1.weight", "1.bias"):
        torch.testing.assert_close(whole[name], alive)
    torch.testing.assert_close(whole["5.bias"], torch.tensor([True, True, False]))
    net.eval()
    with masked(net, masks):
        assert net[:2](x)[:, 1].any()  # without its bias and its BatchNorm it still says something
    with masked(net, whole):
        out = net[:2](x)
        assert not out[:, [1, 4]].any()
        assert out[:, [0, 2, 3, 5]].flatten(2).any(2).all()
        assert not net(x)[:, 2].any()
    assert set(filter_masks()) == set(masks)  # those given are left as they are


def test_which_norm_follows_is_seen_in_the_forward_pass():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv2, self.conv1 = nn.Conv2d(4, 4, 1), nn.Conv2d(1, 4, 1)
            self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4)])

        def forward(self, x):
            x = self.norms[1](self.conv1(x))
            return x + self.norms[0](x.relu() + self.conv2(x))  # takes a sum: no filter's own

    net = Net()
    mask = torch.tensor([True, False, True, True]).view(4, 1, 1, 1)
    masks = {"conv1.weight": mask, "conv2.weight": mask.expand(4, 4, 1, 1)}
    whole = whole_filters(net, masks, torch.ones(2, 1, 3, 3))
    assert set(whole) - set(masks) == {"conv1.bias", "conv2.bias", "norms.1.weight", "norms.1.bias"}


def test_outputs_of_transposed_convolutions_lie_along_their_second_axis():
    net = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6))
    mask = torch.ones(4, 3, 3, 3, dtype=bool)
    mask[:2, 1] = False  # of the first group
    whole = whole_filters(net, {"0.weight": mask}, torch.randn(2, 4, 5, 5))
    alive = torch.tensor([True, False, True, True, True, True])
    torch.testing.assert_close(whole["1.bias"], alive)
    with masked(net.eval(), whole):
        out = net(torch.randn(2, 4, 5, 5)).flatten(2).any(2).any(0)
    torch.testing.assert_close(out, alive)


# What it costs


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


def test_a_normalised_order_does_not_see_the_scale_of_a_layer():
    orders = {}
    for scale in (1, 1024):
        shapes = {"a": (12, 5), "b": (9, 4)}
        groups = [
            dict(
                params=[(n, nn.Parameter(torch.tensor(vectors.array(shape, seed=i))))],
                lam=1.0 * scale if n == "b" else 1.0,
                penalty="group",
            )
            for i, (n, shape) in enumerate(shapes.items())
        ]
        optimizer = DessiLBI(groups)
        for name, W, V, _ in split_tensors(optimizer):
            c = scale if name == "b" else 1
            W.data.mul_(c)
            optimizer.state[W]["V"] = V + 0.8 * W.detach() + 0.1 * c
        masks = support_masks(optimizer)
        assert all(0 < mask.float().mean() < 1 for mask in masks.values())
        orders[scale] = [gamma_ranking(optimizer, normalised=x).place for x in (False, True)]
    equal(orders[1][1], orders[1024][1])
    plain, normalised = orders[1024]
    entered = masks["b"][:, :1]
    assert plain["b"][entered].max() < plain["a"].min()  # what is large comes first
    assert normalised["b"][entered].max() > normalised["a"].min()
    for name in shapes:  # within a tensor the order is the same
        assert torch.equal(*(x[name].flatten().argsort() for x in (plain, normalised)))


def test_a_frozen_parameter_may_be_masked_and_is_held_once_it_trains():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    net[0].bias.requires_grad_(False)
    optimizer = torch.optim.SGD(net[0].parameters(), 0.1)
    masks = {"0.weight": torch.rand(8, 4) < 0.5, "0.bias": torch.arange(8) < 5}
    training = MaskedTraining(net, optimizer, masks)
    net[0].bias.requires_grad_(True)
    net(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    for name, mask in masks.items():
        assert not net.get_parameter(name).detach()[~mask].any()
    assert net[0].bias.detach()[masks["0.bias"]].any()
    training.detach()


def test_a_shared_weight_is_masked_under_one_name():
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8, bias=False))
    net[2].weight = net[0].weight
    x, mask = torch.randn(2, 8), torch.arange(64).view(8, 8) < 16
    with pytest.raises(ValueError, match="a shared weight must name it 0.weight, got 2.weight"):
        masked(net, {"2.weight": mask}).__enter__()
    costs = layer_costs(net, {"0.weight": mask}, x)
    assert [layer.nonzero for layer in costs.layers] == [16, 16]
    assert set(whole_filters(net, {"0.weight": mask}, x)) == {"0.weight", "0.bias"}


def test_drawing_refuses_what_follows_a_filter():
    net = make_net()
    masks = {"0.weight": torch.arange(6).view(6, 1, 1, 1).expand(6, 1, 3, 3) < 3}
    with pytest.raises(ValueError, match="masks must be of weights only, got one of 0.bias too"):
        random_masks(whole_filters(net, masks, torch.randn(2, 1, 8, 8)))
    assert random_masks({"b": torch.arange(6) < 2})["b"].sum() == 2
    with pytest.raises(ValueError, match="masks must hold at least one tensor"):
        random_masks({})
    with pytest.raises(ValueError, match="must be a bool tensor, got torch.float32"):
        random_masks({"a": torch.rand(3, 3)})


def test_a_ranking_refuses_no_density_and_nan_weights():
    net = make_net()
    optimizer = DessiLBI(split_groups(net), lr=0.1)
    with pytest.raises(ValueError, match="density must name at least one of the ranked tensors"):
        ranked_masks(gamma_ranking(optimizer), {})
    with torch.no_grad():
        net[0].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="must not be NaN"):
        gamma_ranking(optimizer, normalised=True)


def test_masks_of_other_tensors_are_named():
    a, b = torch.ones(2, 2, dtype=bool), torch.ones(3, 2, dtype=bool)
    with pytest.raises(ValueError, match=r"got of y \(2, 2\) and \(3, 2\)"):
        union({"x": a, "y": a}, {"x": a, "y": b})
    with pytest.raises(ValueError, match=r"got of y \(2, 2\) and none"):
        union({"x": a, "y": a}, {"x": a})


@pytest.mark.parametrize("example", [torch.randn(2, 3, 8, 8), torch.randn(2, 1, 8, 8).half()])
def test_an_unsuitable_example_is_named(example):
    net = make_net()
    masks = {"0.weight": torch.ones(6, 1, 3, 3, dtype=bool)}
    for ask in (lambda: whole_filters(net, masks, example), lambda: count_macs(net, example)):
        with pytest.raises(ValueError, match=r"the model must take example_input of shape \(2, "):
            ask()
    with pytest.raises(ValueError, match="example_input must be a tensor, got a NoneType"):
        whole_filters(net, masks, None)
    assert net.training


def test_changed_masks_are_checked():
    net = nn.Linear(4, 3)
    mask = torch.arange(12).view(3, 4) < 6
    training = MaskedTraining(net, torch.optim.SGD(net.parameters(), 0.1), {"weight": mask})
    for wrong in ({"weight": mask.to(torch.uint8)}, None):
        with pytest.raises(ValueError, match="bool tensor|at least one tensor|must be a dict"):
            training.change(wrong)
    assert torch.equal(training.masks["weight"], mask)
    assert net.weight.count_nonzero() == 6
