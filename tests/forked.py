"""Processes forked from a server that has imported torch once: each would need seconds for it."""

import multiprocessing
import os
import runpy
import socket
import sys
import time
from pathlib import Path

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(
    ["dslbi_torch.__main__", "torch._dynamo", "torch.distributed.fsdp", "sklearn.datasets"]
)

STREAMS = {"out": 1, "err": 2}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _enter(rank, world, port, folder, argv, program):
    """What a process does: the command line, or a script with its arguments."""
    where = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=world, LOCAL_WORLD_SIZE=world)
    os.environ.update({k: str(v) for k, v in where.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    for stream, descriptor in STREAMS.items():
        file = os.open(folder / f"{stream}{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
    sys.argv[:] = [str(program or "dslbi"), *argv]
    runpy.run_path(str(program), run_name="__main__") if program else sys.exit(_main(argv))


def _main(argv):
    from dslbi_torch.__main__ import main

    return main(argv)


def together(folder, argv, program=None, timeout=300):
    """Run ``dslbi *argv``, or a script, in two processes that know each other as under torchrun.

    Returns their statuses, and what both printed and complained of.
    """
    folder, port, world = Path(folder), free_port(), 2
    folder.mkdir(parents=True, exist_ok=True)
    processes = [
        FORKSERVER.Process(target=_enter, args=(rank, world, port, folder, argv, program))
        for rank in range(world)
    ]
    deadline = time.monotonic() + timeout
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(max(0, deadline - time.monotonic()))
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
                process.join()
    texts = ["".join((folder / f"{s}{r}").read_text() for r in range(world)) for s in STREAMS]
    return [process.exitcode for process in processes], *texts
