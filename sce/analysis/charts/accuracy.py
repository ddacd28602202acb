"""Figures of heads against accuracy: the scatter, rho of every measure and tau, prediction."""

from collections.abc import Sequence

import altair as alt

from sce.analysis.charts.axes import stretched, ticks
from sce.analysis.charts.figure import Figure, Panel, step
from sce.analysis.charts.labels import FONT, placed
from sce.analysis.charts.style import (
    CHANCE,
    MEASURE_COLOURS,
    QUIET,
    SHORT,
    TAU,
    Rows,
    ceiling,
    chance,
    data,
    heading,
    kind_colour,
    kind_shape,
    kinds_of,
    ruler,
    split,
)
from sce.analysis.findings import Group, Rho, RhoOver, Task
from sce.analysis.parts import Setting
from sce.stats import Estimate

SCATTERED = ("recall", "cosine", "recall_learned", "cosine_learned")
SIZE = (340, 260)
"""Of a scatter, in pixels."""
POINTS = {"synthetic": "synthetic settings", "all": "all points"}


def against_f1(group: Group, task: Task) -> Figure | None:
    """Recall and cosine, of all heads and of learned ones, against F1; a point a setting."""
    panels = [_scatter(group, task, measure) for measure in SCATTERED]
    found = [panel for panel in panels if panel is not None]
    if not found:
        return None
    lines = (
        "Bars: 95% intervals (examples, mean over seeds). Small: single seeds. Green dashes: real "
        "data against a reference it is not in.",
        "Grey dots: chance within layers. p by exchange of settings, two-sided. All points: with "
        "untuned, and real unless in the reference.",
    )
    return Figure(f"{task.task}: heads and F1", lines, found, columns=2, spacing=36)


def rhos(group: Group, task: str | None) -> Figure | None:
    """Rho of every measure with F1, beside what could have been shown."""
    rows: Rows = []
    for rho in group.correlations:
        found = rho.found
        if rho.task == task and rho.is_told and found.spearman is not None:
            own = Estimate(found.spearman, found.spearman_low, found.spearman_high, found.n)
            p = "" if found.p_value is None else f", p {found.p_value:.2g}"
            least = found.smallest_detectable
            rows.append(
                {
                    "measure": SHORT[rho.measure],
                    "points": POINTS[rho.points],
                    "text": f"n {found.n}{p}",
                    "least": least,
                    "minus": None if least is None else -least,
                    **split("rho", own),
                }
            )
    if not rows:
        return None
    order = list(dict.fromkeys(row["measure"] for row in rows))
    base = alt.Chart(data(rows))
    names = list(POINTS.values())
    y = alt.Y("measure:N", sort=order, title=None)
    offset = alt.YOffset("points:N", sort=names)
    colour = alt.Color(
        "points:N",
        scale=alt.Scale(domain=names, range=["#0072B2", "#E69F00"]),
        legend=alt.Legend(title=None, orient="bottom"),
    )
    x = alt.X("rho:Q", scale=alt.Scale(domain=[-1, 1]), title="Spearman rho with F1")
    quiet = base.mark_bar(color="#EDEDED", height={"band": 0.9}).encode(
        alt.X("minus:Q"), alt.X2("least:Q"), y, offset
    )
    sides = alt.X("rho_low:Q"), alt.X2("rho_high:Q")
    bars = base.mark_rule(size=2).encode(*sides, y, offset, colour)
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(x, y, offset, colour)
    texts = base.mark_text(align="left", dx=6, fontSize=9, color=QUIET).encode(
        y, offset, alt.Text("text:N"), x=alt.datum(1.0)
    )
    zero = ruler(0.0, "x", "#999999", (1, 0))
    lines = (
        "Bars: 95%, bootstrap over settings, seeds drawn anew inside. n: settings. Grey: |rho| too",
        "small to be shown at p < 0.05 by so many. All points: untuned, and real unless in the",
        "reference, too.",
    )
    panel = Panel([quiet, *zero, bars, dots, texts], 460, step(15))
    return Figure(f"{task or 'all tasks, pooled'}: what goes with F1", lines, [panel])


