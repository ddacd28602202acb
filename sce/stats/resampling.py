"""How sure one may be: bootstrap intervals over examples, and reliability by halves of them.

Scores of examples are [examples, layers, heads]. An example that is NaN throughout was not kept by
its scorer, such as one whose answer failed a gate: it is dropped before anything is drawn. NaN in a
part of an example is damage, and nothing is said of it.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Float, Real

from sce.stats.series import HeadMap, Series, cosine, require_same_shape, subtract, vector
from sce.stats.sets import compare, head_set, recall_learned

BLOCK_ENTRIES = 2**22  # of the weights that a bootstrap holds at once (32 MiB in float64)
MIN_EXAMPLES_FOR_HALVES = 4
RELIABILITIES = (
    *("recall", "precision", "jaccard", "recall_at_k", "recall_learned"),
    *("cosine", "cosine_learned", "spearman"),
)

PerExample = Real[np.ndarray, "_examples _layers _heads"]


@dataclass(frozen=True)
class Estimate:
    """A value, its interval and the number of units (examples, runs, cells) that were resampled.

    `value` is None where it does not exist, `low` and `high` where the spread cannot be known.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int


def mean_scores(per_example: PerExample) -> HeadMap:
    """The mean over kept examples, [layers, heads] in float64; NaN throughout if none is kept.

    A head that is NaN in a kept example is NaN in the mean.
    """
    kept = _kept(per_example)
    if not len(kept):
        return np.full(per_example.shape[1:], np.nan)
    with np.errstate(invalid="ignore"):  # infinities of both signs: no mean, no warning either
        return kept.mean(axis=0)


def kept_examples(per_example: PerExample) -> Bool[np.ndarray, " _examples"]:
    """Which examples have a score: all but those that are NaN throughout."""
    return np.asarray(~np.isnan(per_example.astype(np.float64)).all(axis=(1, 2)))


def num_kept(per_example: PerExample) -> int:
    """How many examples have a score."""
    return int(kept_examples(per_example).sum())


def bootstrap_interval(
    values: Series, *, seed: int, num_resamples: int = 2000, level: float = 0.95
) -> tuple[float, float] | None:
    """(low, high) of the mean over examples, by the percentile bootstrap (Efron 1979).

    None for fewer than 2 values, which say nothing of their spread, and for a value that is None or
    not finite. `level`, in 0..1, is the share of the resampled means between the two.
    """
    rows = vector(values)[:, None]
    if len(rows) < 2 or not np.isfinite(rows).all():
        return None
    return _percentiles(_resampled_means(rows, seed, num_resamples), level)


def paired_bootstrap(
    before: Series, after: Series, *, seed: int, num_resamples: int = 2000, level: float = 0.95
) -> tuple[float, float, float] | None:
    """(mean, low, high) of after - before, both over the same examples in the same order.

    Resamples pairs. None as in `bootstrap_interval`; raises ValueError if the lengths differ.
    """
    pair = vector(before), vector(after)
    require_same_shape(*pair)
    difference = subtract(pair[1], pair[0])
    interval = bootstrap_interval(difference, seed=seed, num_resamples=num_resamples, level=level)
    return None if interval is None else (float(difference.mean()), *interval)


