"""DessiLBI in several processes: replicas stay equal, and shards are cuts of the unsharded run."""

import itertools
import time
import traceback
import warnings
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from forked import FORKSERVER
from one_tensor import group_gamma, split_tensors
from recorded import flat
from torch import nn

from dslbi_torch import DessiLBI, PathRecorder, Split, TargetDensity, sparse_weights, support_masks
from dslbi_torch.masks.density import density
from dslbi_torch.masks.swap import gamma_weights
from dslbi_torch.units import families, gammas

STEPS = 21
PATIENCE = 120  # seconds until a hanging scenario is given up
SPLIT = {  # what each weight of the net is split into
    "conv.weight": dict(penalty="group"),  # 5 filters on 2 processes: 3 and 2
    "kernels.weight": dict(penalty="group", group_dim=(0, 1), weight="sqrt"),
    "dense.weight": dict(penalty="l1"),
    "columns.weight": dict(penalty="group", group_dim=1),  # every group in both shards
    "tensor.weight": dict(penalty="group", group_dim=()),
    "row.weight": dict(penalty="group"),  # one row: the second shard is empty
}
ACROSS = ("columns.weight", "tensor.weight")
MODES = (
    dict(momentum=0.9),
    dict(momentum=0.9, nesterov=True, weight_decay=0.01, coupling="inside", foreach=True),
    dict(momentum=0.5, dampening=0.3, weight_decay=0.01, decoupled=True, maximize=True),
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 5, 3)
        self.kernels = nn.Conv2d(5, 3, 3)
        self.dense = nn.Linear(12, 6)
        self.columns = nn.Linear(6, 7)
        self.tensor = nn.Linear(7, 4)
        self.row = nn.Linear(4, 1)

    def forward(self, x):
        x = self.kernels(torch.tanh(self.conv(x))).flatten(1)
        return self.row(torch.tanh(self.tensor(torch.tanh(self.columns(self.dense(x))))))


def net(dtype=torch.float64):
    torch.manual_seed(0)
    return Net().to(dtype)


def groups(model, names=True):
    """One parameter group for every kind of splitting, and one for what is not split."""
    rest = [(n, p) for n, p in model.named_parameters() if n not in SPLIT]
    weights = dict(model.named_parameters())
    rows = [([(n, weights[n])], options) for n, options in SPLIT.items()] + [(rest, {})]
    if names:
        return [dict(params=pairs, **options) for pairs, options in rows]
    return [dict(params=[p for _, p in pairs], **options) for pairs, options in rows]


def built(model, **mode):
    return DessiLBI(groups(model), lr=0.1, nu=1.5, lam=0.2, **mode)


def batch(k, dtype=torch.float64):
    """The global batch of step k, the same on every process."""
    generator = torch.Generator().manual_seed(k)
    x = torch.randn(8, 1, 6, 6, generator=generator, dtype=torch.float64)
    return x.to(dtype), (3 * x.mean((1, 2, 3)) - 1).to(dtype)


def train(model, optimizer, steps, *, half=None, sign=1.0):
    """Steps on the global batches, or on one process's half of them."""
    for k in steps:
        x, y = batch(k, next(model.parameters()).dtype)
        if half is not None:
            x, y = x.chunk(2)[half], y.chunk(2)[half]
        optimizer.zero_grad()
        loss = sign * (model(x).squeeze(1) - y).square().mean()
        loss.backward()
        optimizer.step()


def whole(x):
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def agree(x, y, what, tol=1e-12):
    torch.testing.assert_close(
        whole(x), whole(y), rtol=tol, atol=tol, msg=lambda text: f"{what}: {text}"
    )


def agree_all(model, optimizer, reference, expected, what, tol=1e-12):
    """Weights, V, Gamma and momentum of two runs; the second one's structure is in between."""
    pairs = zip(model.named_parameters(), reference.parameters(), strict=True)
    for (name, p), q in pairs:
        agree(p.detach(), q.detach(), f"{what}: {name}", tol)
        assert optimizer.state[p].keys() == expected.state[q].keys(), (what, name)
        for key, value in expected.state[q].items():
            agree(optimizer.state[p][key], value, f"{what}: {key} of {name}", tol)
    for (name, _, V, group), (_, _, U, _) in zip(
        split_tensors(optimizer), split_tensors(expected), strict=True
    ):
        agree(group_gamma(V, group), group_gamma(U, group), f"{what}: Gamma of {name}", tol)


