"""What a run has reached: accuracy and density of its models, and one line of its log."""

from contextlib import nullcontext

import torch
from torch import nn

from ...forward import evaluating
from ...masks.density import density
from ...masks.swap import gamma_weights, sparse_weights
from ...sharding import whole
from ...units import families
from ..config import Config
from ..data.in_memory import PicturesInMemory
from ..data.on_disk import PicturesOnDisk
from .processes import Processes
from .state import Run

EVALUATED = {  # what is evaluated of a run, and how tables call it
    "dense": "dense W",
    "sparse": "sparse W * 1{Gamma != 0}",
    "gamma": "Gamma itself",
    "ema": "running average of W",
}
FEW = 10  # classes: with more, the five most likely ones count as well
AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


def forward(net: nn.Module, x: torch.Tensor, config: Config) -> torch.Tensor:
    """Return the logits of pictures, computed as the config wants: mixed precision, channels
    last."""
    if config.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    if not config.amp:
        return net(x)
    with torch.autocast(x.device.type, AMP[config.amp]):
        return net(x).float()


@torch.no_grad()
def accuracy(
    model: nn.Module,
    part: PicturesInMemory | PicturesOnDisk,
    config: Config,
    processes: Processes,
    batch_size=500,
) -> float:
    """Return the share of pictures that the model, in evaluation mode, puts into the right class.

    Each process takes its rows of every batch; all must call it, and all get the share of the
    whole.
    """
    models = {"": (model, nullcontext)}
    return _accuracies(models, part, config, processes, batch_size)[""]["accuracy"]


@torch.no_grad()
def _accuracies(models, part, config, processes, batch_size=500, between=None):
    """Accuracies of several models by name, each a module and what makes the context in which it
    has the weights that are meant: one pass over the pictures, which may have to be decoded."""
    correct = torch.zeros(len(models), 2, dtype=torch.int64, device=processes.device)
    batches = part.batches(batch_size, rank=processes.rank, world=processes.world)
    for k, (x, y) in enumerate(batches):
        if between is not None:
            between(k)
        for row, (model, weights) in zip(correct, models.values(), strict=True):
            with weights(), evaluating(model):
                logits = forward(model, x, config)
            row[0] += (logits.argmax(1) == y).sum()
            if logits.shape[1] > FEW:
                row[1] += (logits.topk(5).indices == y[:, None]).sum()
    names = ("accuracy", "top5") if logits.shape[1] > FEW else ("accuracy",)
    return {
        name: {key: n / len(part) for key, n in zip(names, counts, strict=False)}
        for name, counts in zip(models, processes.total(correct).tolist(), strict=True)
    }


def evaluate(run: Run, between=None) -> dict[str, dict[str, float]]:
    """Return accuracy and densities, as fractions, of the models that a run holds.

    Parameters
    ----------
    run : Run
    between : callable, optional
        Called with the number of each batch before it is evaluated; what it raises breaks off.

    Returns
    -------
    dict
        For "dense" (W), "sparse" (W where Gamma is not zero) and "gamma" (Gamma in place of W):
        ``accuracy``, ``nonzero_split`` (share of the split tensors' entries) and ``nonzero_all``
        (share of all parameters; biases and whatever else is not split count as non-zero). The
        last two also have ``layers``, the share of each split tensor's entries. A run that splits
        nothing has "dense" alone, with its accuracy; where its weights are sparse themselves
        (linbreg, adabreg, ``prune``), "sparse" is the same net with its densities; with ``ema``
        there is "ema", the running average of W, likewise. With more than ten classes each has
        ``top5``, the share of pictures whose class is among the five most likely.
    """
    optimizer, model = run.optimizer, run.model
    models = {"dense": (model, nullcontext)}
    if run.config.splits:
        models["sparse"] = model, lambda: sparse_weights(optimizer, model)
        models["gamma"] = model, lambda: gamma_weights(optimizer, model)
    if run.average is not None:
        models["ema"] = run.average.module, nullcontext
    rows = _accuracies(models, run.data.test, run.config, run.processes, between=between)
    if run.config.splits:
        selected = density(optimizer, model)
        rows["dense"] |= _zeros(model, {layer.name for layer in selected.layers})
        densities = {
            "nonzero_split": selected.nonzero_split,
            "nonzero_all": selected.nonzero_all,
            "layers": {layer.name: layer.nonzero / layer.size for layer in selected.layers},
        }
        for name in ("sparse", "gamma"):
            rows[name] |= densities
    elif run.config.sparse or run.pruning is not None:
        if run.config.sparse:
            split = {name for family in families(optimizer) for name in family.names}
        else:
            split = run.pruning.weights
        rows["sparse"] = rows["dense"] | _zeros(model, split)
    return rows


def _zeros(model, names):
    """Densities of W itself: what is exactly zero in the split tensors."""
    split = [p for name, p in model.named_parameters() if name in names]
    zeros = sum(p.numel() - int(whole((p != 0).sum())) for p in split)
    return {
        "nonzero_split": 1 - zeros / sum(p.numel() for p in split),
        "nonzero_all": 1 - zeros / sum(p.numel() for p in model.parameters()),
    }


def log_row(run: Run, *, loss=None, lr=None, pictures_s=None, between=None) -> dict:
    """Return one line of ``log.jsonl``: accuracies and densities are fractions, loss the epoch's
    mean.

    What the run has not is None: before the first epoch the loss, and without a split the accuracy
    of the sparse models. With more than ten classes there are ``acc5_dense``, ... too, of the five
    most likely classes. ``skipped`` is the number of damaged picture files that the run, since it
    was started or resumed, has left out (``corrupt``).
    """
    at, data = run.at, run.data
    everyones = run.processes.gathered(data.train.skipped | data.test.skipped)
    rows = at.result = evaluate(run, between)
    sparse = rows.get("sparse", {})
    top5 = {f"acc5_{name}": row["top5"] for name, row in rows.items() if "top5" in row}
    return {
        "epoch": at.epoch,
        "step": run.step,
        "time_s": round(at.seconds, 3),  # with the evaluation
        "pictures_s": pictures_s,
        "lr": lr,
        "loss": loss,
        **{f"acc_{name}": rows.get(name, {}).get("accuracy") for name in EVALUATED},
        **top5,
        "nonzero_all": sparse.get("nonzero_all"),
        "nonzero_split": sparse.get("nonzero_split"),
        "layers": sparse.get("layers"),
        "skipped": len(set().union(*everyones)),
    }
