"""Wrapped optimizers and models: every public function sees what is within."""

import copy
import inspect

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from lightning.pytorch.core.optimizer import LightningOptimizer
from on_path import make_net, trained_filters
from torch import nn
from torch.optim.swa_utils import AveragedModel

import dslbi_torch
from dslbi_torch import (
    DessiLBI,
    FallingNu,
    FrozenTraining,
    GammaMomentum,
    MaskedTraining,
    PathRecorder,
    Release,
    Split,
    TargetCost,
    TargetDensity,
    apply_masks_,
    compact,
    density,
    forecast,
    gamma_ranking,
    load_compact,
    magnitude_ranking,
    masked,
    reinitialise_,
    release_,
    save_compact,
    shrink,
    sparse_weights,
    split_groups,
    split_table,
    support_masks,
    whole_filters,
)
from dslbi_torch.masks.ranking import scale_ranking
from dslbi_torch.wrapped import plain_name, plain_names, unwrapped_model

X, SMALL = torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 4, 4)  # of make_net, trained_filters
MODELS = {
    "compiled": torch.compile,
    "DataParallel": nn.DataParallel,
    "averaged": AveragedModel,
    "twice": lambda net: torch.compile(AveragedModel(net)),
}


def accelerated(optimizer):
    AcceleratorState._reset_state(True)
    return Accelerator(cpu=True).prepare(optimizer)


OPTIMIZERS = {"Accelerate": accelerated, "Lightning": LightningOptimizer}


def test_every_public_function_of_an_optimizer_or_a_model_unwraps_it():
    words = {"optimizer", "model", "groups"}
    for name in dslbi_torch.__all__:
        thing = getattr(dslbi_torch, name)
        function = thing.__init__ if inspect.isclass(thing) else thing
        if words & set(inspect.signature(function).parameters):
            assert hasattr(function, "__wrapped__"), name


@pytest.mark.parametrize("wrap", MODELS.values(), ids=MODELS)
def test_names_and_masks_are_those_of_the_model_within(tmp_path, wrap):
    net, optimizer, _, _ = trained_filters()
    wrapped, masks = wrap(net), support_masks(optimizer)
    inner = unwrapped_model(wrapped)
    groups = split_groups(wrapped, nu=1.0)
    assert [n for g in groups for n, _ in g["params"]] == [
        n for g in split_groups(net, nu=1.0) for n, _ in g["params"]
    ]
    assert density(optimizer, wrapped) == density(optimizer, net)
    whole = whole_filters(wrapped, masks, SMALL)
    assert list(whole) == list(whole_filters(net, masks, SMALL))
    longer = {f"module._orig_mod.{name}": mask for name, mask in masks.items()}
    with masked(wrapped, longer):
        for name, mask in masks.items():
            assert not inner.get_parameter(name)[~mask].any()
    small, own = compact(wrapped, longer, SMALL), compact(net, masks, SMALL)
    assert [p.shape for p in small.parameters()] == [p.shape for p in own.parameters()]
    assert type(small) is type(net)
    save_compact(wrapped, tmp_path / "net.pt")
    assert list(load_compact(tmp_path / "net.pt", lambda: copy.deepcopy(net)).state_dict()) == list(
        net.state_dict()
    )
    assert type(shrink(wrapped, optimizer, SMALL).model) is type(net)
    assert apply_masks_(wrapped, longer) is inner