def rho_over(group: Group, task: Task, by: str) -> Figure | None:
    """Rho with F1 as a function of the threshold, or of the sets' size; a panel a measure."""
    own = [
        found
        for found in group.rho_over
        if (found.task, found.points, found.by) == (task.task, "synthetic", by)
        and any(rho is not None for rho in found.rho)
    ]
    if not own:
        return None
    known = [
        at
        for found in own
        for at, rho in zip(found.at, found.rho, strict=True)
        if rho is not None and at > 0
    ]
    panels = [_rho_panel(group, task, found, (min(known), max(known))) for found in own]
    lines = (
        "Bands: 95%, bootstrap over settings, seeds drawn anew inside. Grey dots: the smallest",
        f"|rho| that could be shown. Orange dashes: {by} = {_fixed(task, by):g}, as elsewhere.",
    )
    what = "threshold" if by == "tau" else "size of the sets"
    title = f"{task.task}: does the {what} matter?"
    return Figure(title, lines, panels, columns=2, spacing=28)


def _rho_panel(group: Group, task: Task, found: RhoOver, ends: tuple[float, float]) -> Panel:
    columns = zip(found.at, found.rho, found.low, found.high, found.n, strict=True)
    rows: Rows = [
        {"at": at, "rho": rho, "low": low, "high": high, "n": n}
        for at, rho, low, high, n in columns
        if rho is not None and at > 0
    ]
    base = alt.Chart(data(rows))
    scale = alt.Scale(type="log", domain=list(ends), nice=False)
    axis = alt.Axis(values=[1e-3, 1e-2, 1e-1, 1, 10, 100], grid=False, format="~g")
    across = "threshold tau" if found.by == "tau" else "heads in a set, k"
    x = alt.X("at:Q", scale=scale, axis=axis, title=across)
    y = alt.Y("rho:Q", scale=alt.Scale(domain=[-1, 1]), title="Spearman rho with F1")
    colour = MEASURE_COLOURS[found.measure]
    sides = alt.Y("low:Q"), alt.Y2("high:Q")
    band = base.mark_area(fillOpacity=0.18, color=colour).encode(x, *sides)
    line = base.mark_line(color=colour, point={"size": 16, "color": colour}).encode(x, y)
    least = _least(group.correlations, task.task, found.measure)
    shown = [ruler(sign * least, "y", CHANCE, (2, 2)) for sign in (-1, 1)] if least else []
    fixed = ruler(_fixed(task, found.by), "x", TAU, (4, 2))
    marks = [ruler(0.0, "y", "#999999", (1, 0)), fixed, *shown]
    every = [mark for each in marks for mark in each]
    most = max(row["n"] for row in rows)
    title = heading(SHORT[found.measure], f"n = {most} synthetic, limited and mixed settings")
    return Panel([band, *every, line], 290, 190, title)


def _fixed(task: Task, by: str) -> float:
    """The threshold, or the size, that the other figures have."""
    return task.tau if by == "tau" else task.k


def predictors(group: Group, task: Task) -> Figure | None:
    """Error of predicting F1 of settings left out, over that of the mean of the others."""
    rows: Rows = [
        {
            "name": SHORT.get(found.name, found.name),
            "text": f"{found.mae:.3f}",
            **split("ratio", found.ratio),
        }
        for found in group.predictors
        if found.task == task.task and found.features and found.ratio.value is not None
    ]
    if not rows:
        return None
    of_mean = next(p.mean_only_mae for p in group.predictors if p.task == task.task)
    base = alt.Chart(data(rows))
    order = [row["name"] for row in sorted(rows, key=lambda row: row["ratio"])]
    y = alt.Y("name:N", sort=order, title=None, axis=alt.Axis(labelLimit=260))
    x = alt.X("ratio:Q", title="error / error of the mean of the other settings")
    bars = base.mark_rule(size=2, color="#0072B2").encode(
        alt.X("ratio_low:Q"), alt.X2("ratio_high:Q"), y
    )
    dots = base.mark_point(filled=True, size=80, opacity=1, color="#0072B2").encode(x, y)
    texts = base.mark_text(dy=-9, fontSize=9, color=QUIET).encode(x, y, alt.Text("text:N"))
    one = ruler(1.0, "x", CHANCE, (2, 2))
    panel = Panel([*one, bars, dots, texts], 420, step(30))
    lines = (
        f"Each of n = {rows[0]['ratio_n']} synthetic, limited and mixed settings, predicted from "
        "the others.",
        "Bars: 95%, bootstrap over settings. Dotted: no better than the mean of the others.",
        f"Numbers: mean absolute error in F1 (the mean's own: {of_mean:.3f}).",
    )
    return Figure(f"{task.task}: what predicts F1", lines, [panel])


