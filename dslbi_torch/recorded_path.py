"""The record of a path as arrays, and as a file of them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from .safe_files import atomic, reading


class RecordedPath(NamedTuple):
    """The record of a run as arrays, by the names of the split tensors.

    The units of a joint family are recorded once, under the name of its first tensor.

    Attributes
    ----------
    steps, times : ndarray (snapshots,)
        Steps at which snapshots were taken, and the path time, the sum of alpha since the path's
        release, at each. So the last step of time 0 is that of the release.
    nonzero : dict of ndarray (snapshots,)
        Selected entries; of a joint family, those of all its tensors.
    gamma_norm, weight_norm : dict of ndarray (snapshots, units)
        Norm of each unit of Gamma and of W, where units are slices.
    entry : dict of ndarray (units,)
        Step after which each unit was first selected; -1: never.
    """

    steps: np.ndarray
    times: np.ndarray
    nonzero: dict[str, np.ndarray]
    gamma_norm: dict[str, np.ndarray]
    weight_norm: dict[str, np.ndarray]
    entry: dict[str, np.ndarray]

    def save(self, file: str | Path) -> None:
        """Write the record as a compressed npz, whole or not at all."""
        arrays = {"steps": self.steps, "times": self.times}
        for field in self._fields[2:]:
            arrays |= {f"{field}/{name}": x for name, x in getattr(self, field).items()}
        with atomic(file) as temporary, open(temporary, "wb") as stream:
            np.savez_compressed(stream, **arrays)

    def _checked(self):
        """The record, if its parts fit each other; ValueError otherwise."""
        if not self.nonzero:
            raise ValueError("it has no nonzero of any tensor")
        series = self.nonzero, self.gamma_norm, self.weight_norm
        lengths = {len(x) if x.ndim else 0 for part in series for x in part.values()}
        if self.steps.ndim != 1 or lengths | {len(self.times)} != {len(self.steps)}:
            raise ValueError(f"it has series of different lengths, {len(self.steps)} steps")
        if not len(self.steps):
            raise ValueError("it has no snapshot")
        for field in ("gamma_norm", "weight_norm", "entry"):  # of slices, an entry of the others
            for name in {*self.gamma_norm, *self.weight_norm} - {*getattr(self, field)}:
                raise ValueError(f"it has no {field} of {name}")
        for name in {*self.gamma_norm, *self.entry} - {*self.nonzero}:
            raise ValueError(f"it has no nonzero of {name}")
        for name, size in self.gamma_norm.items():
            if not size[0].shape == self.weight_norm[name][0].shape == self.entry[name].shape:
                raise ValueError(f"it has different numbers of units of {name}")
        return self

    @classmethod
    def load(cls, file: str | Path) -> "RecordedPath":
        """Read a record back; ValueError for a file of something else, or a damaged one."""
        with reading(file, "a recorded path"):
            with open(file, "rb") as stream, np.load(stream) as archive:
                arrays = {key: archive[key] for key in archive.files}
            parts = {field: {} for field in cls._fields[2:]}
            for key, x in arrays.items():
                field, slash, name = key.partition("/")
                if slash:
                    parts[field][name] = x
            for key in ("steps", "times"):
                if key not in arrays:
                    raise ValueError(f"it has no {key}")
            return cls(arrays["steps"], arrays["times"], **parts)._checked()
