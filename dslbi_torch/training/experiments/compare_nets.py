"""Nets beside each other: what each costs, and what it reaches."""

import copy

from torch import nn

from ...masks.semi_structured import has_kernels
from ...surgery.costs import count_macs
from ...surgery.measure import batch_times, bytes_on_disk
from ...text import text_table
from ..run.evaluate import accuracy
from ..run.state import Run


def comparison(run: Run, nets: dict[str, nn.Module], batch_size: int = 128) -> str:
    """Return what nets cost and reach, one line each: accuracy, parameters, MACs, time, bytes."""
    x = run.data.example(batch_size)
    times = batch_times(nets, x)
    rows = []
    for name, net in nets.items():
        right = accuracy(net, run.data.test, run.config, run.processes)
        parameters = sum(p.numel() for p in net.parameters())
        nonzero = sum(int(p.count_nonzero()) for p in net.parameters())
        macs, milliseconds = count_macs(net, x[:2])[""], 1e3 * times[name]
        shown = f"{100 * right:.2f}", f"{parameters:,}", f"{nonzero:,}", f"{macs:,}"
        rows.append((name, *shown, f"{milliseconds:.2f}", f"{bytes_on_disk(net):,}"))
    head = (
        "\nmodel",
        f"accuracy %\n{'held out' if run.config.holdout else 'test set'}",
        "\nparameters",
        "of them\nnon-zero",
        "MACs\nper picture",
        f"ms per batch\nof {len(x)}",
        "bytes\non disk",
    )
    return text_table(head, rows, "<>>>>>>", (10, 10, 12, 12, 14, 12, 11))


def single_zeros(net: nn.Module) -> list[str]:
    """Say what the single zeros that are left in a net are good for; nothing if there are few."""
    weights = [p for p in net.parameters() if p.ndim > 1]
    total = sum(p.numel() for p in weights)
    zeros = total - sum(int(p.count_nonzero()) for p in weights)
    if zeros < 0.01 * total:
        return []
    device = weights[0].device
    say = f"{100 * zeros / total:.1f} % of the weights of the compact net are single zeros: "
    if has_kernels(device):
        return [say + "semi_structured() runs linear layers as 2:4 sparse ones on this device"]
    full = copy.deepcopy(net)
    for p in full.parameters():
        p.data.masked_fill_(p.data == 0, 1)
    return [
        say + f"smaller on disk only ({bytes_on_disk(net):,} bytes for {bytes_on_disk(full):,}); "
        f"this device ({device.type}) has no 2:4 sparse kernels"
    ]
