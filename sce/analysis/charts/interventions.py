"""Figures of what intervening did: knockout, patching, and what documents are good for."""

import altair as alt

from sce.analysis.charts.figure import Figure, Panel, step
from sce.analysis.charts.style import (
    CEILING,
    INK,
    Marks,
    Rows,
    data,
    heading,
    ruler,
    split,
)
from sce.analysis.findings import Task
from sce.analysis.parts import Effect, Intervention

KINDS = {"heads": "heads", "layer_matched": "random, same layers", "uniform": "random"}
COLOURS = ("#0072B2", "#E69F00", "#999999")
VIEWS = {
    "full": "all documents",
    "gold_only": "gold documents alone",
    "no_evidence": "gold documents left out",
    "no_documents": "no documents",
}


def knockout(task: Task) -> Figure | None:
    """F1 over the number of heads taken out, and of as many random ones."""
    panels = []
    for found in task.interventions:
        if found.method != "knockout":
            continue
        before = next((e for e in found.effects if e.kind == "none"), None)
        for name in dict.fromkeys(curve["name"] for curve in found.curves):
            rows = _knocked(found, name, before)
            if rows:
                panels.append(_knockout_panel(found, name, rows, before))
    if not panels:
        return None
    lines = (
        "Bands: 95% over examples; random sets: mean of their draws.",
        "Dashes: nothing taken out.",
    )
    return Figure(f"{task.task}: heads taken out", lines, panels, columns=3)


def patching(task: Task) -> Figure | None:
    """F1 of the patched model by set, beside the original's and the source's, a panel a setting."""
    panels = []
    for found in task.interventions:
        for way in dict.fromkeys(e.direction for e in found.effects if e.direction):
            own = [e for e in found.effects if e.direction == way]
            panels.append(_patch_panel(found, way, own))
    if not panels:
        return None
    lines = (
        "Bars: 95% over examples. Orange: random sets of the same size, smallest to largest draw.",
        "Grey dashes: unpatched. Green: the model whose heads are patched in. What speaks against "
        "patching is in the tables.",
    )
    return Figure(f"{task.task}: heads patched in", lines, panels, columns=4)


def baselines(task: Task) -> Figure | None:
    """F1 of the untuned and of the real-tuned model by what they are shown."""
    rows: Rows = [
        {"model": each.model, "view": VIEWS.get(each.view, each.view), **split("f1", each.f1)}
        for each in task.baselines
        if each.f1.value is not None
    ]
    if not rows:
        return None
    base = alt.Chart(data(rows))
    order = [name for name in VIEWS.values() if name in {row["view"] for row in rows}]
    y = alt.Y("view:N", sort=order, title=None, axis=alt.Axis(labelLimit=200))
    scale = alt.Scale(domain=["untuned", "tuned"], range=["#777777", CEILING])
    colour = alt.Color("model:N", scale=scale, legend=alt.Legend(title="model", orient="bottom"))
    offset = alt.YOffset("model:N", sort=["untuned", "tuned"])
    x = alt.X("f1:Q", title="F1", scale=alt.Scale(domainMin=0))
    bars = base.mark_rule(size=2).encode(alt.X("f1_low:Q"), alt.X2("f1_high:Q"), y, offset, colour)
    dots = base.mark_point(filled=True, size=80, opacity=1).encode(x, y, offset, colour)
    panel = Panel([bars, dots], 380, step(16))
    counts = sorted({row["f1_n"] for row in rows})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    title = f"{task.task}: what the documents are good for"
    return Figure(title, [f"Bars: 95% over n = {n} examples."], [panel])


def _knocked(found: Intervention, name: str, before: Effect | None) -> Rows:
    rows: Rows = []
    for curve in found.curves:
        if curve["name"] != name or curve["kind"] not in KINDS:
            continue
        own = {"kind": KINDS[curve["kind"]], "n": curve["n"]}
        if before is not None and before.f1.value is not None:
            rows.append(own | {"k": 0} | split("f1", before.f1))
        columns = zip(curve["k"], curve["f1"], curve["f1_low"], curve["f1_high"], strict=True)
        for k, f1, low, high in columns:
            rows.append(own | {"k": k, "f1": f1, "f1_low": low, "f1_high": high})
    return rows


def _knockout_panel(found: Intervention, name: str, rows: Rows, before: Effect | None) -> Panel:
    base = alt.Chart(data(rows))
    scale = alt.Scale(domain=list(KINDS.values()), range=list(COLOURS))
    colour = alt.Color("kind:N", scale=scale, legend=alt.Legend(title=None, orient="bottom"))
    x = alt.X("k:Q", title="heads taken out", axis=alt.Axis(grid=False))
    y = alt.Y("f1:Q", title="F1", scale=alt.Scale(domainMin=0))
    band = base.mark_area(fillOpacity=0.15).encode(
        x, alt.Y("f1_low:Q"), alt.Y2("f1_high:Q"), colour
    )
    line = base.mark_line(point={"size": 25}).encode(x, y, colour)
    start = ruler(before.f1.value if before else None, "y", INK, (4, 3))
    tuned = "the real-tuned model" if found.setting is None else found.setting
    title = heading(f"{tuned}: heads by {name}"[:44], f"n = {rows[0]['n']} examples")
    return Panel([*start, band, line], 260, 190, title, found.setting, found.kind)


def _patch_panel(found: Intervention, way: str, effects: list[Effect]) -> Panel:
    before = next((e for e in effects if e.kind == "none"), None)
    source = next((e for e in effects if e.kind == "source"), None)
    rows: Rows = []
    for effect in effects:
        if effect.kind == "heads":
            label = f"{effect.name} ({effect.k})"
            rows.append({"set": label, "of": "heads", **split("f1", effect.f1)})
            draws = [e.f1.value for e in effects if e.name == effect.name and e.draw is not None]
            draws = [value for value in draws if value is not None]
            if draws:
                mean, low, high = sum(draws) / len(draws), min(draws), max(draws)
                own = {"f1": mean, "f1_low": low, "f1_high": high, "f1_n": effect.f1.n}
                rows.append({"set": label, "of": "random", **own})
    order = list(dict.fromkeys(row["set"] for row in rows))
    base = alt.Chart(data(rows))
    y = alt.Y("set:N", sort=order, title=None, axis=alt.Axis(labelLimit=150))
    offset = alt.YOffset("of:N", sort=["heads", "random"])
    scale = alt.Scale(domain=["heads", "random"], range=list(COLOURS[:2]))
    colour = alt.Color("of:N", scale=scale, legend=alt.Legend(title=None, orient="bottom"))
    x = alt.X("f1:Q", title="F1", scale=alt.Scale(domainMin=0))
    sides = alt.X("f1_low:Q"), alt.X2("f1_high:Q")
    layered: Marks = [
        *ruler(before.f1.value if before else None, "x", "#777777", (4, 3)),
        *ruler(source.f1.value if source else None, "x", CEILING, (6, 3)),
        base.mark_rule(size=2).encode(*sides, y, offset, colour),
        base.mark_point(filled=True, size=60, opacity=1).encode(x, y, offset, colour),
    ]
    seed = "" if found.seed is None else f", seed {found.seed}"
    into = "source into target" if way == "forward" else "target into source"
    n = effects[0].f1.n
    title = heading(f"{found.setting or 'patched'}{seed}"[:34], f"{into}, n = {n} examples")
    return Panel(layered, 200, step(14), title, found.setting, found.kind)
