"""What the command prints: the answers, rho in a table, and what was left out."""

from io import StringIO
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from sce.analysis.answers import estimate
from sce.analysis.findings import Findings, Group, Rho
from sce.stats import Estimate

MAX_SKIPPED = 8
SHOWN = {
    "recall": "recall",
    "recall_learned": "recall learned",
    "cosine": "cosine",
    "cosine_learned": "cosine learned",
    "answer_nll": "validation loss",
}
"""Measure -> what the table calls it."""
_NOTE = (
    "[a, b]: 95%, bootstrap over settings, seeds drawn anew inside. least: the smallest |rho| that "
    "n could have shown at p < 0.05. All points: untuned and real ones too, but for those in the "
    "reference.\n"
)


def summary(found: Findings, out: Path, num_figures: int) -> str:
    """The findings at a glance.

    Args:
        found: all of them.
        out: where they were written.
        num_figures: how many figures there are.
    """
    stream = StringIO()
    console = Console(file=stream, width=120, force_terminal=False)
    for group in found.groups:
        num = sum(len(task.runs) for task in group.tasks)
        _print(console, f"\n{group.name}: {num} runs and models")
        console.print(_table(group))
        _print(console, _NOTE)
        _print(console, "\n".join(f"- {answer}" for answer in group.answers))
        for task in group.tasks:
            for warning in task.warnings:
                _print(console, f"warning: {task.task}: {warning}")
    for warning in found.warnings:
        _print(console, f"warning: {warning}")
    if found.skipped:
        lost = f"{found.num_left_out} of {found.num_runs} runs"
        _print(console, f"\nleft out ({lost}, {len(found.skipped)} things in all):")
        for skip in found.skipped[:MAX_SKIPPED]:
            _print(console, f"  {skip.file}: {skip.reason}")
        if len(found.skipped) > MAX_SKIPPED:
            more = len(found.skipped) - MAX_SKIPPED
            _print(console, f"  and {more} more, in {out}/tables/skipped.csv")
    _print(console, f"\nfindings   {out}/findings.json\ntables     {out}/tables/")
    if num_figures:
        _print(console, f"figures    {out}/figures/ ({num_figures}, as SVG, PDF and PNG)")
    return stream.getvalue()


def _table(group: Group) -> Table:
    table = Table(box=SIMPLE, title="Spearman rho with F1 over settings")
    names = ("task", "measure", "synthetic settings", "p", "n", "least", "all points", "p", "n")
    for index, name in enumerate(names):
        table.add_column(name, justify="left" if index < 2 else "right", no_wrap=True)
    tasks = dict.fromkeys(rho.task for rho in group.correlations)
    for task in tasks:
        for measure in SHOWN:
            own = {
                rho.points: rho
                for rho in group.correlations
                if (rho.task, rho.measure, rho.is_told) == (task, measure, True)
            }
            if own:
                cells = [*_cells(own.get("synthetic"), True), *_cells(own.get("all"), False)]
                table.add_row(task or "pooled", SHOWN[measure], *cells)
    return table


def _cells(rho: Rho | None, with_least: bool) -> list[str]:
    if rho is None:
        return ["-"] * (4 if with_least else 3)
    found = rho.found
    own = Estimate(found.spearman, found.spearman_low, found.spearman_high, found.n)
    p = "-" if found.p_value is None else f"{found.p_value:.2g}"
    least = "-" if found.smallest_detectable is None else f"{found.smallest_detectable:.2f}"
    cells = [estimate(own), p, str(found.n)]
    return [*cells, least] if with_least else cells


def _print(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
