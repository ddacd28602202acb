"""Figures of the heads themselves: maps, gained and lost, layers, overlaps."""

import altair as alt
import numpy as np

from sce.analysis.charts.figure import Figure, Panel, step
from sce.analysis.charts.style import (
    CHANCE,
    COLOURS,
    INK,
    Marks,
    Rows,
    data,
    heading,
    ruler,
    split,
    value,
)
from sce.analysis.findings import Task
from sce.analysis.parts import LayerShares, Overlap, Setting
from sce.stats import head_set

MAX_MAPS = 24
COLUMNS = 6
HEAT = ["#FFFFFF", "#FEE6A9", "#FDA04D", "#D7301F", "#67000D"]
_FAINT = 0.06  # of the largest score: what scores less is white in any print


def maps(task: Task) -> Figure | None:
    """Layer x head maps of every variant beside the reference and the untuned model."""
    named: list[tuple[str, str, str, np.ndarray]] = []
    for name, own in (("reference", task.reference), ("untuned", task.untuned)):
        if own is not None:
            named.append((name, name, f"{len(own.heads)} heads", own.scores))
    for setting in _by_f1(task):
        if setting.kind != "untuned":
            f1, size = value(setting.measures, "f1"), value(setting.measures, "num_heads")
            words = f"F1 {f1:.2f}, {size:.3g} heads" if f1 is not None and size is not None else ""
            seeds = f", {len(setting.runs)} seeds" if len(setting.runs) > 1 else ""
            named.append((setting.setting, setting.kind, words + seeds, setting.scores))
    if not named:
        return None
    most = MAX_MAPS + sum(kind in ("reference", "untuned") for _, kind, *_ in named)
    top = max(float(scores.max()) for *_, scores in named[:most]) or 1.0
    panels = [_map(task, each, top) for each in named[:most]]
    lines = (
        f"Mean scores (over seeds); framed: above tau = {task.tau:g}. Highest F1 first.",
        f"White: below {_FAINT * top:.2g}. {_not_shown(len(named) - most)}",
    )
    return Figure(
        f"{task.task}: where the heads are",
        lines,
        panels,
        columns=COLUMNS,
        one_colour_scale=True,
    )


def changes(task: Task) -> Figure | None:
    """Heads gained and lost against the untuned model, those of the reference apart."""
    if task.untuned is None:
        return None
    reference = set(task.reference.heads) if task.reference else set()
    rows: Rows = []
    spread: Rows = []
    labels = []
    by_name = {run.name: run for run in task.runs}
    for setting in _by_f1(task):
        if setting.kind == "untuned":
            continue
        labels.append(f"{setting.setting} ({len(setting.runs)})")
        for what, sign, counts in (("gained", 1, setting.gained), ("lost", -1, setting.lost)):
            each = [sign * len(getattr(by_name[name], what)) for name in setting.runs]
            spread.append({"setting": labels[-1], "low": min(each), "high": max(each)})
            parts = {True: 0.0, False: 0.0}
            for head, times in counts.items():
                layer, number = head.split("-")
                parts[(int(layer), int(number)) in reference] += times / len(setting.runs)
            for inside, count in parts.items():
                kind = f"{what}, {'in the reference' if inside else 'not in it'}"
                rows.append({"setting": labels[-1], "what": kind, "count": sign * count})
    if not rows:
        return None
    kinds = [f"{w}, {i}" for w in ("gained", "lost") for i in ("in the reference", "not in it")]
    scale = alt.Scale(domain=kinds, range=["#0072B2", "#9ECAE1", "#D55E00", "#F5C5A3"])
    legend = alt.Legend(title=None, orient="bottom", columns=2)
    learned = len(reference - set(task.untuned.heads))
    bars = alt.Chart(data(rows)).mark_bar()
    bars = bars.encode(
        alt.X("count:Q", title="heads a run"),
        alt.Y("setting:N", sort=labels, title=None, axis=alt.Axis(labelLimit=240)),
        alt.Color("what:N", scale=scale, legend=legend, sort=kinds),
        alt.Order("what:O"),
    )
    whole = ruler(float(learned), "x", COLOURS["real"], (6, 3)) if task.reference else []
    y = alt.Y("setting:N", sort=labels)
    seeds = alt.Chart(data(spread)).mark_rule(color=INK, size=1.2)
    seeds = seeds.encode(alt.X("low:Q"), alt.X2("high:Q"), y)
    panel = Panel([bars, seeds, *whole, *ruler(0.0, "x", INK, (1, 0))], 420, step(16))
    lines = (
        f"Above tau = {task.tau:g} after tuning and not before, or the reverse. (n): seeds.",
        "Black: smallest to largest seed."
        + (f" Dashes: the {learned} heads that the reference gained." if task.reference else ""),
    )
    return Figure(f"{task.task}: heads gained and lost", lines, [panel])


def layers(task: Task) -> Figure | None:
    """The share of a set's heads that each layer holds, a panel a set."""
    known = [each for each in task.layers if each.num_heads]
    if not known:
        return None
    outline = next((each for each in known if each.kind == "reference"), None)
    top = max(found.high or found.value or 0 for each in known for found in each.shares)
    panels = [_layer_panel(each, outline, top) for each in known]
    lines = (
        f"Heads above tau = {task.tau:g}: the share in each layer. Bars: 95% (examples, mean over "
        "seeds).",
        "Black steps: the reference. Grey dots: as many in every layer.",
    )
    title = f"{task.task}: in which layers the heads are"
    return Figure(title, lines, panels, columns=4, most=MAX_MAPS)


