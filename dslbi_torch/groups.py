"""Which tensors of a model are split, and how their entries are grouped."""

import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

from .arguments import check_flag, check_kind, check_model, shown
from .kinds import Owned, inputs_first, output_weights, owned_tensors
from .penalties import PENALTIES
from .surgery.channels import Coupling, coupled_channels, is_output
from .wrapped import unwraps

# What a rule may say of a weight: the axes along which groups are slices, and the least number of
# axes of the weight.
_GROUPINGS = {
    "group": (0, 1),  # slices along the first axis, whatever they are
    "filter": (0, 3),
    "input channel": (1, 3),
    "kernel": ((0, 1), 3),
    "row": (0, 2),
    "column": (1, 2),
    "tensor": ((), 1),
}
_COUPLED = ("channel", "head")  # found by the graph of the net
WORDS = tuple(dict.fromkeys((*PENALTIES, *_GROUPINGS, *_COUPLED)))
_UNCOUPLED = ("slices", "dense", "refuse")


@unwraps
def split_groups(
    model: nn.Module,
    rules: Mapping | None = None,
    *,
    conv: str | None = "group",
    linear: str | None = "l1",
    lam: float | dict[str, float] = 1.0,
    weight_decay: float = 0.0,
    weight: str | None = None,
    apart: bool = False,
    outputs: bool = False,
    example_input=None,
    uncoupled: str = "slices",
    **options,
) -> list[dict]:
    """Return parameter groups for :class:`dslbi_torch.DessiLBI`: weights split, the rest plain.

    Parameters
    ----------
    model : Module
    rules : dict, optional
        What differs from the defaults below. A key says which weights: a parameter's name
        (``"conv3.weight"``), a module's (``"conv3"``: its weight), a pattern of either
        (``"layer*.conv?.weight"``, ``"blocks.*.mlp.fc1"``), or a module type (``nn.Embedding``).
        The value is a penalty, None, or a dict of options (``penalty, lam, nu, kappa, weight,
        coupling, block, parts, joint, ...``) of which those left out keep their default. Where
        several rules match, the later one wins, option by option.
    conv, linear : penalty or None
        Of the weights of convolutions and of linear layers. To these belong the projections of
        ``nn.MultiheadAttention`` and the ``Conv1D`` of Hugging Face. What else there is, is split
        by rules only: embeddings, also where they are tied to a linear layer, norms, biases.
    lam : float > 0, or dict with the keys "conv" and "linear"
        Penalty level; of a dict, what only a rule splits has level 1.
    weight_decay : float >= 0
        For the weights of convolutions, linear layers and what a rule splits; the rest gets none.
    weight : None or "sqrt"
        Threshold of a group: lam, or lam times the square root of its size.
    apart : bool
        Every split tensor (every joint family) has a parameter group of its own, so that its level
        can be set by itself.
    outputs : bool
        Whether layers that give the outputs of the model are split as others are. Otherwise they
        are left whole where they are known (:func:`dslbi_torch.kinds.output_weights`): the model
        says which they are, as those of Hugging Face and timm do, or there is an example. A rule
        splits them all the same.
    example_input : Tensor, or tuple or dict of tensors
        What the model takes; needed where something is split by "channel" or "head".
    uncoupled : "slices", "dense" or "refuse"
        What becomes of a weight whose channels cannot be coupled: its own slices are groups, and a
        warning names it and the reason; it is left unpenalised; or an error says so. The layer that
        gives the outputs of the net is left unpenalised in any case.
    **options
        Any other option of the optimizer, for the split tensors (nu, coupling, ...). ``kappa`` is
        for all: biases and norms move at the speed of the weights, as in the authors' code.

    Returns
    -------
    list of dict
        One group per set of options (see ``apart``), with named parameters; the last holds what is
        not split. Every trainable parameter is in exactly one group, under its first name.
        :func:`dslbi_torch.split_table` shows it.

    Raises
    ------
    ValueError
        For an unknown penalty, a weight that has no such groups, a rule that matches nothing, or a
        model in which nothing would be split although a penalty is asked.

    Notes
    -----
    A penalty is "l1" (every weight by itself), or says what a group is: "group" (a slice along the
    first axis: an output filter, a neuron), "filter", "input channel" or "kernel" of a convolution,
    "row" or "column" of a matrix, or the whole "tensor"; or it is another word of
    ``penalties.PENALTIES``, whose groups are those of "group". Transposed convolutions, whose first
    axis is the input, are grouped by what the word means. For a word of the table an option
    ``group_dim`` says otherwise.

    "channel" makes one unit of a channel and all that writes it
    (:mod:`dslbi_torch.surgery.channels`), so that a unit that dies can be cut: of attention, the
    rows of queries, keys and values of a head. "head" is the same for heads only. Of a pair of
    layers that write a channel, both must be split so.

    With ``joint`` a rule makes one family of all that it matches: the k-th groups of its tensors
    are one unit.
    """
    check_model(model)
    check_flag("apart", apart)
    check_flag("outputs", outputs)
    check_kind("rules", {} if rules is None else rules, Mapping, "a dict of rules")
    defaults = _defaults(conv, linear, lam, dict(weight=weight, **options))
    rules = {key: _as_options(key, rule) for key, rule in (rules or {}).items()}
    parameters = [own for own in owned_tensors(model) if own.tensor.requires_grad]
    _check_used(rules, parameters, model)
    left = [] if outputs else [id(W) for W in output_weights(model, example_input)]
    words = {conv, linear, *(rule.get("penalty") for rule in rules.values())}
    coupling = _coupling(model, example_input, words, uncoupled)
    split, plain, said = {}, {}, {}  # in the order of the model
    for own in parameters:
        (name, *_), p, _, kind = own
        if kind == "other" and name in coupling.axes:  # it writes channels, as a linear layer does
            kind = "linear"
        layer = kind in ("conv", "linear")
        matching = {key: rule for key, rule in rules.items() if _matches(key, own)}
        chosen = dict(defaults[kind if layer else "other"])
        if id(p) in left:
            chosen["penalty"] = None
        for rule in matching.values():
            chosen |= rule
        chosen["weight_decay"] = weight_decay if layer or matching else 0.0
        family = _coupled(name, chosen, coupling, uncoupled, said)
        if chosen["penalty"] is None:
            found, group = plain, {k: chosen[k] for k in _PLAIN if k in chosen}
        else:
            found, group = split, chosen | _grouping(own, chosen)
        joint = next((k for k, rule in reversed(matching.items()) if rule.get("joint")), family)
        alone = apart and chosen["penalty"] is not None and joint is None
        key = repr((joint, name if alone else None, sorted(group.items())))
        found.setdefault(key, (group, []))[1].append((name, p))
    if not split and "head" in words:
        raise ValueError("the model must have heads of attention to split by 'head', found none")
    if not split and (conv or linear or rules):
        raise ValueError(
            f"the model must have a trainable layer to split for conv={conv!r}, linear={linear!r}, "
            "got none"
        )
    _warn_of_uncoupled(said)
    rest = sorted(plain.values(), key=lambda found: -found[0]["weight_decay"])
    return [dict(params=params, **group) for group, params in (*split.values(), *rest)]


