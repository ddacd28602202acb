"""A figure: panels under one title, as one spec of Vega-Lite.

Marks and panels are put together as plain specs: Altair's own layers and concatenation copy all
that they are made of several times at every level, which took longer than all else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import altair as alt
from altair.utils.schemapi import debug_mode

from sce.analysis.charts.style import INK, Spec

_TOP_LEVEL = ("$schema", "config", "datasets")


@dataclass(frozen=True)
class Panel:
    """One plot: marks over one another."""

    marks: Sequence[alt.Chart]
    width: float | Spec
    """Pixels, or `step` of them a value."""
    height: float | Spec
    title: Spec | None = None
    setting: str | None = None
    """Whose it is; None: of no single one."""
    kind: str | None = None
    """Of the setting."""

    @cached_property
    def spec(self) -> Spec:
        """Vega-Lite of the plot alone; its rows are named, and lie in `datasets`."""
        layers = [
            {name: own for name, own in mark.items() if name not in _TOP_LEVEL}
            for mark in self._marks
        ]
        size = {"width": self.width, "height": self.height}
        return {"layer": layers, **size} | ({"title": self.title} if self.title else {})

    @property
    def datasets(self) -> Spec:
        """Name -> rows."""
        return {
            name: rows for mark in self._marks for name, rows in mark.get("datasets", {}).items()
        }

    @cached_property
    def _marks(self) -> list[Spec]:
        with debug_mode(False):
            return [mark.to_dict(validate=False) for mark in self.marks]


def step(pixels: int) -> Spec:
    """So many pixels a value of a discrete axis."""
    return {"step": pixels}


@dataclass(frozen=True)
class Figure:
    """Panels in rows, a title, and quiet lines below it."""

    title: str
    lines: Sequence[str]
    panels: Sequence[Panel]
    columns: int = 1
    spacing: int | None = None
    """Pixels between the panels of a row, and between rows; None: Vega-Lite's own."""
    most: int | None = None
    """Panels that a file holds, the first ones; the page holds all. None: all of them."""
    rest: str = "{} more are not shown."
    """A line about those which a file does not hold."""
    one_colour_scale: bool = False

    def to_dict(self) -> Spec:
        """The whole figure, as a file shows it."""
        kept = self.panels[: self.most]
        left = len(self.panels) - len(kept)
        lines = [line for line in (*self.lines, self.rest.format(left) if left else "") if line]
        panels = [panel.spec for panel in kept]
        space = {} if self.spacing is None else {"spacing": self.spacing}
        lined_up = [
            {"hconcat": panels[at : at + self.columns]} | space
            for at in range(0, len(panels), self.columns)
        ]
        alone = len(panels) == 1 and "title" not in panels[0]
        whole: Spec = panels[0] if alone else {"vconcat": lined_up} | space
        if self.one_colour_scale and not alone:
            whole["resolve"] = {"scale": {"color": "shared"}}
        title = {"text": self.title, "anchor": "start"} | ({"subtitle": lines} if lines else {})
        datasets = {name: rows for panel in kept for name, rows in panel.datasets.items()}
        return {
            "$schema": alt.SCHEMA_URL,
            "config": _config(),
            **whole,
            "title": title,
            "datasets": datasets,
        }


def _config() -> Spec:
    """The house's style."""
    axis = {"labelColor": INK, "titleColor": INK, "gridColor": "#EEEEEE", "domainColor": "#BBBBBB"}
    axis |= {"labelFontSize": 10, "titleFontSize": 11, "titleFontWeight": "normal"}
    return {
        "font": "DejaVu Sans, Helvetica, Arial, sans-serif",
        "background": "white",
        "view": {"stroke": "#DDDDDD"},
        "axis": axis,
        "title": {"fontSize": 12, "subtitleFontSize": 10, "subtitleColor": "#555555", "offset": 8},
        "legend": {
            "labelFontSize": 10,
            "titleFontSize": 10,
            "symbolSize": 70,
            "symbolOpacity": 1,
        },
        "header": {"labelFontSize": 10, "titleFontSize": 11},
    }