def overlap(task: Task, found: Overlap) -> Figure | None:
    """Every set as the run (rows) beside every other as the reference (columns)."""
    rows: Rows = []
    for i, run in enumerate(found.names):
        for j, reference in enumerate(found.names):
            cell = found.cells[i][j]
            if cell.value is not None:
                text = f"{cell.value:.2f}".removeprefix("0") if cell.value < 1 else "1"
                own = {"run": run, "reference": reference, "text": text}
                rows.append(own | split("share", cell))
    if not rows:
        return None
    names, low = list(found.names), min(row["share"] for row in rows)
    base = alt.Chart(data(rows))
    x = alt.X("reference:N", sort=names, title="as the reference", axis=_axis(-45))
    y = alt.Y("run:N", sort=names, title="as the run", axis=_axis(0))
    scale = alt.Scale(domain=[min(low, 0.5) if found.measure == "cosine" else 0, 1], scheme="blues")
    cells = base.mark_rect().encode(
        x, y, alt.Color("share:Q", scale=scale, legend=alt.Legend(title=found.measure))
    )
    layered = [cells]
    if len(names) <= 26:
        ink = alt.condition("datum.share > 0.6", alt.value("white"), alt.value(INK))
        texts = base.mark_text(fontSize=8).encode(x, y, alt.Text("text:N"), color=ink)
        layered.append(texts)
    lines = (
        "Means over pairs of runs; on the diagonal different seeds of one setting. Blank: a set "
        "beside itself.",
        _spread(found),
    )
    title = f"{task.task}: {found.measure} of every set with every other"
    return Figure(title, lines, [Panel(layered, step(23), step(17))])


def _map(task: Task, named: tuple[str, str, str, np.ndarray], top: float) -> Panel:
    name, kind, words, scores = named
    above = head_set(scores, task.tau)
    rows: Rows = [
        {
            "layer": int(la),
            "head": int(h),
            "score": float(scores[la, h]),
            "above": bool(above[la, h]),
        }
        for la, h in np.argwhere((scores > _FAINT * top) | above)
    ]
    num_layers, num_heads = scores.shape
    x = alt.X("head:O", scale=alt.Scale(domain=list(range(num_heads))), axis=_ticks(num_heads))
    order = list(range(num_layers))[::-1]
    y = alt.Y("layer:O", scale=alt.Scale(domain=order), axis=_ticks(num_layers))
    colour = alt.Color(
        "score:Q",
        scale=alt.Scale(domain=[share * top for share in (0, 0.15, 0.4, 0.7, 1)], range=HEAT),
        legend=alt.Legend(title="score", orient="right", gradientLength=120),
    )
    base = alt.Chart(data(rows or [{"layer": 0, "head": 0, "score": 0.0, "above": False}]))
    cell = max(3, min(9, 240 // num_layers))
    rings = base.transform_filter("datum.above").mark_rect(stroke=INK, strokeWidth=1, filled=False)
    marks = [base.mark_rect().encode(x, y, colour), rings.encode(x, y)]
    wide = max(cell, 110 // num_heads) * num_heads
    title = heading(name[:24], words, small=True, colour=COLOURS[kind])
    return Panel(marks, wide, cell * num_layers, title)


def _layer_panel(own: LayerShares, outline: LayerShares | None, top: float) -> Panel:
    rows: Rows = [{"layer": i, **split("share", found)} for i, found in enumerate(own.shares)]
    base, num_layers = alt.Chart(data(rows)), len(own.shares)
    x = alt.X("layer:Q", title="layer", scale=alt.Scale(domain=[-0.5, num_layers - 0.5]))
    axis = alt.Axis(format="%", tickCount=4)
    y = alt.Y("share:Q", title="share of heads", axis=axis, scale=alt.Scale(domain=[0, top]))
    layered: Marks = [
        base.mark_bar(color=COLOURS[own.kind], fillOpacity=0.75, width=140 / num_layers).encode(
            x, y
        ),
        base.mark_rule(color=INK, strokeOpacity=0.6).encode(
            x, alt.Y("share_low:Q"), alt.Y2("share_high:Q")
        ),
        *ruler(1 / num_layers, "y", CHANCE, (2, 2)),
    ]
    if outline is not None and outline is not own:
        steps = [
            {"layer": i, "share": found.value or 0.0} for i, found in enumerate(outline.shares)
        ]
        line = alt.Chart(data(steps)).mark_line(interpolate="step", color="#000000", size=1)
        layered.append(line.encode(x, y))
    n = own.shares[0].n
    seeds = "" if own.kind in ("reference", "untuned") else f", n = {n} seed{'s' * (n != 1)}"
    words = f"{own.num_heads:.3g} heads{seeds}"
    title = heading(own.name[:26], words, small=True)
    kind = None if own.kind == "reference" else own.kind
    return Panel(layered, 190, 90, title, own.name, kind)


def _not_shown(left: int) -> str:
    return f"{left} settings of lower F1 are not shown." if left > 0 else ""


def _by_f1(task: Task) -> list[Setting]:
    """Settings, highest F1 first."""
    return sorted(task.settings, key=lambda s: -(value(s.measures, "f1") or 0.0))


def _spread(found: Overlap) -> str:
    widths = [
        cell.high - cell.low
        for row in found.cells
        for cell in row
        if cell.low is not None and cell.high is not None
    ]
    if not widths:
        return "Without intervals: see the tables for n."
    half = float(np.median(widths)) / 2
    return (
        f"95% intervals over examples are +-{half:.2f} in the median; every one is in the tables."
    )


def _axis(angle: int) -> alt.Axis:
    return alt.Axis(labelAngle=angle, labelLimit=160, labelFontSize=9)


def _ticks(count: int) -> alt.Axis:
    step = max(1, -(-count // 8))
    return alt.Axis(
        values=list(range(0, count, step)), labelAngle=0, labelFontSize=8, titleFontSize=9
    )
