"""How well head measures predict downstream accuracy in settings that were not seen.

A cell is a setting (concept x context of a task) with all its seeds. Whatever is fitted, means and
scales included, is fitted without the cell that is predicted.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sce.stats.correlation import MIN_UNITS_FOR_INTERVAL
from sce.stats.resampling import (
    Estimate,
    PerExample,
    interval_of,
    mean_scores,
    resample_counts,
    spearman_brown,
    split_half,
)
from sce.stats.series import (
    CONSTANT_SPREAD,
    HeadMap,
    Labels,
    Series,
    codes,
    labels_of,
    together,
    vector,
)

# Of the ridge regression, on features of standard deviation 1: fixed, since choosing it would take
# more cells than a study has. It shrinks the slope of a lone feature by the factor n / (n + 1).
PENALTY = 1.0
MIN_CELLS = 3
MEAN_ONLY = "mean only"


@dataclass(frozen=True)
class CellPrediction:
    """One cell left out: means over its `n` points of target, predictions and absolute errors.

    `mean_only` is what the mean of the other cells' points predicts.
    """

    cell: Hashable
    n: int
    target: float
    predicted: float
    mean_only: float
    mae: float
    mean_only_mae: float


@dataclass(frozen=True)
class Prediction:
    """Errors of leave-one-cell-out prediction, in the units of the target, over all points.

    `mae` and `rmse`: mean absolute and root mean squared error; `mean_only_*`: of the predictor
    that knows the mean of the training points alone, on the same folds. `ratio` is mae /
    mean_only_mae, below 1 where the features help, None where that is 0; `ratio_low` and
    `ratio_high` hold 95% of a bootstrap over cells, None for fewer than 8. It resamples the errors
    and fits nothing again, so it is somewhat too narrow.
    """

    features: tuple[str, ...]
    mae: float
    rmse: float
    mean_only_mae: float
    mean_only_rmse: float
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    num_cells: int
    n: int
    cells: tuple[CellPrediction, ...]


def leave_one_out(
    features: Mapping[str, Series], target: Series, cells: Labels, *, seed: int
) -> Prediction | None:
    """Predict the target of each cell from the others by ridge regression on the features.

    Features are standardised on the training points of each fold; one that is constant there has no
    say. No features at all is the mean-only predictor. Points with a None or a value that is not
    finite anywhere are left out. None for fewer than 3 cells. Raises ValueError if lengths differ.
    """
    (y, *xs), kept = together(target, *features.values())
    names = labels_of(cells, kept)
    cell, x = codes(names), np.array(xs).reshape(len(xs), len(y)).T
    if cell.max(initial=-1) + 1 < MIN_CELLS:
        return None
    predicted = _left_out(x, y, cell)
    errors = np.abs(predicted - y)
    errors[errors <= CONSTANT_SPREAD * np.abs(y).max()] = 0.0  # rounding is no error
    (mae, mean_only_mae), rmse = errors.mean(axis=1), np.sqrt(np.square(errors).mean(axis=1))
    by_cell = np.stack([np.bincount(cell, weights=w) for w in (y, *predicted, *errors)])
    ratio = _ratio(by_cell[3:], seed)
    return Prediction(
        features=tuple(features),
        mae=float(mae),
        rmse=float(rmse[0]),
        mean_only_mae=float(mean_only_mae),
        mean_only_rmse=float(rmse[1]),
        ratio=ratio.value,
        ratio_low=ratio.low,
        ratio_high=ratio.high,
        num_cells=by_cell.shape[1],
        n=len(y),
        cells=tuple(
            CellPrediction(name, int(n), *(float(value) for value in sums / n))
            for name, n, sums in zip(
                dict.fromkeys(names), np.bincount(cell), by_cell.T, strict=True
            )
        ),
    )


def error_ratio(first: Prediction, second: Prediction, *, seed: int) -> Estimate:
    """Mae of the first predictor / that of the second, with a 95% bootstrap over cells, paired.

    Below 1 where the first is better; None where the second makes no error. Raises ValueError
    unless both were fitted on the same cells, each with as many points.
    """
    if [(c.cell, c.n) for c in first.cells] != [(c.cell, c.n) for c in second.cells]:
        raise ValueError("predictions of different cells or points cannot be compared")
    errors = [[c.mae * c.n for c in prediction.cells] for prediction in (first, second)]
    return _ratio(np.array(errors), seed)


def compare_predictors(
    predictors: Mapping[str, Mapping[str, Series] | Series],
    target: Series,
    cells: Labels,
    *,
    seed: int,
) -> dict[str, Prediction | None]:
    """`leave_one_out` of every predictor by its name, "mean only" first, all on the same points.

    A predictor is one series or several by name. A point that lacks a value for any predictor is
    left out for all, since errors on different points do not compare. Raises ValueError if lengths
    differ or a predictor is called "mean only".
    """
    if MEAN_ONLY in predictors:
        raise ValueError(f"{MEAN_ONLY!r} is always there: give the predictor another name")
    sets: dict[str, Mapping[str, Series]] = {MEAN_ONLY: {}}
    for name, given in predictors.items():
        sets[name] = given if isinstance(given, Mapping) else {name: given}
    every = [series for features in sets.values() for series in features.values()]
    (y, *_), kept = together(target, *every)
    names = labels_of(cells, kept)
    return {
        name: leave_one_out(
            {feature: vector(series)[kept] for feature, series in features.items()},
            y,
            names,
            seed=seed,
        )
        for name, features in sets.items()
    }


def concentration(scores: HeadMap) -> float | None:
    """Gini coefficient of a map of scores, those below 0 taken as 0: in 0..1 - 1 / (L * H).

    0 where all heads score alike, the most where one head alone scores. None where none does, and
    for a score that is not finite.
    """
    left = np.sort(np.maximum(scores.astype(np.float64).ravel(), 0))
    if not np.isfinite(left).all() or not left.any():
        return None
    shares, n = left / left.max(), left.size
    order = 2 * np.arange(1, n + 1) - n - 1
    return float(max(0.0, order @ shares / (n * shares.sum())))


def needs_no_real_data(
    per_example: PerExample, *, tau: float, k: int, seed: int
) -> dict[str, float | None]:
    """Features of a run that need no real data: a proxy for recall against a real reference.

    `per_example` are the run's scores of held-out synthetic examples. "reliability": the
    Spearman-Brown of the mean Spearman of their halves, how much the examples agree on the heads;
    "concentration": that of their mean, how few heads do the work. Both None where `split_half` or
    `concentration` are.
    """
    halves = split_half(per_example, tau=tau, k=k, seed=seed)
    return {
        "reliability": None if halves is None else spearman_brown(halves["spearman"]),
        "concentration": concentration(mean_scores(per_example)),
    }


def _left_out(
    x: Float[np.ndarray, "points features"],
    y: Float[np.ndarray, " points"],
    cell: Int[np.ndarray, " points"],
) -> Float[np.ndarray, "2 points"]:
    """What ridge regression, and the mean, of the other cells' points predict for each."""
    predicted = np.empty((2, len(y)))
    for code in range(int(cell.max()) + 1):
        out = cell == code
        predicted[0, out] = _ridge(x[~out], y[~out], x[out])
        predicted[1, out] = y[~out].mean()
    return predicted


