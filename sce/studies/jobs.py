"""One job of a study: its commands run in processes of their own, once, whoever asks.

A job is done when jobs/<name>.json says so; that file is written last and whole. A job that was
killed goes on where it can: training from its checkpoint, anything else from its beginning. The
command that runs holds the job's lock too, so that one whose starter was killed is waited for.
"""

import fcntl
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sce.errors import STOPPING, InputError, NoHeads
from sce.records import write_json
from sce.score_files import parse_json, read_text
from sce.studies.folder import started_in
from sce.studies.plan import Command, Job

_PATIENCE_S = 60.0
"""For a run that was told to stop to write its checkpoint."""


def state_file(folder: Path, job: Job) -> Path:
    """Where it is written how a job ended."""
    return folder / "jobs" / f"{job.name}.json"


def state_of(folder: Path, job: Job) -> Mapping[str, Any] | None:
    """How a job ended: `exit_code`, `seconds`, `error`, `left_out`; None: it has not."""
    file = state_file(folder, job)
    if not file.is_file():
        return None
    try:
        state = parse_json(read_text(file))
    except InputError as error:
        raise InputError(f"{file}: {error}; {_again(folder, job)}") from None
    if not isinstance(state, dict) or not isinstance(state.get("exit_code"), int):
        raise InputError(f"{file}: not the end of a job; {_again(folder, job)}")
    return state


def _again(folder: Path, job: Job) -> str:
    also = f" and {folder / job.folder}" if job.folder else ""  # it has no checkpoint any more
    return f"delete it{also}: the job is run again"


def is_done(folder: Path, job: Job) -> bool:
    """Whether a job has ended well."""
    state = state_of(folder, job)
    return state is not None and state["exit_code"] == 0


def run_job(folder: Path, job: Job, *, keep_checkpoints: bool) -> None:
    """Run a job unless it is done; where another process is at it, wait for that first.

    Args:
        folder: of the study, absolute.
        job: one of its jobs.
        keep_checkpoints: keep what a finished run could be resumed from.
    """
    jobs = folder / "jobs"
    jobs.mkdir(parents=True, exist_ok=True)
    with (jobs / f"{job.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_done(folder, job):
            started = time.perf_counter()
            code, error, left_out = _run(folder, job, lock.fileno())
            if code in [128 + number for number in STOPPING] + [-number for number in STOPPING]:
                return
            seconds = round(time.perf_counter() - started, 1)
            state = {"exit_code": code, "seconds": seconds, "error": error, "left_out": left_out}
            write_json(state_file(folder, job), state)
        if is_done(folder, job):
            clear_up(folder, job, keep_checkpoints=keep_checkpoints)


def clear_up(folder: Path, job: Job, *, keep_checkpoints: bool) -> None:
    """Take away what a job that is done was held together by; the marks last."""
    if job.folder and not keep_checkpoints:
        shutil.rmtree(folder / job.folder / "checkpoints", ignore_errors=True)
    for command in job.commands:
        _mark(folder, job, command).unlink(missing_ok=True)


def is_cut_off(folder: Path, job: Job) -> bool:
    """Whether a job that is done was killed before `clear_up` ended."""
    return any(_mark(folder, job, command).exists() for command in job.commands)


def forget_failure(folder: Path, job: Job) -> None:
    """Take away how a job failed, so that its next end is told from it; an end that is none stays.

    A job that another process is at has no such file: it was taken away before that began.
    """
    jobs = folder / "jobs"
    jobs.mkdir(parents=True, exist_ok=True)
    with (jobs / f"{job.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if not is_done(folder, job):
            state_file(folder, job).unlink(missing_ok=True)


def _mark(folder: Path, job: Job, command: Command) -> Path:
    """Stands while a job's later commands are still to come."""
    own = "train" if command.program == "train" else command.out.partition("/")[0]
    return folder / "jobs" / f"{job.name}.{own}.done"


def _run(folder: Path, job: Job, lock: int) -> tuple[int, str | None, list[str]]:
    """Exit code and last line of the first command that fails, 0 and None; what was refused."""
    left_out: list[str] = []
    log = folder / "jobs" / f"{job.name}.log"
    for command in job.commands:
        mark = _mark(folder, job, command)
        if mark.exists():  # and says why, if the command was left out
            left_out += mark.read_text("utf-8").splitlines()
            continue
        try:
            code = _execute(folder, command.at(folder), log, lock)
        except InputError as error:
            return 2, str(error), left_out
        last = last_line(log) if code else ""
        refused = last if code == 2 and command.optional and NoHeads.PREFIX in last else ""
        if refused:
            left_out.append(refused)
        elif code:
            return code, f"killed by {signal.Signals(-code).name}" if code < 0 else last, left_out
        mark.write_text(refused, "utf-8")
    return 0, None, left_out


def _execute(folder: Path, command: Command, log: Path, lock: int) -> int:
    out, more = folder / command.out, []
    if command.program == "train" and (out / "config.yaml").is_file():
        more = ["resume=true"]
    elif out.is_dir():
        shutil.rmtree(out)
    else:
        for left in (out, out.with_suffix(".npz"), out.with_suffix(".jsonl")):
            left.unlink(missing_ok=True)
    line = replace(command, overrides=(*command.overrides, *more))
    with log.open("a", encoding="utf-8") as stream:
        stream.write(f"$ {line.line()}\n")
        stream.flush()
        # In this process group, so that what stops the study stops the run.
        process = subprocess.Popen(
            [sys.executable, "-m", f"sce.{line.program}", *line.overrides],
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=started_in(folder),
            pass_fds=(lock,),
        )
        try:
            return process.wait()
        except KeyboardInterrupt:  # which the run has got as well, and a second ends it at once
            _wait(process)
            raise
        except BaseException:
            process.terminate()
            _wait(process)
            raise


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def last_line(log: Path) -> str:
    """Of what a program said; "none" if nothing."""
    lines = [line for line in log.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "none"
