"""More units in a net that trains: the same outputs, every old state bit for bit, and what a unit
costs. In the authors' code running statistics, V and momentum are lost, and outputs change."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dslbi_torch import (
    DessiLBI,
    FrozenTraining,
    PathRecorder,
    Split,
    compact,
    entry_ranking,
    recorded_masks,
    split_groups,
    support_masks,
    widen_,
)
from dslbi_torch.surgery.widen import widths
from dslbi_torch.training.nets import zoo


class Tangle(nn.Module):
    """Everything at once: a residual stream, depthwise filters, a concatenation with a reader of
    its own BatchNorm, a flattened map, transposed filters."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.inner = nn.Conv2d(4, 3, 3, padding=1)
        self.back = nn.Conv2d(3, 4, 1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.side = nn.Conv2d(2, 5, 3, padding=1)
        self.bn_cat = nn.BatchNorm2d(9)
        self.up = nn.ConvTranspose2d(9, 6, 2, stride=2)
        self.down = nn.Conv2d(6, 3, 3, stride=2)
        self.fc1 = nn.Linear(3 * 25, 8)
        self.fc2 = nn.Linear(8, 3)

    def forward(self, x):
        y = F.relu(self.bn(self.stem(x)))
        y = y + self.back(F.relu(self.inner(y)))
        z = torch.cat([self.depthwise(y), self.side(x)], 1)
        z = self.down(F.relu(self.up(F.relu(self.bn_cat(z)))))
        return self.fc2(F.relu(self.fc1(F.relu(z).flatten(1))))


X = torch.randn(8, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(8) % 3


def tangle():
    torch.manual_seed(0)
    return Tangle().double()


def dessilbi(net, **options):
    return DessiLBI(split_groups(net, nu=1.0, lam=0.02, linear="group", **options), lr=0.05)


def train(net, optimizer, steps=3, x=X, y=Y):
    net.train()
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()


def exactly(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_widths_and_what_a_unit_costs():
    found = {width.layers: (width.units, width.cost) for width in widths(tangle(), X)}
    stream = (18 + 1 + 2) + (3 + 1) + (9 + 1 + 2) + 27 + 24  # stem, back, depthwise; readers
    assert found == {
        ("stem", "back", "depthwise"): (4, stream),
        ("inner",): (3, 36 + 1 + 4),
        ("side",): (5, 18 + 1 + 2 + 24),
        ("up",): (6, 36 + 1 + 27),
        ("down",): (3, 54 + 1 + 25 * 8),
        ("fc1",): (8, 75 + 1 + 3),
    }


def test_looking_at_widths_changes_nothing():
    net = tangle()
    before, rng = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    widths(net, X)
    exactly(torch.get_rng_state(), rng)
    for name, value in net.state_dict().items():
        exactly(value, before[name])


@pytest.mark.parametrize(
    "name", ["stem", "back", "depthwise", "inner", "side", "up", "down", "fc1"]
)
def test_a_width_costs_what_it_says_and_the_outputs_stay(name):
    net = tangle()
    optimizer = dessilbi(net)
    train(net, optimizer)
    modes = copy.deepcopy(net), net
    cost = next(width.cost for width in widths(net, X) if name in width.layers)
    size = sum(p.numel() for p in net.parameters())
    widen_(net, optimizer, {name: 3}, X)
    assert sum(p.numel() for p in net.parameters()) == size + 3 * cost
    for mode in (False, True):  # batch statistics are of each channel on its own
        a, b = (m.train(mode)(X) for m in modes)
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_every_old_unit_keeps_weights_statistics_v_and_momentum_bit_for_bit():
    net = tangle()
    optimizer = dessilbi(net)
    train(net, optimizer)
    old = copy.deepcopy(net)
    states = {n: dict(optimizer.state[p]) for n, p in net.named_parameters()}
    groups = [dict(group, params=None) for group in optimizer.param_groups]
    widen_(net, optimizer, {"stem": 2, "side": 1, "down": 3, "fc1": 2}, X)

    # where the old units lie now: of stem and side, in what is concatenated; of down, flattened
    stream, joined = range(4), [*range(4), *range(6, 11)]
    columns, fc1 = [c * 25 + k for c in range(3) for k in range(25)], range(8)
    rows = {
        **{n: (stream,) for n in ("stem.bias", "back.bias", "depthwise.bias", "depthwise.weight")},
        **{n: (stream,) for n in ("bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")},
        **{f"bn_cat.{n}": (joined,) for n in ("weight", "bias", "running_mean", "running_var")},
        "stem.weight": (stream,),
        "back.weight": (stream,),
        "inner.weight": (range(3), stream),
        "side.weight": (range(5),),
        "side.bias": (range(5),),
        "up.weight": (joined,),
        "down.weight": (range(3),),
        "down.bias": (range(3),),
        "fc1.weight": (fc1, columns),
        "fc1.bias": (fc1,),
        "fc2.weight": (range(3), fc1),
    }

    def pick(x, name):
        for dim, index in enumerate(rows.get(name, ())):
            x = x.index_select(dim, torch.tensor(list(index)))
        return x

    for name, value in old.state_dict().items():
        exactly(pick(net.state_dict()[name], name), value)
    for name, p in net.named_parameters():
        now = optimizer.state[p]
        assert set(now) == set(states[name]) != set()
        for key, value in states[name].items():
            exactly(pick(now[key], name), value)
            assert now[key].shape == p.shape
            assert now[key].count_nonzero() == value.count_nonzero()  # of new units: zero
    assert [dict(group, params=None) for group in optimizer.param_groups] == groups
    own = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert own == {id(p) for p in net.parameters()}
    assert len(optimizer.state) == len(own)


def test_new_filters_are_fresh_and_what_reads_them_is_zero():
    net = tangle()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    widen_(net, optimizer, {"down": 2}, X)
    fresh = net.down.weight[3:].detach().clone()
    assert (fresh != 0).all() and fresh.abs().max() <= (6 * 9) ** -0.5
    assert not net.fc1.weight[:, 75:].any()
    train(net, optimizer, 1)
    assert net.fc1.weight[:, 75:].any() and torch.equal(net.down.weight[3:], fresh)
    train(net, optimizer, 1)
    assert (net.down.weight[3:] != fresh).any()


def test_the_given_draw_is_used():
    net = tangle()
    with torch.no_grad():
        widen_(net, dessilbi(net), {"down": 2}, X, draw=lambda layer: layer.weight.fill_(7))
    assert (net.down.weight[3:] == 7).all() and not (net.down.weight[:3] == 7).any()


@pytest.mark.parametrize(
    "make",
    [
        lambda net: torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3),
        lambda net: torch.optim.AdamW(net.parameters(), lr=0.01, amsgrad=True),
        lambda net: Split(torch.optim.AdamW(split_groups(net, lam=0.05), lr=0.01), nu=2.0),
        lambda net: dessilbi(net, coupling="inside"),
        lambda net: DessiLBI(split_groups(net, lam=0.05), lr=0.01, foreach=True),
    ],
    ids=["sgd", "adamw", "split", "inside", "foreach"],
)
def test_any_optimizer_trains_on_and_new_filters_enter(make):
    net = tangle()
    optimizer = make(net)
    train(net, optimizer)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    widen_(net, optimizer, {"stem": 2, "fc1": 1}, X)
    before = copy.deepcopy(net)
    train(net, optimizer, 2)
    schedule.step()
    for name, W in before.named_parameters():
        if W.ndim > 1:
            assert (net.get_parameter(name) != W).any()
    loaded = make(net)  # a checkpoint of the wider net
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def test_new_filters_have_to_enter_the_path():
    net = tangle()
    optimizer = DessiLBI(split_groups(net, nu=1.0, lam=0.3), lr=0.05)
    train(net, optimizer, 60)
    assert support_masks(optimizer)["down.weight"].flatten(1).any(1).all()
    widen_(net, optimizer, {"down": 2}, X)
    recorder = PathRecorder(optimizer)
    assert support_masks(optimizer)["down.weight"].flatten(1).any(1).tolist() == 3 * [True] + 2 * [
        False
    ]
    train(net, optimizer, 60)
    assert support_masks(optimizer)["down.weight"].flatten(1).any(1).all()
    assert (recorder.entry_steps("down.weight")[3:] > 1).all()


def test_compaction_undoes_widening():
    net = tangle().eval()
    outputs = net(X)
    widen_(net, dessilbi(net), {"down": 2, "stem": 1, "fc1": 2}, X)
    small = compact(net, None, X)
    for name, p in tangle().named_parameters():
        assert small.get_parameter(name).shape == p.shape
    torch.testing.assert_close(small(X), outputs, rtol=1e-10, atol=1e-10)


def test_channels_last_stays_channels_last():
    net = tangle().to(memory_format=torch.channels_last)
    optimizer = dessilbi(net)
    train(net, optimizer, x=X.contiguous(memory_format=torch.channels_last))
    widen_(net, optimizer, {"stem": 2}, X)
    for W in (net.stem.weight, net.inner.weight):
        assert W.is_contiguous(memory_format=torch.channels_last) and not W.is_contiguous()
        assert {x.stride() for x in optimizer.state[W].values()} == {W.stride()}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lenet5", (1, 28, 28)),
        ("vgg11-bn", (3, 32, 32)),
        ("resnet20", (3, 32, 32)),
        ("resnet20-b", (3, 32, 32)),
        ("mobilenetv2", (3, 32, 32)),
    ],
)
def test_the_nets_by_name(name, shape):
    torch.manual_seed(0)
    net = zoo.build(name, 10, shape[0]).double()
    x = torch.randn(2, *shape, dtype=torch.float64)
    optimizer = dessilbi(net)
    before = net.eval()(x)
    found = widths(net, x)
    widen_(net, optimizer, {width.layers[0]: 2 for width in (found[0], found[1], found[-1])}, x)
    torch.testing.assert_close(net(x), before, rtol=1e-10, atol=1e-10)


