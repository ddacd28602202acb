"""What a study says: its plan, which jobs failed, and where everything is."""

from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from sce.studies.estimate import Estimate, duration
from sce.studies.jobs import is_done, state_of
from sce.studies.launch import failure
from sce.studies.plan import Job


def plan_text(folder: Path, jobs: Sequence[Job], left: Estimate) -> str:
    """The jobs by task and kind, how many are done, and what the others take."""
    table = Table(box=SIMPLE, title=f"study in {folder}", title_justify="left")
    for name in ("task", "what", "settings", "seeds", "jobs", "done"):
        table.add_column(name, justify="left" if name in ("task", "what", "settings") else "right")
    for task, kind in dict.fromkeys((job.task, job.kind) for job in jobs):
        some = [job for job in jobs if (job.task, job.kind) == (task, kind)]
        settings = ", ".join(dict.fromkeys(job.setting for job in some if job.setting))
        seeds = sorted({job.seed for job in some if job.seed is not None})
        done = sum(is_done(folder, job) for job in some)
        shown = ", ".join(map(str, seeds))
        table.add_row(task, kind, settings, shown, str(len(some)), str(done))
    out = StringIO()
    console = Console(file=out, width=110, force_terminal=False)
    console.print(table)
    by = "taken from study.estimate" if not left.measured else f"by its {left.measured} done runs"
    console.print(
        f"{left.num_jobs} of {len(jobs)} jobs to run: about {duration(left.seconds)} one after "
        f"another, {left.mib / 1024:.1f} GiB of disk ({by})",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return out.getvalue()


def failures(folder: Path, jobs: Sequence[Job]) -> list[str]:
    """One line for each job that failed."""
    lines = []
    for job in jobs:
        state = state_of(folder, job)
        if state is not None and state["exit_code"]:
            lines.append(f"{job.name}, {failure(state)} (jobs/{job.name}.log)")
    return lines


def ending(folder: Path, jobs: Sequence[Job], index: Path) -> str:
    """How long it took and where to look."""
    seconds = sum(float((state_of(folder, job) or {}).get("seconds", 0)) for job in jobs)
    return f"{len(jobs)} jobs, {duration(seconds)} of runs\nreport     {index}\nstudy      {folder}"
