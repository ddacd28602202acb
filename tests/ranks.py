"""Runs a function in several processes as the ranks of one gloo group, from within pytest.

Lightning takes processes that come with LOCAL_RANK and WORLD_SIZE as launched by somebody else.
Forking is safe because conftest holds torch to one thread.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.multiprocessing.spawn import ProcessRaisedException, start_processes

TOLD_LINES = 25
"""Of a rank's traceback; its end says what went wrong."""


@contextmanager
def _free_port() -> Iterator[int]:
    """A port that nobody else is given meanwhile; who reuses addresses, as torch does, may bind."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def _enter(rank: int, function: Callable[[], None], world_size: int, port: int) -> None:
    os.environ.update(
        LOCAL_RANK=str(rank),
        NODE_RANK="0",
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        OMP_NUM_THREADS="1",  # accelerate warns where it has to choose, and a warning is an error
    )
    # torch makes its thread pool anew after a fork, and two threads that ask for it at once, as
    # transformers' when they load weights, find none ("Invalid thread pool!"): ask here first.
    torch.set_num_threads(1)
    try:
        function()
    except Exception as error:  # of the ranks that fail, the harness tells one, maybe not the first
        print(f"rank {rank}: {type(error).__name__}: {error}", file=sys.stderr)
        raise


def run_ranks(function: Callable[[], None], world_size: int = 2, limit_s: float = 120) -> None:
    """Run `function` on every rank; raises if one fails, kills those not done in time."""
    __tracebackhide__ = True
    with _free_port() as port:
        context = start_processes(
            _enter, (function, world_size, port), world_size, join=False, start_method="fork"
        )
        assert context is not None  # it is None where it joins
        deadline = time.monotonic() + limit_s
        try:
            while not context.join(timeout=1):
                if time.monotonic() > deadline:
                    for pid in context.pids():
                        os.kill(pid, signal.SIGKILL)
                    raise TimeoutError(f"ranks were not done after {limit_s} s: a deadlock?")
        except ProcessRaisedException as error:
            lines = str(error).strip().splitlines()
            told = "\n".join([lines[0], "...", *lines[-TOLD_LINES:]])
            raise AssertionError(told) from None