def _ridge(
    x: Float[np.ndarray, "points features"],
    y: Float[np.ndarray, " points"],
    x_out: Float[np.ndarray, "points_out features"],
) -> Float[np.ndarray, " points_out"]:
    """Predictions for `x_out`; the mean of y is not penalised."""
    center, spread = x.mean(axis=0), x.std(axis=0)
    scale = np.where(spread > CONSTANT_SPREAD * np.abs(x).max(axis=0), spread, np.inf)
    z, z_out = (x - center) / scale, (x_out - center) / scale
    slopes = np.linalg.solve(z.T @ z + PENALTY * np.eye(x.shape[1]), z.T @ (y - y.mean()))
    return y.mean() + z_out @ slopes


def _ratio(errors: Float[np.ndarray, "2 cells"], seed: int) -> Estimate:
    """Sum of the first row / that of the second, cells resampled; no bounds below 8 cells."""
    num_cells = errors.shape[1]
    own, other = errors.sum(axis=1)
    if not other > 0:
        return Estimate(None, None, None, num_cells)
    if num_cells < MIN_UNITS_FOR_INTERVAL:
        return Estimate(float(own / other), None, None, num_cells)
    counts = np.concatenate(list(resample_counts(num_cells, seed, 2000)))
    above, below = (counts @ errors.T).T
    drawn = np.full(len(counts), np.nan)
    np.divide(above, below, out=drawn, where=below > 0)
    low, high = interval_of(drawn) or (None, None)
    return Estimate(float(own / other), low, high, num_cells)
