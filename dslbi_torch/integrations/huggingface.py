"""The Trainer of Hugging Face keeps the optimizer alone: this keeps the record beside it."""

from pathlib import Path

from ..optional import brought_by
from ..path import PathRecorder
from .record_files import check_recorder, density_line, read_record, write_record

with brought_by("huggingface", "a callback of Hugging Face's Trainer"):
    from transformers import TrainerCallback


class RecordCallback(TrainerCallback):
    """Save and restore a record with the checkpoints of a Trainer, and print the density.

    The file ``path.pt`` is written into every checkpoint, and read when a training is resumed; an
    evaluation prints one line.

    Parameters
    ----------
    recorder : PathRecorder
        Of the optimizer that the Trainer is given (``optimizers=(optimizer, scheduler)``).

    Raises
    ------
    FileNotFoundError
        When a training is resumed from a checkpoint that has no record. A Trainer does not tell its
        callbacks from where it resumes: looked at is ``args.resume_from_checkpoint``, if that is a
        folder, else ``checkpoint-STEP`` in ``args.output_dir``.
    """

    def __init__(self, recorder: PathRecorder):
        self.recorder = check_recorder(recorder)

    def on_train_begin(self, args, state, control, **kwargs):
        """Restore the record of the checkpoint from which the training is resumed."""
        if state.global_step:
            asked = args.resume_from_checkpoint
            own = asked if asked and Path(asked).is_dir() else _checkpoint(args, state)
            read_record(self.recorder, own)

    def on_save(self, args, state, control, **kwargs):
        """Write the record into the checkpoint."""
        write_record(self.recorder, _checkpoint(args, state), here=state.is_world_process_zero)

    def on_evaluate(self, args, state, control, model=None, **kwargs):
        """Print how much is selected."""
        line = density_line(self.recorder, model)
        if state.is_world_process_zero:
            print(line)


def _checkpoint(args, state):
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
