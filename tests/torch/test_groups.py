"""Rules that say what is split, and the controller that is told a density instead of a level."""

import copy

import numpy as np
import pytest
import torch
import vectors
from torch import nn

from dslbi_torch import (
    DessiLBI,
    PathRecorder,
    Split,
    TargetDensity,
    density,
    split_groups,
    split_table,
    support_masks,
    target,
)


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 5, 2), nn.Flatten(),
        nn.Linear(45, 10), nn.Linear(10, 4),
    )  # fmt: skip


def options_of(groups):
    return {name: group for group in groups for name, _ in group["params"]}


def test_the_first_words_of_a_rule_pick_the_axes():
    for penalty, name, dim in (
        ("group", "0", 0),
        ("filter", "0", 0),
        ("input channel", "0", 1),
        ("kernel", "0", (0, 1)),
        ("tensor", "0", ()),
        ("filter", "2", 1),  # the first axis of a transposed convolution is its input
        ("group", "2", 1),
        ("input channel", "2", 0),
        ("kernel", "2", (0, 1)),
        ("row", "4", 0),
        ("column", "4", 1),
        ("tensor", "1", ()),
    ):
        group = options_of(split_groups(net(), {name: penalty}))[f"{name}.weight"]
        assert (group["penalty"], group["group_dim"]) == ("group", dim), (penalty, name)


def test_names_patterns_and_types_and_the_later_rule_wins():
    rules = {
        "*.weight": {"nu": 3.0},
        nn.Linear: "row",
        "5": {"penalty": "l1", "lam": 0.2, "weight": "sqrt"},
        "4.weight": {"nu": 7.0},
        "0": None,
    }
    found = options_of(split_groups(net(), rules, lam=0.5, kappa=2.0, weight_decay=0.1))
    assert found["0.weight"]["penalty"] is None
    assert found["0.weight"]["weight_decay"] == 0.1
    assert found["0.bias"]["weight_decay"] == 0.0
    four, five = found["4.weight"], found["5.weight"]
    assert (four["penalty"], four["nu"], four["lam"]) == ("group", 7.0, 0.5)
    assert (five["penalty"], five["nu"], five["lam"]) == ("l1", 3.0, 0.2)
    assert (five["weight"], four["weight"], five["kappa"]) == ("sqrt", None, 2.0)
    assert found["1.weight"]["penalty"] is None  # a rule without a penalty splits nothing new
    DessiLBI(split_groups(net(), rules))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.fc1 = nn.Linear(4, 12), nn.Linear(4, 8)


def test_a_module_pattern_means_its_weight():
    model = nn.ModuleDict({"blocks": nn.ModuleList([Block(), Block()])})
    found = options_of(split_groups(model, {"blocks.*.fc1": "row"}, linear=None))
    assert [name for name, group in found.items() if group["penalty"]] == [
        "blocks.0.fc1.weight", "blocks.1.fc1.weight",
    ]  # fmt: skip


def test_what_a_unit_is_passes_through_and_a_joint_rule_is_a_family_of_its_own():
    model = nn.ModuleDict({"blocks": nn.ModuleList([Block(), Block()])})
    rules = {
        "blocks.*.attention": {"penalty": "row", "block": 2, "parts": 3},
        "blocks.0.*.weight": {"joint": True},
        "blocks.1.*.weight": {"joint": True},
    }
    groups = split_groups(model, rules, linear="row")
    own = [(group["block"], group["parts"]) for group in groups if "block" in group]
    assert own == [(2, 3), (2, 3)]
    families = [[name for name, _ in group["params"]] for group in groups if group.get("joint")]
    assert families == [
        ["blocks.0.attention.weight"], ["blocks.0.fc1.weight"],
        ["blocks.1.attention.weight"], ["blocks.1.fc1.weight"],
    ]  # fmt: skip
    (joint,) = split_groups(model, {"*.weight": {"joint": True, "penalty": "row"}})[:-1]
    assert len(joint["params"]) == 4 and joint["joint"]


