"""Many maps of scores beside one reference at once: checkpoints of a run, or resamples of a map.

The measures are those of `sce.stats.compare`, map by map; here they are rows of arrays, and NaN is
what does not exist.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from sce.stats.intervals import PULLED_DOWN
from sce.stats.resampling import _centred, interval_of
from sce.stats.series import CONSTANT_SPREAD, Grid, HeadMap
from sce.stats.sets import head_set, top_heads

Stack = Float[np.ndarray, "_maps _layers _heads"]
Sets = Bool[np.ndarray, "_maps _layers _heads"]
Values = dict[str, Float[np.ndarray, " _maps"]]

SHARES = ("recall", "recall_learned", "precision", "jaccard")
"""What `shares` gives, the second with the untuned model alone."""


def compare_stack(
    scores: Stack, reference: Stack, base: Stack | None, *, tau: float, k: int
) -> Values:
    """`compare` of every map of a stack; the names are its fields, num_heads included.

    Args:
        scores: maps of the run, S.
        reference: R, one map for all or one for each of S's.
        base: B, the same, or None.
        tau: a head is in a set if its score is above tau.
        k: size of the sets of recall_at_k.

    Returns:
        A value a map of S, NaN where `compare` has None.

    Raises:
        ValueError: shapes do not fit.
    """
    maps = {"s": scores, "r": reference} | ({} if base is None else {"b": base})
    for each in maps.values():
        if each.shape[1:] != scores.shape[1:] or len(each) not in (1, len(scores)):
            raise ValueError(f"shapes differ: {[each.shape for each in maps.values()]}")
    sets = {name: sets_above(each, tau) for name, each in maps.items()}
    s, r = sets["s"], sets["r"]
    num_r = _count(r)
    best_s, best_r = (_top(each, k) for each in (scores, reference))
    found = {
        **shares(s, r, sets.get("b")),
        "recall_null": np.where(num_r > 0, s.mean(axis=(1, 2)), np.nan),
        "recall_null_layer": _share(
            (s.sum(axis=2) * r.sum(axis=2)).sum(axis=1), s.shape[2] * num_r
        ),
        "recall_at_k": _share(_count(best_s & best_r), _count(best_r)),
        "cosine": _cosines(scores, reference),
        "spearman": _spearmans(scores, reference),
        "num_heads": _count(s).astype(np.float64),
        "num_reference_heads": num_r.astype(np.float64),
    }
    if base is not None:
        found["recall_base"] = _share(_count(sets["b"] & r), num_r)
        found["cosine_base"] = _cosines(base, reference)
        found["cosine_learned"] = _cosines(scores - base, reference - base)
    return {name: np.broadcast_to(values, len(scores)) for name, values in found.items()}


def sets_above(scores: Stack, tau: float) -> Sets:
    """`head_set` of every map."""
    return np.round(scores, 9) > tau


def shares(s: Sets, r: Sets, b: Sets | None) -> Values:
    """recall, precision, Jaccard and, with the untuned model's sets, recall_learned, of stacks."""
    both, num_s, num_r = _count(s & r), _count(s), _count(r)
    found = {
        "recall": _share(both, num_r),
        "precision": _share(both, num_s),
        "jaccard": _share(both, num_s + num_r - both),
    }
    if b is not None:
        learned = r & ~b
        found["recall_learned"] = _share(_count(s & learned), _count(learned))
    return found


class SharesOver:
    """`shares` of stacks at every threshold tau, or at every size k, beside one R and one B.

    What R and B are at each point is worked out once, for all runs.
    """

    def __init__(self, reference: Stack, base: Stack | None, at: Grid, *, by: str) -> None:
        """Set what stacks stand beside.

        Args:
            reference: R, one map for all or one for each of a stack's.
            base: B, the same, or None.
            at: thresholds, or sizes.
            by: "tau" or "k".
        """
        self.at, self.by = [float(point) for point in at], by
        self._r = [_packed(sets) for sets in self._sets(reference)]
        b = None if base is None else [_packed(sets) for sets in self._sets(base)]
        self._learned = None if b is None else [r & ~o for r, o in zip(self._r, b, strict=True)]

    def __call__(self, scores: Stack) -> dict[str, Float[np.ndarray, "_maps _points"]]:
        """recall, precision, jaccard and, where B is known, recall_learned; NaN for none."""
        each: list[Values] = []
        for index, sets in enumerate(self._sets(scores)):
            s, r = _packed(sets), self._r[index]
            both, num_s, num_r = (_bits(packed) for packed in (s & r, s, r))
            found = {
                "recall": _share(both, num_r),
                "precision": _share(both, num_s),
                "jaccard": _share(both, num_s + num_r - both),
            }
            if self._learned is not None:
                learned = self._learned[index]
                found["recall_learned"] = _share(_bits(s & learned), _bits(learned))
            each.append(found)
        names = each[0] if each else ()
        return {
            name: np.stack([np.broadcast_to(found[name], len(scores)) for found in each], axis=1)
            for name in names
        }

    def _sets(self, scores: Stack) -> Iterator[Sets]:
        if self.by == "tau":
            rounded = np.round(scores, 9)
            return (rounded > tau for tau in self.at)
        ranks = _ranks(scores)
        return (ranks < k for k in self.at)