# What is refused, before anything changes


class Strange(nn.Module):
    def __init__(self, norm=None, tie=False):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 1)
        self.norm, self.c = norm or nn.Identity(), nn.Conv2d(4, 1, 1)
        self.d = nn.Conv2d(4, 4, 1)
        if tie:
            self.d.weight = self.b.weight

    def forward(self, x):
        return self.c(self.d(self.norm(self.b(self.a(x)))))


REFUSED = [
    (tangle, {"fc2": 1}, "fc2 must keep its units, which are the outputs"),
    (tangle, {"fc3": 1}, "more must name layers among stem, .*, got 'fc3'"),
    (tangle, {"bn": 1}, "more must name layers among stem, .*, got 'bn'"),
    (tangle, {"stem": 0}, "more must be whole numbers of at least 1, got 0 for stem"),
    (tangle, {"stem": True}, "more must be whole numbers of at least 1, got True for stem"),
    (tangle, {"stem": 1, "fc2": 1}, "fc2 must keep its units"),
    (lambda: Strange(nn.GroupNorm(2, 4)).double(), {"b": 1}, r"b cannot be .* norm \(GroupNorm\)"),
    (lambda: Strange(nn.PReLU(4)).double(), {"b": 1}, r"b cannot be widened: .* norm \(PReLU\)"),
    (lambda: Strange(nn.Conv2d(4, 4, 1, groups=2)).double(), {"b": 1}, "b cannot be widened"),
    (lambda: Strange(nn.Softmax(1)).double(), {"b": 1}, "cannot follow this model: its outputs"),
    (lambda: Strange(tie=True).double(), {"a": 1}, r"a cannot be .* \(Conv2d\), which is shared"),
]


