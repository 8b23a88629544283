"""The path of a training run: when each group entered, and how norms and supports grew."""

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from .bits import pack_bits, unpack_bits
from .files import atomic
from .penalties import axes, group_norms
from .tensors import is_sharded, shard, whole
from .units import group_gamma, selected, split_tensors

NEVER = -1


class PathRecorder:
    """Record the structure path of an optimizer while an ordinary loop trains.

    Attached as a post-step hook: no line of the loop changes. After every step the first entry of
    every group is noted on the device, without a host synchronisation; every ``every`` steps a
    snapshot of the norms is kept on the device too, and moved to the host when the record is read.

    Parameters
    ----------
    optimizer : Optimizer
        With at least one split tensor.
    every : int >= 1
        Steps between two snapshots of the norms. The state before the first step is snapshot 0.
    elements : bool
        Whether the entry step of single weights is kept for l1 tensors (8 bytes a weight), and
        their support at every snapshot (a bit a weight). Without it, an l1 tensor is summarised by
        its number of non-zero weights.

    Attributes
    ----------
    steps : list of int
        Steps at which snapshots were taken; ``times``: the path time, the sum of alpha, at each.
    step, time : int, float
        Steps seen and the sum of alpha of the first split tensor's group so far.

    Notes
    -----
    The record of sharded parameters is that of whole ones. It is kept as the parameters are, and
    gathered when it is read: there ``entry_steps``, ``arrays``, ``save`` and ``state_dict`` must be
    called by every process. Attach a recorder after loading the optimizer's state:
    ``torch.distributed.checkpoint.state_dict`` gives an optimizer without state a step of lr 0.
    """

    def __init__(self, optimizer: Optimizer, *, every: int = 1, elements: bool = False):
        if not (isinstance(every, int) and every >= 1):
            raise ValueError(f"every must be an integer of at least 1, got {every!r}")
        self.optimizer, self.every, self.elements = optimizer, every, elements
        self.step, self.time = 0, 0.0
        self.steps: list[int] = []
        self.times: list[float] = []
        self.entry: dict[str, Tensor] = {}
        self._norms: dict[str, list[Tensor]] = {}
        self._weights: dict[str, list[Tensor]] = {}
        self._nonzero: dict[str, list[Tensor]] = {}
        self._supports: dict[str, list[Tensor]] = {}
        self._summed: dict[str, tuple[int, ...]] = {}
        self._shapes: dict[str, torch.Size] = {}
        for name, W, V, group in split_tensors(optimizer):
            self._shapes[name] = V.shape
            if elements or group["penalty"] == "group":
                chosen = selected(V, group)
                self.entry[name] = torch.full_like(chosen, NEVER, dtype=torch.int64)
            grouped = group["penalty"] == "group"
            self._summed[name] = axes(W.ndim, group["group_dim"]) if grouped else ()
            self._norms[name], self._weights[name], self._nonzero[name] = [], [], []
            if elements and not grouped:
                self._supports[name] = []
        self.record()
        self._hook = optimizer.register_step_post_hook(self._after_step)

    def detach(self) -> None:
        """Stop recording; what was recorded stays."""
        self._hook.remove()

    def tensors(self):
        """The split tensors, as long as they are those of the beginning; ValueError otherwise."""
        tensors = split_tensors(self.optimizer)
        for name, _, V, _ in tensors:
            was = self._shapes.get(name, ())
            if V.shape != was:
                raise ValueError(
                    f"{name} must have the shape {tuple(was)} of when the recorder was attached, "
                    f"got {tuple(V.shape)}: detach the recorder, and attach a new one"
                )
        return tensors

    @torch.no_grad()
    def _after_step(self, *_):
        self.step += 1
        tensors = self.tensors()
        self.time += self.optimizer.alpha(tensors[0][3])
        for name, _, V, group in tensors:
            entry = self.entry.get(name)
            if entry is not None:
                entry, chosen = shard(entry), shard(selected(V, group))
                entry.masked_fill_((entry == NEVER) & chosen, self.step)
        if self.step % self.every == 0:
            self.record()

    @torch.no_grad()
    def record(self) -> None:
        """Take a snapshot now (once per step at most)."""
        if self.steps and self.steps[-1] == self.step:
            return
        self.steps.append(self.step)
        self.times.append(self.time)
        for name, W, V, group in self.tensors():
            chosen = selected(V, group)
            self._nonzero[name].append(chosen.count_nonzero() * (V.numel() // chosen.numel()))
            if name in self._supports:
                self._supports[name].append(chosen if is_sharded(chosen) else pack_bits(chosen))
            if group["penalty"] == "group":
                dim = group["group_dim"]
                Gamma = group_gamma(V, group)
                self._norms[name].append(group_norms(Gamma, group_dim=dim).float())
                self._weights[name].append(group_norms(W, group_dim=dim).float())

    def entry_steps(self, name: str) -> np.ndarray:
        """Step after which each group (each weight of an l1 tensor) was first selected; -1:
        never."""
        if name not in self.entry:
            raise ValueError(
                f"no entry steps of {name!r}: recorded are {sorted(self.entry)} "
                "(single weights need elements=True)"
            )
        entry = whole(self.entry[name]).cpu().numpy()
        return entry.squeeze(self._summed[name])

    def support(self, name: str, step: int) -> Tensor:
        """What of a split tensor was selected at a snapshot: a bool of each group, or of each
        weight of an l1 tensor (which needs ``elements=True``)."""
        if step not in self.steps:
            raise ValueError(
                f"step must be one of the recorded ones, got {step}: every {self.every} steps, "
                f"{self.steps[0]} to {self.steps[-1]}"
            )
        k = self.steps.index(step) - len(self.steps)
        if self._norms.get(name):
            return _gathered(self._norms[name])[k] > 0
        series = self._supports.get(name, [])
        if len(series) < -k:
            raise ValueError(f"no support of {name!r}: single weights need elements=True")
        return unpack_bits(_gathered(series, pack_bits)[k], self.entry[name].shape)

    def attached_late(self) -> bool:
        """Whether something was selected when the recorder was attached: its entry was missed."""
        return any(int(whole(counts[0])) > 0 for counts in self._nonzero.values())

    def arrays(self) -> dict[str, np.ndarray]:
        """The whole record as arrays.

        ``steps``, ``times`` (snapshots); for each split tensor ``nonzero/NAME`` (snapshots,), and
        for groups ``gamma_norm/NAME``, ``weight_norm/NAME`` (snapshots, groups); ``entry/NAME``.
        """
        out = {"steps": np.array(self.steps), "times": np.array(self.times)}
        for name, counts in self._nonzero.items():
            out[f"nonzero/{name}"] = _gathered(counts).cpu().numpy()
        for key, series in (("gamma_norm", self._norms), ("weight_norm", self._weights)):
            for name, values in series.items():
                if values:
                    out[f"{key}/{name}"] = _gathered(values).cpu().numpy()
        for name in self.entry:
            out[f"entry/{name}"] = self.entry_steps(name)
        return out

    def save(self, file) -> None:
        """Write :meth:`arrays` as a compressed npz, whole or not at all."""
        with atomic(file) as temporary, open(temporary, "wb") as stream:
            np.savez_compressed(stream, **self.arrays())

    def state_dict(self) -> dict:
        """The record as tensors and plain numbers, for a checkpoint."""
        return {
            "step": self.step,
            "time": self.time,
            "every": self.every,
            "elements": self.elements,
            "steps": list(self.steps),
            "times": list(self.times),
            "entry": {k: whole(v).clone() for k, v in self.entry.items()},
            "nonzero": {k: _gathered(v) for k, v in self._nonzero.items()},
            "support": {k: _gathered(v, pack_bits) for k, v in self._supports.items() if v},
            "gamma_norm": {k: _gathered(v) for k, v in self._norms.items() if v},
            "weight_norm": {k: _gathered(v) for k, v in self._weights.items() if v},
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue a record; it must come from the same split tensors and settings."""
        for key in ("every", "elements"):
            if state[key] != getattr(self, key):
                raise ValueError(f"{key} must be {getattr(self, key)} as here, got {state[key]}")
        shapes = {k: tuple(v.shape) for k, v in state["entry"].items()}
        own = {k: tuple(v.shape) for k, v in self.entry.items()}
        if shapes != own or set(state["nonzero"]) != set(self._nonzero):
            raise ValueError(f"the record must be of the split tensors {own}, got {shapes}")
        self.step, self.time = state["step"], state["time"]
        self.steps, self.times = list(state["steps"]), list(state["times"])
        for name, entry in self.entry.items():
            entry.copy_(_laid_as(entry, state["entry"][name]))
        for key, series in (
            ("nonzero", self._nonzero),
            ("support", self._supports),
            ("gamma_norm", self._norms),
            ("weight_norm", self._weights),
        ):
            for name in series:
                series[name] = list(state.get(key, {}).get(name, torch.empty(0)).unbind())


def _gathered(series, finish=lambda x: x):
    """A series of snapshots as one tensor; what was sharded is replaced by what was gathered, and
    then finished."""
    fresh = [x for x in series if is_sharded(x)]
    if fresh:
        series[-len(fresh) :] = [finish(x) for x in whole(torch.stack(fresh)).unbind()]
    return torch.stack(series)


def _laid_as(entry, value):
    """A whole tensor, which every process has, laid over them as entry is."""
    if not is_sharded(entry):
        return value
    from torch.distributed.tensor import distribute_tensor

    value = value.to(entry.device)
    return distribute_tensor(value, entry.device_mesh, entry.placements, src_data_rank=None)
