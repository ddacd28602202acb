"""How two maps of head scores are compared, and how sure one may be of the answer.

A head is a cell (layer, query head) of a [layers, heads] array; a head set is a boolean array of
that shape. A quantity that does not exist (a share of nothing, the correlation of a constant) is
None, never 0 or NaN. Every draw comes from the seed that is passed. Knows neither models nor files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Real
from scipy.stats import rankdata

# The underscore leaves shapes unbound: a mismatch is a ValueError from the functions below.
HeadSet = Bool[np.ndarray, "_layers _heads"]
HeadMap = Float[np.ndarray, "_layers _heads"]
Series = Sequence[float | int | None] | Real[np.ndarray, " _points"]

CONSTANT_SPREAD = 1e-12  # relative to the largest: values no further apart differ by rounding
BLOCK_ENTRIES = 2**22  # of the weights that a bootstrap holds at once (32 MiB in float64)


def head_set(scores: HeadMap, tau: float) -> HeadSet:
    """Heads whose score, to the 9 digits that files hold, lies strictly above `tau`; never NaN."""
    return np.round(scores, 9) > tau


def top_heads(scores: HeadMap, k: int) -> HeadSet:
    """The `k` heads of highest score: exactly min(k, layers * heads) of them unless too few score.

    A tie goes to the lowest (layer, head). A head that scores 0, below 0 or NaN does not retrieve
    and is never taken, so the set may be smaller than `k`. Raises ValueError if `k` < 0.
    """
    if k < 0:
        raise ValueError(f"k must be >= 0, got {k}")
    flat = scores.ravel()
    chosen = np.zeros(flat.size, dtype=bool)
    chosen[np.argsort(-flat, kind="stable")[:k]] = True
    return (chosen & (flat > 0)).reshape(scores.shape)


def recall(s: HeadSet, r: HeadSet) -> float | None:
    """|S and R| / |R|, in 0..1: the share of the reference heads found; None if R is empty.

    Heads are matched by (layer, head), as in Zhao, Yin and Durrett (arXiv 2410.22316).
    """
    _require_same_shape(s, r)
    return float((s & r).sum() / r.sum()) if r.any() else None


def precision(s: HeadSet, r: HeadSet) -> float | None:
    """|S and R| / |S|, in 0..1: the share of the found heads in R; None if S is empty."""
    return recall(r, s)


def jaccard(s: HeadSet, r: HeadSet) -> float | None:
    """|S and R| / |S or R|, in 0..1, symmetric; None if both are empty."""
    _require_same_shape(s, r)
    return recall(s & r, s | r)


def recall_learned(s: HeadSet, r: HeadSet, b: HeadSet) -> float | None:
    """Recall over R without B, the untuned model's set, in 0..1; None if B holds all of R.

    Our own measure: most retrieval heads are there before tuning and say nothing of the data.
    """
    _require_same_shape(s, r, b)
    return recall(s, r & ~b)


def recall_null(s: HeadSet, r: HeadSet) -> float | None:
    """The mean recall of |S| heads drawn at random from all, |S| / (L * H); None if R is empty."""
    _require_same_shape(s, r)
    return float(s.mean()) if r.any() else None


def recall_null_layer(s: HeadSet, r: HeadSet) -> float | None:
    """The same with S's number drawn in each layer, sum_l |S_l| |R_l| / (H * |R|)."""
    _require_same_shape(s, r)
    return float(s.mean(axis=1) @ r.sum(axis=1) / r.sum()) if r.any() else None


def cosine(a: Real[np.ndarray, "..."], b: Real[np.ndarray, "..."]) -> float | None:
    """Cosine of the angle between two arrays of one shape, flattened; in -1..1, symmetric.

    None if either has zero norm or a value that is not finite. As in Zhao, Yin and Durrett.
    """
    _require_same_shape(a, b)
    if not all(np.isfinite(values).all() and values.any() for values in (a, b)):
        return None
    u, v = _scaled(a), _scaled(b)
    return float(np.clip(u @ v / (np.linalg.norm(u) * np.linalg.norm(v)), -1, 1))


