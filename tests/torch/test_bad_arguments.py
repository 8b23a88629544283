"""Classes of wrong calls that the harness of ``tests/fuzz`` found, each by one of its members."""

import os

import pytest
import torch
from torch import nn

import dslbi_torch as d
from dslbi_torch.dessilbi import gamma
from dslbi_torch.figures import filters
from dslbi_torch.masks.ranking import Ranking
from dslbi_torch.masks.semi_structured import has_kernels
from dslbi_torch.penalties import group_norm, soft_threshold
from dslbi_torch.saliency import activation_maximisation

net = nn.Sequential(nn.Linear(3, 2))
x = torch.ones(2, 3)
masks = {"0.weight": torch.ones(2, 3, dtype=torch.bool)}


def optimizer(**options):
    return d.DessiLBI(d.split_groups(net, **options), lr=0.1)


@pytest.mark.parametrize(
    "call, message",
    [
        # what is no object of its kind
        (lambda: d.support_masks(3), "optimizer must be a torch optimizer, got 3"),
        (lambda: d.apply_masks_(3, masks), "model must be a torch.nn.Module, got 3"),
        (lambda: d.compact("net", None, x), "model must be a torch.nn.Module, got 'net'"),
        (lambda: d.entry_ranking(3), "recorder must be a PathRecorder, got 3"),
        (lambda: d.density_table(3), "report must be what density returns, got 3"),
        (lambda: d.density_curve(net, 3, None), "evaluate must be callable, got None"),
        (lambda: d.split_table([3]), "groups must have named params, got 3"),
        (
            lambda: d.ranked_masks(Ranking({}, {}, []), 0.5),
            r"ranking must have a place .*, got \{\}",
        ),
        (lambda: has_kernels(["cpu"]), "device must be one of torch"),
        # tensors without numbers, or of numbers of another kind
        (lambda: soft_threshold(torch.ones(2, dtype=torch.int64)), "v must have a floating dtype"),
        (lambda: soft_threshold(x.to("meta")), "v must be a dense tensor that holds its numbers"),
        (lambda: gamma(x), "a family must be a list of tensors, at least one"),
        (
            lambda: d.apply_masks_(net, {"0.weight": masks["0.weight"].to("meta")}),
            "the mask of 0.weight must be a dense tensor",
        ),
        # numbers
        (lambda: d.suggest(optimizer(), 5, S=10**400), "S must be positive and finite, got 1000"),
        (
            lambda: d.release_(optimizer(apart=True, rules={"0.bias": "l1"}), power=1e300),
            "power must leave every level positive and finite, got ",
        ),
        (lambda: d.Release(optimizer(), 1, pull=None), "pull must be a number, got None"),
        (lambda: d.forecast(optimizer(), 10**13), "steps must be an integer of at most 10,000,000"),
        (lambda: d.widen_(net, optimizer(), {"0": 10**13}, x), "more must be at most 1,000,000"),
        (
            lambda: activation_maximisation(net, "0", [0], shape=(3,), steps=10**13),
            "steps must be an integer of at most 1,000,000",
        ),
        (lambda: filters(torch.ones(2, 1, 3, 3), columns="2"), "columns must be an integer"),
        (lambda: d.random_masks(masks, seed=-1), "seed must be an integer of at least 0, got -1"),
        # what a dtype does not hold
        (lambda: group_norm(torch.full((2, 2), 3e38)), "x must be of a size that torch.float32"),
        (lambda: optimizer(kappa=1.0, weight_decay=1e300), r"weight_decay must be a number that"),
        # files
        (lambda: d.save_masks(masks, ""), "file must be a path, got ''"),
        (lambda: d.load_masks(1.0), "file must be a path, got 1.0"),
    ],
)
def test_a_wrong_call_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_number_is_no_file(tmp_path):
    """Python opens the stream of that number, and closes it when it is done."""
    stream = os.open(tmp_path / "a", os.O_CREAT | os.O_RDWR)
    for file in (stream, True):
        with pytest.raises(ValueError, match="file must be a path, got "):
            d.load_masks(file)
    os.close(stream)  # it is open still
