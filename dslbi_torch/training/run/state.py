"""A training run in memory: its parts, and how far it has come."""

import math
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from ...path import PathRecorder
from ...steering import Controller
from ..config import Config
from ..data.datasets import Data
from .exchange import RigL
from .processes import Processes
from .pruning import Pruning


@dataclass
class Position:
    """How far a run has come."""

    epoch: int = 0  # epochs that were finished
    batch: int = 0  # batches that were finished of the epoch after them
    losses: torch.Tensor | None = None  # of these batches: the sum over their pictures
    order: torch.Tensor | None = None  # state of the generator before that epoch
    log: list[dict] = field(default_factory=list)
    result: dict = field(default_factory=dict)  # of the last evaluation
    started: float = field(default_factory=time.perf_counter)  # as if never interrupted

    @property
    def seconds(self) -> float:
        """Time spent on the run so far, in all its sessions."""
        return time.perf_counter() - self.started


class Run(NamedTuple):
    """A training run in memory. All that changes in it goes into the checkpoint."""

    config: Config
    processes: Processes
    data: Data
    model: nn.Module
    net: nn.Module  # the model as it is called: compiled, in replicas, or itself
    optimizer: Optimizer
    scheduler: LambdaLR
    controller: Controller | None  # of the penalty levels
    recorder: PathRecorder | None  # None where nothing is split
    pruning: Pruning | RigL | None  # in training
    scaler: torch.amp.GradScaler | None  # of fp16
    average: AveragedModel | None  # of the weights, with ema
    generator: torch.Generator  # of the order of the batches
    at: Position

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.data.train) / self.config.batch_size)

    @property
    def step(self) -> int:
        """Steps that were finished."""
        return self.at.epoch * self.steps_per_epoch + self.at.batch