def bootstrap_many(
    per_example: PerExample,
    statistics: Callable[[HeadMap], Mapping[str, float | None]],
    *,
    centred: Collection[str] = (),
    seed: int,
    num_resamples: int = 2000,
    level: float = 0.95,
) -> dict[str, tuple[float, float] | None]:
    """(low, high) of each statistic of the mean map, all from the same resamples of the examples.

    `statistics` takes the float64 mean over the drawn examples, [layers, heads], and names what it
    finds; every call gives the same names. A resample where a value is None or not finite is
    dropped for that name. None for fewer than 2 kept examples, a score that is not finite, or fewer
    than half of the resamples left; where nothing can be drawn `statistics` is called once, with a
    map of zeros, for its names.

    Noise lowers a cosine or a rank correlation, and resampling adds to the noise, so that all draws
    may lie below the estimate. Those named in `centred`, which must lie in -1..1, are moved on
    Fisher's z scale until their median is the estimate: what is left says how much as many other
    examples would give, noise and all, and not what examples without end would.
    """
    means = resampled_maps(per_example, seed, num_resamples)
    if means is None:
        return dict.fromkeys(statistics(np.zeros(per_example.shape[1:])))
    draws = [statistics(mean) for mean in means]
    found = {name: interval_of([draw[name] for draw in draws], level) for name in draws[0]}
    if any(found.get(name) for name in centred):
        estimates = statistics(mean_scores(per_example))
        for name in centred:
            if found.get(name) is not None:
                found[name] = centred_interval(
                    [draw[name] for draw in draws], estimates[name], level
                )
    return found


def bootstrap_statistic(
    per_example: PerExample,
    statistic: Callable[[np.ndarray], float | None],
    *,
    seed: int,
    num_resamples: int = 2000,
    level: float = 0.95,
) -> tuple[float, float] | None:
    """(low, high) of one statistic of the mean map: `bootstrap_many` for a single name."""
    return bootstrap_many(
        per_example,
        lambda mean: {"": statistic(mean)},
        seed=seed,
        num_resamples=num_resamples,
        level=level,
    )[""]


def bootstrap_ratio(
    numerators: Series, denominators: Series, *, seed: int, num_resamples: int = 2000
) -> tuple[float, float] | None:
    """(low, high), 95%, of sum(numerators) / sum(denominators) over examples, drawn in pairs.

    None as in `bootstrap_interval`, and where most resamples have a sum of 0 below. Raises
    ValueError if the lengths differ.
    """
    pair = vector(numerators), vector(denominators)
    require_same_shape(*pair)
    rows = np.stack(pair, axis=1)
    if len(rows) < 2 or not np.isfinite(rows).all():
        return None
    above, below = _resampled_means(rows, seed, num_resamples).T
    return interval_of(np.divide(above, below, out=np.full_like(above, np.nan), where=below != 0))


def resampled_maps(
    per_example: PerExample, seed: int, num_resamples: int
) -> Float[np.ndarray, "_resamples _layers _heads"] | None:
    """The mean map of every resample of the kept examples, the same for one seed.

    None for fewer than 2 kept examples, or a score that is not finite.
    """
    kept = _kept(per_example)
    num_examples, *shape = kept.shape
    if num_examples < 2 or not np.isfinite(kept).all():
        return None
    means = _resampled_means(kept.reshape(num_examples, -1), seed, num_resamples)
    return means.reshape(num_resamples, *shape)


def split_half(
    per_example: PerExample,
    base: PerExample | None = None,
    *,
    tau: float,
    k: int,
    seed: int,
    num_splits: int = 20,
) -> dict[str, float | int | None] | None:
    """Test-retest reliability: how the scores of one half of the examples compare with the other's.

    Draws `num_splits` pairs of disjoint random halves, equal in size (of an odd number one example
    stays out), compares each with the other, both ways, and averages every measure of
    `RELIABILITIES` over the comparisons in which it exists: None where that is fewer than half.
    `num_splits` and `n`, the number of kept examples, are beside. Halves are noisier than the
    whole: `spearman_brown` of the Spearman speaks of all n.

    `base` are the untuned model's scores of the same examples. They are halved alike, S1 - B1
    against S2 - B2: taken from one B over all examples, the halves' noise would have opposite signs
    and the learned measures would tend to -1. Without them those two are None.

    None for fewer than 4 kept examples or a score that is not finite. Raises ValueError if
    `num_splits` < 1 or the shape of `base` is another.
    """
    require_same_shape(per_example, per_example if base is None else base)
    if num_splits < 1:
        raise ValueError(f"num_splits must be >= 1, got {num_splits}")
    kept = _kept(per_example)
    untuned = None if base is None else base[kept_examples(per_example)]
    both = kept if untuned is None else np.concatenate([kept, untuned])
    if len(kept) < MIN_EXAMPLES_FOR_HALVES or not np.isfinite(both).all():
        return None
    rng, half, found = np.random.default_rng(seed), len(kept) // 2, []
    for _ in range(num_splits):
        order = rng.permutation(len(kept))
        parts = order[:half], order[-half:]
        means = [kept[part].mean(axis=0) for part in parts]
        bases = None if untuned is None else [untuned[part].mean(axis=0) for part in parts]
        for one, other in ((0, 1), (1, 0)):
            compared = asdict(compare(means[one], means[other], None, tau=tau, k=k))
            if bases is not None:
                sets = [head_set(each, tau) for each in (means[one], means[other], bases[other])]
                compared["recall_learned"] = recall_learned(*sets)
                changes = [means[each] - bases[each] for each in (one, other)]
                compared["cosine_learned"] = cosine(*changes)
            found.append(compared)
    averages = {name: _mean([each[name] for each in found]) for name in RELIABILITIES}
    return {**averages, "num_splits": num_splits, "n": len(kept)}


