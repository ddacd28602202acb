"""The jobs of a stage, through one of Hydra's launchers, and what is said while they run.

The launcher starts `python -m sce.study job=NAME` once a job: a sweep over the names. Progress is
read from the files that jobs leave, which every launcher's processes write alike.
"""

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sce.errors import InputError
from sce.studies.jobs import clear_up, forget_failure, is_cut_off, is_done, last_line, state_of
from sce.studies.plan import Job

_POLL_S = 0.5
_log = logging.getLogger("sce")


@dataclass(frozen=True)
class Launcher:
    """How jobs are started."""

    name: str
    """basic, joblib, submitit_local or submitit_slurm."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Its own, by name."""
    keep_checkpoints: bool = False

    def command(self, folder: Path, jobs: Sequence[Job]) -> list[str]:
        """What is executed: a sweep of sce.study over the names of the jobs."""
        names = ",".join(job.name for job in jobs)
        sweep = folder / "launch"
        own = [f"dir={folder}", f"job={names}", f"keep_checkpoints={self.keep_checkpoints}"]
        hydra = [f"hydra/launcher={self.name}", f"hydra.sweep.dir={sweep}"]
        hydra += [f"hydra.launcher.{name}={value}" for name, value in self.options.items()]
        return [sys.executable, "-m", "sce.study", "--multirun", *own, *hydra]


def launch(
    folder: Path, jobs: Sequence[Job], launcher: Launcher, remaining: Callable[[], str]
) -> None:
    """Run jobs of one stage, those that are done left out; returns when all have ended.

    Args:
        folder: of the study.
        jobs: of one stage.
        launcher: which of Hydra's.
        remaining: what to say of the time that is left.

    Raises:
        InputError: the launcher is not installed, refuses its options, or stopped before its jobs.
    """
    waiting = [job for job in jobs if not is_done(folder, job)]
    for job in jobs:
        if job in waiting:
            forget_failure(folder, job)
        elif is_cut_off(folder, job):
            clear_up(folder, job, keep_checkpoints=launcher.keep_checkpoints)
    if not waiting:
        return
    log = folder / "launch.log"
    with log.open("a", encoding="utf-8") as stream:
        process = subprocess.Popen(
            launcher.command(folder, waiting), stdout=stream, stderr=subprocess.STDOUT
        )
        try:
            while True:
                ended = process.poll() is not None
                waiting = _tell(folder, waiting, remaining)
                if ended:
                    break
                time.sleep(_POLL_S)
        except KeyboardInterrupt:  # which the launcher and its runs have got as well
            process.wait()
            raise
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if waiting:
        raise InputError(
            f"{len(waiting)} jobs were not run, {waiting[0].name} first; the launcher's last line: "
            f"{last_line(log)} (all of it: {log})"
        )


def _tell(folder: Path, waiting: Sequence[Job], remaining: Callable[[], str]) -> list[Job]:
    """Say which jobs have ended; the others."""
    left = []
    for job in waiting:
        state = state_of(folder, job)
        if state is None:
            left.append(job)
        elif state["exit_code"] == 0:
            _log.info("done    %-44s %5.0f s   %s", job.name, state["seconds"], remaining())
            for line in state.get("left_out") or ():
                _log.info("        without: %s", line)
        else:
            _log.info("failed  %-44s %s", job.name, failure(state))
    return left


def failure(state: Any) -> str:
    """How a job failed, in one line."""
    return f"exit code {state['exit_code']}: {state.get('error')}"