def bounds(draws: Values, estimates: Values) -> dict[str, tuple[float, float] | None]:
    """95% of each measure over resamples, as `comparison_intervals` takes them.

    `draws` are a measure a resample, `estimates` the one value of each. None where a measure exists
    in fewer than half of the resamples.
    """
    found: dict[str, tuple[float, float] | None] = {}
    for name, values in draws.items():
        found[name] = interval_of(values)
        if name in PULLED_DOWN and found[name] is not None:
            found[name] = _centred(values, float(estimates[name][0]), 0.95)
    return found


def layer_nulls(
    scores: HeadMap, reference: HeadMap, base: HeadMap | None, *, tau: float, k: int
) -> dict[str, float | None]:
    """What each measure would be if S's scores were dealt at random to the heads of their layer.

    Expectations, exact but for the Jaccard, which is that of the expected overlap. For
    `recall_learned` the heads that S has and the untuned model, B, has not are dealt to those that
    B has not; for `cosine_learned` what changed against B. None where the measure is.
    """
    s, r = head_set(scores, tau), head_set(reference, tau)
    width, num_s, num_r = s.shape[1], float(s.sum()), float(r.sum())
    overlap = float(s.sum(axis=1) @ r.sum(axis=1)) / width
    best_s, best_r = top_heads(scores, k), top_heads(reference, k)
    at_k = float(best_s.sum(axis=1) @ best_r.sum(axis=1)) / width
    ranks = [rankdata(m).reshape(m.shape) for m in (scores, reference)]
    found: dict[str, float | None] = {
        "recall": _ratio(overlap, num_r),
        "recall_learned": None,
        "precision": _ratio(overlap, num_s),
        "jaccard": _ratio(overlap, num_s + num_r - overlap),
        "recall_at_k": _ratio(at_k, float(best_r.sum())),
        "cosine": _cosine_dealt(scores, reference),
        "cosine_learned": None,
        "spearman": _cosine_dealt(*(m - m.mean() for m in ranks)),
    }
    if base is not None:
        b = head_set(base, tau)
        free = np.maximum((~b).sum(axis=1), 1)
        new = ((s & ~b).sum(axis=1) * (r & ~b).sum(axis=1) / free).sum()
        found["recall_learned"] = _ratio(float(new), float((r & ~b).sum()))
        found["cosine_learned"] = _cosine_dealt(scores - base, reference - base)
    return found


def _cosine_dealt(a: HeadMap, b: HeadMap) -> float | None:
    """The expected cosine with a's values dealt anew within each layer."""
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    if not np.isfinite(norms) or norms == 0:
        return None
    return float(a.sum(axis=1) @ b.sum(axis=1)) / a.shape[1] / norms


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _count(sets: Sets) -> np.ndarray:
    return sets.sum(axis=(1, 2))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _top(maps: Stack, k: int) -> Sets:
    if len(maps) == 1:
        return top_heads(maps[0], k)[None]
    return _ranks(maps) < k


def _ranks(maps: Stack) -> np.ndarray:
    """Of every head its place by falling score, past all k where it does not score, as ints."""
    flat = maps.reshape(len(maps), -1)
    order = np.argsort(-flat, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(flat.shape[1])[None], axis=1)
    return np.where(flat > 0, ranks, np.iinfo(ranks.dtype).max).reshape(maps.shape)


def _cosines(a: Stack, b: Stack) -> np.ndarray:
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    dots = np.einsum("md,md->m", *np.broadcast_arrays(a, b))
    valid = np.isfinite(norms) & (norms > 0)
    return np.clip(np.divide(dots, norms, out=np.full_like(dots, np.nan), where=valid), -1, 1)


def _spearmans(a: Stack, b: Stack) -> np.ndarray:
    ranks = []
    for maps in (a, b):
        flat = maps.reshape(len(maps), -1)
        ranked = rankdata(flat, axis=1)
        spread, largest = np.ptp(flat, axis=1), np.abs(flat).max(axis=1)
        constant = ~(spread > CONSTANT_SPREAD * largest)
        centred = ranked - ranked.mean(axis=1, keepdims=True)
        ranks.append(np.where(constant[:, None] | (flat.shape[1] < 3), 0.0, centred)[:, None])
    return _cosines(*ranks)


def _packed(sets: Sets) -> np.ndarray:
    """Eight heads a byte: [maps, bytes]."""
    return np.packbits(sets.reshape(len(sets), -1), axis=1)


def _bits(packed: np.ndarray) -> np.ndarray:
    """How many heads each packed set holds."""
    return np.bitwise_count(packed).sum(axis=1, dtype=np.int64)
