"""Correlations over settings, each with several seeds: which settings, and then which seeds.

A setting's point is the mean over its seeds. Seeds of a setting are no independent points, and how
far apart they lie says how sure its mean is: so settings are resampled, and inside each drawn one
its seeds anew (the two-stage bootstrap of Davison and Hinkley 1997, section 3.8). Seeds drawn anew
add to the noise, which lowers a correlation: the draws are moved on Fisher's z scale until their
median is the estimate. In simulations (tests/bench/correlations.py) such intervals held the rho
that settings have by their noisy means in 94 to 97% of studies. That of means without noise is
larger, and was held less often the more noise there was: `sce.stats.scrutiny.reliability` says how
much there is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from sce.stats.correlation import MIN_UNITS_FOR_INTERVAL, Correlation, Draws, correlate_units
from sce.stats.resampling import Estimate, interval_of
from sce.stats.series import (
    Labels,
    Series,
    codes,
    labels_of,
    rounded,
    spearman,
    together,
    without_means,
)

NUM_RESAMPLES = 5000
"""With 2,000 the bounds of one correlation differed by up to 0.05 between seeds of the draws."""
EDGE = 0.999  # draws beyond it count as it: a resample in perfect order is not infinitely far off


@dataclass(frozen=True)
class Points:
    """Series of runs, and which setting and stratum (task) each run is of."""

    values: Float[np.ndarray, "_series _runs"]
    setting: Int[np.ndarray, " _runs"]
    stratum: Int[np.ndarray, " _settings"]
    centred: bool
    """Whether each stratum's mean is taken from its settings."""

    @property
    def num_settings(self) -> int:
        """Settings with a run."""
        return len(self.stratum)

    def means(self) -> Float[np.ndarray, "_series _settings"]:
        """Of each setting over its runs; centred where that is asked for. Equal means are ties."""
        counts = np.bincount(self.setting)
        sums = [np.bincount(self.setting, weights=row) for row in self.values]
        means = np.stack(sums) / counts
        return np.stack(
            [without_means(row, self.stratum) if self.centred else rounded(row) for row in means]
        )


def correlate_settings(  # noqa: PLR0913 - two series, their labels, and how often to draw
    x: Series,
    y: Series,
    settings: Labels,
    *,
    seed: int,
    tasks: Labels | None = None,
    centred: bool = True,
    num_resamples: int = NUM_RESAMPLES,
    num_permutations: int = 10_000,
) -> Correlation:
    """Spearman and Pearson of the settings' means, with interval, p value and what n could show.

    Runs with a None or a value that is not finite in either series are left out. With `tasks`
    settings change places, and are drawn, within their task alone, and a setting is one of its
    task; a task with one setting is left out. If `centred`, each task's mean is taken from its
    settings first, so that no difference between tasks makes a correlation. Bounds come from the
    bootstrap over settings and, inside, seeds: None for fewer than 8 settings. `n` and `num_groups`
    are the settings. Raises ValueError if lengths differ.
    """
    points = points_of([x, y], settings, tasks, centred=centred)
    means = points.means()
    draws = Draws(seed, None, points.stratum, 1, num_permutations)
    found = replace(correlate_units(means[0], means[1], draws), num_groups=points.num_settings)
    blank = replace(found, spearman_low=None, spearman_high=None)
    blank = replace(blank, pearson_low=None, pearson_high=None)
    if found.spearman is None or points.num_settings < MIN_UNITS_FOR_INTERVAL:
        return blank
    of_ranks, of_values = (
        rhos_drawn(points, (0, 1), seed, num_resamples, ranks=ranks) for ranks in (True, False)
    )
    ranks, values = moved_bounds(of_ranks, found.spearman), moved_bounds(of_values, found.pearson)
    return replace(
        blank,
        spearman_low=ranks[0],
        spearman_high=ranks[1],
        pearson_low=values[0],
        pearson_high=values[1],
    )


def rho_of_settings(
    x: Series, y: Series, settings: Labels, *, seed: int, num_resamples: int = NUM_RESAMPLES
) -> Estimate:
    """The Spearman of `correlate_settings` with its interval alone; n is the settings."""
    points = points_of([x, y], settings)
    rho = spearman(*points.means())
    if rho is None or points.num_settings < MIN_UNITS_FOR_INTERVAL:
        return Estimate(rho, None, None, points.num_settings)
    low, high = moved_bounds(rhos_drawn(points, (0, 1), seed, num_resamples), rho)
    return Estimate(rho, low, high, points.num_settings)


def rho_difference(  # noqa: PLR0913 - three series, their labels, and how often to draw
    first: Series,
    second: Series,
    y: Series,
    settings: Labels,
    *,
    seed: int,
    tasks: Labels | None = None,
    num_resamples: int = NUM_RESAMPLES,
) -> Estimate:
    """Rho of the first with y less rho of the second, from the same settings and resamples.

    Runs that lack any of the three are left out; n is the settings. Above 0 the first says more:
    both should rise with y, so hand in what falls, such as a loss, with its sign turned.

    Args:
        first: a series of runs.
        second: likewise.
        y: what both should go with.
        settings: of the runs.
        seed: of the resampling.
        tasks: as in `correlate_settings`, centred.
        num_resamples: behind the interval.
    """
    points = points_of([first, second, y], settings, tasks)
    means, n = points.means(), points.num_settings
    rhos = [spearman(means[row], means[2]) for row in (0, 1)]
    if rhos[0] is None or rhos[1] is None:
        return Estimate(None, None, None, n)
    value = rhos[0] - rhos[1]
    if n < MIN_UNITS_FOR_INTERVAL:
        return Estimate(value, None, None, n)
    drawn = [
        _moved(rhos_drawn(points, (row, 2), seed, num_resamples), rho)
        for row, rho in zip((0, 1), rhos, strict=True)
    ]
    low, high = interval_of(drawn[0] - drawn[1]) or (None, None)
    return Estimate(value, low, high, n)


