"""From paths to findings."""

from collections.abc import Sequence
from pathlib import Path

import sce
from sce.analysis import accuracy
from sce.analysis.answers import answers
from sce.analysis.choices import choices
from sce.analysis.findings import Findings, Group, Task
from sce.analysis.groups import Key, Member, grouped, members
from sce.analysis.interventions import baselines, intervention
from sce.analysis.load import Loaded, load
from sce.analysis.parts import Intervention, Skipped
from sce.analysis.planned import Job
from sce.analysis.references import Given, why_not
from sce.analysis.tasks import Limits, task_findings, with_extras
from sce.errors import InputError
from sce.records import HeadScores


def analyse(
    paths: Sequence[Path], files: Sequence[Path] = (), limits: Limits | None = None
) -> Findings:
    """Everything that the runs under some paths say.

    Args:
        paths: run folders, folders of run folders, study folders.
        files: reference head sets.
        limits: thresholds that are fixed.

    Raises:
        InputError: there is no completed run; a reference cannot be read or fits no run; a limit
            is none.
    """
    limits = limits or Limits()
    _require_limits(limits)
    loaded = load(paths)
    num_runs = len(loaded.runs) + loaded.num_lost
    runs = members(loaded)
    if not runs:
        reasons = "; ".join(f"{skip.file}: {skip.reason}" for skip in loaded.skipped[:3])
        raise InputError(f"no completed run in {', '.join(map(str, paths))} ({reasons})")
    groups = grouped(runs)
    given = [*_given(files, list(groups)), *_of_studies(loaded)]
    extras = _Extras(loaded)
    found = [_group(key, tasks, given, limits, extras) for key, tasks in groups.items()]
    used = {task.reference.source for group in found for task in group.tasks if task.reference}
    warnings = [
        f"reference {file} is not used: it was scored on other examples than the runs, or another "
        "file was named first"
        for file in map(str, files)
        if file not in used
    ]
    if len(found) > 1:
        parts = "; ".join(
            f"{group.name} ({sum(len(t.runs) for t in group.tasks)})" for group in found
        )
        warnings.append(
            f"runs of different models or scores are never compared, so they are apart: {parts}"
        )
    late = [skip for run in loaded.runs for skip in run.skipped]
    skipped = list(dict.fromkeys([*loaded.skipped, *late, *extras.skipped]))
    return Findings(
        study=", ".join(name for name, _ in loaded.studies) or None,
        groups=found,
        num_runs=num_runs,
        num_left_out=loaded.num_lost,
        skipped=skipped,
        warnings=warnings,
        sce_version=sce.__version__,
    )


class _Extras:
    """Baselines and interventions of the studies, by task."""

    def __init__(self, loaded: Loaded) -> None:
        self.studies = [folder for _, folder in loaded.studies]
        self.jobs = [(run.folder, run.job) for run in loaded.runs if run.job]
        self.skipped: list[Skipped] = []

    def add(self, task: Task, runs: Sequence[Member]) -> Task:
        """The task with what lies in the folders of the studies that its runs are of."""
        views, tried = [], []
        folders = [run.files.folder for run in runs]
        for study in [s for s in self.studies if any(f.is_relative_to(s) for f in folders)]:
            file = study / "baselines" / task.task / "results.json"
            views += baselines(file, self.skipped) if file.is_file() else []
            tried += self._tried(study, task.task)
        return with_extras(task, views, tried)

    def _tried(self, study: Path, task: str) -> list[Intervention]:
        """Knockouts and patches of the task; a folder's name says of which run.

        That of the real-tuned model has the task's name.
        """
        found: list[Intervention | None] = []
        jobs = [job for folder, job in self.jobs if folder.is_relative_to(study)]
        files = [*study.glob("knockout/*/results.json"), *study.glob("patch/*/results.json")]
        for file in sorted(files):
            job = next((job for job in jobs if file.parent.name in _folders_of(job)), None)
            if job is not None and job.task != task:
                continue
            if job is None and file.match("knockout/*-seed*/*"):
                self.skipped.append(Skipped(str(file), None, "of no run that is in the analysis"))
                continue
            about = (None, None, None) if job is None else (job.setting, job.kind, job.seed)
            found.append(intervention(file, self.skipped, about))
        own = [each for each in found if each is not None and each.task == task]
        return sorted(own, key=lambda each: (each.method, each.setting or ""))


def _folders_of(job: Job) -> set[str]:
    """What the folder of a run's interventions may be called: no folder's name has a slash."""
    name = f"{job.task}-{job.setting}-seed{job.seed}"
    return {job.name, name, *(name.replace("/", other) for other in "-_")}


def _group(
    key: Key,
    tasks: dict[str, list[Member]],
    given: Sequence[Given],
    limits: Limits,
    extras: _Extras,
) -> Group:
    found = [
        extras.add(task_findings(key, task, runs, given, limits), runs)
        for task, runs in tasks.items()
    ]
    rhos, asked = accuracy.correlations(found), accuracy.questions(found)
    predicted = accuracy.predictors(found)
    over = [*accuracy.rho_over(found, "tau"), *accuracy.rho_over(found, "k")]
    chosen = choices(found, extras.skipped)
    first = next(iter(tasks.values()))[0]
    return Group(
        name=key.words,
        model=str(first.last.provenance.get("model") or "unknown"),
        weights_sha256=key.weights_sha256,
        scorer=key.scorer,
        mode=key.mode,
        match=key.match,
        tasks=found,
        correlations=rhos,
        rho_over=over,
        questions=asked,
        predictors=predicted,
        choices=chosen,
        answers=answers(found, rhos, asked, predicted, chosen, over),
    )


def _given(files: Sequence[Path], keys: Sequence[Key]) -> list[Given]:
    found = []
    for file in files:
        scores = HeadScores.load(file)
        reasons = [why_not(key, scores) for key in keys]
        if None not in reasons:
            raise InputError(f"reference {file} fits no run: {reasons[0]}")
        found.append(Given(str(file), scores))
    return found


def _of_studies(loaded: Loaded) -> list[Given]:
    found = []
    for _, folder in loaded.studies:
        for file in sorted((folder / "reference").glob("*.json")):
            try:
                found.append(Given(str(file), HeadScores.load(file), file.stem))
            except InputError as error:
                loaded.skipped.append(Skipped(str(file), None, str(error)))
    return found


def _require_limits(limits: Limits) -> None:
    if limits.tau is not None and not limits.tau >= 0:
        raise InputError(f"--tau {limits.tau:g}: a threshold of scores is 0 or above")
    if limits.k is not None and limits.k < 1:
        raise InputError(f"--k {limits.k}: a set holds 1 head at least")
