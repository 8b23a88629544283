"""Lightning makes its optimizer late, and restores it later: this records from there on."""

from ..optional import brought_by
from ..path import PathRecorder
from .record_files import density_line

with brought_by("lightning", "a callback of Lightning"):
    from lightning.pytorch import Callback


class LightningRecord(Callback):
    """Record the path of a Lightning training, keep it in its checkpoints, and print the density.

    The recorder is attached when the training starts, to the first optimizer that splits. What
    steers (a target, a release) is attached where the optimizer is made, in
    ``configure_optimizers``. A validation prints one line.

    Parameters
    ----------
    **options
        Of :class:`dslbi_torch.PathRecorder`.

    Attributes
    ----------
    recorder : PathRecorder, or None before the training

    Raises
    ------
    ValueError
        When a training is resumed from a checkpoint that has no record.
    """

    def __init__(self, **options):
        self.options, self.recorder, self._held = options, None, None

    def on_train_start(self, trainer, pl_module):
        """Attach the recorder, and restore what the checkpoint brought."""
        optimizers = trainer.optimizers
        split = [o for o in optimizers if any(g.get("penalty") for g in o.param_groups)]
        self.recorder = PathRecorder((split or optimizers)[0], **self.options)
        held, self._held = self._held, None
        if held is not None:
            self.recorder.load_state_dict(held)
        elif trainer.global_step:
            raise ValueError(
                f"the checkpoint of step {trainer.global_step} must hold the record of its path, "
                "got none: to go on without what was before, leave the callback out"
            )

    def on_validation_end(self, trainer, pl_module):
        """Print how much is selected."""
        if self.recorder is not None:
            line = density_line(self.recorder, pl_module)
            if trainer.is_global_zero:
                print(line)

    def state_dict(self):
        """Return the record, which Lightning puts into its checkpoint."""
        return {} if self.recorder is None else self.recorder.state_dict()

    def load_state_dict(self, state_dict):
        """Keep the record of a checkpoint until the optimizer is there."""
        self._held = state_dict
