"""Milliseconds asked for. The clock is replaced by a count of multiplications, by which all that is
measured can be computed; what real clocks say stands in the benchmarks."""

import copy
import json

import pytest
import torch
from costed import NETS, cut, dense, make, one_unit, walk
from net_families import make_family

from dslbi_torch import DessiLBI, TargetCost, layer_times, split_groups, support_masks
from dslbi_torch.surgery import layer_times as measuring
from dslbi_torch.surgery.costs import count_macs
from dslbi_torch.surgery.cut_costs import mac_costs, widths_of
from dslbi_torch.surgery.layer_times import _nodes, times_of
from dslbi_torch.surgery.live_axes import live_axes
from dslbi_torch.surgery.narrowing import drawn_net
from dslbi_torch.surgery.time_costs import Kind, _read, fitted_rest, plain_times, time_costs


@pytest.fixture
def clock(monkeypatch):
    """A machine that takes a millisecond for a thousand multiplications."""
    monkeypatch.setattr(measuring, "ROUNDS", 1)
    monkeypatch.setattr(measuring, "PASSES", 1)
    monkeypatch.setattr(measuring, "SHARES", [0.3, 0.4, 0.5, 0.7, 0.8, 0.9])
    seconds = lambda net, x: 1e-6 * count_macs(net, x)[""]  # noqa: E731
    monkeypatch.setattr(measuring, "seconds_of_pass", seconds)


def both(name):
    return make(name) if name in NETS else make_family(name)


@pytest.mark.parametrize("name", [*NETS, "vit", "resnext"])
def test_where_multiplications_are_time_it_is_theirs(clock, name):
    net, x = both(name)
    axes = live_axes(net, x)
    widths = widths_of(axes)
    macs, generator = mac_costs(axes, widths), torch.Generator().manual_seed(3)
    costs = time_costs(axes, widths, times_of(net, axes, widths, x))
    for share in (0.5, 0.8):
        counts = widths.sizes_of(drawn_net(net, axes, x, share, generator))
        found = costs.total(counts), macs.total(counts) / dense(net, x)["macs"]
        assert found[0] == pytest.approx(found[1], rel=2e-3)  # four digits of times are kept


@pytest.mark.parametrize("name", [*NETS, "vit", "resnext", "mobilenet v3"])
def test_nets_that_are_cut_at_random_have_unequal_widths(name):
    net, x = both(name)
    axes = live_axes(net, x)
    widths, generator = widths_of(axes), torch.Generator().manual_seed(1)
    sizes = [widths.sizes_of(drawn_net(net, axes, x, s, generator)) for s in (0.3, 0.7)]
    assert len({*(sizes[0] / widths.sizes).tolist()}) > 3
    assert sizes[0].sum() < sizes[1].sum() < widths.sizes.sum()


def steered(name="stream with padding", **options):
    net, x = make(name)
    optimizer = DessiLBI(split_groups(net, linear=None, apart=True, nu=2.0), lr=0.05, momentum=0)
    return net, x, optimizer, TargetCost(optimizer, net, x, **{"steps": 30, "ms": 0.5, **options})


def test_the_cut_net_takes_what_was_asked(clock):
    net, x, optimizer, controller = steered()
    walk(net, optimizer, 30)
    found = cut(net, support_masks(optimizer), x)["macs"] / dense(net, x)["macs"]
    assert controller.expected() == pytest.approx(found, rel=2e-3)
    assert abs(found - 0.5) <= one_unit(controller)


def test_a_checkpoint_of_the_optimizer_continues_by_its_times(clock, monkeypatch):
    net, _, whole, _ = steered()
    walk(net, whole, 30)
    first, _, one, _ = steered()
    walk(first, one, 17)
    slower = lambda net, x: 1e-3 + 1e-6 * count_macs(net, x)[""]  # noqa: E731
    monkeypatch.setattr(measuring, "seconds_of_pass", slower)
    second, _, two, _ = steered()
    assert two.param_groups[0]["times"] != one.param_groups[0]["times"]
    second.load_state_dict(first.state_dict())
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    walk(second, two, 13, start=17)
    assert [g.get("lam") for g in whole.param_groups] == [g.get("lam") for g in two.param_groups]
    for a, b in zip(net.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_times_are_plain_and_can_be_given(clock, monkeypatch, tmp_path):
    net, x = make("stream with padding")
    times = layer_times(net, x)
    (tmp_path / "times.json").write_text(json.dumps(times))
    monkeypatch.setattr(measuring, "seconds_of_pass", None)  # nothing is measured again
    given = json.loads((tmp_path / "times.json").read_text())
    _, _, optimizer, controller = steered(times=given)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    kept = torch.load(tmp_path / "optimizer.pt", weights_only=True)["param_groups"][0]["times"]
    assert kept == plain_times(given) == plain_times(times)
    controller.detach()
    assert "times" not in optimizer.param_groups[0]


def test_times_of_another_machine_are_refused(clock):
    net, x = make("stream with padding")
    times = layer_times(net, x)._replace(machine="Abacus 7, threads 3")
    with pytest.raises(ValueError, match=r"on Abacus 7, threads 3, got .*, threads \d+, torch"):
        steered(times=times)
    net, _, optimizer, _ = steered()
    optimizer.param_groups[0]["times"] = tuple(times)  # as a checkpoint from there has it
    with pytest.raises(ValueError, match=r"on Abacus 7, threads 3, got .*, threads \d+, torch"):
        walk(net, optimizer, 1)


def test_times_of_another_net_and_no_times_are_refused(clock):
    times = layer_times(*make("stream with projections"))
    with pytest.raises(ValueError, match=r"whose layer2.0.downsample.0.weight has \(7, 5\) outpu"):
        steered(times=times)
    times = layer_times(*make("stream with padding"))
    for bad in (3, "times", times[:3], times._replace(rest=()), times._replace(kinds=())):
        with pytest.raises(ValueError, match="times must be what layer_times returns, got"):
            steered(times=bad)


def test_less_than_the_floors_leave_is_refused(clock):
    with pytest.raises(ValueError, match=r"ms must be at least 0\.\d+ of the dense net, which at_"):
        steered(ms=0.01)


def test_a_grid_is_read_between_its_nodes():
    kind = Kind(*map(torch.tensor, ((1, 4), (1, 3), ((1.0, 5.0), (4.0, 8.0)))))
    kind = Kind(*(x.numpy() for x in kind))
    widths = torch.tensor([[1.0, 4, 2, 3], [1.0, 3, 3, 2]])
    assert _read(kind, widths) == pytest.approx(1 + 8 + (5 + 1) + (3 + 2))


@pytest.mark.parametrize("width", [1, 3, 8, 16, 20, 33, 64, 200, 1280])
def test_nodes_lie_on_both_sides_of_a_step(width):
    found = _nodes(width)
    assert found[0] == 1 and found[-1] == width and len(found) <= 13
    for n in found:
        assert n % 16 or n == width or n + 1 in found


def test_the_rest_is_the_fit_that_is_not_negative():
    rows = [[2.0, 1.0, 0.0, 1.0], [1.0, 3.0, 0.0, 1.0], [4.0, 2.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0]]
    ratios = [0.1 * a + 0.2 * b + 0.05 for a, b, _, _ in rows]
    assert fitted_rest(rows, ratios) == pytest.approx((0.1, 0.2, 0.0, 0.05))
    found = fitted_rest(rows, [a / 4 - 0.02 * b + 0.2 for a, b, _, _ in rows])
    assert min(found) >= 0 and found[1] == 0