def spearman_brown(r: float | None) -> float | None:
    """The reliability of twice as many examples, 2r / (1 + r) (Spearman 1910, Brown 1910).

    `r` is the correlation of two halves, in -1..1; None or NaN has no reliability. Below -1/3 the
    formula leaves -1..1, and -1 is given. Raises ValueError for a value outside -1..1.
    """
    if r is None or np.isnan(r):
        return None
    if not -1 <= r <= 1:
        raise ValueError(f"r must lie in -1..1, got {r}")
    return -1.0 if r <= -1 / 3 else float(2 * r / (1 + r))


def resample_counts(
    n: int, seed: int, num_resamples: int
) -> Iterator[Float[np.ndarray, "_size _units"]]:
    """Blocks of resamples of n units: how often each was drawn, [resamples in the block, n].

    Raises ValueError if `num_resamples` < 1.
    """
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be >= 1, got {num_resamples}")
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK_ENTRIES // n)
    for start in range(0, num_resamples, block):
        size = min(block, num_resamples - start)
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def interval_of(
    draws: Sequence[float | None] | np.ndarray, level: float = 0.95
) -> tuple[float, float] | None:
    """(low, high) of the draws that exist; None where those are fewer than half.

    Raises ValueError unless `level` lies in (0, 1).
    """
    values = vector(draws)
    left = values[np.isfinite(values)]
    return None if 2 * len(left) < len(values) else _percentiles(left, level)


def _kept(per_example: np.ndarray) -> np.ndarray:
    return per_example[kept_examples(per_example)].astype(np.float64)


def _mean(values: Sequence[float | None]) -> float | None:
    left = [value for value in values if value is not None]
    return None if 2 * len(left) < len(values) else float(np.mean(left))


def _resampled_means(rows: np.ndarray, seed: int, num_resamples: int) -> np.ndarray:
    """Means of `rows` [n, values] over n rows drawn with replacement: [num_resamples, values]."""
    counts = resample_counts(len(rows), seed, num_resamples)
    return np.concatenate([drawn @ rows / len(rows) for drawn in counts])


def centred_interval(
    draws: Series, estimate: float | None, level: float
) -> tuple[float, float] | None:
    """Percentiles of correlations, moved on the z scale until their median is the estimate."""
    if estimate is None or not np.isfinite(estimate):
        return None
    edge, values = 1 - 1e-12, vector(draws)  # z of 1 is infinite
    z = np.arctanh(np.clip(values[np.isfinite(values)], -edge, edge))
    low, high = _percentiles(z - np.median(z) + np.arctanh(np.clip(estimate, -edge, edge)), level)
    return min(float(np.tanh(low)), estimate), max(float(np.tanh(high)), estimate)


def _percentiles(draws: np.ndarray, level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
