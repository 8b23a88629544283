"""What is split, and what is left whole, as a table."""

from torch import Tensor, nn
from torch.optim import Optimizer

from .arguments import check_list, check_model, shown
from .kinds import owned_tensors
from .penalties import PENALTIES, penalty_named
from .slices import checked_units, unit_size, units_of
from .text import text_table
from .units import named
from .wrapped import unwraps

_FEW = 12  # so many tensors that are left whole are named, whatever they are


@unwraps
def split_table(groups: list[dict] | Optimizer, model: nn.Module | None = None) -> str:
    """Return what an optimizer splits, and what it leaves whole: a table of one line per tensor.

    Brackets hold the axes along which groups are slices. In a joint family, each line says how many
    entries of a unit its tensor holds. The last line is what is left unpenalised; of many tensors,
    those of one axis (biases, norms) are counted only.

    Parameters
    ----------
    groups : list of dict, or DessiLBI or Split
        What :func:`dslbi_torch.split_groups` returned, or an optimizer of it.
    model : Module, optional
        With it the last line says to what kind of module a tensor belongs, and to what it is tied.
    """
    kinds = {} if model is None else _kinds_in(check_model(model))
    if isinstance(groups, Optimizer):
        own = groups.param_groups
        groups = [{**g, "params": pairs} for g, pairs in zip(own, named(own), strict=True)]
    rows, left = [], []
    for group in check_list("groups", groups):
        for name, p in pairs_of(group):
            if group.get("penalty") is None:
                left.append((name, p))
            else:
                rows.append((name, "x".join(map(str, p.shape)), *_shown(p, group)))
    head = ("tensor", "shape", "penalty", "groups", "of size", "lam", "nu", "weight")
    total = sum(p.numel() for _, p in left)
    shown_ones = left if len(left) <= _FEW else [(name, p) for name, p in left if p.ndim > 1]
    names = [name + kinds.get(name, "") for name, _ in shown_ones]
    more = len(left) - len(shown_ones)
    names += [f"{more} of one axis"] if more else []
    return (
        f"{text_table(head, rows, '<<<>>>>>')}\n"
        f"unpenalised: {len(left)} tensors, {total:,} parameters ({', '.join(names)})"
    )


def _kinds_in(model):
    """By name, what holds a tensor, in words."""
    found = {}
    for own in owned_tensors(model):
        first, *tied = own.names
        found[first] = f" of {type(own.module).__name__}"
        found[first] += f", tied to {', '.join(tied)}" if tied else ""
    return found


def pairs_of(group: dict) -> list[tuple[str, Tensor]]:
    """Return the parameters of a group with their names; refuse what is not of split_groups."""
    whole = isinstance(group, dict) and "params" in group
    pairs = check_list("params", group["params"]) if whole else [None]
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], Tensor)):
            raise ValueError(f"groups must have named params, got {shown(group)}")
    if group.get("penalty") is not None:
        penalty_named(group["penalty"])
        checked_units(units_of(group))
    return pairs


def _shown(p, group):
    """Return penalty, number and size of the groups of a tensor, and its options, as text."""
    size, penalty = 1, group["penalty"]
    if PENALTIES[penalty].sliced:
        units = units_of(group)
        size = unit_size([p], units)
        dim = units.group_dim
        kept = (dim,) if isinstance(dim, int) else dim
        penalty += f"[{','.join(map(str, kept))}]"
        penalty += "".join(f" {k} {n}" for k in ("block", "parts") if (n := getattr(units, k)) > 1)
        penalty += " joint" if group.get("joint") else ""
    options = (group.get(key) for key in ("lam", "nu", "weight"))
    options = ("-" if x is None else x if isinstance(x, str) else f"{x:g}" for x in options)
    return penalty, p.numel() // size, size, *options
