"""Runs a function in several processes as the ranks of one gloo group, from within pytest.

Lightning takes processes that come with LOCAL_RANK and WORLD_SIZE as launched by somebody else.
Forking is safe because conftest holds torch to one thread.
"""

import os
import signal
import socket
import time
from collections.abc import Callable

import torch.multiprocessing as mp


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _enter(rank: int, function: Callable[[], None], world_size: int, port: int) -> None:
    os.environ.update(
        LOCAL_RANK=str(rank),
        NODE_RANK="0",
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        OMP_NUM_THREADS="1",  # accelerate warns where it has to choose, and a warning is an error
    )
    function()


def run_ranks(function: Callable[[], None], world_size: int = 2, limit_s: float = 120) -> None:
    """Run `function` on every rank; raises if one fails, kills those not done in time."""
    context = mp.start_processes(
        _enter,
        args=(function, world_size, _free_port()),
        nprocs=world_size,
        join=False,
        start_method="fork",
    )
    deadline = time.monotonic() + limit_s
    while not context.join(timeout=1):
        if time.monotonic() > deadline:
            for pid in context.pids():
                os.kill(pid, signal.SIGKILL)
            raise TimeoutError(f"ranks were not done after {limit_s} s: a deadlock?")
