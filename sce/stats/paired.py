"""The same examples twice: before and after an intervention, and over sets of growing size.

An example with a None or a value that is not finite on either side is left out, and n is what
remained. Accuracies are per example, in 0..1 (exact match, F1).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Real
from scipy.stats import binom

from sce.stats.permutation import sign_flips
from sce.stats.resampling import Estimate, bootstrap_interval, bootstrap_many
from sce.stats.series import CONSTANT_SPREAD, Grid, Series, together, vector

Outcomes = Series | Bool[np.ndarray, " _points"]


@dataclass(frozen=True)
class McNemar:
    """`b` right before and wrong after, `c` the other way round, of `n` pairs.

    `p_value`: two-sided, 1.0 where no pair differs; None where there is no pair.
    """

    b: int
    c: int
    n: int
    p_value: float | None


@dataclass(frozen=True)
class PairedDifference:
    """The mean of after - before over `n` pairs, its 95% bootstrap interval and its p value.

    None: the interval of fewer than 2 pairs, and everything of none.
    """

    difference: float | None
    low: float | None
    high: float | None
    n: int
    p_value: float | None


@dataclass(frozen=True)
class Faithfulness:
    """Areas over k of f, the share of its accuracy that an ablated model keeps, and of |1 - f|.

    After CPR and CMD of MIB (Mueller et al. 2025, arXiv 2504.13151), where k counts the parts that
    are kept. Here k counts the heads that are ABLATED, so heads that the model's accuracy hangs on
    have a LOW `cpr` and a HIGH `cmd`; heads that nothing hangs on have 1 and 0. None where f does
    not exist.
    """

    cpr: float | None
    cmd: float | None


@dataclass(frozen=True)
class Recovered:
    """Which share of the gap between two models patching closed, over `n` examples.

    `share` is (patched - original) / (source - original) of the means: 0 for no change, 1 where the
    source's accuracy is reached; it is below 0 where patching hurts and may exceed 1. It is given
    whenever the gap is not 0, so read `gap`, source - original, and its interval first: a share of
    a gap that may be 0 means nothing. Intervals: 95%, one bootstrap over examples for both; None
    for fewer than 2 examples, and for a share whose gap is 0 in more than half of the resamples.
    """

    share: float | None
    share_low: float | None
    share_high: float | None
    gap: float | None
    gap_low: float | None
    gap_high: float | None
    n: int


def mcnemar(before: Outcomes, after: Outcomes) -> McNemar:
    """McNemar's test of paired outcomes, 0 or 1, in its exact form (McNemar 1947).

    Of the b + c pairs that differ, b is binomial with probability 1/2 if nothing has changed; the p
    value doubles the smaller tail. Raises ValueError for other outcomes and for unequal lengths.
    """
    (first, second), _ = together(*(np.asarray(side, dtype=float) for side in (before, after)))
    for outcomes in (first, second):
        if not np.isin(outcomes, (0, 1)).all():
            raise ValueError("outcomes must be 0 or 1")
    b, c = int((first > second).sum()), int((first < second).sum())
    n = len(first)
    p_value = min(1.0, 2 * float(binom.cdf(min(b, c), b + c, 0.5))) if n else None
    return McNemar(b, c, n, p_value)


def paired_permutation(
    before: Series, after: Series, *, seed: int, num_permutations: int = 10_000
) -> PairedDifference:
    """Two-sided test of the mean difference: were before and after exchangeable in every pair?

    The sign of each difference is flipped: in all 2^n ways for n <= 12, else in `num_permutations`
    drawn ones with p = (1 + hits) / (1 + draws) (Fisher 1935; Phipson and Smyth 2010). Raises
    ValueError if the lengths differ or `num_permutations` < 1.
    """
    (first, second), _ = together(before, after)
    n = len(first)
    if not n:
        return PairedDifference(None, None, None, 0, None)
    differences = second - first
    low, high = bootstrap_interval(differences, seed=seed) or (None, None)
    scaled = differences / (np.abs(differences).max() or 1.0)
    null = sign_flips(scaled, seed=seed, num_permutations=num_permutations)
    p_value = null.p_value(float(scaled.mean()))
    return PairedDifference(float(differences.mean()), low, high, n, p_value)


def area(ks: Grid, values: Series) -> float | None:
    """The area under the values over k, by trapezoids, divided by the range of k: a mean height.

    None for fewer than 2 points and where a value is None or not finite. Raises ValueError if the
    lengths differ or `ks` do not rise.
    """
    positions, heights = _rising(ks), vector(values)
    if len(positions) != len(heights):
        raise ValueError(f"shapes differ: {len(heights)} values for {len(positions)} k")
    if len(positions) < 2 or not np.isfinite(heights).all():
        return None
    return float(np.trapezoid(heights, positions) / (positions[-1] - positions[0]))


def faithfulness(ks: Grid, accuracy: Series, baseline: float | int | None) -> Faithfulness:
    """CPR and CMD of accuracy against the number of ablated heads: f(k) = accuracy / `baseline`.

    `baseline` is the accuracy of the untouched model, so f(0) = 1 where `ks` begin at 0. None as in
    `area`, and for a baseline of 0, None or NaN. Raises ValueError as `area` does.
    """
    heights = vector(accuracy)
    if not baseline or not np.isfinite(baseline):
        heights = np.full(len(heights), np.nan)
    kept_share = heights / (baseline or 1.0)
    return Faithfulness(area(ks, kept_share), area(ks, np.abs(1 - kept_share)))


def faithfulness_interval(
    ks: Grid,
    per_example: Real[np.ndarray, "_ks _examples"],
    baseline: Series,
    *,
    seed: int,
    num_resamples: int = 2000,
) -> dict[str, Estimate]:
    """`faithfulness` of the means over examples, with 95% bootstrap intervals: "cpr" and "cmd".

    `per_example` is the accuracy at each k and example, `baseline` that of the untouched model on
    the same examples; both are resampled together. Raises ValueError if the lengths differ or `ks`
    do not rise.
    """
    if len(per_example) != len(_rising(ks)):
        raise ValueError(f"shapes differ: {len(per_example)} rows for {len(ks)} k")
    rows, _ = together(*per_example, baseline)

    def areas(mean: np.ndarray) -> dict[str, float | None]:
        found = faithfulness(ks, mean[0, :-1], float(mean[0, -1]))
        return {"cpr": found.cpr, "cmd": found.cmd}

    return _estimates(rows, areas, seed, num_resamples)


def share_recovered(original: Series, patched: Series, source: Series, *, seed: int) -> Recovered:
    """How much of the gap between a model and the source of its patch the patch has closed.

    All three are accuracies of the same examples in the same order. Raises ValueError if the
    lengths differ.
    """
    rows, _ = together(original, patched, source)

    def shares(mean: np.ndarray) -> dict[str, float | None]:
        low, between, high = mean[0]
        gap = float(high - low)
        is_gap = abs(gap) > CONSTANT_SPREAD * np.abs(mean).max()
        return {"share": float(between - low) / gap if is_gap else None, "gap": gap}

    found = _estimates(rows, shares, seed, 2000)
    share, gap = found["share"], found["gap"]
    return Recovered(
        share.value, share.low, share.high, gap.value, gap.low, gap.high, rows.shape[1]
    )


def _rising(ks: Grid) -> np.ndarray:
    positions = np.asarray(ks, dtype=np.float64)
    if not (np.isfinite(positions).all() and (np.diff(positions) > 0).all()):
        raise ValueError(f"ks must rise, got {list(ks)}")
    return positions


def _estimates(
    rows: Float[np.ndarray, "_values _examples"],
    statistics: Callable[[np.ndarray], dict[str, float | None]],
    seed: int,
    num_resamples: int,
) -> dict[str, Estimate]:
    """Statistics of the means of `rows` [values, examples], each as if a map of one layer."""
    per_example = rows.T[:, None, :]
    n = len(per_example)
    intervals = bootstrap_many(per_example, statistics, seed=seed, num_resamples=num_resamples)
    values = statistics(per_example.mean(axis=0)) if n else {}
    found = {}
    for name, interval in intervals.items():
        low, high = interval or (None, None)
        found[name] = Estimate(values.get(name), low, high, n)
    return found
