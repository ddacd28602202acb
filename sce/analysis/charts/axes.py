"""Where values near 1, as cosines are, can be told apart: an axis of their powers."""

import math
from collections.abc import Sequence
from statistics import median

from sce.analysis.findings import Task

STRETCHED = ("cosine", "cosine_learned")
MIDDLE = 0.8
"""Median above which an axis is stretched."""
MOST = 60.0
APART = 0.075
"""Least distance of two ticks, as a share of the axis."""
_TICKS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 1)


def stretched(task: Task, measure: str) -> float:
    """Exponent of the axis that a measure of a task's runs stands on."""
    found = [run.last.measures.get(measure) for run in task.runs if run.is_point]
    values = [each.value for each in found if each is not None and each.value is not None]
    return stretch(values) if measure in STRETCHED and values else 1.0


def stretch(values: Sequence[float]) -> float:
    """Exponent of an axis from 0 to 1 whose middle is the median; 1 where none is needed.

    Args:
        values: all that stand on it.
    """
    middle = median(values)
    if middle <= MIDDLE or min(values) < 0 or max(values) > 1:
        return 1.0
    return MOST if middle >= 1 else min(MOST, math.log(0.5) / math.log(middle))


def ticks(exponent: float) -> list[float]:
    """Values to mark on an axis from 0 to 1, none too close to another; rising."""
    found: list[float] = []
    for value in reversed(_TICKS):
        if not found or found[-1] ** exponent - value**exponent >= APART:
            found.append(value)
    return found[::-1]