def same_record(one, two, tol=1e-12):
    """Records agree: steps and counts exactly, norms (kept in float32) to its rounding."""
    assert one.keys() == two.keys(), (sorted(one), sorted(two))
    for key in one:
        rtol = 3e-7 if "norm" in key else 0 if key != "times" else tol
        np.testing.assert_allclose(one[key], two[key], rtol=rtol, atol=rtol, err_msg=key)


# The processes


def enter(rank, worker, folder):
    """What a process runs: the worker in a gloo group, its warnings as errors."""
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=PATIENCE / 2),
    )
    try:
        worker(rank)
        dist.barrier()
    except BaseException:
        (folder / f"failed{rank}").write_text(traceback.format_exc())
        raise
    dist.destroy_process_group()


def in_two(worker, folder):
    """Run ``worker(rank)`` in two processes; what one of them raises fails the test."""
    context = mp.start_processes(
        enter, (worker, folder), nprocs=2, join=False, start_method=FORKSERVER.get_start_method()
    )
    deadline = time.monotonic() + PATIENCE
    try:
        while not context.join(timeout=1):
            if time.monotonic() > deadline:
                pytest.fail(f"{worker.__name__} did not end within {PATIENCE} s")
    except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
        texts = [f.read_text() for f in sorted(folder.glob("failed*"))] or [str(error)]
        pytest.fail("\n".join(texts), pytrace=False)
    finally:
        for process in context.processes:
            if process.is_alive():
                process.kill()
                process.join()


# Replicas: DDP, and the optimizer's state dealt out by ZeRO


def replicas(rank):
    for mode in MODES:
        reference = net()
        expected = built(reference, **mode)
        record = PathRecorder(expected, elements=True)
        model = nn.parallel.DistributedDataParallel(net())
        optimizer = built(model.module, **mode)
        path = PathRecorder(optimizer, elements=True)
        sign = -1.0 if mode.get("maximize") else 1.0
        train(reference, expected, range(STEPS), sign=sign)
        train(model, optimizer, range(STEPS), half=rank, sign=sign)
        agree_all(model.module, optimizer, reference, expected, f"DDP {mode}")
        same_record(flat(path.recorded()), flat(record.recorded()))
        mine = [p.detach() for p in model.parameters()]
        mine += [x for p in model.parameters() for x in optimizer.state[p].values()]
        for x in mine:
            first = x.clone()
            dist.broadcast(first, 0)
            assert torch.equal(first, x), "replicas part"
        records = [None, None]
        dist.all_gather_object(records, flat(path.recorded()))
        for key, value in records[0].items():
            np.testing.assert_array_equal(value, records[1][key], err_msg=key)


def split_replicas(rank):
    def around(model):
        return Split(torch.optim.AdamW(groups(model), lr=0.01), nu=1.5, lam=0.02)

    reference = net()
    expected = around(reference)
    model = nn.parallel.DistributedDataParallel(net())
    optimizer = around(model.module)
    train(reference, expected, range(STEPS))
    train(model, optimizer, range(STEPS), half=rank)
    agree_all(model.module, optimizer, reference, expected, "DDP, Split", tol=1e-11)


