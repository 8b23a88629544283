"""Options, states and flags that once failed late, in another's words, or not at all."""

import numpy as np
import pytest
import torch

from dslbi_torch import DessiLBI, PathRecorder, Split, TargetDensity
from dslbi_torch import __main__ as cli

SMALL = ("--epochs=1", "--train-size=64", "--threads=1", "--device=cpu")


def weights(dtype=torch.float32):
    return [torch.nn.Parameter(torch.ones(4, 3, dtype=dtype))]


def refused(message, call, *args, **options):
    with pytest.raises(ValueError, match=message) as error:
        call(*args, **options)
    assert "\n" not in str(error.value)


def command(capsys, *argv):
    """The one line of a command that ends with status 2."""
    status = cli.main(list(argv))
    err = capsys.readouterr().err
    assert status == 2 and err.count("\n") == 1, err
    return err


# ---- Numbers ---------------------------------------------------------------------------------


def test_numbers_of_numpy_are_numbers_and_are_kept_as_those_of_python(tmp_path):
    options = dict(block=np.int64(2), kappa=np.float32(2), nu=np.int64(5), group_dim=(np.int64(0),))
    flags = dict(nesterov=np.bool_(True), lr=np.float64(0.1))
    optimizer = DessiLBI(weights(), penalty="group", **options, **flags)
    optimizer.add_param_group({"params": weights(), "lam": np.float16(0.5)})
    inner = torch.optim.SGD([{"params": weights(), "penalty": "l1"}], lr=0.1)
    split = Split(inner, kappa=np.float64(2), nu=np.int32(5))
    for made in (optimizer, split):
        for group in made.param_groups:
            kinds = {type(x) for key, x in group.items() if key != "params"}
            assert kinds <= {int, float, bool, str, tuple, type(None)}
        torch.save(made.state_dict(), tmp_path / "state.pt")
        torch.load(tmp_path / "state.pt", weights_only=True)
    assert PathRecorder(split, every=np.int64(3)).every == 3
    TargetDensity(split, 0.5, steps=np.int64(3), every=np.int32(1))


@pytest.mark.parametrize("wrong", ["0.1", None, [0.1], True])
def test_what_is_no_number_is_refused(wrong):
    for name in ("lr", "kappa", "nu", "lam", "momentum", "weight_decay"):
        refused(f"{name} must be a number, got ", DessiLBI, weights(), **{name: wrong})
    optimizer = DessiLBI(weights(), penalty="l1")
    for count in (1.5, "3", True, 0):
        refused("every must be an integer of at least 1, got", PathRecorder, optimizer, every=count)
        refused("steps must be an integer of at least", TargetDensity, optimizer, 0.5, steps=count)


def test_flags_and_words():
    for name in ("nesterov", "decoupled", "maximize", "capturable", "differentiable"):
        refused(f"{name} must be True or False, got 1", DessiLBI, weights(), **{name: 1})
    refused("fused must be True, False or None, got 'no'", DessiLBI, weights(), fused="no")
    for joint in ("yes", 1, None):
        refused("joint must be True or False, got ", DessiLBI, weights(), joint=joint)
    for dims in ("rows", 1.0, None, (0, "a")):
        message = "group_dim must be an integer or a tuple of them, got "
        refused(message, DessiLBI, weights(), penalty="group", group_dim=dims)
    refused("penalty must be None, ", DessiLBI, weights(), penalty=["l1"])


# ---- Steps that a dtype does not hold --------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(lr=1e300), "lr must be a number that torch.float32 holds, got 1e"),
        (dict(kappa=1e30, lr=1e30), r"kappa \* lr must be a number that torch.float32 holds"),
        (dict(nu=1e-300), "lr / nu must be a number that torch.float32 holds"),
        (dict(lam=1e39), "lam must be a number that torch.float32 holds, got 1e"),
    ],
)
def test_steps_that_overflow_are_refused(options, message):
    refused(message, DessiLBI, weights(), penalty="l1", **options)
    DessiLBI(weights(torch.float64), penalty="l1", **options)


@pytest.mark.parametrize(
    "argv, message",
    [
        (("train", "digits", "--lr=1e300"), "lr must be a number that float32 holds, got 1e+300"),
        (("train", "digits", "--kappa=1e30", "--lr=1e30"), "kappa * lr must be a number that"),
        (("train", "digits", "--nu=1e-40"), "/ nu must be a number that torch.float32 holds"),
        (("sweep", "digits", "--kappas=1e308", "--nus=1"), "kappa must be a number that float32"),
    ],
)
def test_a_run_of_such_steps_is_one_line(capsys, tmp_path, argv, message):
    assert message in command(capsys, *argv, *SMALL, f"--out={tmp_path / 'a'}")


# ---- States to load --------------------------------------------------------------------------


@pytest.mark.parametrize("state", [{}, {"step": 3}, None, []])
def test_a_state_that_lacks_something_is_refused(state):
    optimizer = DessiLBI(weights(), penalty="l1")
    refused("the state of a recorder must have", PathRecorder(optimizer).load_state_dict, state)


# ---- What is said twice ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv, message",
    [
        (("train", "--target=a=0.5,a=0.6"), "must give a name once, got a twice"),
        (("train", "--lam-named=a=1,b=1,a=2"), "must give a name once, got a twice"),
        (("sweep", "--kappas=1,2", "--kappa=3"), "kappa needs nus to have an effect beside kappas"),
        (("sweep", "--nus=1,2", "--nu=3"), "nu needs kappas to have an effect beside nus, got 3"),
    ],
)
def test_what_is_given_twice_is_refused(capsys, tmp_path, argv, message):
    name, *rest = argv
    assert message in command(capsys, name, "digits", *rest, *SMALL, f"--out={tmp_path / 'a'}")
