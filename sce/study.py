"""python -m sce.study: from nothing to a report, in one command that can be killed and run again.

options -> plan -> jobs, stage after stage, through a launcher of Hydra's -> sce.analysis
"""

import logging
from dataclasses import asdict
from pathlib import Path

import hydra
from filelock import FileLock, Timeout
from omegaconf import DictConfig

from sce.config import CONF, composed, register, typed
from sce.errors import InputError
from sce.one_line import one_line_errors, run
from sce.studies.checking import checked
from sce.studies.estimate import estimate, remaining
from sce.studies.folder import begin, read_jobs
from sce.studies.jobs import run_job
from sce.studies.launch import Launcher, launch
from sce.studies.plan import jobs_of
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
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    _log.setLevel(logging.INFO)
    from sce.studies.report import require_report, write_report

    options = config.study
    folder = Path(config.dir or f"runs/studies/{options.name}").expanduser().absolute()
    jobs = jobs_of(options, config.logger)
    tokens = checked(jobs, folder, options.estimate, composed)
    _log.info(plan_text(folder, jobs, estimate(folder, jobs, tokens, options.estimate)))
    if config.dry_run:
        return folder
    require_report()
    begin(folder, asdict(options), jobs)
    launcher = Launcher(config.launcher, tuple(config.launcher_options), config.keep_checkpoints)
    left = remaining(folder, jobs, tokens, options.estimate)
    try:
        with FileLock(folder / "study.lock", timeout=0):
            for stage in sorted({job.stage for job in jobs}):
                now = [job for job in jobs if job.stage == stage]
                launch(folder, now, launcher, left)
                if stage < jobs[-1].stage and (lines := failures(folder, now)):
                    raise InputError(f"nothing more can be run: {'; '.join(lines)}")
            index = write_report(folder, options.name, config.logger)
    except Timeout:
        raise InputError(f"{folder} is being worked on by another sce.study; wait for it") from None
    if lines := failures(folder, jobs):
        raise InputError(
            f"{len(lines)} of {len(jobs)} jobs failed, and the report is without them: "
            f"{'; '.join(lines)}; once that is mended the same command runs them alone"
        )
    _log.info(ending(folder, jobs, index))
    return folder


def _run_one(config: StudyConfig, name: str) -> None:
    """What a launcher's process does; the study reads from the job's files how it went."""
    folder = Path(str(config.dir)).expanduser().absolute()
    found = [job for job in read_jobs(folder) if job.name == name]
    if not found:
        raise InputError(f"job={name}: the study in {folder} has no such job")
    run_job(folder, found[0], keep_checkpoints=config.keep_checkpoints)


def cli() -> None:
    """Console script."""
    run(main)


if __name__ == "__main__":
    cli()