def _scatter(group: Group, task: Task, measure: str) -> Panel | None:
    rows = [_point(s, measure) for s in task.settings]
    rows = [row for row in rows if row["x"] is not None and row["y"] is not None]
    if len(rows) < 2:
        return None
    seeds: Rows = [
        {"x": x, "y": y, "kind": setting.kind}
        for setting in task.settings
        if len(setting.runs) > 1 and measure in setting.by_seed
        for x, y in zip(setting.by_seed[measure], setting.by_seed["f1"], strict=True)
        if x is not None and y is not None
    ]
    null, real = task.nulls.get(measure), task.ceiling.get("f1")
    tops = [row["y_high"] for row in rows] + [row["y"] for row in seeds]
    tops += [v for v in ((real.high, real.value) if real else ()) if v is not None]
    top = max(tops) or 1.0
    every = [row["x_low"] for row in rows] + [row["x"] for row in seeds]
    low = min(every if null is None or null.value is None else [*every, null.value])
    power = stretched(task, measure)
    across = (0.0 if 0 <= low < 0.35 or power > 1 else low - 0.02 * (1 - low), 1.0)
    x = _across(measure, across, power)
    y = alt.Y("y:Q", scale=alt.Scale(domain=[0, 1.05 * top], nice=False), title="F1")
    kinds = kinds_of(task)
    base, colour = alt.Chart(data(rows)), kind_colour(kinds)
    rule = base.mark_rule(strokeOpacity=0.35)
    marks = base.mark_point(filled=True, size=75, opacity=1, stroke="white", strokeWidth=0.6)
    layers = [
        *ceiling(task, measure, "x"),
        *chance(task, measure, "x"),
        *ceiling(task, "f1", "y"),
        rule.encode(alt.X("x_low:Q"), alt.X2("x_high:Q"), y, colour),
        rule.encode(x, alt.Y("y_low:Q"), alt.Y2("y_high:Q"), colour),
    ]
    if seeds:
        small = alt.Chart(data(seeds)).mark_point(filled=True, size=14, opacity=1, fillOpacity=0.5)
        layers.append(small.encode(x, y, colour, kind_shape(kinds)))
    layers.append(marks.encode(x, y, colour, kind_shape(kinds)))
    if named := placed(rows, SIZE, (across, (0.0, 1.05 * top)), power):
        quiet = alt.Chart(data(named)).mark_text(align="left", fontSize=FONT, color="#555555")
        layers.append(quiet.encode(alt.X("text_x:Q"), alt.Y("text_y:Q"), alt.Text("name:N")))
    title = heading(SHORT[measure], *_says(group.correlations, task.task, measure))
    return Panel(layers, *SIZE, title)


def _across(measure: str, ends: tuple[float, float], power: float) -> alt.X:
    if power == 1:
        scale = alt.Scale(domain=list(ends), nice=False)
        return alt.X("x:Q", scale=scale, title=SHORT[measure])
    scale = alt.Scale(type="pow", exponent=power, domain=list(ends), nice=False)
    axis = alt.Axis(values=ticks(power), labelOverlap=False, format=".2~f")
    return alt.X("x:Q", scale=scale, axis=axis, title=f"{SHORT[measure]} (stretched towards 1)")


def _point(setting: Setting, measure: str) -> dict:
    own = setting.measures
    return {
        "name": setting.setting,
        "kind": setting.kind,
        **split("x", own.get(measure)),
        **split("y", own.get("f1")),
    }


def _says(found: Sequence[Rho], task: str, measure: str) -> list[str]:
    """Rho with n, interval, p and what could have been shown: without and with real points."""
    lines = []
    for rho in found:
        if (rho.task, rho.measure, rho.is_told) != (task, measure, True):
            continue
        own = rho.found
        if own.spearman is None:
            lines.append(f"{POINTS[rho.points]}: no rho, n = {own.n}")
            continue
        bounds = ""
        if own.spearman_low is not None and own.spearman_high is not None:
            bounds = f" [{own.spearman_low:.2f}, {own.spearman_high:.2f}]"
        p = "" if own.p_value is None else f", p {own.p_value:.2g}"
        least = own.smallest_detectable
        could = "" if least is None else f" (|rho| ≥ {least:.2f} to be shown)"
        lines.append(f"{POINTS[rho.points]}: rho {own.spearman:.2f}{bounds}{p}, n = {own.n}{could}")
    return lines


def _least(found: Sequence[Rho], task: str, measure: str) -> float | None:
    for rho in found:
        if (rho.task, rho.measure, rho.points) == (task, measure, "synthetic"):
            return rho.found.smallest_detectable
    return None
