"""The fast nets: their first layer, and a training with all that they ask for."""

import numpy as np
import pytest
import torch
from stopping import stop_after

from dslbi_torch import support_masks
from dslbi_torch.masks.whole_filters import whole_filters
from dslbi_torch.surgery.compact import compact
from dslbi_torch.training import recipes
from dslbi_torch.training.config import Config, without_path
from dslbi_torch.training.nets import fast, zoo
from dslbi_torch.training.run import outlook, train
from dslbi_torch.training.run import run_folder as folders
from dslbi_torch.training.run.contexts import Terminated
from dslbi_torch.training.run.set_up import open_run, set_up


def small(out, **changes):
    """A few steps on noise with every option of the recipe."""
    recipe = recipes.recipe("cifar10-fast-half").config
    own = {name: getattr(recipe, name) for name in (
        *("model", "flip", "alternate", "schedule", "label_smoothing", "lr_biases", "momentum"),
        *("nesterov", "weight_decay", "conv", "linear", "nu", "nu_schedule", "target", "elements"),
        "release_power",
    )}  # fmt: skip
    noise = dict(dataset="synthetic", image_size=25, n_classes=10, train_size=40, shift=1)
    course = dict(epochs=2, batch_size=16, lr=0.01, warmup=0.5, whiten=30, release=1.0)
    place = dict(out=str(out), device="cpu", threads=1)
    return Config(**{**own, **noise, **course, **place, **changes})


def test_the_first_layer_whitens_the_patches_of_the_pictures():
    torch.manual_seed(0)
    pictures = torch.randn(200, 3, 9, 9).cumsum(2).cumsum(3) + 1  # neighbours are alike
    net = fast.FastNet((2, 2, 2))
    net.whiten_(pictures)
    outputs = net.whiten(pictures).detach().double().transpose(0, 1).flatten(1)
    expected = torch.eye(12, dtype=torch.float64)
    torch.testing.assert_close(outputs[:12].cov(), expected, rtol=0, atol=0.01)
    torch.testing.assert_close(outputs[12:], -outputs[:12])
    assert not net.whiten.bias.any() and not net.whiten.weight.requires_grad


def test_a_flat_picture_has_no_infinite_filters():
    net = fast.FastNet((2, 2, 2))
    net.whiten_(torch.ones(3, 3, 9, 9))
    assert net.whiten.weight.isfinite().all()


def test_the_filters_are_of_the_training_pictures_and_stay(tmp_path):
    config = small(tmp_path)
    run = set_up(config)
    expected = zoo.build(config.model)
    expected.whiten_(run.data.train.x[:30])
    first = run.model.whiten.weight.clone()
    torch.testing.assert_close(first, expected.whiten.weight)
    run = train.train(config, progress=False)
    torch.testing.assert_close(run.model.whiten.weight, first, rtol=0, atol=0)
    assert run.model.whiten.bias.any()
    assert "whiten.weight" not in run.recorder.entry


def test_the_safe_step_is_that_of_the_net_with_its_whitened_layer(tmp_path, monkeypatch):
    run, seen = set_up(small(tmp_path)), []
    run.at.batch = outlook.FEW_STEPS

    def look(model, *_):
        seen.append(model.state_dict())
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(outlook, "forward", look)
    assert len(outlook.at_chance(run, 3.0)) == 1
    torch.testing.assert_close(seen[0], run.model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("step", [2, 4])
def test_stopped_and_resumed_is_uninterrupted(tmp_path, monkeypatch, step):
    whole = train.train(small(tmp_path / "whole"), progress=False)
    config = small(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        stop_after(patch, step)
        with pytest.raises(Terminated):
            train.train(config, progress=False)
    resumed = train.train(config, resume=True, progress=False)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, rtol=0, atol=0)
    own = ("time_s", "pictures_s")
    logs = [[{k: v for k, v in row.items() if k not in own} for row in folders.read_log(c.folder)]
            for c in (whole.config, config)]  # fmt: skip
    assert logs[0] == logs[1]


def test_the_net_is_cut_by_channels_as_others_are(tmp_path):
    at_once = dict(epochs=1, release=0.0, release_power=0.0)
    train.train(small(tmp_path, conv="group", target=0.5, **at_once), progress=False)
    run = open_run(tmp_path, device="cpu")
    masks = whole_filters(run.model, support_masks(run.optimizer), run.data.example())
    assert any(not mask.all() for mask in masks.values())
    found = compact(run.model, masks, run.data.example())
    assert sum(p.numel() for p in found.parameters()) < sum(
        p.numel() for p in run.model.parameters()
    )


def test_recipes_differ_in_what_a_path_needs():
    for name in ("cifar10-fast", "cifar10-fast-half"):
        own, dense = (recipes.recipe(n).config for n in (name, f"{name}-dense"))
        assert (own.optimizer, dense.optimizer, own.model, dense.model) == (
            "dessilbi", "sgd", name, name,
        )  # fmt: skip
        shared = ("lr", "batch_size", "epochs", "weight_decay", "label_smoothing", "momentum")
        for field in shared:
            assert getattr(own, field) == getattr(dense, field)
        assert without_path(own, "sgd").target is None
    steps = np.ceil(50_000 / dense.batch_size)
    per_epoch = dense.lr * dense.weight_decay * steps
    assert per_epoch == pytest.approx(0.0153 / (1 + 1 / 0.15) * 50_000 / 1024, rel=0.03)
    assert dense.lr / dense.batch_size == pytest.approx(11.5 / (1 + 1 / 0.15) / 1024, rel=0.01)
