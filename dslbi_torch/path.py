"""The recorder of a path: when each group entered, and how norms and supports grew."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .arguments import check_count, check_flag
from .bits import pack_bits, unpack_bits
from .crossings import Crossings
from .recorded_path import RecordedPath
from .sharding import is_sharded, shard, whole
from .slices import axes, units_of
from .state import check_holds
from .units import by_entries, families, gammas, norms, scores, unit_sizes
from .wrapped import unwraps

NEVER = -1


class PathRecorder:
    """Record the structure path of an optimizer while an ordinary loop trains.

    It is attached as a post-step hook: no line of the loop changes. After every step the first
    entry of every unit is noted on the device, without a host synchronisation. Every ``every``
    steps a snapshot of the norms is kept there too; it moves to the host when the record is read.

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
    at : iterable of float in (0, 1)
        Densities at which the sparse model is kept, for :func:`dslbi_torch.crossing_weights`; for
        ``model`` and ``host`` see :class:`dslbi_torch.crossings.Crossings`. Until the last one is
        reached, every step waits for the device.

    Attributes
    ----------
    steps : list of int
        Steps at which snapshots were taken.
    times : list of float
        The path time at each: the sum of alpha of the first split tensor's group. ``step`` and
        ``time`` are the steps seen and the path time so far. With a :class:`dslbi_torch.Release`
        all steps of the optimizer are counted, while the time is zero until the release, of which a
        snapshot is kept: the last one of time 0.

    Notes
    -----
    The record of sharded parameters is that of whole ones. It is kept as the parameters are, and
    gathered when it is read: every process must call ``entry_steps``, ``recorded``, ``save`` and
    ``state_dict``. Attach a recorder after loading the optimizer's state:
    ``torch.distributed.checkpoint.state_dict`` gives an optimizer without state a step of lr 0.
    """

    @unwraps
    def __init__(
        self,
        optimizer: Optimizer,
        *,
        every: int = 1,
        elements: bool = False,
        at: Iterable[float] = (),
        model: nn.Module | None = None,
        host: bool = True,
    ):
        self.every = check_count("every", every)
        check_flag("elements", elements)
        self.optimizer, self.elements = optimizer, elements
        self.step, self.time = 0, 0.0
        self.steps: list[int] = []
        self.times: list[float] = []
        self.entry: dict[str, Tensor] = {}
        self._norms: dict[str, list[Tensor]] = {}
        self._weights: dict[str, list[Tensor]] = {}
        self._nonzero: dict[str, list[Tensor]] = {}
        self._supports: dict[str, list[Tensor]] = {}
        self._shapes: dict[str, torch.Size] = {}
        self._extended: dict[str, tuple[int, ...]] = {}
        self._members: dict[str, str] = {}  # of every split tensor, the name that its units have
        for family in families(optimizer):
            lists, W = scores(family), family.Ws[0]
            grouped = not by_entries(family.group)
            extended = axes(W.ndim, units_of(family.group).group_dim) if grouped else ()
            for k, (name, V) in enumerate(zip(family.names, family.Vs, strict=True)):
                self._shapes[name] = V.shape
                self._members[name] = family.names[min(k, len(lists) - 1)]
            for name, score in zip(family.names, lists, strict=False):  # slices: the first name
                if elements or grouped:
                    self.entry[name] = torch.full_like(score, NEVER, dtype=torch.int64)
                self._norms[name], self._weights[name], self._nonzero[name] = [], [], []
                self._extended[name] = extended
                if elements and not grouped:
                    self._supports[name] = []
        self.record()
        self.crossings = Crossings(optimizer, at, model=model, host=host)
        self._hooks = [optimizer.register_step_post_hook(self._after_step)]
        self._due: int | None = None  # steps of the optimizer's record, where not as many as here
        self._counts = getattr(optimizer, "path_recorder", None) is None  # the first one does
        if self._counts:
            optimizer.path_recorder = self
            self._compare_steps()  # a state may have been loaded before
            loads = getattr(optimizer, "base", optimizer)  # a Split leaves it to its base
            self._hooks.append(loads.register_load_state_dict_post_hook(self._compare_steps))

    def detach(self) -> None:
        """Stop recording; what was recorded stays."""
        for hook in self._hooks:
            hook.remove()
        if self.optimizer.path_recorder is self:
            self.optimizer.path_recorder = None
            for group in self.optimizer.param_groups:
                group.pop("recorded", None)

    def _compare_steps(self, *_):
        recorded = families(self.optimizer)[0].group.get("recorded", 0)
        self._due = None if recorded == self.step else recorded

    def _warn_unless_restored(self):
        due, self._due = self._due, None
        if due is not None and due != self.step:
            warnings.warn(
                f"the record must be restored with its optimizer, which comes with {due} recorded "
                f"steps, got one of {self.step}: load_state_dict takes what state_dict gave",
                stacklevel=2,
            )

    def families(self):
        """Return the families; ValueError where they are not those of the beginning."""
        found = families(self.optimizer)
        for family in found:
            for name, V in zip(family.names, family.Vs, strict=True):
                was = self._shapes.get(name, ())
                if V.shape != was:
                    raise ValueError(
                        f"{name} must have the shape {tuple(was)} of when the recorder was "
                        f"attached, got {tuple(V.shape)}: detach the recorder, and attach a new one"
                    )
        return found

    @torch.no_grad()
    def _after_step(self, *_):
        self._warn_unless_restored()
        self.step += 1
        found = self.families()
        resting = found[0].group.get("rest", 0)  # in how many steps the path is released
        if not resting:
            self.time += self.optimizer.alpha(found[0].group)
        for family in found:
            if self._counts:
                family.group["recorded"] = self.step
            if family.names[0] not in self.entry:
                continue
            for name, score in zip(family.names, scores(family), strict=False):
                entry, chosen = shard(self.entry[name]), shard(score > family.group["lam"])
                entry.masked_fill_((entry == NEVER) & chosen, self.step)
        if self.step % self.every == 0 or resting == 1:
            self.record()
        self.crossings.look(found, self.step, self.time)

    @torch.no_grad()
    def record(self) -> None:
        """Take a snapshot now (once per step at most)."""
        if self.steps and self.steps[-1] == self.step:
            return
        self.steps.append(self.step)
        self.times.append(self.time)
        for family in self.families():
            lists = zip(family.names, scores(family), unit_sizes(family), strict=False)
            for name, score, size in lists:
                chosen = score > family.group["lam"]
                self._nonzero[name].append((chosen.count_nonzero() * size)[None])
                if name in self._supports:
                    bits = chosen if is_sharded(chosen) else pack_bits(chosen)
                    self._supports[name].append(bits[None])
            if not by_entries(family.group):
                name = family.names[0]
                for series, xs in ((self._norms, gammas(family)), (self._weights, family.Ws)):
                    (size,) = norms(xs, family.group)
                    series[name].append(size.squeeze(self._extended[name]).float()[None])

    def entry_steps(self, name: str) -> np.ndarray:
        """Return the step after which each unit was first selected; -1: never.

        Single weights are recorded with ``elements=True`` only.
        """
        own = self._members.get(name, name)
        if own not in self.entry:
            raise ValueError(
                f"no entry steps of {name!r}: recorded are {sorted(self.entry)} "
                "(single weights need elements=True)"
            )
        return whole(self.entry[own]).squeeze(self._extended[own]).cpu().numpy()

    def support(self, name: str, step: int) -> Tensor:
        """Return which units of a split tensor were selected at a snapshot.

        Single weights are recorded with ``elements=True`` only.
        """
        if check_count("step", step, 0) not in self.steps:
            raise ValueError(
                f"step must be one of the recorded ones, got {step}: every {self.every} steps, "
                f"{self.steps[0]} to {self.steps[-1]}"
            )
        name = self._members.get(name, name)
        k = self.steps.index(step) - len(self.steps)
        if self._norms.get(name):
            return _gathered(self._norms[name])[k] > 0
        series = self._supports.get(name)
        bits = _gathered(series, pack_bits) if series else ()
        if len(bits) < -k:
            raise ValueError(f"no support of {name!r}: single weights need elements=True")
        return unpack_bits(bits[k], self.entry[name].shape)

    def attached_late(self) -> bool:
        """Return whether something was selected before the recorder was attached, unseen."""
        return any(int(whole(counts[0])[0]) > 0 for counts in self._nonzero.values())

    def recorded(self) -> RecordedPath:
        """Return the whole record as arrays."""

        def gathered(series):
            return {k: _gathered(v).cpu().numpy().copy() for k, v in series.items() if v}

        return RecordedPath(
            np.array(self.steps),
            np.array(self.times),
            gathered(self._nonzero),
            gathered(self._norms),
            gathered(self._weights),
            {name: self.entry_steps(name) for name in self.entry},
        )

    def save(self, file: str | Path) -> None:
        """Write the record as a compressed npz, whole or not at all."""
        self.recorded().save(file)

    def state_dict(self) -> dict:
        """Return the record as tensors and plain numbers, for a checkpoint."""
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
            "crossings": self.crossings.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue a record; it must come from the same split tensors and settings."""
        check_holds(state, self.state_dict().keys() - {"support"}, "a recorder")
        for key in ("every", "elements"):
            if state[key] != getattr(self, key):
                raise ValueError(f"{key} must be {getattr(self, key)} as here, got {state[key]}")
        shapes = {k: tuple(v.shape) for k, v in state["entry"].items()}
        own = {k: tuple(v.shape) for k, v in self.entry.items()}
        if shapes != own or set(state["nonzero"]) != set(self._nonzero):
            raise ValueError(f"the record must be of the split tensors {own}, got {shapes}")
        self.crossings.load_state_dict(state["crossings"])
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
                held = state.get(key, {}).get(name)
                series[name] = [] if held is None else [held]


def _gathered(series, finish=lambda x: x):
    """Return a series of snapshots as one tensor, which the series then is: a tensor for each of
    them would take many times the memory of its numbers.

    Sharded snapshots are gathered and finished, once: the series keeps what was made of them.
    """
    fresh = [x for x in series if is_sharded(x)]
    if fresh:
        series[-len(fresh) :] = [finish(x)[None] for x in whole(torch.cat(fresh)).unbind()]
    series[:] = [torch.cat(series)]
    return series[0]


def _laid_as(entry, value):
    """Lay a tensor that every process holds whole over the processes, as entry is."""
    if not is_sharded(entry):
        return value
    from torch.distributed.tensor import distribute_tensor

    value = value.to(entry.device)
    return distribute_tensor(value, entry.device_mesh, entry.placements, src_data_rank=None)