def test_kappa_is_the_speed_of_everything():
    """Of biases and norms too, as in the authors' code, whose steps they follow."""
    model = net()
    groups = split_groups(model, {"2.weight": {"kappa": 3.0}}, kappa=2.0)
    own = {name: group.get("kappa") for name, group in options_of(groups).items()}
    assert own.pop("2.weight") == 3.0 and set(own.values()) == {2.0}
    assert all("kappa" not in group for group in split_groups(model))
    optimizer = DessiLBI(split_groups(model, kappa=2.0), lr=0.1, momentum=0.0)
    bias = model[0].bias
    before, bias.grad = bias.detach().clone(), torch.ones_like(bias)
    optimizer.step()
    torch.testing.assert_close(bias.detach(), before - 2.0 * 0.1)


def test_every_parameter_is_in_one_group_and_equal_options_share_one():
    model = net()
    groups = split_groups(model, {"2": "filter"}, lam={"conv": 1.0, "linear": 0.5})
    names = [name for group in groups for name, _ in group["params"]]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    linear = [g for g in groups if g["penalty"] == "l1"]
    assert [name for g in linear for name, _ in g["params"]] == ["4.weight", "5.weight"]


def test_the_table_shows_groups_and_what_is_left():
    text = split_table(split_groups(net(), {"0": "kernel"}, lam={"conv": 6.0, "linear": 0.5}, nu=5))
    line = next(line for line in text.splitlines() if line.startswith("0.weight"))
    assert line.split() == ["0.weight", "8x2x3x3", "group[0,1]", "16", "9", "6", "5", "-"]
    last = text.splitlines()[-1]
    assert "unpenalised: 7 tensors, 203 parameters (0.bias, 1.weight, 1.bias, 2.weight" in last
    assert split_table(DessiLBI(split_groups(net()))).count("\n") == 4
    unnamed = DessiLBI([net()[0].weight], penalty="group", group_dim=(0, 1))
    assert split_table(unnamed).splitlines()[1].split()[:3] == ["group0.0", "8x2x3x3", "group[0,1]"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            dict(rules={"conv9": "l1"}),
            "rule 'conv9' must match a trainable parameter, and none is called like it$",
        ),
        (
            dict(rules={"0.weigth": "l1"}),
            "rule '0.weigth' must match a trainable parameter, such as 0.weight, 5.weight, 4.wei",
        ),
        (
            dict(rules={nn.Conv3d: "l1"}),
            "rule 'Conv3d' must match a trainable parameter, such as Conv2d",
        ),
        (
            dict(rules={"0": "l2"}),
            "penalty of rule '0' must be None or one of l1, group, .*, filter, ",
        ),
        (dict(rules={3: "l1"}), "a rule must be for a name, a pattern or a module type, got 3"),
        (
            dict(rules={"4": "kernel"}),
            r"4.weight of shape \(10, 45\) has no groups of kind 'kernel'",
        ),
        (dict(rules={"0": "row"}), r"0.weight of shape \(8, 2, 3, 3\) has no groups of kind 'row'"),
        (dict(rules={"1": "filter"}), r"1.weight of shape \(8,\) has no groups of kind 'filter'"),
        (dict(conv="l0"), "conv must be None or one of"),
        (dict(lam={"conv": 1.0}), 'a dict with the keys "conv" and "linear"'),
        (dict(rules={"0": None}, linear=None), "must have a trainable layer to split"),
        (
            dict(rules={"0": {"penalty": "filter", "group_dim": 1}}),
            "group_dim of rule '0' must be left out for penalty 'filter', which says it, got 1",
        ),
    ],
)
def test_what_cannot_be_grouped_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        split_groups(net(), **arguments)


# The controller


def walk(optimizer, n_steps, start=0):
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for k in range(start, start + n_steps):
        for i, p in enumerate(params):
            p.grad = torch.tensor(vectors.array(tuple(p.shape), 97 * k + i)).to(p.dtype)
        optimizer.step()


