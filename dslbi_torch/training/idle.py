"""Options that would do nothing beside others, and are refused where they are asked for."""

import dataclasses
from collections.abc import Iterable

# What a field needs to have an effect, in words, and whether a config has it.
_STEP = "schedule step", lambda c: c.schedule == "step"
_OWN = "optimizer dessilbi", lambda c: c.optimizer == "dessilbi"
_SGD = "optimizer dessilbi or sgd", lambda c: c.optimizer in ("dessilbi", "sgd")
_PATH = "an optimizer that splits", lambda c: c.splits
NEEDS = {
    **dict.fromkeys(("milestones", "factor"), _STEP),
    "lr_min": ("schedule cosine", lambda c: c.schedule == "cosine"),
    **dict.fromkeys(("decoupled", "coupling", "fused"), _OWN),
    **dict.fromkeys(("momentum", "dampening", "nesterov"), _SGD),
    **dict.fromkeys(("kappa", "nu", "lam_conv", "lam_linear", "lam_named", "elements"), _PATH),
    "nu_schedule": (
        "an optimizer that splits, and an lr that falls,",
        lambda c: c.splits and c.schedule != "constant",
    ),
    "ramp": ("a target", lambda c: bool(c.target)),
}


def refuse_idle(config, names: Iterable[str]) -> None:
    """ValueError for a field of these that differs from its default and does nothing.

    A config may have others such: a baseline inherits nu and milestones from its recipe. What
    someone asks for by name is meant to have an effect.
    """
    default = {f.name: f.default for f in dataclasses.fields(config)}
    for name in names:
        words, holds = NEEDS.get(name, ("", lambda _: True))
        value = getattr(config, name)
        if value != default[name] and not holds(config):
            raise ValueError(f"{name} needs {words} to have an effect, got {value!r} without")


def refuse_flat(config, names: Iterable[str]) -> None:
    """ValueError where fewer epochs leave none of the milestones of a recipe."""
    inherited = "epochs" in names and "milestones" not in names and config.schedule == "step"
    if inherited and config.milestones[0] >= config.epochs:
        raise ValueError(
            f"milestones must name an epoch before the last, {config.epochs}, got those of the "
            f"recipe, {config.milestones}: give milestones, or schedule constant"
        )
