"""Compacted models as files: to train on, or to run without this package or without Python.

============================  ===========================================================
:func:`save_compact`          sizes of the layers and weights; loads into the architecture's
                              own code, trains on; zeros take a bit each
:func:`save_program`          the computation itself (``torch.export``): needs torch only
:func:`save_onnx`             the same for other runtimes
============================  ===========================================================
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..arguments import check_file, check_kind, check_model
from ..bits import pack_bits, unpack_bits
from ..forward import call, evaluating, examples_in, map_tensors, run_example, tensors_of
from ..optional import brought_by
from ..safe_files import atomic, is_plain, read_tensors, write_tensors
from ..text import one_line
from ..torch_private import leaves
from ..wrapped import unwraps
from .saved_sizes import fit_sizes_, sizes_of

_CONV_OPTIONS = (
    *("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"),
    "padding_mode",
)
_NORM_OPTIONS = ("num_features", "eps", "momentum", "affine", "track_running_stats")
# The layers whose size compaction changes, with the arguments that make them.
_LAYERS = {
    **{f"Conv{d}d": _CONV_OPTIONS for d in (1, 2, 3)},
    **{f"ConvTranspose{d}d": (*_CONV_OPTIONS, "output_padding") for d in (1, 2, 3)},
    "Linear": ("in_features", "out_features"),
    **{f"BatchNorm{d}d": _NORM_OPTIONS for d in (1, 2, 3)},
    "SyncBatchNorm": _NORM_OPTIONS,
    "PReLU": ("num_parameters",),
}
_TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_KIND = "dslbi compact model 1"


@unwraps
def save_compact(model: nn.Module, file: str | Path, architecture: dict | None = None) -> None:
    """Write a compacted model: the sizes of its layers, and its weights.

    Parameters
    ----------
    model : Module
        What :func:`dslbi_torch.compact` returned, trained on or not.
    file : path
        Replaced whole or not at all.
    architecture : dict, optional
        The arguments of the function that builds the architecture, plain data; given to ``build``
        by :func:`load_compact`.

    Notes
    -----
    A tensor with many zeros is stored as one bit for each entry and the values that are not zero:
    what remains of single removed weights is smaller on the disk, if nowhere else.
    """
    check_model(model)
    check_file(file)
    if not isinstance(architecture, dict | None):
        raise ValueError(f"architecture must be a dict, got a {type(architecture).__name__}")
    for key, value in (architecture or {}).items():
        if not is_plain({key: value}):
            raise ValueError(
                f"architecture must be plain data (numbers, text, lists, dicts, tensors), got a "
                f"{type(value).__name__} for {key!r}"
            )
    layers = {}
    for name, module in model.named_modules():
        kind = _kind(module)
        if kind is not None:
            options = {key: getattr(module, key) for key in _LAYERS[kind]}
            if hasattr(module, "in_channels") or hasattr(module, "in_features"):
                options["bias"] = module.bias is not None
            layers[name] = [kind, options]
    content = {
        "architecture": architecture or {},
        "layers": layers,
        "sizes": sizes_of(model),
        "frozen": [name for name, p in model.named_parameters() if not p.requires_grad],
        "state": {name: _packed(x.cpu()) for name, x in model.state_dict().items()},
    }
    write_tensors(content, file, _KIND)


def _kind(module):
    """The name of torch's layer that a module is, or is derived from; None for other modules, and
    where its weight is computed."""
    if parametrize.is_parametrized(module):
        return None
    kinds = (k.__name__ for k in type(module).__mro__ if getattr(nn, k.__name__, None) is k)
    return next((kind for kind in kinds if kind in _LAYERS), None)


def load_compact(file: str | Path, build: Callable[..., nn.Module]) -> nn.Module:
    """Read the model that :func:`save_compact` wrote, on the CPU and in evaluation mode.

    Parameters
    ----------
    file : path
    build : callable
        ``build(**architecture)`` gives a net of the architecture, of any size and weights. Its
        layers are replaced by those of the file; a layer of a class derived from torch's stays, and
        gets the sizes and tensors. The dense model's weights are not needed.

    Raises
    ------
    ValueError, FileNotFoundError
        For a file of another kind, a damaged one, or another architecture.
    """
    check_kind("build", build, callable, "callable")
    content = read_tensors(file, _KIND, lambda content: content)
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and forgotten
        try:
            model = build(**content["architecture"])
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"build must take the architecture that {file} holds, {content['architecture']}, "
                f"but: {one_line(error)}"
            ) from error
        ties = _ties(check_model(model, "what build returns"))
        for name, (kind, options) in content["layers"].items():
            model = _replaced(model, name, getattr(nn, kind)(**options), options, file)
    state = {name: _unpacked(x) for name, x in content["state"].items()}
    fit_sizes_(model, content["sizes"], state)
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(
            f"{file} is not of the architecture that was built: {one_line(error)}"
        ) from error
    for first, *others in ties:
        for owner, _, key in (name.rpartition(".") for name in others):
            setattr(model.get_submodule(owner), key, model.get_parameter(first))
    for name in content["frozen"]:
        model.get_parameter(name).requires_grad_(False)
    return model.eval()


def _ties(model):
    """The names of every parameter that has several."""
    names = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(p), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def _replaced(model, name, layer, options, file):
    """The model with a layer in all places of the one of that name."""
    try:
        old = model.get_submodule(name)
    except AttributeError as error:
        raise ValueError(
            f"{file} is not of the architecture that was built, which has no layer {name}"
        ) from error
    if isinstance(old, type(layer)) and type(old) is not type(layer):  # it keeps what it adds
        for key in {*options} - {"bias"}:
            setattr(old, key, getattr(layer, key))
        for key in _TENSORS:
            if hasattr(layer, key):  # a bias may be None, and is so then
                setattr(old, key, getattr(layer, key))
        return model
    if old is model:
        return layer
    places = [n for n, module in model.named_modules(remove_duplicate=False) if module is old]
    for place in places:
        model.set_submodule(place, layer)
    return model


def _packed(x):
    """A tensor, or its non-zeros and where they are, if that is smaller."""
    nonzero = x != 0
    count = int(nonzero.sum())
    if x.numel() / 8 + count * x.element_size() < x.numel() * x.element_size():
        return {"shape": list(x.shape), "bits": pack_bits(nonzero), "values": x[nonzero]}
    return x.clone()


def _unpacked(x):
    if isinstance(x, Tensor):
        return x
    full = torch.zeros(x["shape"], dtype=x["values"].dtype)
    full[unpack_bits(x["bits"], x["shape"])] = x["values"]
    return full


def _program(model, example_input):
    """The exported computation in evaluation mode, for batches of any size.

    The example serves by its shapes only: torch writes tensors into the file, and where one is a
    slice, all of the tensor behind it.
    """
    if not any(x.ndim for x in tensors_of(example_input)):
        raise ValueError("example_input must be a batch, got a number")
    run_example(model, example_input)
    count, shapes = examples_in(example_input), torch.export.ShapesCollection()

    def of_any_size(x):
        in_batch = x.ndim > 0 and len(x) == count
        zeros = x.new_zeros((2, *x.shape[1:]) if in_batch else x.shape)
        shapes[zeros] = {0: torch.export.Dim("batch")} if in_batch else {}
        return zeros

    x = map_tensors(of_any_size, example_input)
    by_name = x if isinstance(x, Mapping) else {}
    args = () if by_name else x if isinstance(x, tuple) else (x,)
    with evaluating(model):
        return torch.export.export(model, args, by_name, dynamic_shapes=shapes)


@unwraps
def save_program(model: nn.Module, example_input, file: str | Path) -> None:
    """Write the computation of a model by ``torch.export``, for batches of any size.

    ``torch.export.load(file).module()`` runs it, called as the model is; neither this package nor
    the model's code is needed. The suffix should be ``.pt2``.

    Parameters
    ----------
    model : Module
        Left as it is.
    example_input : Tensor, or tuple or dict of tensors
        What the model takes. Tensors as long as the first one are batches, and stay equally long;
        others keep their shapes, and what is no tensor its value.
    file : path
        Replaced whole or not at all.
    """
    with atomic(file) as temporary:
        torch.export.save(_program(model, example_input), temporary)


@unwraps
def save_onnx(model: nn.Module, example_input, file: str | Path) -> None:
    """Write the computation of a model as ONNX, for batches of any size.

    Its input is called "input"; of a tuple or a dict, inputs are called as the model's ``forward``
    calls them. Its output is called "output"; outputs in a dict by their keys, other ones
    "output_0", "output_1", ...

    Parameters
    ----------
    model, example_input, file
        As in :func:`save_program`.

    Raises
    ------
    ImportError
        Without the packages onnx and onnxscript.
    """
    with brought_by("export", "ONNX"):
        import onnxscript  # noqa: F401
    with atomic(file) as temporary:
        torch.onnx.export(
            _program(model, example_input),
            f=temporary,
            dynamo=True,
            verbose=False,
            external_data=False,
            input_names=["input"] if isinstance(example_input, Tensor) else None,
            output_names=_output_names(model, example_input),
        )


@torch.no_grad()
def _output_names(model, x):
    """The names of what a model gives."""
    with evaluating(model):
        result = call(model, x)
    if isinstance(result, Mapping) and all(isinstance(y, Tensor) for y in result.values()):
        return list(result)
    count = sum(isinstance(y, Tensor) for y in leaves(result))
    return ["output"] if count == 1 else [f"output_{k}" for k in range(count)]