def dealt_out(rank):
    from torch.distributed.optim import ZeroRedundancyOptimizer

    def check(params, expected, reference, model, **options):
        zero = ZeroRedundancyOptimizer(params, optimizer_class=DessiLBI, **options)
        train(reference, expected, range(STEPS))
        train(model, zero, range(STEPS), half=rank)
        own = {p: zero.optim.state[p] for p in zero.optim.state}
        assert 0 < len(own) < len(list(model.parameters())), "the state must be dealt out"
        for (name, p), q in zip(model.named_parameters(), reference.parameters(), strict=True):
            agree(p.detach(), q.detach(), f"ZeRO: {name}")
        zero.consolidate_state_dict(to=0)
        if rank == 0:
            states = zero.state_dict()
            theirs = expected.state_dict()
            assert states["state"].keys() == theirs["state"].keys()
            for k, state in theirs["state"].items():
                for key, value in state.items():
                    agree(states["state"][k][key], value, f"ZeRO: {key} of parameter {k}")
        dist.barrier()
        return zero

    shared = dict(lr=0.1, nu=1.5, lam=0.2, momentum=0.9)
    reference, model = net(), nn.parallel.DistributedDataParallel(net())
    expected = DessiLBI(reference.parameters(), penalty="l1", **shared)
    check(model.parameters(), expected, reference, model, penalty="l1", **shared)

    reference, model = net(), nn.parallel.DistributedDataParallel(net())
    expected = built(reference, momentum=0.9)
    zero = check(groups(model.module, names=False), expected, reference, model, **shared)
    with pytest.raises(ValueError, match="duals of a ZeroRedundancyOptimizer lie on several"):
        support_masks(zero)


# Shards: FSDP2


