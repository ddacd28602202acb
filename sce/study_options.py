"""The root configuration of python -m sce.study, typed. Knows neither Hydra nor torch."""

import re
from dataclasses import dataclass, field
from typing import Any

from sce.options import require, require_in

LAUNCHERS = ("basic", "joblib", "submitit_local", "submitit_slurm")
Overrides = list[str]


@dataclass
class TaskStudy:
    """One task: the settings that are tuned on, beside real data."""

    path: str | None = None
    """File or folder of real questions (data.train.path); None: the embedded sample."""
    every: Overrides = field(default_factory=list)
    """Overrides of all of its commands: data and sizes."""
    train: Overrides = field(default_factory=list)
    """Overrides of its training runs besides."""
    settings: dict[str, list[str]] = field(default_factory=dict)
    """Name -> overrides of a training run: its cell, mixture or size. Real data is one of them,
    named `real`, whether it stands here or not."""


@dataclass
class InterventionStudy:
    """What is asked of cause: overrides of python -m sce.intervene, or null to leave it out."""

    every: Overrides = field(default_factory=list)
    """Overrides of all but `looks`."""
    baselines: list[str] | None = field(default_factory=list)
    """The untuned and the real-tuned model without documents, with the gold ones alone, and with
    the evidence taken out."""
    knockout: list[str] | None = field(default_factory=list)
    """The reference's heads taken out of the real-tuned model."""
    knockout_each: list[str] | None = None
    """The reference's heads taken out of the first seed of every setting that is not plainly real;
    null: of none."""
    looks: list[str] | None = field(default_factory=lambda: ["data.num_reference=3"])
    """Where each head of the real-tuned model looks on a few examples: overrides of
    python -m sce.score."""
    patch: list[str] | None = field(default_factory=list)
    """The real-tuned model patched into the first seed of every setting but plain real data."""


@dataclass
class EstimateOptions:
    """What a run takes, until the study has finished runs of its own to tell by."""

    tokens_per_s: float = 600.0
    """Tokens that are read a second; a training token counts three times."""
    tokens_a_document: int = 170
    """Where a context is given as a number of documents."""
    mib_a_run: float = 30.0
    """Disk of a run's folder."""

    def __post_init__(self) -> None:
        require(self.tokens_per_s > 0, f"estimate.tokens_per_s must be > 0: {self.tokens_per_s}")


@dataclass
class StudyOptions:
    """What is run: every task's settings, times the seeds."""

    name: str = "study"
    seeds: list[int] = field(default_factory=lambda: [0, 1])
    """Of the runs that are compared."""
    reference_seeds: list[int] = field(default_factory=lambda: [100, 101])
    """Of the real-data runs that the reference is the mean of; none of them is a point."""
    every: Overrides = field(default_factory=list)
    """Overrides of all commands of all tasks."""
    train: Overrides = field(default_factory=list)
    """Overrides of all training runs."""
    tasks: dict[str, TaskStudy] = field(default_factory=dict)
    interventions: InterventionStudy = field(default_factory=InterventionStudy)
    estimate: EstimateOptions = field(default_factory=EstimateOptions)

    def __post_init__(self) -> None:
        require(bool(self.seeds), "study.seeds is empty; one is needed, two or more are better")
        require(bool(self.reference_seeds), "study.reference_seeds is empty; two or more are due")
        _require_name("study.name", self.name)
        for name in ("seeds", "reference_seeds"):
            seeds = getattr(self, name)
            require(len(set(seeds)) == len(seeds), f"study.{name}={seeds}: a seed is there twice")
        both = sorted(set(self.seeds) & set(self.reference_seeds))
        require(
            not both,
            f"study.seeds and study.reference_seeds share {both}: a run would be compared with a "
            "reference it took part in",
        )
        for task, of_task in self.tasks.items():
            for setting in (task, *of_task.settings):
                _require_name("study.tasks", setting)


def _require_name(where: str, name: str) -> None:
    """Of a folder and of a job: nothing that Hydra or a shell would read as more than a name."""
    require(
        re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) is not None,
        f"{where}: {name!r} names a folder; letters, digits, - _ and . alone",
    )


@dataclass
class StudyConfig:
    """python -m sce.study."""

    study: StudyOptions = field(default_factory=StudyOptions)
    dir: str | None = None
    """Folder of the study, begun or new; None: runs/studies/<name>."""
    dry_run: bool = False
    """Print the plan and stop."""
    launcher: str = "basic"
    """Hydra's launcher of the runs: basic (one after another), joblib (several at once on this
    machine), submitit_local, submitit_slurm. One device a run."""
    launcher_options: Any = None
    """Its own options, those under hydra.launcher: {n_jobs: 2}."""
    keep_checkpoints: bool = False
    """Keep what a finished run could be resumed from; its adapter is kept in any case."""
    logger: str = "wandb"
    """Of the runs and of the report: wandb, csv or none."""
    job: str | None = None
    """One job of a study that was begun; what the launcher starts."""
    debug: bool = False

    def __post_init__(self) -> None:
        require_in("launcher", self.launcher, LAUNCHERS)
        require(
            self.launcher_options is None or isinstance(self.launcher_options, dict),
            "launcher_options must be names and values, as in {n_jobs: 2}",
        )
        require_in("logger", self.logger, ("wandb", "csv", "none"))
        require(self.job is None or self.dir is not None, "job=NAME needs dir=FOLDER")
