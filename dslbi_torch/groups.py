"""Which tensors of a model are split, and how their entries are grouped."""

from torch import nn

_KINDS = {"conv": (nn.Conv1d, nn.Conv2d, nn.Conv3d), "linear": (nn.Linear,)}


def _level(lam, kind, name):
    """The penalty level of a tensor: its own, else that of its kind, else the one for all."""
    return lam.get(name, lam[kind]) if isinstance(lam, dict) else lam


def split_groups(
    model: nn.Module,
    conv: str | None = "group",
    linear: str | None = "l1",
    *,
    lam: float | dict[str, float] = 1.0,
    weight_decay: float = 0.0,
    weight: str | None = None,
    **options,
) -> list[dict]:
    """Parameter groups for :class:`dslbi_torch.DessiLBI`: weights split, the rest plain.

    Parameters
    ----------
    model : Module
    conv, linear : "group", "l1" or None
        Penalty of the weights of convolutions and of linear layers: per output filter or neuron
        ("group"), per weight ("l1"), or none.
    lam : float > 0, or dict with the keys "conv" and "linear"
        Penalty level. Further keys of the dict name single tensors ("conv3.weight").
    weight_decay : float >= 0
        For the weights of convolutions and linear layers; biases and norms get none.
    weight : None or "sqrt"
        Threshold of a group: lam, or lam times the square root of its size.
    **options
        Any other option of the optimizer, for the split tensors (nu, kappa, coupling, ...).

    Returns
    -------
    list of dict
        One group per kind and level, with named parameters; the last holds what is not split. Every
        trainable parameter is in exactly one group.

    Raises
    ------
    ValueError
        For an unknown penalty, or a model in which nothing would be split although a penalty is
        asked.
    """
    for name, penalty in (("conv", conv), ("linear", linear)):
        if penalty not in (None, "l1", "group"):
            raise ValueError(f'{name} must be "group", "l1" or None, got {penalty!r}')
    weights, seen = {"conv": [], "linear": []}, set()
    for prefix, module in model.named_modules():
        kind = next((kind for kind, types in _KINDS.items() if isinstance(module, types)), None)
        if kind and module.weight.requires_grad and id(module.weight) not in seen:
            seen.add(id(module.weight))
            weights[kind].append((f"{prefix}.weight" if prefix else "weight", module.weight))
    if isinstance(lam, dict):
        names = {name for kind in weights.values() for name, _ in kind}
        if not {"conv", "linear"} <= set(lam) <= {"conv", "linear"} | names:
            raise ValueError(
                'lam must be a number, or a dict with the keys "conv" and "linear" and names '
                f"among {sorted(names)}, got the keys {sorted(lam)}"
            )
    groups = []
    for kind, penalty in (("conv", conv), ("linear", linear)):
        levels = {}  # one group for each level of the kind, in the order of the model
        for name, p in weights[kind]:
            levels.setdefault(_level(lam, kind, name), []).append((name, p))
        for level, params in levels.items():
            group = dict(params=params, penalty=penalty, weight_decay=weight_decay)
            if penalty is not None:
                group.update(lam=level, weight=weight, **options)
            groups.append(group)
    if (conv or linear) and not any(group["penalty"] for group in groups):
        raise ValueError(
            f"the model must have a trainable layer to split for conv={conv!r}, linear={linear!r}, "
            "got none"
        )
    rest = [(n, p) for n, p in model.named_parameters() if p.requires_grad and id(p) not in seen]
    if rest:
        groups.append(dict(params=rest, penalty=None, weight_decay=0.0))
    return groups
