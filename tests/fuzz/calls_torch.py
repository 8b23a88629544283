"""A valid call of every public function of the library; what is not called by name says why."""

import torch
from accelerate import Accelerator
from fuzz.calls_torch_surgery import CALLS as SURGERY
from fuzz.mutate import Call
from fuzz.small_net import (
    are_masks,
    attached,
    density_is_met,
    is_prox,
    make_net,
    ones,
    saved,
    steered,
    stepped,
    stepping,
    within,
    world,
)

import dslbi_torch as d
from dslbi_torch import dessilbi, penalties
from dslbi_torch.integrations import record_files
from dslbi_torch.integrations.accelerate import keep_record
from dslbi_torch.integrations.huggingface import RecordCallback
from dslbi_torch.masks import algebra, ranking, semi_structured

# Modules of what their callers have checked, or that check; the laboratory has its command line.
INNER = """bits crossings forward layers options arguments routes safe_files sharding slices state
    steering torch_private units kinds training __main__ masks.hold recorded_path wrapped""".split()
RULES = """channel_factors contraction_rules coupling cut_costs equality followers insertion
    live_axes moving_rules narrowing needed plain_rules relations resizing saved_sizes time_costs
    tracing unknowns whole_norm"""
INNER += [f"surgery.{name}" for name in RULES.split()]
# Parts of one room, which its public functions call.
INNER_NAMES = {
    "clock.lr_course",
    "split_table.pairs_of",
    "dessilbi.one_by_one_",
    "dessilbi.unchecked_gamma",
    "dessilbi.step_",  # the optimizer checks what it is given
    "integrations.accelerate.print_density",  # what density_line returns
    "integrations.lightning.LightningRecord",  # a PathRecorder gets its options
    "integrations.record_files.check_recorder",
    "release.check_unbegun",
    "masks.apply.restored",
    "masks.checks.check_bool_tensors",
    "masks.checks.check_masks",
    "masks.checks.check_same_tensors",
    "masks.swap.drop_gathered",
    "optional.brought_by",
    "penalties.factor",
    "penalties.one_of",
    "surgery.channels.is_output",
    "surgery.compact.replace_padding",
    "surgery.compact.sharing_copy",
    "surgery.compact.watched",
    "surgery.costs.attention_in_parts",
    "surgery.fold_norms.has_foldable",
    "surgery.layer_times.times_of",
    "surgery.measure.machine_of",
    "surgery.measure.seconds_of_pass",
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


# ---- The table -------------------------------------------------------------------------------

OPTIONS = dict(lr=0.1, kappa=1.0, nu=10.0, lam=0.05, penalty="group", group_dim=0, block=1)
OPTIONS |= dict(parts=1, joint=False, weight=None, momentum=0.9, dampening=0.0, weight_decay=0.0)
OPTIONS |= dict(decoupled=False, nesterov=False, coupling="outside", maximize=False, foreach=None)
OPTIONS |= dict(fused=None, capturable=False)


def some_losses(optimizer):
    """One loss that depends on all that an optimizer has."""
    groups = getattr(optimizer, "param_groups", [])
    return [sum((p.square().sum() for g in groups for p in g["params"]), torch.zeros(()))]


GROUPS = dict(rules=None, conv="group", linear="l1", lam=0.5, weight_decay=0.0, weight=None)
GROUPS |= dict(apart=False, outputs=False, nu=10.0, kappa=1.0)


UNITS = dict(group_dim=0, weight=None)
CALLS = {
    **SURGERY,
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
    "split_table.split_table": Call(d.split_table, world("groups", "model")),
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
    "weighing.weigh_units_": Call(
        lambda optimizer, model, example_input, losses: d.weigh_units_(
            *(optimizer, model, example_input),
            some_losses(optimizer) if losses is None else losses,
        ),
        world("fresh", "optimizer", "model", "example_input", losses=None),
        says=("path", "units", "BatchNorm"),
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
    # other trainers
    "integrations.huggingface.RecordCallback": Call(
        lambda **given: RecordCallback(**given) and None, world("recorder")
    ),
    "integrations.accelerate.keep_record": Call(
        keep_record, world("recorder", accelerator=lambda: Accelerator(cpu=True))
    ),
    "integrations.record_files.write_record": Call(
        record_files.write_record, world("recorder", folder=".", here=True), says=("file",)
    ),
    "integrations.record_files.read_record": Call(
        lambda recorder, folder: (
            record_files.write_record(recorder, ".") or record_files.read_record(recorder, folder)
        ),
        world("recorder", folder="."),
        says=("file", "checkpoint"),
    ),
    "integrations.record_files.density_line": Call(
        record_files.density_line, world("recorder", "model")
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
}


# Words by which an error may name what is in a container, or what an argument is of.
WORDS = (
    "params",
    "example_input",
    "filters",
    "mask",
    "penalty",
    "weight",
    "group_dim",
    "parameter",
    "lam",
)
CALLS = {name: call._replace(says=(*call.says, *WORDS)) for name, call in CALLS.items()}


def two_masks():
    masks = world("masks")()["masks"]
    return dict(masks=masks, others={name: ~mask for name, mask in masks.items()})