def spearman(x: Series, y: Series) -> float | None:
    """Pearson's correlation of the ranks, ties averaged; in -1..1, None where `pearson` is None."""
    pair = _varying_pair(x, y)
    return None if pair is None else pearson(rankdata(pair[0]), rankdata(pair[1]))


def pearson(x: Series, y: Series) -> float | None:
    """Pearson's correlation of two series of one length; in -1..1.

    None for fewer than 3 points, for a series that is constant up to rounding, and for a value that
    is None or not finite: leave such points out of both series before the call.
    """
    pair = _varying_pair(x, y)
    if pair is None:
        return None
    a, b = map(_scaled, pair)
    return cosine(a - a.mean(), b - b.mean())


def first_differences(series: Series) -> Float[np.ndarray, " _steps"]:
    """What each point adds to the one before, NaN beside a None or NaN: n points give n - 1."""
    values = _vector(series)
    return _subtract(values[1:], values[:-1])


@dataclass(frozen=True)
class Comparison:
    """A run's scores beside a reference's; the fields are named as in the records.

    Shares lie in 0..1, cosines and `spearman` in -1..1. None: a share of an empty set, the cosine
    of a zero vector (`cosine_learned` of the untuned model), or no scores of the untuned model.
    """

    recall: float | None
    recall_null: float | None
    recall_null_layer: float | None
    recall_base: float | None
    recall_learned: float | None
    precision: float | None
    jaccard: float | None
    recall_at_k: float | None
    cosine: float | None
    cosine_base: float | None
    cosine_learned: float | None
    spearman: float | None
    num_heads: int
    num_reference_heads: int


def compare(
    scores: HeadMap, reference: HeadMap, base: HeadMap | None, *, tau: float, k: int
) -> Comparison:
    """Compare a run's mean scores with the reference's, and both with the untuned model's (`base`).

    Sets are drawn at `tau`, those of `recall_at_k` by rank. `cosine_learned` is
    cosine(scores - base, reference - base). Raises ValueError unless all shapes are the same.
    """
    _require_same_shape(scores, reference, reference if base is None else base)
    s, r = head_set(scores, tau), head_set(reference, tau)
    b = learned = None
    if base is not None:
        b = head_set(base, tau)
        learned = cosine(_subtract(scores, base), _subtract(reference, base))
    return Comparison(
        recall=recall(s, r),
        recall_null=recall_null(s, r),
        recall_null_layer=recall_null_layer(s, r),
        recall_base=None if b is None else recall(b, r),
        recall_learned=None if b is None else recall_learned(s, r, b),
        precision=precision(s, r),
        jaccard=jaccard(s, r),
        recall_at_k=recall(top_heads(scores, k), top_heads(reference, k)),
        cosine=cosine(scores, reference),
        cosine_base=None if base is None else cosine(base, reference),
        cosine_learned=learned,
        spearman=spearman(scores.ravel(), reference.ravel()),
        num_heads=int(s.sum()),
        num_reference_heads=int(r.sum()),
    )


def bootstrap_interval(
    values: Series, *, seed: int, num_resamples: int = 2000, level: float = 0.95
) -> tuple[float, float] | None:
    """(low, high) of the mean over examples, by the percentile bootstrap (Efron 1979).

    None for fewer than 2 values, which say nothing of their spread, and for a value that is None or
    not finite. `level`, in 0..1, is the share of the resampled means between the two.
    """
    rows = _vector(values)[:, None]
    if len(rows) < 2 or not np.isfinite(rows).all():
        return None
    return _percentiles(_resampled_means(rows, seed, num_resamples), level)


def paired_bootstrap(
    before: Series, after: Series, *, seed: int, num_resamples: int = 2000, level: float = 0.95
) -> tuple[float, float, float] | None:
    """(mean, low, high) of after - before, both over the same examples in the same order.

    Resamples pairs. None as in `bootstrap_interval`; raises ValueError if the lengths differ.
    """
    pair = _vector(before), _vector(after)
    _require_same_shape(*pair)
    difference = _subtract(pair[1], pair[0])
    interval = bootstrap_interval(difference, seed=seed, num_resamples=num_resamples, level=level)
    return None if interval is None else (float(difference.mean()), *interval)


