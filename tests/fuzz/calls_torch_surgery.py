"""Valid calls of the library: surgery of nets, and pictures."""

import numpy as np
import torch
from fuzz.mutate import Call
from fuzz.small_net import are_masks, attached, drawn, make_net, ones, saved, world

import dslbi_torch as d
from dslbi_torch import figures, saliency
from dslbi_torch.surgery import channels, compact, costs, int8, measure, saving, shrink, widen

LOG = [dict(epoch=k, acc_dense=0.5, acc_sparse=0.5, acc_gamma=0.5) for k in range(2)]
LOG = [row | dict(nonzero_split=0.1, nonzero_all=0.2) for row in LOG]
ROWS = [{"method": "a", "density": 0.1, "without": 0.5, "with": 0.6}]
CALLS = {
    # surgery
    "surgery.channels.coupled_channels": Call(
        channels.coupled_channels, world("model", "example_input")
    ),
    "surgery.channels.channel_table": Call(channels.channel_table, world("model", "example_input")),
    "surgery.compact.compact": Call(
        lambda **given: d.compact(**given).state_dict(),
        world("model", "masks", "example_input"),
    ),
    "surgery.compact.compact_with_masks": Call(
        lambda **given: compact.compact_with_masks(**given)[1],
        world("model", "masks", "example_input"),
        are_masks,
    ),
    "surgery.fold_norms.fold_norms": Call(
        lambda **given: d.fold_norms(**given).state_dict(), world("model", "example_input")
    ),
    "surgery.widen.widen_": Call(
        d.widen_, world("model", "optimizer", "example_input", more=lambda: {"0": 1})
    ),
    "surgery.widen.widths": Call(widen.widths, world("model", "example_input")),
    "surgery.costs.count_macs": Call(costs.count_macs, world("model", "example_input")),
    "surgery.costs.layer_costs": Call(costs.layer_costs, world("model", "masks", "example_input")),
    "surgery.shrink.shrink": Call(
        lambda **given: d.shrink(**given).model.state_dict(),
        world("model", "optimizer", "example_input", batches=lambda: [torch.ones(2, 1, 6, 6)]),
        slow=4,
    ),
    "surgery.shrink.renew_statistics_": Call(
        shrink.renew_statistics_, world("model", batches=lambda: [ones(2, 1, 6, 6)()])
    ),
    "surgery.measure.batch_times": Call(
        measure.batch_times,
        world(nets=lambda: {"a": make_net()}, x=ones(2, 1, 6, 6), rounds=2, budget=0.01),
        slow=4,
    ),
    "surgery.measure.bytes_on_disk": Call(measure.bytes_on_disk, world(net=make_net)),
    "surgery.measure.size_table": Call(
        measure.size_table, world(nets=lambda: {"a": make_net()}, x=ones(2, 1, 6, 6)), slow=20
    ),
    "surgery.layer_times.layer_times": Call(
        lambda **given: d.layer_times(**given).layers, world("model", "example_input"), slow=50
    ),
    "target_cost.TargetCost": Call(
        attached(d.TargetCost),
        world("optimizer", "model", "example_input", steps=3, macs=0.9, ramp=0.5, at_least=0),
    ),
    "surgery.saving.save_compact": Call(
        d.save_compact, world("model", file="net.pt", architecture=lambda: {"width": 4})
    ),
    "surgery.saving.load_compact": Call(
        lambda **given: d.load_compact(**given).state_dict(),
        lambda: dict(file=saved("net.pt"), build=lambda width=4: make_net(width)),
        says=("net",),
    ),
    "surgery.saving.save_program": Call(
        saving.save_program, world("model", "example_input", file="net.pt2"), slow=50
    ),
    "surgery.int8.save_int8": Call(
        int8.save_int8,
        world("model", "example_input", batches=lambda: [torch.ones(2, 1, 6, 6)], file="net.onnx"),
        slow=50,
    ),
    "surgery.saving.save_onnx": Call(
        saving.save_onnx, world("model", "example_input", file="net.onnx"), slow=50
    ),
    "surgery.costs.cost_table": Call(
        costs.cost_table,
        lambda: dict(costs=costs.layer_costs(**world("model", "masks", "example_input")())),
    ),
    # pictures
    "saliency.activation_maximisation": Call(
        saliency.activation_maximisation,
        world(
            "model",
            layer="3",
            channels=lambda: [0, 2],
            shape=(1, 6, 6),
            norm=1.0,
            steps=2,
            lr=0.5,
            seed=0,
        ),
    ),
    "saliency.guided_backprop": Call(
        saliency.guided_backprop,
        world("model", layer="3", channels=lambda: [0, 2], pictures=ones(2, 1, 6, 6)),
    ),
    "figures.density_and_accuracy": Call(
        drawn(figures.density_and_accuracy), lambda: dict(log=[dict(row) for row in LOG], axes=None)
    ),
    "figures.accuracy_by_density": Call(
        drawn(figures.accuracy_by_density),
        lambda: dict(rows=[dict(row) for row in ROWS], axes=None),
    ),
    "figures.entry_order": Call(
        figures.entry_order, lambda: dict(norms=np.array([[0.0, 1.0], [1.0, 1.0]]))
    ),
    "figures.filter_norms": Call(
        drawn(figures.filter_norms),
        lambda: dict(steps=np.arange(2), norms=np.ones((2, 3)), entry=None, ax=None, ylabel=None),
    ),
    "figures.filters": Call(
        drawn(figures.filters),
        lambda: dict(
            weight=np.ones((2, 1, 3, 3)), selected=None, columns=None, scale=None, ax=None
        ),
    ),
}
# What matplotlib says of a figure is its own.
CALLS = {
    name: call._replace(foreign="matplotlib") if name.startswith("figures") else call
    for name, call in CALLS.items()
}
