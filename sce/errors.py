"""The exceptions that entry points print as a single line; any other is a bug with a traceback."""

import signal
from pathlib import Path


class InputError(ValueError):
    """The user's input is wrong; the message names the thing and says what to do. Exit code 2."""


class NoHeads(InputError):
    """The scores do not hold the sets of heads that were asked for.

    Nothing in the command is wrong then. A study, which asks the same of every run, goes on without
    (sce.studies.jobs).
    """

    PREFIX = "no such heads: "

    def __init__(self, message: str) -> None:
        super().__init__(self.PREFIX + message)


STOPPING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)
)
"""Signals that end a run without its having failed: a manager's, Ctrl-C, SLURM's warning."""


class StoppedBySignal(Exception):
    """A run was told to stop, and did so in good order. Exit code 128 + the signal's number."""

    def __init__(self, number: int, step: int, run_dir: Path, rank: int) -> None:
        """Say what happened, and how to go on.

        Args:
            number: of the signal.
            step: optimiser steps that are saved; 0: none.
            run_dir: of the run.
            rank: of the process. Others than rank 0 end with 0, since launchers kill the rest of a
                group where one process does not, and rank 0 may have curves to send.
        """
        ending = f"at step {step}; go on with: run_dir={run_dir} resume=true, and the same options"
        if not step:
            ending = (
                f"before the first step was saved; start it anew: run_dir={run_dir} resume=true"
            )
        super().__init__(f"stopped by {signal.Signals(number).name} {ending}")
        self.exit_code = 0 if rank else 128 + number