def bootstrap_statistic(
    per_example: Real[np.ndarray, "_examples _layers _heads"],
    statistic: Callable[[np.ndarray], float | None],
    *,
    seed: int,
    num_resamples: int = 2000,
    level: float = 0.95,
) -> tuple[float, float] | None:
    """(low, high) of a statistic of the mean map, by the percentile bootstrap over examples.

    `statistic` takes the float64 mean over the drawn examples, [layers, heads]; a resample where it
    is None or not finite is dropped. None for fewer than 2 examples, a score that is not finite, or
    fewer than half of the resamples left. Noise lowers a cosine, and resampling adds to the noise,
    so such an interval may lie below the estimate.
    """
    num_examples, *shape = per_example.shape
    if num_examples < 2 or not np.isfinite(per_example).all():
        return None
    rows = per_example.reshape(num_examples, -1).astype(np.float64)
    means = _resampled_means(rows, seed, num_resamples).reshape(num_resamples, *shape)
    drawn = _vector([statistic(mean) for mean in means])
    kept = drawn[np.isfinite(drawn)]
    return None if 2 * len(kept) < num_resamples else _percentiles(kept, level)


def permutation_p_value(
    s: HeadSet, r: HeadSet, *, seed: int, num_permutations: int = 10_000, layer_matched: bool
) -> float | None:
    """How often a random S of the same size recalls as much of R or more: above 0, up to 1.

    With `layer_matched` the random set has S's number of heads in every layer. The overlap with R
    is drawn from its own law, hypergeometric layer by layer, which is the same as shuffling heads.
    (1 + hits) / (1 + draws), after Phipson and Smyth (2010). None if R is empty.
    """
    _require_same_shape(s, r)
    if not r.any():
        return None
    pools = (s, r) if layer_matched else (s.reshape(1, -1), r.reshape(1, -1))
    drawn, reference = (pool.sum(axis=1) for pool in pools)
    others = pools[1].shape[1] - reference
    rng = np.random.default_rng(seed)
    overlaps = rng.hypergeometric(reference, others, drawn, size=(num_permutations, len(drawn)))
    return (1 + int((overlaps.sum(axis=1) >= (s & r).sum()).sum())) / (1 + num_permutations)


def _require_same_shape(*arrays: np.ndarray) -> None:
    if len({array.shape for array in arrays}) > 1:
        raise ValueError(f"shapes differ: {[array.shape for array in arrays]}")


def _vector(series: Series) -> np.ndarray:
    return np.asarray(series, dtype=np.float64)  # None becomes NaN


def _subtract(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused later
        return a - b


def _scaled(values: np.ndarray) -> np.ndarray:
    """Flat float64 values over the largest magnitude, which is not 0: no square overflows."""
    flat = values.ravel().astype(np.float64)
    return flat / np.abs(flat).max()


def _varying_pair(x: Series, y: Series) -> tuple[np.ndarray, np.ndarray] | None:
    """Both series, or None where they have no correlation."""
    pair = _vector(x), _vector(y)
    _require_same_shape(*pair)
    for values in pair:
        usable = len(values) >= 3 and np.isfinite(values).all() and values.any()
        if not usable or np.ptp(_scaled(values)) <= CONSTANT_SPREAD:
            return None
    return pair


def _resampled_means(rows: np.ndarray, seed: int, num_resamples: int) -> np.ndarray:
    """Means of `rows` [n, values] over n rows drawn with replacement: [num_resamples, values]."""
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be >= 1, got {num_resamples}")
    rng, n = np.random.default_rng(seed), len(rows)
    block, means = max(1, BLOCK_ENTRIES // n), []
    for start in range(0, num_resamples, block):
        size = min(block, num_resamples - start)
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        means.append(weights @ rows / n)
    return np.concatenate(means)


def _percentiles(draws: np.ndarray, level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
