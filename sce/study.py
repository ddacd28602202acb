"""python -m sce.study: from nothing to a report, in one command that can be killed and run again.

options -> plan -> jobs, stage after stage, through a launcher of Hydra's -> sce.analysis
"""

import logging
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import chdir
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import hydra
from filelock import FileLock, Timeout
from omegaconf import DictConfig

from sce.config import CONF, composed, register, typed
from sce.errors import InputError
from sce.one_line import one_line_errors, run
from sce.studies.checking import check_data, checked
from sce.studies.estimate import estimate, remaining
from sce.studies.folder import begin, read_jobs, require_own, started_in
from sce.studies.jobs import is_done, run_job
from sce.studies.launch import Launcher, launch
from sce.studies.plan import Job, jobs_of
from sce.studies.tell import ending, failures, plan_text
from sce.study_options import StudyConfig

register()
_log = logging.getLogger("sce")


@hydra.main(version_base="1.3", config_path=str(CONF / "studies"), config_name="study")
@one_line_errors
def main(config: DictConfig) -> None:
    """Run a study, or one job of it."""
    options = typed(config, StudyConfig)
    if options.job is None:
        study(options)
    else:
        _run_one(options, options.job)


def study(config: StudyConfig) -> Path:
    """Run what is not done yet of a study, then its report; returns the study's folder.

    Raises:
        InputError: the user's input is wrong, or jobs failed; what is done stays done.
    """
    signal.signal(signal.SIGTERM, _leave)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    _log.setLevel(logging.INFO)
    from sce.studies.report import require_report

    options = config.study
    folder = Path(config.dir or f"runs/studies/{options.name}").absolute()
    jobs = jobs_of(options, config.logger)
    own = {**asdict(options), "logger": config.logger}
    require_own(folder, own, jobs)
    known = checked(jobs, folder, options.estimate, composed)
    tokens = known.tokens
    _log.info(plan_text(folder, jobs, estimate(folder, jobs, tokens, options.estimate)))
    undone = {job.name for job in jobs if not is_done(folder, job)}
    with chdir(started_in(folder) or "."):
        warnings = check_data({job: config for job, config in known.runs.items() if job in undone})
    for line in warnings:
        _log.warning("warning: %s", line)
    if config.dry_run:
        return folder
    require_report()
    begin(folder, own, jobs)
    launcher = Launcher(config.launcher, config.launcher_options or {}, config.keep_checkpoints)
    left = remaining(folder, jobs, tokens, options.estimate)
    try:
        with FileLock(folder / "study.lock", timeout=0):
            _run_stages(folder, jobs, launcher, left)
            _report(folder, options.name, config.logger, failures(folder, jobs), len(jobs))
    except Timeout:
        raise InputError(f"{folder} is being worked on by another sce.study; wait for it") from None
    _log.info(ending(folder, jobs, folder / "report" / "index.html"))
    return folder


def _report(folder: Path, name: str, logger: str, failed: Sequence[str], num_jobs: int) -> None:
    """The report of what there is; what failed is the last thing that is said."""
    from sce.studies.report import write_report

    lost = "and the report is without them"
    try:
        write_report(folder, name, logger)
    except InputError:
        if not failed:
            raise
        lost = "and there is nothing to report"
    if failed:
        raise InputError(
            f"{len(failed)} of {num_jobs} jobs failed, {lost}: {'; '.join(failed)}; once that is "
            "mended the same command runs them alone"
        )


def _run_stages(
    folder: Path, jobs: Sequence[Job], launcher: Launcher, left: Callable[[], str]
) -> None:
    """Stage after stage; a task whose reference could not be made is left out of what follows."""
    broken: set[str] = set()
    for stage in sorted({job.stage for job in jobs}):
        now = [job for job in jobs if job.stage == stage and job.task not in broken]
        launch(folder, now, launcher, left)
        if stage < jobs[-1].stage:
            broken |= {job.task for job in now if not is_done(folder, job)}


def _run_one(config: StudyConfig, name: str) -> None:
    """What a launcher's process does; the study reads from the job's files how it went."""
    signal.signal(signal.SIGTERM, _leave)
    folder = Path(str(config.dir)).absolute()
    found = [job for job in read_jobs(folder) if job.name == name]
    if not found:
        raise InputError(f"job={name}: the study in {folder} has no such job")
    run_job(folder, found[0], keep_checkpoints=config.keep_checkpoints)


def _leave(number: int, frame: FrameType | None) -> None:
    """End in order, so that what was started is stopped too."""
    del frame
    sys.exit(128 + number)


def cli() -> None:
    """Console script."""
    run(main)


if __name__ == "__main__":
    cli()
