"""Correlations kept apart that are easily taken for one another.

Recall and accuracy both rise with training, and both differ between tasks: a correlation over
checkpoints, runs and tasks alike may be one of steps or of tasks and say nothing of heads.
"""

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from sce.stats.correlation import Correlation, Draws, correlate, correlate_units
from sce.stats.resampling import Estimate, bootstrap_interval, interval_of, resample_counts
from sce.stats.series import (
    Labels,
    Series,
    codes,
    labels_of,
    pearson,
    spearman,
    together,
    vector,
    without_means,
)


@dataclass(frozen=True)
class WithinBetween:
    """Correlation over the checkpoints of a run, and over runs: two questions, never one figure.

    `within`: the mean over runs of the Spearman of a run's own checkpoints, n the runs that have
    one, and `num_points` their checkpoints. `within_pooled`: the Pearson of all checkpoints, each
    less its run's mean (the repeated measures correlation of Bakdash and Marusich 2017), n the
    runs of 2 checkpoints or more, and `num_points_pooled` theirs. The intervals of both resample
    runs, None for fewer than 2. `between`: each run's last checkpoint, n runs.
    """

    within: Estimate
    num_points: int
    within_pooled: Estimate
    num_points_pooled: int
    between: Correlation


@dataclass(frozen=True)
class PooledAndBy:
    """A correlation over all points, within each label, and without what the labels explain.

    `without_label_means`: of each point less its label's mean, over labels of 2 points or more. A
    pooled correlation that is gone there was one of labels (of tasks, of model families).
    """

    pooled: Correlation
    by_label: dict[Hashable, Correlation]
    without_label_means: Correlation


def within_and_between(runs: Labels, x: Series, y: Series, *, seed: int = 0) -> WithinBetween:
    """Within-run and between-run correlation, kept apart.

    `runs` names the run of each point; a run's points come in the order of its checkpoints. Points
    with a None or a value that is not finite in either series are left out, and a run's last point
    is the last one left. The between-run p value exchanges runs: where settings have several seeds,
    pass the last points and their settings to `correlate`. Raises ValueError if the lengths differ.
    """
    (xs, ys), kept = together(x, y)
    run = codes(labels_of(runs, kept))
    each = [np.flatnonzero(run == code) for code in range(run.max(initial=-1) + 1)]
    own = [(spearman(xs[points], ys[points]), len(points)) for points in each]
    found = [value for value, _ in own if value is not None]
    low, high = bootstrap_interval(found, seed=seed) or (None, None)
    several = np.bincount(run)[run] > 1
    last = np.array([points[-1] for points in each], dtype=np.int64)
    return WithinBetween(
        within=Estimate(float(np.mean(found)) if found else None, low, high, len(found)),
        num_points=sum(num for value, num in own if value is not None),
        within_pooled=_pooled_within(xs[several], ys[several], codes(run[several]), seed),
        num_points_pooled=int(several.sum()),
        between=correlate(xs[last], ys[last], seed=seed),
    )


def pooled_and_by(
    x: Series, y: Series, labels: Labels, *, seed: int, groups: Labels | None = None
) -> PooledAndBy:
    """A correlation pooled over labels, within each, and pooled without the labels' means.

    `labels` are what may explain both series (the task, the model); `groups` are those of
    `correlate`. In `without_label_means` points, or groups, change places within their label only,
    and a group that has several labels is one group in each. Points with a None or a value that is
    not finite in either series are left out. Raises ValueError if the lengths differ.
    """
    (xs, ys), kept = together(x, y)
    label, x_all, y_all = codes(labels_of(labels, np.ones_like(kept))), vector(x), vector(y)
    by_label: dict[Hashable, Correlation] = {}
    for code, name in enumerate(dict.fromkeys(labels)):
        here = label == code
        own = None if groups is None else labels_of(groups, here)
        by_label[name] = correlate(x_all[here], y_all[here], seed=seed, groups=own)
    label = label[kept]
    several = np.bincount(label)[label] > 1
    strata = label[several]
    units = None
    if groups is not None:
        settings = codes(labels_of(groups, kept))[several]
        units = codes(list(zip(strata.tolist(), settings.tolist(), strict=True)))
    a, b = (without_means(values[several], strata) for values in (xs, ys))
    return PooledAndBy(
        pooled=correlate(x, y, seed=seed, groups=groups),
        by_label=by_label,
        without_label_means=correlate_units(a, b, Draws(seed, units, strata)),
    )


def _pooled_within(x: np.ndarray, y: np.ndarray, run: np.ndarray, seed: int) -> Estimate:
    """Of runs of 2 points or more; None where their points leave fewer than 2 free contrasts."""
    num_runs = int(run.max(initial=-1)) + 1
    a, b = without_means(x, run), without_means(y, run)
    value = pearson(a, b) if len(x) - num_runs >= 2 else None
    if value is None or num_runs < 2:
        return Estimate(value, None, None, num_runs)
    a, b = a / np.abs(a).max(), b / np.abs(b).max()
    sums = np.stack([np.bincount(run, weights=product) for product in (a * b, a * a, b * b)])
    counts = np.concatenate(list(resample_counts(num_runs, seed, 2000)))
    xy, xx, yy = (counts @ sums.T).T
    drawn = np.full(len(counts), np.nan)
    np.divide(xy, np.sqrt(xx * yy), out=drawn, where=xx * yy > 0)
    low, high = interval_of(drawn) or (None, None)
    return Estimate(value, low, high, num_runs)
