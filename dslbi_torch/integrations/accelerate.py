"""Accelerate saves what it has prepared: this saves the record with it."""

from ..arguments import check_kind
from ..optional import brought_by
from ..path import PathRecorder
from .record_files import check_recorder, density_line, read_record, write_record

with brought_by("huggingface", "a hook of Accelerate"):
    from accelerate import Accelerator


def keep_record(accelerator: Accelerator, recorder: PathRecorder) -> None:
    """Let ``save_state`` write a record beside the states, and ``load_state`` restore it.

    The file ``path.pt`` is written into the folder of the states. A loop of one's own prints the
    density where it evaluates: :func:`print_density`.

    Parameters
    ----------
    accelerator : Accelerator
    recorder : PathRecorder
        Of the optimizer that is prepared, before or after that.

    Raises
    ------
    FileNotFoundError
        In ``load_state``, for a folder that has no record.
    """

    check_kind("accelerator", accelerator, Accelerator, "an Accelerator")
    check_recorder(recorder)

    def save(models, weights, folder):
        write_record(recorder, folder, here=accelerator.is_main_process)

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(lambda models, folder: read_record(recorder, folder))


def print_density(accelerator: Accelerator, recorder: PathRecorder, model) -> None:
    """Print how much is selected, once for all processes."""
    accelerator.print(density_line(recorder, model))