@pytest.mark.parametrize(("make", "more", "message"), REFUSED)
def test_what_cannot_be_widened_is_refused_and_left_alone(make, more, message):
    net = make()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match=message):
        widen_(net, optimizer, more, X)
    assert list(net.state_dict()) == list(before)
    for name, value in net.state_dict().items():
        exactly(value, before[name])


def test_a_layer_that_reads_itself_is_refused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 1, 1)

        def forward(self, x):
            return self.c(self.b(self.b(self.a(x))))

    net = Twice().double()
    with pytest.raises(ValueError, match="a cannot be widened: b both reads and writes"):
        widen_(net, torch.optim.SGD(net.parameters(), lr=0.1), {"a": 1}, X)
    assert net.a.weight.shape[0] == 3


def test_a_stream_that_a_layer_reads_and_writes_is_no_width():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 1)
            self.c, self.d = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 1, 1)

        def forward(self, x):
            x = self.a(x)
            return self.d(self.c(x + self.b(x)))

    net = Block().double()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    assert [width.layers for width in widths(net, X)] == [("c",)]
    for name in ("a", "b"):
        with pytest.raises(ValueError, match=f"{name} cannot be widened: b both reads and writes"):
            widen_(net, optimizer, {name: 1}, X)
    before = net(X)
    widen_(net, optimizer, {"c": 2}, X)
    torch.testing.assert_close(net(X), before, rtol=1e-12, atol=1e-12)


