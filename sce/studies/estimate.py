"""What is left of a study in time and disk, roughly, by its own finished runs if there are any.

A run's work is counted in tokens read: validation and scoring read a prompt once, a training token
counts three times (forward, and twice as much backward).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sce.commands import RunConfig, TrainConfig
from sce.intervene_options import InterveneConfig
from sce.records import read_jsonl
from sce.studies.jobs import is_done, state_of
from sce.studies.plan import Job
from sce.study_options import EstimateOptions

_PASSES = {"baselines": 4.0, "knockout": 2.0, "patch": 4.0}
"""Passes over the validation split, about: contexts are read once for all sets."""
_MIB = 2**20


@dataclass(frozen=True)
class Estimate:
    """Of the jobs that are not done."""

    num_jobs: int
    seconds: float
    mib: float
    measured: int
    """Finished runs that it is taken from; 0: from study.estimate."""


def examples_met(config: TrainConfig) -> int:
    """Training examples that a run meets, each as often as it does."""
    trainer, batch = config.trainer, config.batch.train * config.data.questions_per_context
    return batch * trainer.accumulate_grad_batches * trainer.max_steps


def tokens_read(config: object, options: EstimateOptions) -> float:
    """Tokens that a command reads, about.

    Args:
        config: of the command.
        options: of the study.
    """
    if not isinstance(config, RunConfig):
        return 0.0
    data = config.data
    length = data.context_tokens or (data.num_documents or 1) * options.tokens_a_document
    num_val, num_reference = data.num_val or 100, data.num_reference or 100
    if isinstance(config, TrainConfig):
        # Step 0 is read from the first run's.
        validations = max(1, -(-config.trainer.max_steps // config.val_every))
        contexts = examples_met(config) / data.questions_per_context
        return length * (validations * (num_val + num_reference) + 3 * contexts)
    if isinstance(config, InterveneConfig):
        return length * num_val * _PASSES[config.method]
    return length * num_reference


def estimate(
    folder: Path, jobs: Sequence[Job], tokens: Mapping[str, float], options: EstimateOptions
) -> Estimate:
    """Time and disk that the jobs still take.

    Args:
        folder: of the study, there or not.
        jobs: all of its jobs.
        tokens: job's name -> tokens it reads.
        options: what a run takes until some are finished.
    """
    done = [job for job in jobs if is_done(folder, job)]
    left = [job for job in jobs if job not in done]
    runs = [job for job in done if job.folder and tokens[job.name]]
    rate, mib = options.tokens_per_s, options.mib_a_run
    if runs:
        seconds = sum(_seconds(folder, job) for job in runs)
        rate = sum(tokens[job.name] for job in runs) / max(seconds, 1e-9)
        mib = sum(_size(folder / job.folder) for job in runs) / len(runs) / _MIB
    return Estimate(
        num_jobs=len(left),
        seconds=sum(tokens[job.name] for job in left) / rate,
        mib=mib * sum(bool(job.folder) for job in left),
        measured=len(runs),
    )


def remaining(
    folder: Path, jobs: Sequence[Job], tokens: Mapping[str, float], options: EstimateOptions
) -> Callable[[], str]:
    """Says how many jobs are left and for how long."""

    def text() -> str:
        now = estimate(folder, jobs, tokens, options)
        return f"{now.num_jobs} of {len(jobs)} left, about {duration(now.seconds)}"

    return text


def duration(seconds: float) -> str:
    """In hours and minutes."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute" if seconds else "nothing"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def _seconds(folder: Path, job: Job) -> float:
    """What a finished run took: its last process, or all of them by its records, which go on."""
    last = float((state_of(folder, job) or {})["seconds"])
    records = folder / job.folder / "records.jsonl"
    rows = read_jsonl(records) if job.folder and records.is_file() else []
    return max([last, *(float(row.get("seconds") or 0) for row in rows)])


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