def points_of(
    series: Sequence[Series], settings: Labels, tasks: Labels | None = None, *, centred: bool = True
) -> Points:
    """Runs that have a value in every series, by task, setting and then their values.

    So what is drawn does not depend on the order in which runs are given. With `tasks` those of a
    task's only setting are left out, and each task is a stratum. Raises ValueError if lengths
    differ.
    """
    values, kept = together(*series)
    names = labels_of(settings, kept)
    of = [0] * len(names) if tasks is None else labels_of(tasks, kept)
    rows = values.T.tolist()
    order = sorted(range(len(names)), key=lambda run: (repr(of[run]), repr(names[run]), rows[run]))
    if tasks is not None:
        num_settings = {task: len({names[i] for i in order if of[i] == task}) for task in set(of)}
        order = [i for i in order if num_settings[of[i]] > 1]
    setting, strata = codes([(of[i], names[i]) for i in order]), codes([of[i] for i in order])
    firsts = np.unique(setting, return_index=True)[1]
    return Points(values[:, order], setting, strata[firsts], tasks is not None and centred)


def rhos_drawn(
    points: Points, pair: tuple[int, int], seed: int, num_resamples: int, *, ranks: bool = True
) -> Float[np.ndarray, " _resamples"]:
    """Spearman, or Pearson, of two of the series in every resample; NaN where one is constant."""
    a, b = (_drawn(points, index, seed, num_resamples, ranks) for index in pair)
    return np.clip(np.einsum("rs,rs->r", a, b), -1, 1)


def _drawn(
    points: Points, index: int, seed: int, num_resamples: int, ranks: bool
) -> Float[np.ndarray, "_resamples _settings"]:
    """A series in every resample, less its mean and of length 1; NaN where it is constant."""
    where = tuple(points.setting.tolist()), tuple(points.stratum.tolist()), points.centred
    return _drawn_series(points.values[index].tobytes(), *where, seed, num_resamples, ranks)


@lru_cache(maxsize=8)  # F1 is drawn beside every measure
def _drawn_series(  # noqa: PLR0913 - plain values, by which it is kept
    values: bytes,
    setting: tuple[int, ...],
    stratum: tuple[int, ...],
    centred: bool,
    seed: int,
    num_resamples: int,
    ranks: bool,
) -> np.ndarray:
    """Means of drawn settings over drawn seeds; settings are drawn within their stratum."""
    runs, shares = _drawn_runs(setting, stratum, seed, num_resamples)
    means = (np.frombuffer(values)[runs] * shares).sum(axis=-1)
    if centred:
        strata = np.array(stratum)
        for own in (strata == s for s in np.unique(strata)):
            means[:, own] -= means[:, own].mean(axis=1, keepdims=True)
    means = rankdata(means.round(12), axis=1) if ranks else means.round(12)
    means -= means.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    return np.divide(means, norms, out=np.full_like(means, np.nan), where=norms > 1e-12)


@lru_cache(maxsize=4)
def _drawn_runs(
    setting: tuple[int, ...], stratum: tuple[int, ...], seed: int, num_resamples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Runs drawn for every setting drawn, [resamples, settings, seeds], and their shares in it.

    As many runs as the drawn setting has, each any of its own; a share of 0 is none. Drawn once for
    all series of the same runs.
    """
    rng, strata = np.random.default_rng(seed), np.array(stratum)
    runs = [np.flatnonzero(np.array(setting) == s) for s in range(len(stratum))]
    sizes = np.array([len(own) for own in runs])
    table = np.zeros((len(runs), sizes.max()), dtype=np.int64)
    for s, own in enumerate(runs):
        table[s, : len(own)] = own
    chosen = np.empty((num_resamples, len(runs)), dtype=np.int64)
    for members in (np.flatnonzero(strata == s) for s in np.unique(strata)):
        chosen[:, members] = members[rng.integers(len(members), size=(num_resamples, len(members)))]
    own_size = sizes[chosen][..., None]
    places = (rng.random((*chosen.shape, sizes.max())) * own_size).astype(np.int64)
    return table[chosen[..., None], places], (np.arange(sizes.max()) < own_size) / own_size


def moved_bounds(
    draws: Float[np.ndarray, " _resamples"], estimate: float | None
) -> tuple[float, float] | tuple[None, None]:
    """95% of the draws of a correlation, moved to lie around the estimate, which is in it."""
    found = interval_of(_moved(draws, estimate))
    if found is None or estimate is None:
        return None, None
    return min(found[0], estimate), max(found[1], estimate)


def _moved(
    draws: Float[np.ndarray, " _resamples"], estimate: float | None
) -> Float[np.ndarray, " _resamples"]:
    """Correlations moved on the z scale until the median of those that exist is the estimate.

    To a perfect correlation, whose z is infinite, nothing can be moved: the draws stay.
    """
    known = np.isfinite(draws)
    if estimate is None or not known.any():
        return np.full_like(draws, np.nan)
    if abs(estimate) > 1 - 1e-9:
        return draws
    z = np.arctanh(np.clip(draws, -EDGE, EDGE))
    return np.tanh(z - np.median(z[known]) + np.arctanh(estimate))