def _coupling(model, example_input, words, uncoupled):
    """Return the units of the net, where a word asks for them."""
    if uncoupled not in _UNCOUPLED:
        raise ValueError(f"uncoupled must be one of {', '.join(_UNCOUPLED)}, got {uncoupled!r}")
    asked = [word for word in _COUPLED if word in words]
    if not asked:
        return Coupling([], {}, {})
    if example_input is None:
        raise ValueError(f"example_input must be given where weights are split by {asked[0]!r}")
    return coupled_channels(model, example_input)


def _coupled(name, chosen, coupling, uncoupled, said):
    """Put the units of a weight that is split by channels into its options; return a key of the
    family that it belongs to, if it is not alone there."""
    word = chosen["penalty"]
    if word not in _COUPLED:
        return None
    families = [f for f in coupling.families if name in f.names]
    if families and (word == "channel" or families[0].heads):
        (family,) = families
        chosen |= dict(penalty="group", group_dim=family.group_dim)
        chosen |= {key: n for key in ("block", "parts") if (n := getattr(family, key)) > 1}
        joint = len(family.names) > 1
        chosen |= dict(joint=True) if joint else {}
        return family.names[0] if joint else None
    reason = coupling.alone.get(name)
    if reason is None and not families:  # it writes no channels, but follows some, or is not used
        chosen["penalty"] = None
        return None
    if word == "head" or uncoupled == "dense" or is_output(reason):  # no heads, nothing to cut
        chosen["penalty"] = None
    elif uncoupled == "refuse":
        raise ValueError(f"the channels of {name} must be coupled, but cannot be: {reason}")
    else:
        said.setdefault(reason, []).append(name)
        chosen |= dict(penalty="group", group_dim=coupling.axes.get(name, 0))
    return None


