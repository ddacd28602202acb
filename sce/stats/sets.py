"""Head sets: who is in one, how two overlap, and what chance would give.

A head is a cell (layer, query head) of a [layers, heads] array; a head set is a boolean array of
that shape. S is the run's set, R the reference's, B the untuned model's.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sce.stats.series import Grid, HeadMap, HeadSet, cosine, require_same_shape, spearman, subtract

# Of every decade of tau: round values, each 6 to 14% above the one before. Below each largest
# score lie four decades of them, which is more than scores of a few hundred examples resolve.
MANTISSAS = (
    *("1", "1.1", "1.2", "1.3", "1.4", "1.6", "1.8", "2", "2.2", "2.5", "2.8", "3", "3.3"),
    *("3.6", "4", "4.5", "5", "5.5", "6", "6.5", "7", "7.5", "8", "8.5", "9"),
)
DECADES = 4


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
    require_same_shape(s, r)
    return float((s & r).sum() / r.sum()) if r.any() else None


def precision(s: HeadSet, r: HeadSet) -> float | None:
    """|S and R| / |S|, in 0..1: the share of the found heads in R; None if S is empty."""
    return recall(r, s)


def jaccard(s: HeadSet, r: HeadSet) -> float | None:
    """|S and R| / |S or R|, in 0..1, symmetric; None if both are empty."""
    require_same_shape(s, r)
    return recall(s & r, s | r)


def recall_learned(s: HeadSet, r: HeadSet, b: HeadSet) -> float | None:
    """Recall over R without B, the untuned model's set, in 0..1; None if B holds all of R.

    Our own measure: most retrieval heads are there before tuning and say nothing of the data.
    """
    require_same_shape(s, r, b)
    return recall(s, r & ~b)


def recall_null(s: HeadSet, r: HeadSet) -> float | None:
    """The mean recall of |S| heads drawn at random from all, |S| / (L * H); None if R is empty."""
    require_same_shape(s, r)
    return float(s.mean()) if r.any() else None


def recall_null_layer(s: HeadSet, r: HeadSet) -> float | None:
    """The same with S's number drawn in each layer, sum_l |S_l| |R_l| / (H * |R|)."""
    require_same_shape(s, r)
    return float(s.mean(axis=1) @ r.sum(axis=1) / r.sum()) if r.any() else None


PULLED_DOWN = ("cosine", "cosine_base", "cosine_learned", "spearman")
"""Measures that noise lowers, so that a resample of noisy scores lies below their estimate."""


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
    require_same_shape(scores, reference, reference if base is None else base)
    s, r = head_set(scores, tau), head_set(reference, tau)
    learned = None
    if base is not None:
        learned = cosine(subtract(scores, base), subtract(reference, base))
    return Comparison(
        **_shares(s, r, None if base is None else head_set(base, tau)),
        recall_at_k=recall(top_heads(scores, k), top_heads(reference, k)),
        cosine=cosine(scores, reference),
        cosine_base=None if base is None else cosine(base, reference),
        cosine_learned=learned,
        spearman=spearman(scores.ravel(), reference.ravel()),
        num_heads=int(s.sum()),
        num_reference_heads=int(r.sum()),
    )


@dataclass(frozen=True)
class Curves:
    """Overlap of S and R at every threshold and at every size.

    `by_tau` and `by_k` give, by the names of `Comparison`, one value for each of `taus` and `ks`:
    recall, recall_null, recall_null_layer, recall_base, recall_learned, precision, jaccard (in
    0..1; None for a share of an empty set, or without the untuned model), num_heads and
    num_reference_heads (S and R; at k fewer than k where fewer heads score). Beside each stand its
    95% bounds, recall_low, recall_high and so on: None but where `with_bands` has found them.
    """

    taus: list[float]
    ks: list[int]
    by_tau: dict[str, list[float | None]]
    by_k: dict[str, list[float | None]]
    n: int | None = None
    """Examples behind the run's scores; None where it is not known."""

    def to_json(self) -> dict[str, Any]:
        """The fields as plain lists and dicts."""
        return asdict(self)


def recall_curves(
    scores: HeadMap,
    reference: HeadMap,
    base: HeadMap | None = None,
    *,
    taus: Grid | None = None,
    ks: Grid | None = None,
    n: int | None = None,
) -> Curves:
    """The whole curve of recall, and of what stands beside it, over tau and over k; no bounds yet.

    `taus` default to `default_taus(reference)`, the same for every run that is compared with one
    reference, `ks` to `default_ks`; `n` is handed on. Raises ValueError unless all shapes are the
    same and k >= 0.
    """
    require_same_shape(scores, reference, reference if base is None else base)
    taus = default_taus(reference) if taus is None else [float(tau) for tau in taus]
    ks = default_ks(reference.size) if ks is None else [int(k) for k in ks]
    maps = scores, reference, base
    at_tau = [[None if m is None else head_set(m, tau) for m in maps] for tau in taus]
    at_k = [[None if m is None else top_heads(m, k) for m in maps] for k in ks]
    return Curves(taus, ks, _columns(at_tau), _columns(at_k), n)


def default_taus(reference: HeadMap) -> list[float]:
    """0 and 100 round values in the four decades below the reference's largest score, rising.

    The top is the lowest power of ten that no score of the reference exceeds: 0.0001 to 0.9 for
    shares, 0.000001 to 0.009 for scores of 0.01 at most, 0.001 to 9 where a score exceeds 1. The
    ratio of neighbours is about the same throughout, since a few heads score much and most next to
    nothing. A reference in which nothing scores has the values of shares.
    """
    scores = np.round(reference[np.isfinite(reference)], 9)
    largest = scores.max(initial=0.0) or 1.0
    top = next((e for e in range(-9, 308) if float(f"1e{e}") >= largest), 308)
    exponents = range(top - DECADES, top)
    # Read from text: 0.011 is the number 0.011, which 1.1 * 0.01 is not.
    return [0.0, *(float(f"{m}e{exponent}") for exponent in exponents for m in MANTISSAS)]


def default_ks(num_heads: int) -> list[int]:
    """1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, ... below the number of heads, and it."""
    sizes = [1, 2, 3, 5, 7]
    decade = 10
    while decade < num_heads:
        sizes += [decade, 3 * decade // 2, *(decade * first for first in (2, 3, 5, 7))]
        decade *= 10
    return [*(k for k in sizes if k < num_heads), *([num_heads] if num_heads else [])]


def _shares(s: HeadSet, r: HeadSet, b: HeadSet | None) -> dict[str, float | None]:
    return {
        "recall": recall(s, r),
        "recall_null": recall_null(s, r),
        "recall_null_layer": recall_null_layer(s, r),
        "recall_base": None if b is None else recall(b, r),
        "recall_learned": None if b is None else recall_learned(s, r, b),
        "precision": precision(s, r),
        "jaccard": jaccard(s, r),
    }


def _columns(rows: list[list[Any]]) -> dict[str, list[float | None]]:
    """One list a measure from one (S, R, B) a point, and two for its bounds."""
    found = [
        _shares(s, r, b) | {"num_heads": int(s.sum()), "num_reference_heads": int(r.sum())}
        for s, r, b in rows
    ]
    columns: dict[str, list[float | None]] = {}
    for name in found[0] if found else ():
        columns[name] = [row[name] for row in found]
        columns |= {f"{name}_{end}": [None] * len(found) for end in ("low", "high")}
    return columns
