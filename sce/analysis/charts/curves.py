"""Figures over something: the threshold, the size of the sets, the steps of training."""

from collections.abc import Sequence

import altair as alt
import numpy as np

from sce.analysis.charts.figure import Figure, Panel
from sce.analysis.charts.style import (
    CEILING,
    CHANCE,
    COLOURS,
    MEASURE_COLOURS,
    SHORT,
    TAU,
    Marks,
    Rows,
    data,
    heading,
    kind_colour,
    ruler,
    value,
)
from sce.analysis.findings import Task
from sce.analysis.parts import Checkpoint, Curve, Setting

OVER = ("recall", "recall_learned", "precision", "jaccard")
LEARNED = ("f1", "recall", "recall_learned")
MAX_PANELS = 20


def over(task: Task, by: str) -> Figure | None:
    """Overlap with the reference as a function of tau ("tau") or of the size of the sets ("k")."""
    panels = [_over_panel(task, measure, by) for measure in OVER]
    panels = [panel for panel in panels if panel is not None]
    if not panels:
        return None
    at = f"tau = {task.tau:g}" if by == "tau" else f"k = {task.k}"
    lines = (
        "A line a setting (mean over seeds). Green: real data, the ceiling; runs of the reference "
        "against the others of it. Grey dots: chance within layers.",
        f"Orange dashes: {at}, as in the other figures; bars: 95% over examples there, the rest "
        "in the tables.",
    )
    what = "threshold" if by == "tau" else "size of the sets"
    title = f"{task.task}: heads and the {what}"
    return Figure(title, lines, panels, columns=2, spacing=28)


def learning(task: Task) -> Figure | None:
    """F1 and recall over the steps of training, a panel a setting."""
    settings = [s for s in task.settings if s.kind != "untuned" and len(s.curve) > 1]
    settings.sort(key=lambda s: -(value(s.measures, "f1") or 0.0))
    if not settings:
        return None
    panels = [_learning_panel(task, each) for each in settings]
    lines = (
        "Means over seeds; bands: 95% over examples; thin: single seeds. Highest F1 first.",
        "Green dashes: ceiling of recall; grey dots: chance. Orange dashes: F1 of real data.",
    )
    return Figure(
        f"{task.task}: learning curves",
        lines,
        panels,
        columns=5,
        most=MAX_PANELS,
        rest="{} settings of lower F1 are not shown.",
        one_colour_scale=True,
    )


def _over_panel(task: Task, measure: str, by: str) -> Panel | None:
    rows: Rows = []
    sets = [(setting.setting, setting.kind, setting.runs) for setting in task.settings]
    members = [run.name for run in task.runs if run.in_reference and not run.is_point]
    for name, kind, names in [*sets, ("real, in the reference", "real", members)]:
        runs = [run for run in task.runs if run.name in names]
        found = _mean_curve([c for run in runs if (c := run.curve(by)) is not None], measure)
        rows += [{"name": name, "kind": kind, **point} for point in found]
    rows = [row for row in rows if row["at"] > 0]
    if not rows:
        return None
    ends = [min(row["at"] for row in rows), max(row["at"] for row in rows)]
    values = [1e-3, 1e-2, 0.1, 1, 10, 100, 1000] if by == "tau" else [1, 3, 10, 30, 100, 300, 1000]
    axis = alt.Axis(values=values, grid=False, format="~g")
    title = "threshold tau" if by == "tau" else "heads in the sets, k"
    x = alt.X("at:Q", scale=alt.Scale(type="log", domain=ends, nice=False), axis=axis, title=title)
    y = alt.Y("value:Q", scale=alt.Scale(domain=[0, 1]), title=SHORT[measure])
    kinds = [kind for kind in COLOURS if kind in {row["kind"] for row in rows}]
    base, colour = alt.Chart(data(rows)), kind_colour(kinds)
    mark = task.tau if by == "tau" else task.k
    bars = alt.Chart(data([row for row in rows if row["at"] == mark and row["low"] is not None]))
    bars = bars.mark_rule(size=3, strokeOpacity=0.25).encode(
        x, alt.Y("low:Q"), alt.Y2("high:Q"), colour
    )
    line = base.mark_line(size=1.2, strokeOpacity=0.75).encode(x, y, colour, detail="name:N")
    heavy = base.transform_filter("datum.kind === 'real' || datum.kind === 'untuned'")
    heavy = heavy.mark_line(size=2.4).encode(x, y, colour, detail="name:N")
    layered = [*ruler(mark, "x", TAU, (4, 2)), bars, line, heavy, *_chance(task, measure, by, x)]
    num = len({row["name"] for row in rows})
    return Panel(layered, 300, 200, heading(SHORT[measure], f"{num} lines"))