def sharded(dtype=torch.float64):
    """The net, cut along dimension 0 over both processes: one unit of its own, and a root."""
    from torch.distributed.fsdp import fully_shard

    mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
    model = net(dtype)
    fully_shard(model.conv, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def cut(rank):
    for mode in MODES:
        sign = -1.0 if mode.get("maximize") else 1.0
        reference, model = net(), sharded()
        expected, optimizer = built(reference, **mode), built(model, **mode)
        record = PathRecorder(expected, elements=True)
        path = PathRecorder(optimizer, elements=True)
        train(reference, expected, range(STEPS), sign=sign)
        train(model, optimizer, range(STEPS), half=rank, sign=sign)
        agree_all(model, optimizer, reference, expected, f"FSDP2 {mode}")
        same_record(flat(path.recorded()), flat(record.recorded()))
    for name, p in model.named_parameters():
        for key, x in optimizer.state[p].items():
            assert x.placements == p.placements, f"{key} of {name} must be cut as the weight is"
    rows = [model.conv.weight, model.row.weight]
    assert [p.to_local().shape[0] for p in rows] == ([3, 1], [2, 0])[rank]
    entered = [(record.entry_steps(name) > 0).mean() for name in SPLIT]
    assert 0 < np.mean(entered) < 1 and entered[0] > 0 and entered[3] > 0, entered


# Joint units whose shards hold them whole; blocks that lie across shards; both at once.
JOINT = (
    ("conv", dict(joint=True)),
    ("dense", dict(block=2)),
    ("dense", dict(joint=True, block=3, weight="sqrt", lam=0.05)),
    ("kernels", dict(joint=True, foreach=True)),
)


def joint_units(rank):
    for layer, options in JOINT:
        runs = []
        for model, half in ((net(), None), (sharded(), rank)):
            parameters = dict(model.named_parameters())
            own = [f"{layer}.weight", f"{layer}.bias"]
            split = own if options.get("joint") else own[:1]
            rest = [(n, p) for n, p in parameters.items() if n not in split]
            chosen = dict(params=[(n, parameters[n]) for n in split], penalty="group", **options)
            optimizer = DessiLBI([chosen, dict(params=rest)], lr=0.1, nu=1.5, lam=0.4, momentum=0.9)
            path = PathRecorder(optimizer)
            train(model, optimizer, range(STEPS), half=half)
            runs.append((model, optimizer, flat(path.recorded()), support_masks(optimizer)))
        (reference, expected, record, kept), (model, optimizer, path, masks) = runs
        what = f"FSDP2, {layer} {options}"
        for (name, p), q in zip(model.named_parameters(), reference.parameters(), strict=True):
            agree(p.detach(), q.detach(), f"{what}: {name}")
            for key, value in expected.state[q].items():
                agree(optimizer.state[p][key], value, f"{what}: {key} of {name}")
        for ours, theirs in zip(
            gammas(families(optimizer)[0]), gammas(families(expected)[0]), strict=True
        ):
            agree(ours, theirs, f"{what}: Gamma")
        same_record(path, record)
        assert (record[f"entry/{layer}.weight"] > 0).any(), (what, record)
        for name, mask in kept.items():
            assert torch.equal(masks[name], mask), (what, name)


def cut_split(rank):
    for base, tol in ((torch.optim.SGD, 1e-12), (torch.optim.AdamW, 1e-11)):
        options = dict(lr=0.1, momentum=0.9) if base is torch.optim.SGD else dict(lr=0.01)
        reference, model = net(), sharded()
        expected, optimizer = (
            Split(base(groups(m), **options), nu=1.5, lam=0.2 if tol == 1e-12 else 0.02)
            for m in (reference, model)
        )
        train(reference, expected, range(STEPS))
        train(model, optimizer, range(STEPS), half=rank)
        agree_all(model, optimizer, reference, expected, f"FSDP2, Split({base.__name__})", tol)


def silence(rank):
    """What is sent: nothing for whole groups, the norms once a step and look for the others."""
    from torch.distributed.tensor.debug import CommDebugMode

    model = sharded()
    optimizer = built(model)
    train(model, optimizer, range(1), half=rank)

    def sent(names, look):
        for name, p in model.named_parameters():
            p.grad = torch.zeros_like(p) if name in names else None
        with CommDebugMode() as counter:
            optimizer.step()
            if look:
                path.record()
        return counter.get_total_counts()

    local = [name for name, _ in model.named_parameters() if name not in ACROSS]
    path = None
    assert sent(local, look=False) == 0
    assert sent(ACROSS, look=False) == len(ACROSS)
    # Where there are fewer rows than processes, DTensor gathers a tensor to count its non-zeros.
    apart = {*ACROSS, "row.weight"}
    optimizer.param_groups[:] = [
        g for g in optimizer.param_groups if not apart & set(g["param_names"])
    ]
    path = PathRecorder(optimizer, elements=True)
    assert sent(local, look=True) == 0


def masks_of_shards(rank):
    reference, model = net(), sharded()
    expected, optimizer = built(reference), built(model)
    train(reference, expected, range(STEPS))
    train(model, optimizer, range(STEPS), half=rank)
    masks = support_masks(optimizer)
    for name, mask in support_masks(expected).items():
        assert torch.equal(masks[name], mask), f"mask of {name}"
    report = density(expected, reference)
    assert 0 < report.nonzero_split < 1, report
    assert density(optimizer, model) == report
    x = batch(99)[0]
    with torch.no_grad():  # leaves the root's weights gathered: they must not be used below
        dense = model(x)
    with pytest.raises(ValueError, match="model must be given where weights are sharded"):
        with sparse_weights(optimizer):
            pass
    for swapped in (sparse_weights, gamma_weights):
        with swapped(optimizer, model), swapped(expected), torch.no_grad():
            out, wanted = model(x), reference(x)
        agree(out, wanted, swapped.__name__)
        assert not torch.equal(out, dense)
        with torch.no_grad():
            assert torch.equal(model(x), dense), "the dense weights must be back"
    assert density(optimizer, model) == report  # after a forward without a backward


def steered(rank):
    """One level is chosen for all shards, and it is that of the unsharded run."""
    reference, model = net(), sharded()
    expected, optimizer = built(reference), built(model)
    for each in (expected, optimizer):
        TargetDensity(each, 0.4, steps=STEPS, every=5)
    train(reference, expected, range(STEPS))
    train(model, optimizer, range(STEPS), half=rank)
    report = density(optimizer, model)
    assert report == density(expected, reference)
    assert abs(report.nonzero_split - 0.4) < 0.1, report


def checkpoints(rank):
    from torch.distributed.checkpoint import state_dict as dcp

    for full in (False, True):
        options = dcp.StateDictOptions(full_state_dict=full, cpu_offload=full)
        model = sharded()
        optimizer = built(model)
        path = PathRecorder(optimizer, every=4)
        train(model, optimizer, range(10), half=rank)
        weights, states = dcp.get_state_dict(model, optimizer, options=options)
        weights = {k: v.clone() for k, v in weights.items()}
        alone = dcp.get_optimizer_state_dict(model, optimizer, options=options)
        assert alone.keys() == states.keys()
        if states:  # a full one lies on the first process alone
            assert alone["state"].keys() == states["state"].keys() == weights.keys()
            states["state"] = {
                name: {key: x.clone() for key, x in state.items()}
                for name, state in states["state"].items()
            }
        record = path.state_dict()
        again = sharded()
        resumed = built(again)
        if full:
            options = dcp.StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
            dcp.set_model_state_dict(again, weights, options=options)
            dcp.set_optimizer_state_dict(again, resumed, states, options=options)
        else:
            dcp.set_state_dict(
                again, resumed, model_state_dict=weights, optim_state_dict=states, options=options
            )
        for group, other in zip(resumed.param_groups, optimizer.param_groups, strict=True):
            assert group["group_dim"] == other["group_dim"], (group["group_dim"], full)
        follower = PathRecorder(resumed, every=4)
        follower.load_state_dict(record)
        train(model, optimizer, range(10, STEPS), half=rank)
        train(again, resumed, range(10, STEPS), half=rank)
        agree_all(again, resumed, model, optimizer, f"resumed, full={full}", tol=0)
        same_record(flat(follower.recorded()), flat(path.recorded()))
    with pytest.raises(ValueError, match="V of parameter 0 must be a DTensor as the parameter is"):
        resumed.load_state_dict(built_and_trained().state_dict())


def built_and_trained():
    model = net()
    optimizer = built(model)
    train(model, optimizer, range(1))
    return optimizer


def narrow(rank):
    """A bf16 parameter keeps a float32 V, also through a checkpoint."""
    from torch.distributed.checkpoint import state_dict as dcp

    model = sharded(torch.bfloat16)
    optimizer = built(model)
    train(model, optimizer, range(3), half=rank)
    states = dcp.get_optimizer_state_dict(model, optimizer)
    V = {name: whole(V).clone() for name, _, V, _ in split_tensors(optimizer)}
    resumed = built(model)
    dcp.set_optimizer_state_dict(model, resumed, states)
    for name, p, U, _ in split_tensors(resumed):
        assert p.dtype == torch.bfloat16 and U.dtype == torch.float32, name
        assert torch.equal(whole(U), V[name]), name


def laid(rank):
    """Tensors in any layout, with injected gradients: columns cut, large, complex, replicated with
    a gradient still to be summed."""
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

    mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
    real, cplx = torch.float64, torch.complex128
    cases = [
        ((5, 3), real, Shard(1), dict(penalty="group")),
        ((5, 3, 2), real, Shard(1), dict(penalty="group", group_dim=-2)),
        ((5, 3), real, Shard(1), dict(penalty="l1")),
        ((600, 500), real, Shard(0), dict(penalty="group", group_dim=1, weight="sqrt")),
        ((5, 3), cplx, Shard(0), dict(penalty="group")),
        ((5, 3), cplx, Shard(0), dict(penalty="group", group_dim=1)),
        ((5, 3), cplx, Shard(1), dict(penalty="l1")),
        ((4,), real, Replicate(), dict(penalty="group")),
        ((4,), real, Replicate(), dict()),
    ]
    for foreach in (False, True):
        pairs, own = [], []
        for seed, (shape, dtype, place, options) in enumerate(cases):
            torch.manual_seed(seed)
            x = torch.randn(shape, dtype=dtype)
            lam = 0.2 if len(shape) < 3 and shape[0] < 9 else 0.05
            full = nn.Parameter(x)
            part = nn.Parameter(distribute_tensor(x.clone(), mesh, [place]))
            pairs.append((part, full, place))
            own.append(dict(options, lam=lam))
        one, two = (
            DessiLBI(
                [dict(params=[pair[k]], **o) for pair, o in zip(pairs, own, strict=True)],
                lr=0.1,
                nu=2.0,
                weight_decay=0.1,
                foreach=foreach,
            )
            for k in range(2)
        )
        for _ in range(8):
            for part, full, place in pairs:
                full.grad = torch.randn_like(full)
                if place.is_replicate():
                    part.grad = DTensor.from_local(full.grad / 2, mesh, [Partial()])
                else:
                    part.grad = distribute_tensor(full.grad, mesh, [place])
            one.step()
            two.step()
        for (part, full, _), case in zip(pairs, cases, strict=True):
            agree(part.detach(), full.detach(), f"W of {case}")
            for key, value in two.state[full].items():
                agree(one.state[part][key], value, f"{key} of {case}")


def flattened(rank):
    """The older FSDP keeps cuts of one flat vector: fine for single weights, not for groups."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    reference = net()
    model = FullyShardedDataParallel(net(), use_orig_params=True, device_id=torch.device("cpu"))
    with pytest.raises(ValueError, match="must keep its shape to carry groups, got a flattened"):
        DessiLBI(model.parameters(), penalty="group")
    expected, optimizer = (
        DessiLBI(m.parameters(), lr=0.1, nu=1.5, lam=0.2, penalty="l1") for m in (reference, model)
    )
    train(reference, expected, range(STEPS))
    train(model, optimizer, range(STEPS), half=rank)
    with FullyShardedDataParallel.summon_full_params(model):
        for (name, p), q in zip(model.named_parameters(), reference.parameters(), strict=True):
            agree(p.detach(), q.detach(), f"flattened: {name}")


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(6, 10)
        self.down = nn.Linear(10, 7)

    def forward(self, x):
        return torch.tanh(self.down(torch.tanh(self.up(x))))


def grid(rank):
    """FSDP2 over tensor parallelism: the second layer is cut in two directions."""
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import parallel

    plan = {"up": parallel.ColwiseParallel(), "down": parallel.RowwiseParallel()}

    def run(dims, lam, model, half=None):
        rows = [
            dict(params=[(n, p)], penalty="group" if p.ndim > 1 else None, group_dim=dim)
            for (n, p), dim in zip(model.named_parameters(), dims, strict=True)
        ]
        optimizer = DessiLBI(rows, lr=0.1, nu=1.5, lam=lam, foreach=True)
        path = PathRecorder(optimizer, every=3)
        for k in range(STEPS):
            torch.manual_seed(k)
            x = torch.randn(8, 6, dtype=torch.float64)
            x = x if half is None else x.chunk(2)[half]
            optimizer.zero_grad()
            ((model(x) - x.sum(1, keepdim=True)) ** 2).mean().backward()
            optimizer.step()
        return optimizer, path

    cases = [((0, 0, 1, 0), 0.8), ((1, 0, 0, 0), 1.2)]
    for (dims, lam), size in itertools.product(cases, ((1, 2), (2, 1))):
        mesh = dist.device_mesh.init_device_mesh("cpu", size, mesh_dim_names=("data", "tensor"))
        torch.manual_seed(0)
        reference = Wide().double()
        model = parallel.parallelize_module(Wide().double(), mesh["tensor"], plan)
        with torch.no_grad():
            for p, q in zip(model.parameters(), reference.parameters(), strict=True):
                p.copy_(laid_as(q, p))
        fully_shard(model, mesh=mesh["data"])
        expected, record = run(dims, lam, reference)
        optimizer, path = run(dims, lam, model, half=rank if size == (2, 1) else None)
        agree_all(model, optimizer, reference, expected, f"grid {dims} {size}")
        same_record(flat(path.recorded()), flat(record.recorded()))
        report = density(expected, reference)
        assert 0 < report.nonzero_split < 1, report
        assert density(optimizer, model) == report


def laid_as(x, p):
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(x.detach(), p.device_mesh, p.placements) if p is not x else x


def shards(rank):
    cut(rank)
    joint_units(rank)
    laid(rank)
    grid(rank)
    flattened(rank)
    cut_split(rank)
    silence(rank)
    masks_of_shards(rank)
    steered(rank)
    checkpoints(rank)
    narrow(rank)


@pytest.mark.slow
def test_shards_are_cuts_of_the_unsharded_run(tmp_path):
    in_two(shards, tmp_path)


def replicated(rank):
    replicas(rank)
    split_replicas(rank)
    dealt_out(rank)


@pytest.mark.slow
def test_replicas_stay_equal_and_are_the_run_on_the_global_batch(tmp_path):
    in_two(replicated, tmp_path)
