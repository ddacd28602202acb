"""Every command of a study composed and checked before the first one runs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sce.commands import HeadsetConfig, RunConfig, ScoreConfig, TrainConfig
from sce.errors import InputError
from sce.intervene_options import InterveneConfig
from sce.studies.estimate import tokens_read
from sce.studies.plan import DIR, Command, Job
from sce.study_options import EstimateOptions

_SCHEMAS = {
    "train": TrainConfig,
    "intervene": InterveneConfig,
    "headset": HeadsetConfig,
    "score": ScoreConfig,
}


def checked(
    jobs: Sequence[Job],
    folder: Path,
    options: EstimateOptions,
    compose: Callable[[str, Sequence[str], type], Any],
) -> dict[str, float]:
    """The tokens that each job reads, about, by its name.

    Args:
        jobs: of a study.
        folder: of the study.
        options: what a run takes.
        compose: sce.config.composed.

    Raises:
        InputError: names the job and what is wrong with its options.
    """
    tokens = dict.fromkeys((job.name for job in jobs), 0.0)
    for job in jobs:
        for command in job.commands:
            try:
                program, filled = command.program, _filled(command, folder)
                config = compose(program, filled, _SCHEMAS[program])
            except InputError as error:
                raise InputError(f"{job.name}: {error}") from None
            if isinstance(config, RunConfig) and config.data.task != job.task:
                raise InputError(
                    f"{job.name}: data={config.data.task}; a study's task is named for its data: "
                    f"study.tasks.{config.data.task}"
                )
            if isinstance(config, TrainConfig):
                _require_one_device(job, config)
            tokens[job.name] += tokens_read(config, options)
    return tokens


def _filled(command: Command, folder: Path) -> list[str]:
    return [override.replace(DIR, str(folder)) for override in command.overrides]


def _require_one_device(job: Job, config: TrainConfig) -> None:
    trainer = config.trainer
    if trainer.devices not in (1, "1") or trainer.num_nodes != 1:
        raise InputError(
            f"{job.name}: trainer.devices={trainer.devices}, trainer.num_nodes="
            f"{trainer.num_nodes}: a study takes one device a run; several run side by side with "
            "launcher=joblib or submitit_slurm"
        )
