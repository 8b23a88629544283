"""The processes of a run: one, or those that torchrun started, on one machine or several.

``torchrun`` tells each process its rank and how many there are; the processes find each other at
the address that it names. A GPU a process, and NCCL between them; on CPUs, gloo.
"""

import atexit
import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

from ...text import one_line


class Processes(NamedTuple):
    """This process among those of the run, and its device."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Sum values over the processes, in place; every process must call it."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Average values over the processes, in place; every process must call it."""
        return self.total(values).div_(self.world)

    def gathered(self, value) -> list:
        """Return the value of every process, by rank; every process must call it."""
        values = [value] * self.world
        if self.world > 1:
            dist.all_gather_object(values, value)
        return values

    def agreed(self, make):
        """Return ``make()`` of the first process, or raise its error, in all of them."""
        if self.world == 1:
            return make()
        answer = [None, None]
        if self.first:
            try:
                answer[0] = make()
            except (ValueError, OSError, ImportError) as error:
                answer[1] = error
        dist.broadcast_object_list(answer, src=0)
        if answer[1] is not None:
            raise answer[1]
        return answer[0]

    def in_turn(self, make):
        """Return ``make()``, called in the first process of each machine, then in the others, so
        that what the first one downloads or indexes lies ready; an error of one is that of all."""
        if self.world == 1:
            return make()
        leads = os.environ.get("LOCAL_RANK", str(self.rank)) == "0"
        made = failed = None
        for turn in (True, False):
            if turn == leads:
                try:
                    made = make()
                except (ValueError, OSError, ImportError) as error:
                    failed = error
            for error in self.gathered(failed):
                if error is not None:
                    raise error
        return made


def pick_device(name: str) -> torch.device:
    """Return the device of that name; "auto": a GPU if there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # meta holds no numbers
    except (RuntimeError, AssertionError) as error:  # NotImplementedError is a RuntimeError
        reason = one_line(error, 120)
        raise ValueError(
            f"device must be one that torch can use here, got {name!r}: {reason}"
        ) from error
    return device


@contextmanager
def joined(device: str):
    """Give the processes of this run inside the block: those of torchrun, or this one alone.

    They meet once and stay together until the process ends: a second meeting at the same address
    could read what the first one left there.
    """
    place, world = _own_gpu(pick_device(device)), int(os.environ.get("WORLD_SIZE", "1"))
    if dist.is_initialized():  # by the run before, or by the caller
        yield Processes(dist.get_rank(), dist.get_world_size(), place)
        return
    if world == 1:
        yield Processes(0, 1, place)
        return
    try:
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    except (dist.DistError, RuntimeError, ValueError) as error:
        reason = one_line(error, 200)
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise ValueError(f"the {world} processes must meet at {where}, but: {reason}") from error
    atexit.register(_leave)
    yield Processes(dist.get_rank(), dist.get_world_size(), place)


# What gloo, NCCL and their store say in one process of another that has ended.
_ENDED = re.compile(
    r"Connection (closed|reset) by (remote )?peer|Broken pipe|Connection refused|recvValue failed"
    r"|Timed out waiting|ncclRemoteError|ncclSystemError",
    re.IGNORECASE,
)


@contextmanager
def lost_processes_in_one_line(processes: Processes, folder: Path):
    """Say in one line that another process of the run has ended, as one that was killed.

    Raises
    ------
    ConnectionError
    """
    try:
        yield
    except RuntimeError as error:
        found = _ENDED.search(str(error))
        if processes.world == 1 or found is None:
            raise
        raise ConnectionError(
            f"all {processes.world} processes must stay until the end, but one has ended "
            f"({found[0]}): the same command goes on from the checkpoint in {folder}"
        ) from error


def require_one(what: str) -> None:
    """Refuse several processes, of which each would do the whole of it."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    world = dist.get_world_size() if dist.is_initialized() else world
    if world > 1:
        raise ValueError(f"{what} must run in one process, got {world}: start it without torchrun")


def _leave():
    if dist.is_initialized():
        dist.destroy_process_group()


def _own_gpu(device):
    """The GPU of this process, where there is one for each."""
    local = os.environ.get("LOCAL_RANK")
    if device.type != "cuda" or device.index is not None or local is None:
        return device
    if int(local) >= torch.cuda.device_count():
        raise ValueError(
            f"each process of a machine needs a GPU of its own, got {torch.cuda.device_count()} "
            f"for process {local}"
        )
    device = torch.device("cuda", int(local))
    torch.cuda.set_device(device)
    return device
