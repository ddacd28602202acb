"""What a correlation over settings may owe to: families of alike settings, another measure, noise.

A correlation takes settings for independent and their means for exact. Settings whose needles are
worded alike are not independent, and means over one or two seeds are noisy: the first makes p
values too small, the second correlations.
"""

from dataclasses import dataclass, replace

import numpy as np

from sce.stats.correlation import MIN_UNITS_FOR_INTERVAL, Correlation, Draws, correlate_units
from sce.stats.resampling import Estimate, interval_of, resample_counts
from sce.stats.series import Labels, Series, codes, labels_of, spearman, together
from sce.stats.settings import (
    NUM_RESAMPLES,
    moved_bounds,
    points_of,
    rhos_drawn,
)

MIN_FAMILIES = 3
MIN_PARTIAL = 5
"""Settings: the ranks of three less one leave a single contrast, which correlates fully."""
PAIRS = (0, 1), (0, 2), (1, 2)


@dataclass(frozen=True)
class ByFamily:
    """A correlation over settings in two parts, for families of settings that are alike.

    `between`: of the families' means, n the families. `within`: of each setting less its family's
    mean, settings exchanged within their family, n the settings of families of two or more; no
    bounds. Where families differ and settings inside them hardly do, there are no more independent
    points than families, and the p value to go by is that of `between`.
    """

    between: Correlation
    within: Correlation


def by_family(
    x: Series, y: Series, settings: Labels, families: Labels, *, seed: int
) -> ByFamily | None:
    """A correlation of runs' settings between their families and within them.

    Each setting is of one family. Runs with a None or a value that is not finite in either series
    are left out. None for fewer than 3 families, or where every setting is a family of its own.
    Raises ValueError if lengths differ.
    """
    values, kept = together(x, y)
    of = labels_of(families, kept)
    order = sorted(range(len(of)), key=lambda run: repr(of[run]))
    setting = codes([labels_of(settings, kept)[run] for run in order])
    firsts = np.unique(setting, return_index=True)[1]
    family = codes([of[order[first]] for first in firsts])
    num_families = int(family.max(initial=-1)) + 1
    if num_families < MIN_FAMILIES or num_families == len(firsts):
        return None
    means = [_means(_means(row, setting), family).round(12) for row in values[:, order]]
    within = points_of([x, y], settings, families)
    left_x, left_y = within.means()
    return ByFamily(
        between=correlate_units(means[0], means[1], Draws(seed)),
        within=_without_bounds(
            correlate_units(left_x, left_y, Draws(seed, None, within.stratum, 1))
        ),
    )


def rho_given(
    x: Series,
    y: Series,
    given: Series,
    settings: Labels,
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> Estimate:
    """Partial Spearman of the settings' means of x and y, given those of a third series.

    (rho_xy - rho_xg rho_yg) / sqrt((1 - rho_xg^2) (1 - rho_yg^2)): what x says of y beyond what the
    third says already. Bounds as in `correlate_settings`; n is the settings. Runs that lack any of
    the three are left out. None for fewer than 5 settings, and where one series is constant or in
    the order of the third, or in the opposite one. Raises ValueError if lengths differ.
    """
    points = points_of([x, y, given], settings)
    n, means = points.num_settings, points.means()
    pairs = [spearman(means[a], means[b]) for a, b in PAIRS]
    value = _partial(*(np.array([np.nan if rho is None else rho]) for rho in pairs))[0]
    if not np.isfinite(value) or n < MIN_PARTIAL:
        return Estimate(None, None, None, n)
    if n < MIN_UNITS_FOR_INTERVAL:
        return Estimate(float(value), None, None, n)
    drawn = _partial(*(rhos_drawn(points, pair, seed, num_resamples) for pair in PAIRS))
    return Estimate(float(value), *moved_bounds(drawn, float(value)), n)


def reliability(
    x: Series, settings: Labels, *, seed: int, num_resamples: int = NUM_RESAMPLES
) -> Estimate:
    """How far the means of settings would come out the same with other seeds, in 0..1.

    1 - (variance within settings / seeds) / (variance of the settings' means): ICC(1, k) of Shrout
    and Fleiss (1979), the variance within being that of all settings with two seeds or more. Two
    measures that go together fully are seen to correlate by the root of the product of theirs.
    Bounds are of a bootstrap over settings. n is the settings with two seeds or more: no bounds for
    fewer than 8 of them, None for fewer than 3 or where nothing varies.
    """
    (values,), kept = together(x)
    setting = codes(labels_of(settings, kept))
    seeds = np.bincount(setting) if len(setting) else np.zeros(0)
    several = int((seeds > 1).sum())
    if several < 3:
        return Estimate(None, None, None, several)
    means = _means(values, setting)
    parts = np.bincount(setting, (values - means[setting]) ** 2), seeds - 1, 1 / seeds, means
    counts = np.concatenate(list(resample_counts(len(means), seed, num_resamples)))
    value = _repeats(np.ones((1, len(means))), *parts)[0]
    if not np.isfinite(value):
        return Estimate(None, None, None, several)
    if several < MIN_UNITS_FOR_INTERVAL:
        return Estimate(float(value), None, None, several)
    low, high = interval_of(_repeats(counts, *parts)) or (None, None)
    return Estimate(float(value), low, high, several)


def _without_bounds(found: Correlation) -> Correlation:
    none = dict.fromkeys(
        f"{name}_{end}" for name in ("spearman", "pearson") for end in ("low", "high")
    )
    return replace(found, **none)


def _means(values: np.ndarray, label: np.ndarray) -> np.ndarray:
    return np.bincount(label, values) / np.bincount(label)


def _partial(xy: np.ndarray, xg: np.ndarray, yg: np.ndarray) -> np.ndarray:
    """NaN where the third series explains one of the two wholly."""
    left = np.fmax(1 - xg**2, 0) * np.fmax(1 - yg**2, 0)
    some = np.fmax(np.abs(xg), np.abs(yg)) < 1 - 1e-9
    found = np.full(len(xy), np.nan)
    np.divide(xy - xg * yg, np.sqrt(left), out=found, where=some)
    return np.clip(found, -1, 1)


def _repeats(
    counts: np.ndarray, squares: np.ndarray, free: np.ndarray, noise: np.ndarray, means: np.ndarray
) -> np.ndarray:
    """Reliability in each resample of settings, [resamples]; NaN where it has none."""
    num = counts.sum(axis=1)
    centred = means - (counts @ means / num)[:, None]
    variance = (counts * centred**2).sum(axis=1) / (num - 1)
    within, degrees = counts @ squares, counts @ free
    found = np.full(len(counts), np.nan)
    usable = (degrees > 0) & (variance > 1e-18)
    np.divide(within * (counts @ noise), degrees * num * variance, out=found, where=usable)
    return np.clip(1 - found, 0, 1)
