"""Which figures there are, and their files: SVG, PDF and PNG, without a browser."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import altair as alt
from altair.utils.schemapi import debug_mode

from sce.analysis.charts import accuracy, curves, heads, interventions
from sce.analysis.charts.render import render
from sce.analysis.findings import Findings, Group, Task

VERSION = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
"""Of Vega-Lite that these figures are written in."""

OF_TASK: dict[str, Callable[[Group, Task], Any]] = {
    "heads-and-f1": accuracy.against_f1,
    "rho": lambda group, task: accuracy.rhos(group, task.task),
    "rho-over-tau": accuracy.rho_over_tau,
    "over-tau": lambda group, task: curves.over(task, "tau"),
    "over-k": lambda group, task: curves.over(task, "k"),
    "maps": lambda group, task: heads.maps(task),
    "gained-and-lost": lambda group, task: heads.changes(task),
    "layers": lambda group, task: heads.layers(task),
    "learning": lambda group, task: curves.learning(task),
    "predictors": accuracy.predictors,
    "knockout": lambda group, task: interventions.knockout(task),
    "patching": lambda group, task: interventions.patching(task),
    "baselines": lambda group, task: interventions.baselines(task),
}
"""Name of a figure -> what draws it, None where there is nothing to draw."""


def figures(found: Findings) -> dict[str, Any]:
    """Every figure that there is, by the name of its file: <task>-<figure>."""
    # Altair checks every part of a chart against its schema as it is made, which is most of the
    # time that a figure takes; that these are right is for the tests.
    with debug_mode(False):
        charts = _charts(found)
    return {name: chart for name, chart in charts.items() if chart is not None}


def _charts(found: Findings) -> dict[str, Any]:
    charts: dict[str, Any] = {}
    for number, group in enumerate(found.groups, 1):
        prefix = f"group{number}-" if len(found.groups) > 1 else ""
        if any(rho.task is None for rho in group.correlations):
            charts[f"{prefix}pooled-rho"] = accuracy.rhos(group, None)
        for task in group.tasks:
            for name, draw in OF_TASK.items():
                charts[f"{prefix}{_safe(task.task)}-{name}"] = draw(group, task)
            for each in task.overlaps:
                name = f"{prefix}{_safe(task.task)}-overlap-{each.measure}"
                charts[name] = heads.overlap(task, each)
    return charts


def save_figures(found: Findings, folder: Path) -> list[Path]:
    """Write every figure as SVG, PDF and PNG; gives the SVGs."""
    folder.mkdir(parents=True, exist_ok=True)
    specs = {}
    for name, chart in figures(found).items():
        with debug_mode(False):
            specs[folder / name] = json.dumps(chart.to_dict(validate=False))
    render(specs, VERSION)
    return [file.with_name(f"{file.name}.svg") for file in specs]


def _safe(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