def _warn_of_uncoupled(said):
    """Warn of the weights whose slices are split by themselves, once for each reason."""
    for reason, names in said.items():
        more = ", ..." if len(names) > 4 else ""
        warnings.warn(
            f"slices of {', '.join(names[:4])}{more} are split by themselves: {reason}",
            stacklevel=4,
        )


_PLAIN = ("penalty", "weight_decay", "kappa")  # options of tensors that are not split


def _defaults(conv, linear, lam, common):
    """Return the options of convolutions, of linear layers, and of what only a rule splits."""
    _check_penalty("conv", conv)
    _check_penalty("linear", linear)
    if isinstance(lam, dict) and set(lam) != {"conv", "linear"}:
        raise ValueError(
            'lam must be a number, or a dict with the keys "conv" and "linear", '
            f"got the keys {sorted(lam)}"
        )
    penalties = {"conv": conv, "linear": linear, "other": None}
    levels = {"other": 1.0, **lam} if isinstance(lam, dict) else dict.fromkeys(penalties, lam)
    return {kind: dict(common, penalty=penalties[kind], lam=levels[kind]) for kind in penalties}


def _check_penalty(name, penalty):
    if penalty is not None and not (isinstance(penalty, str) and penalty in WORDS):
        raise ValueError(f"{name} must be None or one of {', '.join(WORDS)}, got {shown(penalty)}")


def _as_options(key, rule):
    options = dict(rule) if isinstance(rule, Mapping) else {"penalty": rule}
    if not (isinstance(key, str) or (isinstance(key, type) and issubclass(key, nn.Module))):
        raise ValueError(f"a rule must be for a name, a pattern or a module type, got {key!r}")
    word = options.get("penalty")
    _check_penalty(f"penalty of rule {key!r}", word)
    if "group_dim" in options and word in _GROUPINGS.keys() - PENALTIES.keys():
        raise ValueError(
            f"group_dim of rule {key!r} must be left out for penalty {word!r}, which says it, got "
            f"{options['group_dim']!r}"
        )
    return options


def _matches(key, own: Owned):
    if isinstance(key, type):
        return isinstance(own.module, key) and own.tensor is getattr(own.module, "weight", None)
    return any(fnmatchcase(name, key) or fnmatchcase(name, f"{key}.weight") for name in own.names)


def _check_used(rules, parameters, model):
    """Refuse a rule that matches nothing, with what is called like it."""
    for key in rules:
        if any(_matches(key, own) for own in parameters):
            continue
        if isinstance(key, type):
            own, names = key.__name__, {type(own.module).__name__ for own in parameters}
        else:
            modules = (name for name, module in model.named_modules() if hasattr(module, "weight"))
            own, names = key, {name for own in parameters for name in own.names}.union(modules)
        near = get_close_matches(own, sorted(names), n=5, cutoff=0.5)
        like = f"such as {', '.join(near)}" if near else "and none is called like it"
        raise ValueError(f"rule {own!r} must match a trainable parameter, {like}")


def _grouping(own: Owned, chosen):
    """Return the options ``penalty`` and ``group_dim`` that a word means for a weight."""
    word, p = chosen["penalty"], own.tensor
    if word in PENALTIES and not PENALTIES[word].sliced:
        return dict(penalty=word)
    if word in PENALTIES and "group_dim" in chosen:
        return dict(penalty=word, group_dim=chosen["group_dim"])
    dim, least = _GROUPINGS.get(word, _GROUPINGS["group"])
    matrix = word in ("row", "column")
    if p.ndim < least or (matrix and p.ndim != 2):
        raise ValueError(f"{own.names[0]} of shape {tuple(p.shape)} has no groups of kind {word!r}")
    if inputs_first(own.module) and isinstance(dim, int):
        dim = 1 - dim
    return dict(penalty=word if word in PENALTIES else "group", group_dim=dim)