def _mean_curve(curves: Sequence[Curve], measure: str) -> Rows:
    """Means over seeds at each point that all of them have a value at."""
    if not curves or any(measure not in curve.measures for curve in curves):
        return []
    rows: Rows = []
    for index, at in enumerate(curves[0].at):
        sides = {
            side: [c.measures.get(f"{measure}{end}", [None] * len(c.at))[index] for c in curves]
            for side, end in (("value", ""), ("low", "_low"), ("high", "_high"))
        }
        if None not in sides["value"]:
            rows.append({"at": at} | {side: _mean(values) for side, values in sides.items()})
    return rows


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _chance(task: Task, measure: str, by: str, x: alt.X) -> Marks:
    """What as many heads at random within layers would give.

    The mean over the settings that are neither real nor untuned and have a value there.
    """
    at: dict[float, list[float]] = {}
    for setting in task.settings:
        if setting.kind in ("real", "untuned"):
            continue
        curves = [c for run in task.runs if run.name in setting.runs and (c := run.curve(by))]
        for row in _mean_curve(curves, f"{measure}_null_layer"):
            at.setdefault(row["at"], []).append(row["value"])
    rows = [{"at": place, "value": float(np.mean(at[place]))} for place in sorted(at) if place > 0]
    if not rows:
        return []
    mark = alt.Chart(data(rows)).mark_line(color=CHANCE, strokeDash=[2, 2], size=1.5)
    return [mark.encode(x, alt.Y("value:Q"))]


def _learning_panel(task: Task, setting: Setting) -> Panel:
    rows = [row for name in LEARNED for row in _points(setting.curve, name)]
    runs = [run for run in task.runs if run.name in setting.runs]
    single = [
        {**row, "run": run.name}
        for run in (runs if len(runs) > 1 else [])
        for name in LEARNED
        for row in _points(run.checkpoints, name)
    ]
    names = [SHORT[name] for name in LEARNED]
    colour = alt.Color(
        "measure:N",
        scale=alt.Scale(domain=names, range=[MEASURE_COLOURS[name] for name in LEARNED]),
        legend=alt.Legend(title=None, orient="top"),
    )
    x = alt.X("step:Q", title="step", axis=alt.Axis(tickCount=4, grid=False))
    y = alt.Y("value:Q", scale=alt.Scale(domain=[0, 1]), title=None)
    base = alt.Chart(data(rows))
    sides = alt.Y("low:Q"), alt.Y2("high:Q")
    band = base.transform_filter("datum.low !== null").mark_area(fillOpacity=0.15)
    layered: Marks = [band.encode(x, *sides, colour)]
    if single:
        thin = alt.Chart(data(single)).mark_line(size=0.7, strokeOpacity=0.5)
        layered.append(thin.encode(x, y, colour, detail="run:N"))
    layered.append(base.mark_line(size=2, point={"size": 18}).encode(x, y, colour))
    top, real, null = (task.ceiling.get("recall"), task.ceiling.get("f1"), task.nulls.get("recall"))
    layered += ruler(top.value if top else None, "y", CEILING, (6, 3))
    layered += ruler(real.value if real else None, "y", MEASURE_COLOURS["f1"], (6, 3))
    layered += ruler(null.value if null else None, "y", CHANCE, (2, 2))
    words = f"n = {len(setting.runs)} seed{'s' * (len(setting.runs) != 1)}"
    title = heading(setting.setting[:26], words, small=True, colour=COLOURS[setting.kind])
    return Panel(layered, 165, 120, title, setting.setting, setting.kind)


def _points(checkpoints: Sequence[Checkpoint], name: str) -> Rows:
    rows: Rows = []
    for checkpoint in checkpoints:
        found = checkpoint.measures.get(name)
        if found is not None and found.value is not None:
            own = {"value": found.value, "low": found.low, "high": found.high}
            rows.append({"step": checkpoint.step, "measure": SHORT[name], **own})
    return rows
