"""A record beside a checkpoint, and the line that an evaluation prints."""

from pathlib import Path

from torch import nn

from ..arguments import check_file, check_flag, check_kind
from ..masks.density import density
from ..path import PathRecorder
from ..safe_files import read_tensors, write_tensors

RECORD = "path.pt"  # the name of the file in the folder of a checkpoint
_KIND = "dslbi record 1"


def check_recorder(recorder) -> PathRecorder:
    """Return a recorder; refuse what is none."""
    return check_kind("recorder", recorder, PathRecorder, "a PathRecorder")


def write_record(recorder: PathRecorder, folder: str | Path, *, here: bool = True) -> None:
    """Write the record into the folder of a checkpoint, whole or not at all.

    Every process must call it where parameters are sharded; that with ``here`` writes.
    """
    check_flag("here", here)
    file = check_file(folder) / RECORD
    state = check_recorder(recorder).state_dict()
    if here:
        write_tensors(state, file, _KIND)


def read_record(recorder: PathRecorder, folder: str | Path) -> None:
    """Let a recorder go on with the record of a checkpoint.

    Raises
    ------
    FileNotFoundError
        For a checkpoint that has none: it was written without the recorder.
    ValueError
        For a damaged record, and for one of another net or of other settings.
    """
    file = check_file(folder) / RECORD
    check_recorder(recorder)
    if not file.is_file():
        raise FileNotFoundError(
            f"the checkpoint {folder} must hold {RECORD}, the record of its path, got none: to go "
            "on without what was before, leave the recorder to itself"
        )
    recorder.load_state_dict(read_tensors(file, _KIND, lambda content: content))


def density_line(recorder: PathRecorder, model: nn.Module) -> str:
    """Return how much of a net is selected now, as one line for an evaluation to print."""
    found = density(check_recorder(recorder).optimizer, model)
    return (
        f"step {recorder.step}: {found.nonzero_split:.1%} of the split weights, "
        f"{found.nonzero_all:.1%} of all parameters are non-zero"
    )
