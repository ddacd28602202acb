"""Correlations that say how sure they are, and what their points could have shown."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from sce.stats.permutation import NullDraws, exchanges
from sce.stats.resampling import interval_of, resample_counts
from sce.stats.series import (
    CONSTANT_SPREAD,
    HeadMap,
    Labels,
    Series,
    codes,
    labels_of,
    pearson,
    require_same_shape,
    spearman,
    together,
    without_means,
)

# Fewer units than this have fewer distinct resamples (7: 1716) than are drawn, and those of a
# perfect order all agree with it: such an interval would be narrow and wrong.
MIN_UNITS_FOR_INTERVAL = 8


@dataclass(frozen=True)
class Correlation:
    """How two series go together over n points.

    `spearman` and `pearson` lie in -1..1: None for fewer than 3 points or a constant series, and
    then so is all else but the counts. Their `_low` and `_high` hold 95% of one bootstrap over
    units, which are the points or, where there are groups, the groups (`num_groups`, else None);
    None for fewer than 8 units. `p_value` is two-sided, of the Spearman; None where there is
    nothing to exchange. `smallest_detectable` is the smallest |Spearman| that would have had a p
    value of 5% at most with these points, their ties and groups; None where not even 1 would have.
    """

    spearman: float | None
    spearman_low: float | None
    spearman_high: float | None
    pearson: float | None
    pearson_low: float | None
    pearson_high: float | None
    p_value: float | None
    n: int
    smallest_detectable: float | None
    num_groups: int | None = None


@dataclass(frozen=True)
class Draws:
    """Which points are resampled and exchanged together, and how often.

    `units`: codes of blocks that stay whole; None: each point is its own. `strata`: codes of what
    blocks must not leave; None: all is one.
    """

    seed: int
    units: Int[np.ndarray, " _points"] | None = None
    strata: Int[np.ndarray, " _points"] | None = None
    num_resamples: int = 2000
    num_permutations: int = 10_000


def partial_given_layer(x: HeadMap, y: HeadMap, *, ranks: bool = True) -> float | None:
    """Correlation of two maps of scores, [layers, heads], with the layer partialled out.

    With `ranks` the scores become ranks among all heads, ties averaged; then each layer's mean rank
    is taken from its heads, in both maps, and what is left is correlated (Pearson). This is the
    partial Spearman correlation given the layer as a category: it asks whether the maps agree on
    which heads of a layer, not on which layers. Without `ranks` the same of the scores themselves.

    In -1..1. None where a value is not finite, where all heads of every layer are equal in either
    map, or where layers * (heads - 1) < 2: a single contrast always correlates fully. Raises
    ValueError if the shapes differ.
    """
    require_same_shape(x, y)
    num_layers, num_heads = x.shape
    if num_layers * (num_heads - 1) < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    flat = [rankdata(m) if ranks else m.ravel().astype(np.float64) for m in (x, y)]
    layers = np.repeat(np.arange(num_layers), num_heads)
    a, b = (without_means(values.ravel(), layers) for values in flat)
    return pearson(a, b)


def correlate(
    x: Series,
    y: Series,
    *,
    seed: int,
    groups: Labels | None = None,
    num_resamples: int = 2000,
    num_permutations: int = 10_000,
) -> Correlation:
    """Spearman and Pearson of two series, with intervals, p value and what n could have shown.

    Points with a None or a value that is not finite in either series are left out. `groups` (the
    setting of each run) are resampled and exchanged whole, all seeds of a setting together, since
    seeds of one setting are not independent points; a group changes places only with groups of as
    many points. The p value counts every order where there are at most 5040 (7 units), else it is
    (1 + hits) / (1 + draws) (Phipson and Smyth 2010). Raises ValueError if the lengths differ or a
    number of draws is < 1.
    """
    (xs, ys), kept = together(x, y)
    units = None if groups is None else codes(labels_of(groups, kept))
    return correlate_units(xs, ys, Draws(seed, units, None, num_resamples, num_permutations))


def correlate_units(
    x: Float[np.ndarray, " _points"], y: Float[np.ndarray, " _points"], draws: Draws
) -> Correlation:
    """`correlate` for finite points, with strata."""
    n = len(x)
    num_groups = None if draws.units is None else len(np.unique(draws.units))
    rho = spearman(x, y)
    if rho is None:
        return Correlation(None, None, None, None, None, None, None, n, None, num_groups)
    of_ranks, of_values = (interval or (None, None) for interval in _intervals(x, y, draws))
    null = _null(x, y, draws)
    return Correlation(
        spearman=rho,
        spearman_low=of_ranks[0],
        spearman_high=of_ranks[1],
        pearson=pearson(x, y),
        pearson_low=of_values[0],
        pearson_high=of_values[1],
        p_value=None if null is None else null.p_value(rho),
        n=n,
        smallest_detectable=None if null is None else null.smallest_significant(),
        num_groups=num_groups,
    )


def _intervals(x: np.ndarray, y: np.ndarray, draws: Draws) -> list[tuple[float, float] | None]:
    """95% of the Spearman and of the Pearson of the same resamples.

    A resample is a number of times for every point.
    """
    units = np.arange(len(x)) if draws.units is None else draws.units
    num_units = int(units.max()) + 1
    if num_units < MIN_UNITS_FOR_INTERVAL:
        return [None, None]
    found = []
    for counts in resample_counts(num_units, draws.seed, draws.num_resamples):
        times = counts[:, units]
        found.append([_drawn(x, y, times, centred) for centred in (_centred_ranks, _centred)])
    return [interval_of(np.concatenate(drawn)) for drawn in zip(*found, strict=True)]


def _drawn(
    x: np.ndarray,
    y: np.ndarray,
    times: np.ndarray,
    centred: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """Correlation in each resample, NaN where a series is constant: [resamples]."""
    a, b = centred(x, times), centred(y, times)
    norms = np.sqrt((times * a * a).sum(axis=1)) * np.sqrt((times * b * b).sum(axis=1))
    rho = np.full(len(times), np.nan)
    np.divide((times * a * b).sum(axis=1), norms, out=rho, where=norms > 0)
    return np.clip(rho, -1, 1)


def _centred(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Values over the largest magnitude, less their mean in each resample: [resamples, points].

    0 throughout where all that was drawn is equal up to rounding, as `pearson` has it.
    """
    scaled = values / np.abs(values).max()
    left = scaled - (times @ scaled / times.sum(axis=1))[:, None]
    spread, largest = (
        (np.abs(each) * (times > 0)).max(axis=1, keepdims=True) for each in (left, scaled)
    )
    return np.where(spread > CONSTANT_SPREAD * largest, left, 0.0)


def _centred_ranks(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Ranks less their mean in each resample, ties averaged: [resamples, points].

    A value's rank is, but for a constant, the number of points below it and half of those equal.
    """
    _, position = np.unique(values, return_inverse=True)
    order = np.argsort(position, kind="stable")
    starts = np.flatnonzero(np.diff(position[order], prepend=-1))
    equal = np.add.reduceat(times[:, order], starts, axis=1)
    ranks = equal.cumsum(axis=1) - equal / 2 - times.sum(axis=1, keepdims=True) / 2
    return ranks[:, position]


def _null(x: np.ndarray, y: np.ndarray, draws: Draws) -> NullDraws | None:
    """The Spearman with blocks of y exchanged: ranks move with their points."""
    n = len(x)
    found = exchanges(
        np.arange(n) if draws.units is None else draws.units,
        np.zeros(n, dtype=np.int64) if draws.strata is None else draws.strata,
        seed=draws.seed,
        num_permutations=draws.num_permutations,
    )
    if found is None:
        return None
    a, b = (ranks - ranks.mean() for ranks in (rankdata(x), rankdata(y)))
    orders, exact = found
    return NullDraws(b[orders] @ a / (np.linalg.norm(a) * np.linalg.norm(b)), exact)
