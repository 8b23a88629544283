"""The net that a run begins with: what seed, ``init``, ``whiten``, ``initial``, ``masks`` and
``cut`` of a config do."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...masks.files import load_masks
from ...surgery.compact import compact_with_masks
from ..config import Config
from ..data.datasets import Data
from ..nets import trained, zoo
from . import run_folder as folders


def initial_net(
    config: Config, data: Data, device: torch.device
) -> tuple[nn.Module, dict[str, Tensor] | None]:
    """Return the net as its first step finds it, and the masks under which it is trained; torch's
    generators are seeded for it.

    With ``cut`` the net is a smaller one, and the masks say what of it is still zero: filters that
    write into a stream that others need, and single weights. With new weights nothing of it is.
    """
    torch.manual_seed(config.seed)
    model = zoo.build(config.model, len(data.classes), data.shape[0], init=config.init)
    model = model.to(device, getattr(torch, config.dtype))
    if config.whiten:
        model.whiten_(next(data.train.batches(config.whiten))[0])
    if config.initial:
        state = folders.read_weights(folders.source(config, "initial"))
        load_initial_(model, state, data.classes)
    if not config.masks:
        return model, None
    masks = _masks(config, model, data)
    if not config.cut:
        return model, masks
    small, masks = compact_with_masks(model, masks, data.example())
    if config.cut == "keep":
        return small, masks
    zoo.initialise_(small, init=config.init)
    return small, None


def load_initial_(model: nn.Module, state: dict[str, Tensor], classes: Sequence[str]) -> None:
    """Give a net the weights of another, of the same kind.

    Where the other tells another number of classes apart, its last layer is left out: the net keeps
    the one that it has. Of one for ImageNet's 1,000 classes, a net for Imagenette's ten takes their
    rows. Names may be those of another library
    (:func:`dslbi_torch.training.nets.trained.renamed`).

    Raises
    ------
    ValueError
        For weights of a net of another kind.
    """
    own, n_classes = model.state_dict(), len(classes)
    state = trained.renamed(state, own)
    other = sorted(set(own) ^ set(state))
    if other:
        raise ValueError(f"initial must be of the same kind of net, which differs in {other[0]}")
    fitting = {}
    for name, value in state.items():
        if value.shape == own[name].shape:
            fitting[name] = value
        elif _differs_in_classes(own[name], value, n_classes):
            rows = [trained.IMAGENET_ROWS.get(word) for word in classes]
            if len(value) == 1000 and None not in rows:
                fitting[name] = value[rows]
        else:
            raise ValueError(
                f"initial must be of the same kind of net: {name} has shape {tuple(value.shape)} "
                f"there, {tuple(own[name].shape)} here"
            )
    model.load_state_dict(own | fitting)


def _differs_in_classes(own, other, n_classes):
    """Whether two tensors differ in nothing but the number of classes."""
    return len(own) == n_classes and own.ndim == other.ndim and own.shape[1:] == other.shape[1:]


def _masks(config, model, data):
    """The masks of a config, without those of a last layer for another number of classes."""
    own, fitting, n_classes = dict(model.named_parameters()), {}, len(data.classes)
    for name, mask in load_masks(folders.source(config, "masks")).items():
        W = own.get(name)
        if W is None or W.shape == mask.shape or not _differs_in_classes(W, mask, n_classes):
            fitting[name] = mask  # what is of another net is refused where it is used
    return fitting
