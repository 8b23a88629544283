"""What nets cost on this machine: milliseconds, and bytes on disk."""

import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from ..arguments import check_count, check_kind, check_model, check_number
from ..forward import call, evaluating, examples_in, run_example, tensors_of
from ..text import text_table
from ..wrapped import unwraps
from .costs import count_macs
from .saving import save_compact


@unwraps
@torch.no_grad()
def batch_times(
    nets: dict[str, nn.Module], x, *, rounds: int = 30, budget: float = 2.0
) -> dict[str, float]:
    """Return the median seconds of a forward pass of each net in evaluation mode.

    The nets take turns, so that a ratio compares passes of the same moment. At least three rounds,
    then until the budget in seconds for each net, or the number of rounds, is used up.
    """
    check_kind("nets", nets, dict, "a dict of nets")
    rounds = check_count("rounds", rounds, 1, 10**6)
    budget = check_number("budget", budget, 0)
    for name, net in nets.items():
        run_example(check_model(net, f"the net {name} of nets"), x)
    seconds = {name: [] for name in nets}
    started = time.perf_counter()
    for k in range(-1, rounds):  # the first round warms up
        if k >= 3 and time.perf_counter() - started > budget * len(nets):
            break
        for name, net in nets.items():
            with evaluating(net):
                taken = seconds_of_pass(net, x)
                if k >= 0:
                    seconds[name].append(taken)
    return {name: statistics.median(values) for name, values in seconds.items()}


def seconds_of_pass(net: nn.Module, x) -> float:
    """Return the seconds of a forward pass.

    On one thread of a CPU it is the time of this thread, which other programs do not lengthen by
    taking the processor.
    """
    on_gpu = any(part.is_cuda for part in tensors_of(x))
    clock = time.perf_counter if on_gpu or torch.get_num_threads() > 1 else time.thread_time
    begin = clock()
    call(net, x)
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - begin


def machine_of(model: nn.Module) -> str:
    """Return what the times of a model depend on here: processor, threads, version of torch."""
    device = next(model.parameters()).device
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    rows, file = {}, Path("/proc/cpuinfo")
    for line in file.read_text().splitlines() if file.exists() else ():
        key, _, value = line.partition(":")
        rows.setdefault(key.strip(), value.strip())
    name = rows.get("model name") or platform.processor() or platform.machine()
    numbers = [rows[key] for key in ("cpu family", "model", "stepping") if key in rows]
    threads = f"threads {torch.get_num_threads()}"
    return f"{' '.join([name, *numbers])}, {threads}, torch {torch.__version__}"


@unwraps
def bytes_on_disk(net: nn.Module) -> int:
    """Return the size of the file that :func:`dslbi_torch.save_compact` makes of a net."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.pt"
        save_compact(check_model(net, "net"), file)
        return file.stat().st_size


@unwraps
def size_table(nets: dict[str, nn.Module], x) -> str:
    """Return parameters, MACs, time and bytes of nets as a table, one line for each."""
    times, rows = batch_times(nets, x), []
    for name, net in nets.items():
        parameters, macs = sum(p.numel() for p in net.parameters()), count_macs(net, x)[""]
        sizes = f"{parameters:,}", f"{macs:,}", f"{1e3 * times[name]:.2f}"
        rows.append((name, *sizes, f"{bytes_on_disk(net):,}"))
    head = (
        "\nmodel",
        "\nparameters",
        "MACs\nper example",
        f"ms per batch\nof {examples_in(x)}",
        "bytes\non disk",
    )
    return text_table(head, rows, "<>>>>", (10, 12, 14, 12, 11))
