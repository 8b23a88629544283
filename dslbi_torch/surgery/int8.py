"""Eight bits for weights and activations: what follows a cut in practice."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from ..arguments import check_list, check_tensor
from ..optional import brought_by
from ..safe_files import atomic
from ..text import one_line
from ..wrapped import unwraps
from .saving import save_onnx


@unwraps
def save_int8(model: nn.Module, example_input: Tensor, batches: Iterable, file: str | Path) -> None:
    """Write the computation of a model as ONNX in int8, calibrated on batches.

    It is the post-training quantisation of ONNX Runtime: weights by output channel, activations by
    tensor, both symmetric about what the batches show. The scales of a BatchNorm would cost
    accuracy there: quantise the folded net of :func:`dslbi_torch.shrink`. Its input is called
    "input", its output "output", both float32.

    Parameters
    ----------
    model : Module
        Left as it is.
    example_input : Tensor
    batches : iterable
        Batches of inputs, or lists or tuples that begin with them. A few hundred examples will do.
    file : path
        Replaced whole or not at all.

    Raises
    ------
    ImportError
        Without the packages onnx, onnxscript and onnxruntime.
    ValueError
        For no batches, and for batches that the model does not take.
    """
    with brought_by("export", "int8"):
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process
    given = [
        check_tensor("batches", batch[0] if isinstance(batch, list | tuple) and batch else batch)
        for batch in check_list("batches", batches)
    ]
    if not given:
        raise ValueError("batches must hold at least one batch, got none")
    with tempfile.TemporaryDirectory() as folder, atomic(file) as temporary:
        whole, ready, small = (str(Path(folder) / name) for name in ("a", "b", "c"))
        save_onnx(model, example_input, whole)
        try:
            quant_pre_process(whole, ready)
            quantization.quantize_static(
                ready,
                small,
                _reader(quantization.CalibrationDataReader, given),
                per_channel=True,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        except Exception as error:
            raise ValueError(
                f"the model must take the batches of shape {tuple(given[0].shape)} in ONNX "
                f"Runtime, but: {one_line(error)}"
            ) from error
        Path(temporary).write_bytes(Path(small).read_bytes())


def _reader(kind: type, batches: list[Tensor]):
    """What gives ONNX Runtime its batches, one by one."""
    rows = iter([{"input": x.detach().to("cpu", torch.float32).numpy()} for x in batches])

    class Reader(kind):
        def get_next(self):
            return next(rows, None)

    return Reader()