@pytest.mark.parametrize("target", [0.02, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("conv", ["l1", "kernel"])
@pytest.mark.parametrize("around", [None, torch.optim.AdamW])
def test_the_target_is_hit(target, conv, around):
    """Within 10 % of the target, or within one group of it, whatever the level was."""
    for lam in (1e-3, 10.0):
        model = net()
        groups = split_groups(model, conv=conv, lam=lam, nu=2.0)
        optimizer = Split(around(groups, lr=0.01)) if around else DessiLBI(groups, lr=0.05)
        TargetDensity(optimizer, target, steps=43, every=10)
        walk(optimizer, 43)
        reached = density(optimizer, model).nonzero_split
        split = sum(layer.size for layer in density(optimizer, model).layers)
        assert abs(reached - target) <= max(0.1 * target, 9 / 2 / split), (reached, target)


def test_the_density_grows_on_the_ramp_and_the_ratio_of_levels_stays():
    model = net()
    groups = split_groups(model, conv="l1", lam={"conv": 3.0, "linear": 1.0}, nu=2.0)
    optimizer = DessiLBI(groups, lr=0.05)
    controller = TargetDensity(optimizer, 0.4, steps=100, ramp=0.5, every=10)
    recorder = PathRecorder(optimizer)
    for k in range(10):
        walk(optimizer, 10, start=10 * k)
        reached = density(optimizer, model).nonzero_split
        assert reached == pytest.approx(0.4 * min(1, (k + 1) / 5), abs=0.01)
        assert optimizer.param_groups[0]["lam"] == 3 * optimizer.param_groups[1]["lam"]
    controller.detach()
    levels = [group["lam"] for group in optimizer.param_groups]
    walk(optimizer, 10)
    assert [group["lam"] for group in optimizer.param_groups] == levels
    assert len(recorder.steps) == 111


def test_a_density_that_dwells_grows_as_a_power_of_the_steps():
    model = net()
    optimizer = DessiLBI(split_groups(model, conv="l1", linear="l1", nu=2.0), lr=0.05)
    TargetDensity(optimizer, 0.4, steps=100, ramp=0.5, dwell=2.0)
    for k in range(6):
        walk(optimizer, 10, start=10 * k)
        reached = density(optimizer, model).nonzero_split
        assert reached == pytest.approx(0.4 * min(1, (k + 1) / 5) ** 2, abs=0.01)


def test_nothing_enters_before_its_time():
    """V doubles between the first steps: without a control after each, all would enter at once."""
    model = net()
    optimizer = DessiLBI(split_groups(model, linear="row", nu=2.0), lr=0.05)
    TargetDensity(optimizer, 0.3, steps=100, ramp=0.5)
    recorder = PathRecorder(optimizer)  # attached later: it sees each step's levels
    walk(optimizer, 20)
    names = ("0.weight", "4.weight", "5.weight")
    entered = sum((recorder.entry_steps(name) >= 0).sum() for name in names)
    assert 0 < entered < 8  # of 22 groups, with an eighth of the weights due


@pytest.mark.parametrize("around", [None, torch.optim.SGD])
def test_a_recorder_may_be_attached_before_the_target(around):
    """It sees each step with the levels that were set after it, whichever came first."""
    entries = []
    for early in (True, False):
        model = net()
        groups = split_groups(model, linear="row", nu=2.0)
        optimizer = Split(around(groups, lr=0.05)) if around else DessiLBI(groups, lr=0.05)
        recorder = PathRecorder(optimizer) if early else None
        TargetDensity(optimizer, 0.3, steps=60, ramp=0.5)
        recorder = recorder or PathRecorder(optimizer)
        walk(optimizer, 60)
        entries.append(recorder.entry_steps("4.weight"))
    assert (entries[0] == entries[1]).all() and (entries[0] > 2).any()


def test_equal_scores_and_a_density_below_one_group_select_nothing():
    """Exactly nothing, in float32, however the thresholds round."""
    for seed in range(20):
        torch.manual_seed(seed)
        p = nn.Parameter(torch.randn(6, 7).abs_().add_(1))
        with torch.no_grad():
            p[1:] = p[:1]
        optimizer = DessiLBI([p], lr=0.1, penalty="group", nu=3.7, weight="sqrt")
        TargetDensity(optimizer, 0.05, steps=50)
        for _ in range(5):
            p.grad = torch.zeros_like(p)
            optimizer.step()
            assert not support_masks(optimizer)["group0.0"].any()


def test_single_tensors_have_targets_of_their_own():
    model = net()
    groups = split_groups(model, {"4": {"lam": 0.7}, "5": {"lam": 0.3}}, nu=2.0)
    optimizer = DessiLBI(groups, lr=0.05)
    TargetDensity(optimizer, {"4.weight": 0.2, "0.weight": 0.25}, steps=20, every=5)
    walk(optimizer, 20)
    layers = {row.name: row for row in density(optimizer, model).layers}
    assert layers["4.weight"].nonzero == 90
    assert layers["0.weight"].units_selected == 2
    assert options_of(split_groups(model, {"5": {"lam": 0.3}}))["5.weight"]["lam"] == 0.3
    assert optimizer.param_groups[2]["lam"] == 0.3  # not steered


def apart(seed=0, **options):
    """A net of which every layer has a level of its own, the first born a hundredth of the size."""
    model = net(seed)
    with torch.no_grad():
        model[0].weight.mul_(0.01)
    groups = split_groups(model, {"2": "filter"}, linear="row", apart=True, nu=2.0)
    optimizer = DessiLBI(groups, lr=0.05)
    return model, optimizer, TargetDensity(optimizer, steps=40, **options)


def coast(optimizer, n_steps):
    """Steps without a gradient: what is large stays large."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.zeros_like(p)
    for _ in range(n_steps):
        optimizer.step()


def units_selected(optimizer, model):
    return {row.name: row.units_selected for row in density(optimizer, model).layers}


def test_each_layer_has_the_share_by_itself():
    model, optimizer, _ = apart(target=0.5, per_layer=True)
    coast(optimizer, 40)
    found = units_selected(optimizer, model)
    assert found == {"0.weight": 4, "2.weight": found["2.weight"], "4.weight": 5, "5.weight": 2}
    assert found["2.weight"] in (2, 3)  # of 5
    model, optimizer, _ = apart(target=0.5)
    coast(optimizer, 40)
    assert units_selected(optimizer, model)["0.weight"] == 0


@pytest.mark.parametrize("first", [0.0, 1.0])
@pytest.mark.parametrize("at_least", [1, 3])
def test_a_floor_leaves_no_layer_empty_and_the_share_is_met_all_the_same(at_least, first):
    model, optimizer, _ = apart(target=0.6, at_least=at_least, first=first)
    coast(optimizer, 40)
    found = units_selected(optimizer, model)
    assert found["0.weight"] == at_least and min(found.values()) >= at_least
    norms = model[0].weight.detach().flatten(1).norm(dim=1)
    kept = support_masks(optimizer)["0.weight"].flatten(1).any(1)
    assert set(kept.nonzero().flatten().tolist()) == set(norms.topk(at_least).indices.tolist())
    layers = density(optimizer, model).layers
    total = sum(layer.size for layer in layers)
    assert abs(density(optimizer, model).nonzero_split - 0.6) <= 45 / 2 / total  # a row of "4"


def test_a_floor_grows_with_the_ramp_and_waits_for_scores():
    model, optimizer, controller = apart(target=0.6, at_least=2, ramp=1.0)
    controller.control()
    coast(optimizer, 19)
    assert units_selected(optimizer, model)["0.weight"] == 0
    coast(optimizer, 1)  # at a half of the ramp one of the two is due
    assert units_selected(optimizer, model)["0.weight"] == 1
    with torch.no_grad():
        optimizer.state[model[0].weight]["V"].zero_()
    controller.control()
    found = units_selected(optimizer, model)
    assert found.pop("0.weight") == 0 and min(found.values()) >= 1


def test_floors_are_among_what_a_checkpoint_continues():
    _, whole, _ = apart(target=0.6, at_least=2)
    coast(whole, 40)
    _, one, _ = apart(target=0.6, at_least=2)
    coast(one, 23)
    model, two, _ = apart(target=0.6, at_least=2)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    weights = [p for g in one.param_groups for p in g["params"]]
    with torch.no_grad():
        for p, q in zip((p for g in two.param_groups for p in g["params"]), weights, strict=True):
            p.copy_(q)
    coast(two, 17)
    assert [g.get("lam") for g in whole.param_groups] == [g.get("lam") for g in two.param_groups]


def test_it_waits_where_there_is_no_evidence_and_takes_ties_as_one():
    p = nn.Parameter(torch.ones(4, 5))
    optimizer = DessiLBI([p], lr=0.1, penalty="l1", nu=1.0)
    controller = TargetDensity(optimizer, 0.5, steps=10)
    controller.control()
    assert optimizer.param_groups[0]["lam"] == 1  # V is zero: nothing to choose from
    p.grad = torch.zeros_like(p)
    for _ in range(10):
        optimizer.step()
    assert support_masks(optimizer)["group0.0"].float().mean() in (0, 1)


def test_a_checkpoint_continues_bit_for_bit():
    def fresh():
        model = net()
        optimizer = DessiLBI(split_groups(model, nu=2.0), lr=0.05)
        return model, optimizer, TargetDensity(optimizer, 0.3, steps=60)

    model, whole, _ = fresh()
    walk(whole, 60)
    first, one, _ = fresh()
    walk(one, 33)
    second, two, _ = fresh()
    second.load_state_dict(first.state_dict())
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    walk(two, 27, start=33)
    for a, b in zip(model.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [g.get("lam") for g in whole.param_groups] == [g.get("lam") for g in two.param_groups]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(target=0.0), r"target must be in \(0, 1\], got 0.0"),
        (dict(target=float("nan")), r"target must be in \(0, 1\], got nan"),
        (dict(target={"0.weight": 2}), r"target must be in \(0, 1\], got 2"),
        (dict(target={"7.weight": 0.1}), "target must name split tensors among .*, got '7.weight'"),
        (dict(target={"4.weight": 0.1, "5.weight": 0.2}), "a parameter group one share"),
        (dict(target=0.1, steps=0), "steps must be an integer of at least 1, got 0"),
        (dict(target=0.1, every=1.5), "every must be an integer of at least 1, got 1.5"),
        (dict(target=0.1, ramp=2), r"ramp must be in \[0, 1\], got 2"),
        (dict(target=0.1, at_least=-1), "at_least must be an integer of at least 0, got -1"),
        (dict(target=0.1, at_least=True), "at_least must be an integer of at least 0, got True"),
        (dict(target=0.1, at_least=1), r"at_least needs .* but 4.weight and 5.weight share one"),
        (dict(target=0.1, per_layer=True), r"per_layer needs a level of each layer, .*apart=True"),
        (dict(target={"0.weight": 0.1}, per_layer=True), "per_layer must be left out where target"),
        (dict(target=0.1, dwell=0), "dwell must be positive and finite, got 0"),
    ],
)
def test_bad_targets_are_refused(options, message):
    optimizer = DessiLBI(split_groups(net()))
    with pytest.raises(ValueError, match=message):
        TargetDensity(optimizer, **{"steps": 10, **options})
    with pytest.raises(ValueError, match="the optimizer splits nothing"):
        TargetDensity(DessiLBI(net().parameters()), 0.1, steps=10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(target=0.9, at_least=5), "at_least must be at most the 4 units of 5.weight, got 5"),
        (
            dict(target=0.1, at_least=1),
            "target must be at least 0.132, the share of at_least = 1 units of 4 layers, got 0.1",
        ),
        (dict(target=0.24, at_least=1, per_layer=True), "at least 0.25, .* of 1 layers, got 0.24"),
    ],
)
def test_floors_that_layers_or_the_target_do_not_have_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        apart(**options)


@pytest.mark.parametrize("kind", ["smooth", "ties", "zeros", "sorted", "weighted", "misled"])
def test_the_level_among_many_scores_is_that_of_sorting_them_all(monkeypatch, kind):
    """Only scores near a sample's quantile are sorted; where the sample misleads, all are."""
    n = 3001
    scores = torch.tensor(np.abs(vectors.array((n,), 5)))
    sizes = torch.ones(n, dtype=torch.float64)
    if kind == "ties":
        scores = (10 * scores).round() / 10
    elif kind == "zeros":
        scores[: n // 2] = 0
    elif kind == "sorted":
        scores = scores.sort()[0]
    elif kind == "weighted":
        sizes[::3] = 75
        sizes[1] = 4000
    elif kind == "misled":
        scores[::10] = torch.arange(1, 302) * 1e-6  # what the sample sees is smaller than the rest
    for share in (1e-4, 0.01, 0.1, 0.3, 0.5, 0.9, 0.999, 1):
        monkeypatch.setattr(target, "_MANY", 1200)
        by_window = target._quantile(scores, sizes, share)
        monkeypatch.setattr(target, "_MANY", n)
        assert by_window == target._quantile(scores, sizes, share)