@pytest.mark.parametrize("wrap", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_what_reads_or_steers_an_optimizer_takes_a_wrapped_one(wrap):
    net, optimizer, _, _ = trained_filters()
    wrapped = wrap(optimizer)
    for read in (support_masks, split_table):
        assert str(read(wrapped)) == str(read(optimizer))
    for rank in (gamma_ranking, magnitude_ranking, lambda o: scale_ranking(o, net, SMALL)):
        assert str(rank(wrapped)) == str(rank(optimizer))
    assert density(wrapped, net) == density(optimizer, net)
    with sparse_weights(wrapped, net):
        assert not net[0].weight[~support_masks(optimizer)["0.weight"]].any()


@pytest.mark.parametrize("wrap", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_what_is_attached_to_a_wrapped_optimizer_sees_its_steps(wrap):
    torch.manual_seed(0)
    net = make_net()
    masks = {"3.weight": torch.rand(4, 6, 3, 3) < 0.5}

    def fresh(net=net):
        return DessiLBI(split_groups(net, nu=0.1, lam=0.01, apart=True), lr=0.1)

    attached = [
        lambda o: TargetDensity(o, 0.5, steps=8, ramp=0),
        lambda o: TargetCost(o, net, X, macs=0.5, steps=8, ramp=0),
        GammaMomentum,
        FallingNu,
        lambda o: Release(o, 2),
        release_,
        lambda o: MaskedTraining(net, o, masks),
        lambda o: FrozenTraining(net, o, masks, freeze="kept"),
        lambda o: reinitialise_(net, o, masks),
    ]
    for attach in attached:
        optimizer = fresh()
        wrapped = wrap(optimizer)
        held = attach(wrapped)
        path = PathRecorder(wrapped)
        assert path.optimizer is optimizer
        for _ in range(8):
            for p in net.parameters():
                p.grad = torch.zeros_like(p)
            optimizer.step()
        assert path.step == 8
        if hasattr(held, "detach"):
            held.detach()
    found = forecast(wrapped, 8)
    assert [row.names for row in found] == [["0.weight"], ["3.weight"], ["5.weight"]]


def test_what_is_split_twice_or_too_late_is_refused_in_one_line():
    net, optimizer, _, _ = trained_filters()
    with pytest.raises(TypeError, match="^base must not split already, got AcceleratedOptimizer$"):
        Split(accelerated(optimizer))
    base = accelerated(torch.optim.SGD(split_groups(net), lr=0.1))
    said = "^base must be split before a trainer prepares it, got a "
    with pytest.raises(TypeError, match=said + "AcceleratedOptimizer$"):
        Split(base)
    with pytest.raises(TypeError, match=said + "LightningSGD$"):
        Split(LightningOptimizer(torch.optim.SGD(split_groups(net), lr=0.1)))
    target = TargetDensity(optimizer, 0.5, steps=8)
    with pytest.raises(ValueError, match="^a level must be steered by one controller, got a secon"):
        TargetDensity(optimizer, 0.5, steps=8)
    target.detach()
    TargetDensity(optimizer, 0.5, steps=8)


def test_a_state_of_another_optimizer_is_refused_in_one_line():
    net, optimizer, _, _ = trained_filters()
    foreign = torch.optim.SGD(
        [dict(params=g["params"]) for g in optimizer.param_groups], lr=0.1
    ).state_dict()
    with pytest.raises(ValueError, match="^state_dict must be of a DessiLBI, got groups without"):
        optimizer.load_state_dict(foreign)
    split = Split(torch.optim.SGD(split_groups(net), lr=0.1))
    with pytest.raises(ValueError, match="^state_dict must be of a Split, got groups without"):
        split.load_state_dict(foreign)


def test_an_optimizer_of_a_wrapped_model_has_the_names_of_the_model():
    for wrap in (torch.compile, nn.DataParallel):
        net = make_net()
        named = wrap(net).named_parameters()
        weights = [(name, p) for name, p in named if p.ndim > 1]
        optimizer = DessiLBI(weights, penalty="l1", lr=0.1, lam=1e-3)
        assert list(support_masks(optimizer)) == ["0.weight", "3.weight", "5.weight"]
        assert list(PathRecorder(optimizer, elements=True).entry) == list(support_masks(optimizer))


def test_a_submodule_with_the_name_of_a_wrapper_keeps_it():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.module, self.head = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(self.module(x))

    net = Two()
    optimizer = DessiLBI(split_groups(net), lr=0.1)
    masks = support_masks(optimizer)
    assert list(masks) == ["module.weight", "head.weight"]
    apply_masks_(net, masks)
    assert not net.module.weight.any()
    assert plain_names(["module.a", "head.b"]) == ["module.a", "head.b"]
    assert plain_names(["module.a", "module._orig_mod.b"]) == ["a", "b"]
    assert plain_name("_orig_mod.module.layer._orig_mod.weight") == "layer.weight"

    class Around(nn.Module):  # a module of one's own that is no wrapper
        def __init__(self):
            super().__init__()
            self.module = make_net()

        def forward(self, x):
            return self.module(x)

    net = Around()
    optimizer = DessiLBI(split_groups(net), lr=0.1)
    whole = whole_filters(net, support_masks(optimizer), X)
    assert all(name.startswith("module.") for name in whole)
    assert density(optimizer, net).nonzero_split == 0
