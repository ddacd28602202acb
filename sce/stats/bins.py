"""Accuracy or scores by where the needle lies, or by how long the prompt is."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sce.stats.resampling import bootstrap_interval
from sce.stats.series import Grid, Series, together


@dataclass(frozen=True)
class Bin:
    """The mean of the `n` examples whose position lies in [low, high), the last bin closed.

    `mean_low` and `mean_high`: 95% bootstrap interval over these examples, None for fewer than 2;
    `mean` is None for an empty bin.
    """

    low: float
    high: float
    n: int
    mean: float | None
    mean_low: float | None
    mean_high: float | None


def by_bins(
    values: Series,
    position: Series,
    *,
    seed: int,
    edges: Grid | None = None,
    num_bins: int | None = None,
) -> list[Bin]:
    """Means of `values` by bins of `position`, in rising order; give `edges` or `num_bins`.

    `edges` (of depth, in 0..1: 0, 0.25, 0.5, 0.75, 1) are taken as they are, and examples outside
    them are in no bin. `num_bins` (of length, in tokens) are quantiles of the positions, so that
    each holds about as many examples; where many positions are equal there are fewer bins, and none
    for no example. Examples with a None or a value that is not finite in either are left out.
    Raises ValueError if the lengths differ, for both or neither, for edges that do not rise or are
    fewer than 2, and if `num_bins` < 1.
    """
    if (edges is None) == (num_bins is None):
        raise ValueError("give either edges or num_bins")
    (heights, places), _ = together(values, position)
    limits = _quantiles(places, num_bins) if edges is None else _checked(edges)
    if not len(limits):
        return []
    # An example at the upper limit of all belongs to the last bin.
    of = np.searchsorted(limits, places, side="right") - 1
    of[places == limits[-1]] = len(limits) - 2
    return [
        _bin(float(low), float(high), heights[of == index], seed)
        for index, (low, high) in enumerate(pairwise(limits))
    ]


def _bin(low: float, high: float, values: np.ndarray, seed: int) -> Bin:
    mean_low, mean_high = bootstrap_interval(values, seed=seed) or (None, None)
    mean = float(values.mean()) if values.size else None
    return Bin(low, high, len(values), mean, mean_low, mean_high)


def _quantiles(places: np.ndarray, num_bins: int | None) -> np.ndarray:
    if num_bins is None or num_bins < 1:
        raise ValueError(f"num_bins must be >= 1, got {num_bins}")
    if not places.size:
        return places
    limits = np.unique(np.quantile(places, np.linspace(0, 1, num_bins + 1)))
    return limits if len(limits) > 1 else np.repeat(limits, 2)


def _checked(edges: Grid) -> np.ndarray:
    limits = np.asarray(edges, dtype=np.float64)
    if len(limits) < 2 or not (np.diff(limits) > 0).all():
        raise ValueError(f"edges must be 2 or more and rise, got {list(edges)}")
    return limits
