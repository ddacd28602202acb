"""Which figures there are, and their files: SVG, PDF and PNG, without a browser."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import altair as alt
from altair.utils.schemapi import debug_mode

from sce.analysis.charts import accuracy, curves, heads, interventions
from sce.analysis.charts.figure import Figure
from sce.analysis.charts.render import render
from sce.analysis.findings import Findings, Group, Task

VERSION = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
"""Of Vega-Lite that these figures are written in."""

OF_TASK: dict[str, Callable[[Group, Task], Figure | None]] = {
    "heads-and-f1": accuracy.against_f1,
    "rho": lambda group, task: accuracy.rhos(group, task.task),
    "rho-over-tau": lambda group, task: accuracy.rho_over(group, task, "tau"),
    "rho-over-k": lambda group, task: accuracy.rho_over(group, task, "k"),
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


Key = tuple[int, str | None, str]
"""Place of a group, a task of it (None: all pooled), and the name of a figure."""


def figures(found: Findings) -> dict[Key, Figure]:
    """Every figure that there is."""
    # Altair checks every part of a chart against its schema as it is made, which is most of the
    # time that a figure takes; that these are right is for the tests.
    with debug_mode(False):
        charts = dict(_charts(found))
    return {key: chart for key, chart in charts.items() if chart is not None}


def _charts(found: Findings) -> Iterator[tuple[Key, Figure | None]]:
    for place, group in enumerate(found.groups):
        if any(rho.task is None for rho in group.correlations):
            yield (place, None, "rho"), accuracy.rhos(group, None)
        for task in group.tasks:
            for name, draw in OF_TASK.items():
                yield (place, task.task, name), draw(group, task)
            for each in task.overlaps:
                yield (place, task.task, f"overlap-{each.measure}"), heads.overlap(task, each)


def save_figures(found: Findings, drawn: Mapping[Key, Figure], folder: Path) -> list[Path]:
    """Write every figure as SVG, PDF and PNG, as <task>-<figure>; gives the SVGs."""
    folder.mkdir(parents=True, exist_ok=True)
    several = len(found.groups) > 1
    specs = {}
    for (place, task, name), figure in drawn.items():
        prefix = f"group{place + 1}-" if several else ""
        of = "pooled" if task is None else _safe(task)
        specs[folder / f"{prefix}{of}-{name}"] = json.dumps(figure.to_dict())
    render(specs, VERSION)
    return [file.with_name(f"{file.name}.svg") for file in specs]


def _safe(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
