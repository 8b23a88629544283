"""Recipes of the fast nets for CIFAR-10: by name, a config, what it shows, and what it needs.

The dense ones have the settings of cifar10-airbench, written for the mean of a batch's losses: the
lr of a picture, the decay of an epoch and the lr of biases are those there. Those of DessiLBI are
not tuned yet: nu is such that the pull adds up to what it does in the ranking of LeNet-5.
"""

from dataclasses import replace

from .config import Config

_DENSE = Config(
    dataset="cifar10",
    model="cifar10-fast",
    shift=2,
    flip=True,
    alternate=True,
    whiten=5000,
    epochs=10,
    batch_size=512,
    optimizer="sgd",
    lr=0.75,
    schedule="triangle",
    warmup=2.3,
    lr_min=0.05,
    lr_biases=64.0,
    label_smoothing=0.2,
    momentum=0.85,
    nesterov=True,
    weight_decay=1.3e-3,
    conv="l1",
    linear="l1",
    channels_last=True,
)
_WEIGHTS = dict(
    optimizer="dessilbi",
    nu=30.0,
    nu_schedule="lr",
    release=2.3,
    release_power=1.0,  # else the layers of small weights come last, and 2 % leave them empty
    target=0.1,
    ramp=0.5,
    elements=True,
)
_COSTS = {
    "cifar10-fast": "118 million multiplications a picture; 140 to 160 s an epoch on two cores",
    "cifar10-fast-half": "33 million multiplications a picture; 45 s an epoch on two cores",
}
ENTRIES = {}
for _model, _cost in _COSTS.items():
    _widths = " at half of its widths" if "half" in _model else ""
    _dense = replace(_DENSE, model=_model)
    ENTRIES |= {
        _model: (
            replace(_dense, **_WEIGHTS),
            f"a fast net in the manner of airbench{_widths}, a tenth of the weights",
            f"cifar10; {_cost}",
        ),
        f"{_model}-dense": (_dense, f"the same fast net{_widths} by SGD", f"cifar10; {_cost}"),
    }
