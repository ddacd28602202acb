"""One job of a study: its commands run in processes of their own, once, whoever asks.

A job is done when jobs/<name>.json says so; that file is written last and whole. A job that was
killed goes on where it can: training from its checkpoint, anything else from its beginning.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sce.errors import InputError
from sce.records import write_json
from sce.score_files import parse_json, read_text
from sce.studies.plan import Command, Job


def state_file(folder: Path, job: Job) -> Path:
    """Where it is written how a job ended."""
    return folder / "jobs" / f"{job.name}.json"


def state_of(folder: Path, job: Job) -> Mapping[str, Any] | None:
    """How a job ended: `exit_code`, `seconds`, and of a failure `error`; None: it has not."""
    file = state_file(folder, job)
    if not file.is_file():
        return None
    state = parse_json(read_text(file))
    if not isinstance(state, dict) or not isinstance(state.get("exit_code"), int):
        raise InputError(f"{file}: not the end of a job; delete it, and the job is run again")
    return state


def is_done(folder: Path, job: Job) -> bool:
    """Whether a job has ended well."""
    state = state_of(folder, job)
    return state is not None and state["exit_code"] == 0


def run_job(folder: Path, job: Job, *, keep_checkpoints: bool) -> int:
    """Run a job unless it is done; returns its exit code.

    Args:
        folder: of the study, absolute.
        job: one of its jobs.
        keep_checkpoints: keep what a finished run could be resumed from.

    Raises:
        InputError: another process is at it.
    """
    log = folder / "jobs" / f"{job.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(log.with_suffix(".lock"), timeout=0):
            if is_done(folder, job):
                return 0
            before = state_of(folder, job) or {}
            started = time.perf_counter()
            code, error = _run(folder, job, log)
            seconds = float(before.get("seconds", 0)) + time.perf_counter() - started
            if code == 0 and job.folder and not keep_checkpoints:
                shutil.rmtree(folder / job.folder / "checkpoints", ignore_errors=True)
            state = {"exit_code": code, "seconds": round(seconds, 1), "error": error}
            write_json(state_file(folder, job), state)
            return code
    except Timeout:
        raise InputError(f"{job.name} is being run by another process; wait for it") from None


def _run(folder: Path, job: Job, log: Path) -> tuple[int, str | None]:
    """Exit code of the first command that fails and the line it ended with; 0 and None."""
    for command in job.commands:
        done = folder / "jobs" / f"{job.name}.{command.program}.done"
        if done.exists():
            continue
        try:
            code = _execute(folder, command.at(folder), log)
        except InputError as error:
            return 2, str(error)
        if code:
            return code, _last_line(log)
        done.touch()
    for command in job.commands:
        (folder / "jobs" / f"{job.name}.{command.program}.done").unlink(missing_ok=True)
    return 0, None


def _execute(folder: Path, command: Command, log: Path) -> int:
    out, more = folder / command.out, []
    if command.program == "train" and (out / "config.yaml").is_file():
        more = ["resume=true"]
    elif out.is_dir():
        shutil.rmtree(out)
    else:
        for left in (out, out.with_suffix(".npz"), out.with_suffix(".jsonl")):
            left.unlink(missing_ok=True)
    line = Command(command.program, (*command.overrides, *more), command.out)
    with log.open("a", encoding="utf-8") as stream:
        stream.write(f"$ {line.line()}\n")
        stream.flush()
        started = [sys.executable, "-m", f"sce.{line.program}", *line.overrides]
        # In this process group, so that what stops the study stops the run.
        return subprocess.run(started, stdout=stream, stderr=subprocess.STDOUT).returncode


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"