def test_a_state_of_another_shape_is_refused_and_numbers_are_kept():
    net = tangle()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    train(net, optimizer)
    optimizer.state[net.down.weight]["rows"] = torch.ones(3)
    with pytest.raises(ValueError, match="the state rows of down.weight must have its shape"):
        widen_(net, optimizer, {"down": 1}, X)
    assert net.down.weight.shape[0] == 3
    del optimizer.state[net.down.weight]["rows"]
    widen_(net, optimizer, {"down": 1}, X)
    assert optimizer.state[net.down.weight]["step"] == 3
    assert all(p in optimizer.state for p in net.parameters())


def test_a_recorder_from_before_says_what_to_do():
    for make in (dessilbi, lambda net: DessiLBI(split_groups(net, conv="l1"), lr=0.1)):
        net = tangle()
        optimizer = make(net)
        recorder = PathRecorder(optimizer)
        widen_(net, optimizer, {"stem": 1}, X)
        with pytest.raises(ValueError, match="stem.weight must have .* and attach a new one"):
            train(net, optimizer, 1)
        recorder.detach()
        PathRecorder(optimizer)
        train(net, optimizer, 1)


def test_held_weights_are_refused():
    net = tangle()
    optimizer = dessilbi(net)
    held = FrozenTraining(
        net, optimizer, {"fc1.weight": torch.ones(8, 75, dtype=bool)}, freeze="kept"
    )
    with pytest.raises(ValueError, match="fc1.weight is under masks already"):
        widen_(net, optimizer, {"down": 1}, X)
    assert net.down.weight.shape[0] == 3
    held.detach()
    widen_(net, optimizer, {"down": 1}, X)


def test_another_nets_optimizer_is_refused():
    net, other = (nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)) for _ in range(2))
    optimizer = torch.optim.SGD(other.parameters(), 0.1)
    with pytest.raises(ValueError, match="the optimizer must have the widened parameter 0.weight"):
        widen_(net, optimizer, {"0": 1}, torch.randn(2, 4))
    assert net[0].weight.shape == (5, 4)


def test_an_old_recorder_says_that_the_net_has_grown():
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    optimizer = DessiLBI(split_groups(net, linear="group"), lr=0.1)
    recorder = PathRecorder(optimizer)
    widen_(net, optimizer, {"0": 1}, torch.randn(2, 4))
    for ask in (lambda: entry_ranking(recorder), lambda: recorded_masks(recorder, 0)):
        with pytest.raises(ValueError, match="of when the recorder was attached"):
            ask()
