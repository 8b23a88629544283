"""A valid call of every public function of the library; what is not called by name says why."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from fuzz.mutate import Call, pick
from torch import nn

import dslbi_torch as d
from dslbi_torch import dessilbi, figures, penalties, saliency
from dslbi_torch.masks import algebra, ranking, semi_structured
from dslbi_torch.surgery import compact, costs, measure, saving, shrink, widen

# Modules of what their callers have checked, or that check; the laboratory has its command line.
INNER = """bits crossings forward layers options arguments routes safe_files sharding slices state
    steering torch_private units training __main__ masks.hold recorded_path""".split()
RULES = """channel_factors contraction_rules coupling cut_costs equality insertion live_axes
    moving_rules needed plain_rules relations resizing tracing unknowns whole_norm"""
INNER += [f"surgery.{name}" for name in RULES.split()]
# Parts of one room, which its public functions call.
INNER_NAMES = {
    "clock.lr_course",
    "groups.pairs_of",
    "dessilbi.one_by_one_",
    "dessilbi.step_",  # the optimizer checks what it is given
    "masks.apply.restored",
    "masks.checks.check_bool_tensors",
    "masks.checks.check_masks",
    "masks.checks.check_same_tensors",
    "masks.swap.drop_gathered",
    "penalties.factor",
    "penalties.one_of",
    "surgery.compact.replace_padding",
    "surgery.compact.sharing_copy",
    "surgery.compact.watched",
    "surgery.costs.attention_in_parts",
    "surgery.fold_norms.has_foldable",
    "target_cost.factor_of_cost",
    "surgery.widen.reset",
    "target.factors_of_density",
    "text.one_line",
    "text.text_table",
    "masks.semi_structured.semi_structured",  # needs a GPU
    "verify.devices",
    "verify.routes",
    "verify.verify",
    "verify.table",
}


# ---- A small net in the middle of its path ----------------------------------------------------


def make_net(width=4):
    torch.manual_seed(0)
    layers = nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 3, 3)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(12, 3))


def stepped(optimizer, model, n=3):
    for p in model.parameters():
        p.grad = 0.1 * torch.ones_like(p)
    for _ in range(n):
        optimizer.step()
    return optimizer


def make_optimizer(model, steps=3):
    groups = d.split_groups(model, nu=0.5, lam=0.05)
    return stepped(d.DessiLBI(groups, lr=0.1), model, steps)


def world(*wanted, **more):
    """Fresh arguments by name: a net, its optimizer, a recorder, masks, a batch."""

    def arguments():
        model = make_net()
        optimizer = make_optimizer(model, 0 if "fresh" in wanted else 3)
        made = {"model": model, "optimizer": optimizer, "example_input": torch.ones(2, 1, 6, 6)}
        if "recorder" in wanted:
            new = make_optimizer(model, 0)
            made["recorder"] = d.PathRecorder(new, elements=True, at=(0.01,), model=model)
            stepped(new, model)
        if "masks" in wanted:
            made["masks"] = d.support_masks(optimizer)
        if "ranking" in wanted:
            made["ranking"] = d.magnitude_ranking(optimizer)
        if "groups" in wanted:
            made["groups"] = d.split_groups(model)
        own = {key: value() if callable(value) else value for key, value in more.items()}
        return {key: made[key] for key in wanted if key in made} | own

    return arguments


def _other_net(net, rng):
    with torch.no_grad():
        nan = make_net()
        nan[0].weight[0, 0, 0, 0] = torch.nan
    nets = (
        nan,
        make_net(6),
        nn.Sequential(),
        nn.Linear(3, 2),
        make_net().half(),
        make_net().double(),
    )
    return pick(rng, (*nets, make_net().requires_grad_(False), nn.ModuleList([nn.ReLU()])))


def _other_optimizer(optimizer, rng):
    net = make_net()
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    split = d.Split(torch.optim.Adam(d.split_groups(net), lr=0.1))
    return pick(rng, (sgd, split, make_optimizer(net), make_optimizer(make_net(6), 0)))


def _tensor(x, rng):
    dtypes = (
        torch.float16,
        torch.bfloat16,
        torch.float64,
        torch.complex64,
        torch.int64,
        torch.bool,
    )
    shapes = (
        lambda x: x[:0],
        lambda x: x[..., :0],
        lambda x: x.flatten(),
        lambda x: x[None],
        lambda x: x[..., None],
        lambda x: x[:-1],
        lambda x: x[..., :-1],
        lambda x: x.mT if x.ndim > 1 else x,
        lambda x: x.sum(),
        lambda x: x.numpy(),
        lambda x: x.tolist(),
        lambda x: x.to_sparse(),
        lambda x: x.to("meta"),
        lambda x: 0 * x,
    )
    way = rng.integers(4)
    if way == 0:
        return x.to(pick(rng, dtypes))
    if way == 1:
        return pick(rng, shapes)(x)
    x = x.float() if way == 2 else x.clone()
    if way == 2:
        return x * pick(rng, (1e30, 1e-30, -1.0, 1e38))
    if x.numel() and x.is_floating_point():
        x.view(-1)[rng.integers(x.numel())] = pick(rng, (np.nan, np.inf, -np.inf, 1e38, 1e-44))
    return x


def _other_ranking(ranking, rng):
    return ranking._replace(**{pick(rng, ranking._fields): pick(rng, ({}, None, [], 3))})


OTHERS = (
    (nn.Module, _other_net),
    (torch.optim.Optimizer, _other_optimizer),
    (torch.Tensor, _tensor),
    (ranking.Ranking, _other_ranking),
)

# ---- Checks of results -----------------------------------------------------------------------


def are_masks(masks, given):
    for mask in masks.values():
        assert mask.dtype == torch.bool


def density_is_met(masks, given):
    if isinstance(given["density"], float | int) and given["per_layer"] is False:
        kept, size = (sum(f(m) for m in masks.values()) for f in (torch.sum, torch.numel))
        assert kept / size <= given["density"] + 9 / size  # one unit at least


def is_prox(shrunk, given):
    v, lam = given["v"], float(given["lam"])
    torch.testing.assert_close(shrunk, torch.sign(v) * (v.abs() - lam).clamp(min=0))


def steered(**given):
    """Return the density after some steps under a target, and what was due."""
    optimizer = given["optimizer"]
    d.TargetDensity(**given)
    for _ in range(3):
        optimizer.step()
    return {k: m.float().mean() for k, m in d.support_masks(optimizer).items()}


def stepping(make):
    def function(**given):
        model = make_net()
        optimizer = stepped(make(model, **given), model, 1)
        return list(model.parameters()), list(optimizer.state.values())

    return function


def within(manager):
    def function(**given):
        with manager(**given):
            return None

    return function


def attached(kind):
    """Attach something to an optimizer, and take steps."""

    def function(**given):
        kind(**given)
        for _ in range(2):
            given["optimizer"].step()
        return [p.detach() for group in given["optimizer"].param_groups for p in group["params"]]

    return function


def drawn(function):
    def draw(**given):
        function(**given)
        plt.close("all")

    return draw


def saved(name):
    """Return a file of masks or of a net, in the working folder."""
    if name == "net.pt":
        d.save_compact(make_net(), name, {"width": 4})
    else:
        d.save_masks(world("masks")()["masks"], name)
    return name


# ---- The table -------------------------------------------------------------------------------

OPTIONS = dict(lr=0.1, kappa=1.0, nu=10.0, lam=0.05, penalty="group", group_dim=0, block=1)
OPTIONS |= dict(parts=1, joint=False, weight=None, momentum=0.9, dampening=0.0, weight_decay=0.0)
OPTIONS |= dict(decoupled=False, nesterov=False, coupling="outside", maximize=False, foreach=None)
OPTIONS |= dict(fused=None, capturable=False)
GROUPS = dict(rules=None, conv="group", linear="l1", lam=0.5, weight_decay=0.0, weight=None)
GROUPS |= dict(apart=False, nu=10.0, kappa=1.0)


def ones(*shape):
    return lambda: torch.linspace(-1, 1, int(np.prod(shape))).reshape(shape)


LOG = [dict(epoch=k, acc_dense=0.5, acc_sparse=0.5, acc_gamma=0.5) for k in range(2)]
LOG = [row | dict(nonzero_split=0.1, nonzero_all=0.2) for row in LOG]
ROWS = [{"method": "a", "density": 0.1, "without": 0.5, "with": 0.6}]
UNITS = dict(group_dim=0, weight=None)
CALLS = {
    "dessilbi.DessiLBI": Call(
        stepping(lambda model, **given: d.DessiLBI([model[0].weight], **given)),
        lambda: dict(OPTIONS),
        foreign="optimizer.py",
        says=("Nesterov", "learning", "fused", "foreach", "parameter"),
    ),
    "dessilbi.gamma": Call(
        dessilbi.gamma,
        world(Vs=lambda: [ones(3, 2)()], kappa=1.0, lam=0.1, penalty="group", group_dim=0, block=1),
        says=("family",),
    ),
    "split.Split": Call(
        stepping(
            lambda model, base, **given: d.Split(
                torch.optim.Adam(d.split_groups(model), lr=0.1) if base is None else base, **given
            )
        ),
        lambda: dict(base=None, kappa=1.0, nu=10.0, lam=0.1),
        says=("parameter",),
    ),
    "groups.split_groups": Call(
        lambda model, **given: d.DessiLBI(d.split_groups(model, **given)) and None,
        world("model", **GROUPS),
        foreign="optimizer.py",
        says=("penalty", "rule"),
    ),
    "groups.split_table": Call(d.split_table, world("groups")),
    "penalties.soft_threshold": Call(
        penalties.soft_threshold, world(v=ones(3, 2), lam=0.1), is_prox
    ),
    "penalties.penalty_named": Call(
        lambda word: penalties.penalty_named(word).entries,
        lambda: dict(word="l1"),
        says=("penalty",),
    ),
    "penalties.l1_norm": Call(penalties.l1_norm, world(x=ones(3, 2), lam=0.1)),
    "penalties.l1_dual_norm": Call(penalties.l1_dual_norm, world(x=ones(3, 2))),
    "penalties.group_norms": Call(
        penalties.group_norms, world(x=ones(3, 2), group_dim=0, keepdim=False)
    ),
    "penalties.group_norm": Call(penalties.group_norm, world(x=ones(3, 2), lam=0.1, **UNITS)),
    "penalties.group_soft_threshold": Call(
        penalties.group_soft_threshold, world(v=ones(3, 2), lam=0.1, **UNITS)
    ),
    "penalties.group_dual_norm": Call(penalties.group_dual_norm, world(x=ones(3, 2), **UNITS)),
    # the course of the path
    "clock.forecast": Call(
        lambda **given: [row.S for row in d.forecast(**given)],
        world("optimizer", steps=1000, scheduler=None, every=1, ramp=0.0),
        says=("S",),
    ),
    "clock.suggest": Call(
        d.suggest,
        world("optimizer", steps=1000, S=5.0, density=0.5, scheduler=None, every=1, ramp=0.0),
    ),
    "clock.FallingNu": Call(attached(d.FallingNu), world("optimizer")),
    "release.Release": Call(
        attached(d.Release),
        world("fresh", "optimizer", after=1, pull=0.5, power=0.0, dense=False, steps=5),
        says=("path",),
    ),
    "release.release_": Call(
        d.release_, world("fresh", "optimizer", power=0.0, dense=True), says=("path",)
    ),
    "target.TargetDensity": Call(
        steered,
        world(
            "optimizer",
            target=0.3,
            steps=3,
            ramp=0.5,
            first=0.0,
            every=1,
            per_layer=False,
            at_least=0,
        ),
    ),
    "path_momentum.GammaMomentum": Call(
        attached(d.GammaMomentum), world("optimizer", momentum=0.5)
    ),
    "path.PathRecorder": Call(
        lambda **given: (
            stepped(given["optimizer"], make_net(), 0) and d.PathRecorder(**given).recorded()
        ),
        world("model", "optimizer", every=1, elements=True, at=lambda: [0.1], host=True),
        says=("densities", "density"),
    ),
    # masks
    "masks.algebra.union": Call(
        lambda masks, others: algebra.union(masks, others), lambda: two_masks(), are_masks
    ),
    "masks.algebra.intersection": Call(
        lambda masks, others: algebra.intersection(masks, others), lambda: two_masks(), are_masks
    ),
    "masks.algebra.nested": Call(
        lambda masks, others: algebra.nested(masks, others), lambda: two_masks()
    ),
    "masks.apply.apply_masks_": Call(
        lambda **given: d.apply_masks_(**given).state_dict(), world("model", "masks")
    ),
    "masks.apply.masked": Call(within(d.masked), world("model", "masks")),
    "masks.budget.ranked_masks": Call(
        d.ranked_masks, world("ranking", density=0.5, per_layer=False), density_is_met
    ),
    "masks.budget.density_curve": Call(
        d.density_curve,
        world("model", "ranking", evaluate=lambda: lambda model: 0.5, densities=lambda: [1, 0.5]),
        says=("density", "masks"),
    ),
    "masks.budget.random_masks": Call(d.random_masks, world("masks", seed=0), are_masks),
    "masks.crossing.crossing_masks": Call(
        d.crossing_masks, world("recorder", density=0.01), are_masks
    ),
    "masks.crossing.crossing_weights": Call(
        within(d.crossing_weights), world("recorder", density=0.01)
    ),
    "masks.density.density": Call(d.density, world("optimizer", "model")),
    "masks.density.density_table": Call(
        d.density_table, lambda: dict(report=d.density(**world("optimizer", "model")()))
    ),
    "masks.freezing.FrozenTraining": Call(
        attached(d.FrozenTraining), world("model", "optimizer", "masks", freeze="kept")
    ),
    "masks.freezing.reinitialise_": Call(
        d.reinitialise_, world("model", "optimizer", "masks", orthogonal=False)
    ),
    "masks.ranking.gamma_ranking": Call(
        lambda **given: d.gamma_ranking(**given).place, world("optimizer", normalised=False)
    ),
    "masks.ranking.entry_ranking": Call(
        lambda **given: d.entry_ranking(**given).place, world("recorder")
    ),
    "masks.ranking.magnitude_ranking": Call(
        lambda **given: d.magnitude_ranking(**given).place, world("groups")
    ),
    "masks.ranking.scale_ranking": Call(
        lambda **given: ranking.scale_ranking(**given).place,
        world("groups", "model", "example_input"),
    ),
    "masks.semi_structured.has_kernels": Call(
        semi_structured.has_kernels, lambda: dict(device="cpu")
    ),
    "masks.semi_structured.two_four_masks": Call(
        semi_structured.two_four_masks, world("model", "masks"), are_masks
    ),
    "masks.support.support_masks": Call(d.support_masks, world("optimizer"), are_masks),
    "masks.support.recorded_masks": Call(d.recorded_masks, world("recorder", step=2), are_masks),
    "masks.swap.sparse_weights": Call(within(d.sparse_weights), world("optimizer", "model")),
    "masks.swap.gamma_weights": Call(within(d.gamma_weights), world("optimizer", "model")),
    "masks.whole_filters.whole_filters": Call(
        d.whole_filters, world("model", "masks", "example_input"), are_masks
    ),
    "masks.files.save_masks": Call(d.save_masks, world("masks", file="masks.pt")),
    "masks.files.load_masks": Call(
        d.load_masks, lambda: dict(file=saved("masks.pt")), are_masks, says=("masks",)
    ),
    # surgery
    "surgery.compact.compact": Call(
        lambda **given: d.compact(**given).state_dict(),
        world("model", "masks", "example_input"),
    ),
    "surgery.compact.compact_with_masks": Call(
        lambda **given: compact.compact_with_masks(**given)[1],
        world("model", "masks", "example_input"),
        are_masks,
    ),
    "surgery.fold_norms.fold_norms": Call(
        lambda **given: d.fold_norms(**given).state_dict(), world("model", "example_input")
    ),
    "surgery.widen.widen_": Call(
        d.widen_, world("model", "optimizer", "example_input", more=lambda: {"0": 1})
    ),
    "surgery.widen.widths": Call(widen.widths, world("model", "example_input")),
    "surgery.costs.count_macs": Call(costs.count_macs, world("model", "example_input")),
    "surgery.costs.layer_costs": Call(costs.layer_costs, world("model", "masks", "example_input")),
    "surgery.shrink.shrink": Call(
        lambda **given: d.shrink(**given).model.state_dict(),
        world("model", "optimizer", "example_input", batches=lambda: [torch.ones(2, 1, 6, 6)]),
        slow=4,
    ),
    "surgery.shrink.renew_statistics_": Call(
        shrink.renew_statistics_, world("model", batches=lambda: [ones(2, 1, 6, 6)()])
    ),
    "surgery.measure.batch_times": Call(
        measure.batch_times,
        world(nets=lambda: {"a": make_net()}, x=ones(2, 1, 6, 6), rounds=2, budget=0.01),
        slow=4,
    ),
    "surgery.measure.bytes_on_disk": Call(measure.bytes_on_disk, world(net=make_net)),
    "surgery.measure.size_table": Call(
        measure.size_table, world(nets=lambda: {"a": make_net()}, x=ones(2, 1, 6, 6)), slow=20
    ),
    "target_cost.TargetCost": Call(
        attached(d.TargetCost),
        world("optimizer", "model", "example_input", steps=3, macs=0.9, ramp=0.5, at_least=0),
    ),
    "surgery.saving.save_compact": Call(
        d.save_compact, world("model", file="net.pt", architecture=lambda: {"width": 4})
    ),
    "surgery.saving.load_compact": Call(
        lambda **given: d.load_compact(**given).state_dict(),
        lambda: dict(file=saved("net.pt"), build=lambda width=4: make_net(width)),
        says=("net",),
    ),
    "surgery.saving.save_program": Call(
        saving.save_program, world("model", "example_input", file="net.pt2"), slow=50
    ),
    "surgery.saving.save_onnx": Call(
        saving.save_onnx, world("model", "example_input", file="net.onnx"), slow=50
    ),
    "surgery.costs.cost_table": Call(
        costs.cost_table,
        lambda: dict(costs=costs.layer_costs(**world("model", "masks", "example_input")())),
    ),
    # pictures
    "saliency.activation_maximisation": Call(
        saliency.activation_maximisation,
        world(
            "model",
            layer="3",
            channels=lambda: [0, 2],
            shape=(1, 6, 6),
            norm=1.0,
            steps=2,
            lr=0.5,
            seed=0,
        ),
    ),
    "saliency.guided_backprop": Call(
        saliency.guided_backprop,
        world("model", layer="3", channels=lambda: [0, 2], pictures=ones(2, 1, 6, 6)),
    ),
    "figures.density_and_accuracy": Call(
        drawn(figures.density_and_accuracy), lambda: dict(log=[dict(row) for row in LOG], axes=None)
    ),
    "figures.accuracy_by_density": Call(
        drawn(figures.accuracy_by_density),
        lambda: dict(rows=[dict(row) for row in ROWS], axes=None),
    ),
    "figures.entry_order": Call(
        figures.entry_order, lambda: dict(norms=np.array([[0.0, 1.0], [1.0, 1.0]]))
    ),
    "figures.filter_norms": Call(
        drawn(figures.filter_norms),
        lambda: dict(steps=np.arange(2), norms=np.ones((2, 3)), entry=None, ax=None, ylabel=None),
    ),
    "figures.filters": Call(
        drawn(figures.filters),
        lambda: dict(
            weight=np.ones((2, 1, 3, 3)), selected=None, columns=None, scale=None, ax=None
        ),
    ),
}


# Words by which an error may name what is in a container, or what an argument is of.
WORDS = ("example_input", "filters", "mask", "penalty", "weight", "group_dim", "parameter", "lam")
CALLS = {name: call._replace(says=(*call.says, *WORDS)) for name, call in CALLS.items()}


def two_masks():
    masks = world("masks")()["masks"]
    return dict(masks=masks, others={name: ~mask for name, mask in masks.items()})
