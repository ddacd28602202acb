"""What all figures share: colours, marks, lines of ceiling and chance, and rows of data.

Colours are Okabe and Ito's, which people who confuse red and green tell apart; kinds of runs have
fixed shapes too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
from altair.utils.schemapi import debug_mode

from sce.analysis.findings import Task
from sce.analysis.parts import LABELS
from sce.stats import Estimate

COLOURS = {
    "synthetic": "#0072B2",
    "mixture": "#CC79A7",
    "limited": "#E69F00",
    "real": "#009E73",
    "untuned": "#777777",
    "reference": "#000000",
}
SHAPES = {
    "synthetic": "circle",
    "mixture": "triangle-up",
    "limited": "square",
    "real": "diamond",
    "untuned": "cross",
    "reference": "stroke",
}
MEASURE_COLOURS = {
    "f1": "#D55E00",
    "recall": "#0072B2",
    "recall_learned": "#CC79A7",
    "precision": "#E69F00",
    "jaccard": "#009E73",
    "cosine": "#56B4E9",
    "cosine_learned": "#000000",
}
CEILING, CHANCE, TAU = "#009E73", "#777777", "#D55E00"
INK, QUIET = "#222222", "#888888"
SHORT = {
    **LABELS,
    "recall": "recall",
    "recall_learned": "recall learned",
    "recall_at_k": "recall at k",
    "cosine": "cosine",
    "cosine_learned": "cosine learned",
    "spearman": "Spearman",
    "answer_nll": "validation loss",
}
Spec = dict[str, Any]
"""Vega-Lite."""
Rows = list[Spec]
Marks = list[alt.Chart]
"""What a panel is made of, in the order in which it is drawn."""


def data(rows: Rows) -> alt.InlineData:
    """Rows as Altair takes them without pandas.

    As a tuple, which Altair never copies: it copies lists whenever charts are put together, and
    that took longer than all else. Its schema knows lists alone, hence no check here.
    """
    with debug_mode(False):
        return alt.InlineData(values=tuple(rows))


def kinds_of(task: Task) -> list[str]:
    """Kinds that have a point, in the order of the legend."""
    own = {setting.kind for setting in task.settings}
    return [kind for kind in COLOURS if kind in own]


def kind_colour(kinds: Sequence[str], legend: bool = True) -> alt.Color:
    """Colour by `kind`."""
    scale = alt.Scale(domain=list(kinds), range=[COLOURS[kind] for kind in kinds])
    return alt.Color("kind:N", scale=scale, legend=_legend() if legend else None)


def kind_shape(kinds: Sequence[str], legend: bool = True) -> alt.Shape:
    """Shape by `kind`."""
    scale = alt.Scale(domain=list(kinds), range=[SHAPES[kind] for kind in kinds])
    return alt.Shape("kind:N", scale=scale, legend=_legend() if legend else None)


def split(name: str, found: Estimate | None) -> dict[str, float | int | None]:
    """An estimate as columns of a row; bounds are the value where there are none."""
    if found is None or found.value is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None, f"{name}_n": 0}
    low = found.value if found.low is None else found.low
    high = found.value if found.high is None else found.high
    return {name: found.value, f"{name}_low": low, f"{name}_high": high, f"{name}_n": found.n}


def ruler(at: float | None, channel: str, colour: str, dash: Sequence[int]) -> Marks:
    """A line across the plot at a value; none for None."""
    if at is None:
        return []
    mark = alt.Chart(data([{"at": at}])).mark_rule(color=colour, strokeDash=list(dash), size=1.3)
    return [mark.encode(alt.X("at:Q") if channel == "x" else alt.Y("at:Q"))]


def ceiling(task: Task, measure: str, channel: str) -> Marks:
    """The ceiling of a measure as a dashed line, with its interval as a band."""
    found = task.ceiling.get(measure)
    if found is None or found.value is None:
        return []
    band: Marks = []
    if found.low is not None and found.high is not None and found.high > found.low:
        rows = data([{"low": found.low, "high": found.high}])
        area = alt.Chart(rows).mark_rect(color=CEILING, fillOpacity=0.1)
        names = (alt.X, alt.X2) if channel == "x" else (alt.Y, alt.Y2)
        band = [area.encode(names[0]("low:Q"), names[1]("high:Q"))]
    return [*band, *ruler(found.value, channel, CEILING, (6, 3))]


def chance(task: Task, measure: str, channel: str) -> Marks:
    """What chance within layers gives, as a dotted line."""
    found = task.nulls.get(measure)
    return ruler(found.value if found else None, channel, CHANCE, (2, 2))


def heading(text: str, *lines: str, small: bool = False, colour: str | None = None) -> Spec:
    """A panel's title and the quiet lines below it."""
    own: Spec = {"text": text, "subtitle": [line for line in lines if line], "anchor": "start"}
    sizes = {"fontSize": 10, "subtitleFontSize": 9} if small else {}
    return own | sizes | ({} if colour is None else {"color": colour})


def value(measures: Mapping[str, Estimate], name: str) -> float | None:
    """Of a measure that may not be there."""
    found = measures.get(name)
    return None if found is None else found.value


def _legend() -> alt.Legend:
    return alt.Legend(title="tuned on", orient="right")
