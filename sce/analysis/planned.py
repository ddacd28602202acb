"""What a study has planned, and what became of it: study.json, and how its jobs ended."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sce.analysis.parts import Skipped
from sce.errors import InputError

STUDY_SCHEMA = "sce.study/1"


@dataclass(frozen=True)
class Job:
    """What a study says of one of its runs."""

    name: str
    task: str
    setting: str
    kind: str
    seed: int | None


@dataclass(frozen=True)
class Planned:
    """A study's folder."""

    name: str
    runs: Sequence[tuple[Path, Job]]
    """Folders of the runs that are whole."""
    lost: Sequence[tuple[Path, Job, str]]
    """Of those that are not, and why."""
    skipped: Sequence[Skipped]
    """What else there is not: interventions that were refused, failed or have not run."""


def read_study(path: Path) -> Planned:
    """The runs of a study, and what of it is missing.

    A folder without jobs/, which is one that was shared, is taken as it is.

    Raises:
        InputError: its study.json is none.
    """
    try:
        content = json.loads((path / "study.json").read_text("utf-8"))
        if content["schema"] != STUDY_SCHEMA:
            raise ValueError(f"schema {content['schema']!r}, not {STUDY_SCHEMA!r}")
        jobs = [_job(path, job) for job in content["jobs"] if job.get("folder")]
        others = [str(job["name"]) for job in content["jobs"] if not job.get("folder")]
        name = str(content["name"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"not a study ({what})") from None
    if not (path / "jobs").is_dir():
        return Planned(name, jobs, [], [])
    lost = [(f, job, reason) for f, job in jobs if (reason := _unfinished(path, job.name))]
    names = {job.name for _, job, _ in lost}
    skipped = [skip for other in others for skip in _missing(path, other, tunes=False)]
    skipped += [skip for _, job in jobs for skip in _missing(path, job.name, tunes=True)]
    return Planned(name, [each for each in jobs if each[1].name not in names], lost, skipped)


def _job(path: Path, job: Mapping[str, Any]) -> tuple[Path, Job]:
    words = {name: str(job[name]) for name in ("name", "task", "setting", "kind")}
    return path / job["folder"], Job(**words, seed=job.get("seed"))


def _unfinished(study: Path, name: str) -> str | None:
    """Why a job has no run yet; what ran after the training does not count."""
    if _is_trained(study, name):
        return None
    state = _state(study, name)
    if state is None:
        return "not finished"
    return f"failed: {state.get('error')}" if state["exit_code"] else None


def _missing(study: Path, name: str, *, tunes: bool) -> list[Skipped]:
    """What a job was refused, and whether it failed or has not ended.

    Of one that tunes a run what came after the training; the run itself is `_unfinished`.
    """
    state = _state(study, name)
    reasons = [f"left out: {line}" for line in (state or {}).get("left_out") or ()]
    if state is None and not tunes:
        reasons.append("not finished")
    if state and state["exit_code"] and (_is_trained(study, name) or not tunes):
        after = " after its training" if tunes else ""
        reasons.append(f"failed{after}: {state.get('error')}")
    return [Skipped(str(study / "jobs" / f"{name}.json"), name, reason) for reason in reasons]


def _is_trained(study: Path, name: str) -> bool:
    return (study / "jobs" / f"{name}.train.done").exists()


def _state(study: Path, name: str) -> Mapping[str, Any] | None:
    """How a job ended; None where there is no such file, or it cannot be read."""
    try:
        state = json.loads((study / "jobs" / f"{name}.json").read_text("utf-8"))
        return state if isinstance(state["exit_code"], int) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
