"""What the benchmarks of transformers share: a path that leaves a part of heads and neurons.

A trained net is walked from dense to sparse: the path begins at Gamma = W
(:func:`dslbi_torch.release_`), the shares of heads and of neurons fall on a ramp, and after it W
tends to what is left. So a head or a neuron goes that is small along the path, and training goes on
all the while. Every layer loses the same share. What is trained is kept in a folder, and a run that
was stopped goes on from there with the same bits.

How long a run must be: the ramp raises the level by about the norm that a typical unit has, and the
pull alone would take half of that from a unit that stays (``W/kappa + V`` is constant, and they
meet where ``W = kappa (V - lam)``). The loss holds W up where its steps, of about lr an entry with
AdamW, are not below those of the pull, ``S / steps after the ramp`` of what is missing.
"""

import math
import time
from pathlib import Path

import torch
from torch.optim.lr_scheduler import LambdaLR

from dslbi_torch import (
    FallingNu,
    PathRecorder,
    Split,
    TargetDensity,
    compact,
    masked,
    release_,
    split_groups,
    suggest,
    support_masks,
    whole_filters,
)
from dslbi_torch.safe_files import atomic
from dslbi_torch.surgery.costs import count_macs
from dslbi_torch.surgery.measure import batch_times
from dslbi_torch.surgery.saving import save_onnx

HEADS, NEURONS = 2 / 3, 1 / 2  # what is left of them
S, RAMP, EVERY = 10.0, 0.4, 50  # what is left outside the support is e^-S; steps of a checkpoint


def groups_of(model, heads, neurons, example):
    """Every layer's heads, and its neurons, with a level of their own; the rest unpenalised."""
    rules = dict.fromkeys(heads, "head") | dict.fromkeys(neurons, "row")
    return split_groups(
        *(model, rules),
        **dict(conv=None, linear=None, apart=True, weight_decay=0.0, example_input=example),
    )


class Course:
    """AdamW whose lr grows over ``warm`` steps and falls on half a cosine; with ``path``, a path
    from dense to sparse around it."""

    def __init__(self, model, groups, lr, steps, *, warm=0, fall=True, path=False):
        self.model, self.step = model, 0
        self.base = torch.optim.AdamW(groups, lr=lr)

        def factor(k):
            if k < warm:
                return (k + 1) / warm
            return 1e-3 + 0.999 * (1 + math.cos(math.pi * k / steps)) / 2 if fall else 1.0

        self.recorder = None
        self.optimizer = Split(self.base) if path else self.base
        self.scheduler = LambdaLR(self.base, factor)
        if path:
            self._walk(steps)

    def _walk(self, steps):
        """Let the path begin, from dense to sparse."""
        FallingNu(self.optimizer)
        own = suggest(self.optimizer, steps, S=S, scheduler=self.scheduler, ramp=RAMP)
        for group, found in zip(self.base.param_groups, own, strict=True):
            group.update(found)
        release_(self.optimizer, dense=True)
        split = [group for group in self.base.param_groups if group["penalty"] is not None]
        shares = {g["param_names"][0]: HEADS if g["block"] > 1 else NEURONS for g in split}
        TargetDensity(self.optimizer, shares, steps=steps, ramp=RAMP, first=1.0)
        self.recorder = PathRecorder(self.optimizer, every=max(1, steps // 100))

    def train(self, loss_of, steps, file: Path):
        """Steps on the loss of each: ``loss_of(step)``; from where the file has come to."""
        if file.exists():
            self._go_on(torch.load(file, weights_only=True))
        began, first = time.process_time(), self.step
        while self.step < steps:
            self.base.zero_grad()
            loss = loss_of(self.step)
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            self.step += 1
            if not self.step % EVERY or self.step == steps:
                each = (time.process_time() - began) / (self.step - first)
                print(f"{file.stem} {self.step}: loss {loss:.4f}, {each:.2f} s a step", flush=True)
                with atomic(file) as temporary:
                    torch.save(self._state(), temporary)

    def _state(self):
        parts = dict(model=self.model, optimizer=self.optimizer, scheduler=self.scheduler)
        parts |= dict(recorder=self.recorder) if self.recorder else {}
        return dict(step=self.step, **{key: part.state_dict() for key, part in parts.items()})

    def _go_on(self, state):
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.recorder:
            self.recorder.load_state_dict(state["recorder"])


def cut(model, optimizer, example):
    """The masks of the support with what follows it, and the net that is cut by them."""
    masks = whole_filters(model, support_masks(optimizer), example)
    return masks, compact(model, masks, example)


@torch.no_grad()
def gap(model, masks, small, x, outputs):
    """The largest difference of outputs of the cut and the masked net, relative to the largest."""
    with masked(model, masks):
        expected = outputs(model, x)
    return ((outputs(small, x) - expected).abs().max() / expected.abs().max()).item()


def sizes(nets, x, rounds=21):
    """Parameters, MACs of an example and milliseconds of a batch; the nets take turns."""
    ms = batch_times(nets, x, rounds=rounds, budget=60)
    return {
        name: dict(
            parameters=sum(p.numel() for p in net.parameters()),
            macs=count_macs(net, x)[""],
            ms=1e3 * ms[name],
        )
        for name, net in nets.items()
    }


def onnx_times(nets, x, folder, rounds=21):
    """Milliseconds of a batch in ONNX Runtime on one thread, and bytes of the files."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    sessions, rows = {}, {}
    for name, net in nets.items():
        file = folder / f"{name}.onnx"
        save_onnx(net, x, file)
        sessions[name] = onnxruntime.InferenceSession(file, options)
        rows[name] = dict(onnx_bytes=file.stat().st_size)
    seconds = {name: [] for name in nets}
    for _ in range(rounds):
        for name, session in sessions.items():
            begin = time.perf_counter()
            session.run(None, fed(session, x))
            seconds[name].append(time.perf_counter() - begin)
    for name, found in seconds.items():
        rows[name]["onnx_ms"] = 1e3 * sorted(found)[rounds // 2]
    return rows


def fed(session, x):
    """What an ONNX session is given for an example."""
    xs = list(x.values()) if isinstance(x, dict) else [x]
    return {own.name: part.numpy() for own, part in zip(session.get_inputs(), xs, strict=True)}


def path_of(recorder):
    """Steps, and how many heads or neurons every layer has at each of them."""
    path = recorder.recorded()
    units = {name: (norm > 0).sum(1).tolist() for name, norm in path.gamma_norm.items()}
    return dict(steps=path.steps.tolist(), units=units)
