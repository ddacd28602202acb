"""Many maps of scores beside one reference at once: checkpoints of a run, or resamples of a map.

The measures are those of `sce.stats.compare`, map by map; here they are rows of arrays, and NaN is
what does not exist.
"""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from sce.stats.resampling import centred_interval, interval_of
from sce.stats.series import CONSTANT_SPREAD, Grid
from sce.stats.sets import PULLED_DOWN

Stack = Float[np.ndarray, "_maps _layers _heads"]
Sets = Bool[np.ndarray, "_maps _layers _heads"]
Values = dict[str, Float[np.ndarray, " _maps"]]

SHARES = ("recall", "recall_learned", "precision", "jaccard")
"""What `SharesOver` gives, the second with the untuned model alone."""


class CompareWith:
    """`compare` of stacks of maps beside one reference and one untuned model.

    What is to be known of these two is worked out once, for all stacks.
    """

    def __init__(self, reference: Stack, base: Stack | None, *, tau: float, k: int) -> None:
        """Set what stacks stand beside.

        Args:
            reference: R, one map for all or one for each of a stack's.
            base: B, the same, or None.
            tau: a head is in a set if its score is above tau.
            k: size of the sets of recall_at_k.
        """
        self.reference, self.base, self.tau, self.k = reference, base, tau, k
        self._r = sets_above(reference, tau)
        self._num_r = _count(self._r)
        self._by_layer = self._r.sum(axis=2)
        order = _Order(reference)
        self._best, self._ranks = order.best(k), order.centred_ranks()
        self._of_base: Values = {}
        self._learned = None
        if base is not None:
            b = sets_above(base, tau)
            self._learned = self._r & ~b
            known = share(_count(b & self._r), self._num_r)
            self._of_base = {"recall_base": known, "cosine_base": _cosines(base, reference)}

    def __call__(self, scores: Stack) -> Values:
        """A value a map for every field of `Comparison`, NaN where `compare` has None.

        Raises ValueError if shapes do not fit.
        """
        for each in (self.reference, scores if self.base is None else self.base):
            if each.shape[1:] != scores.shape[1:] or len(each) not in (1, len(scores)):
                raise ValueError(f"shapes differ: {scores.shape} and {each.shape}")
        s, num_r, order = sets_above(scores, self.tau), self._num_r, _Order(scores)
        by_chance = (s.sum(axis=2) * self._by_layer).sum(axis=1)
        both, num_s = _count(s & self._r), _count(s)
        found = {
            "recall": share(both, num_r),
            "precision": share(both, num_s),
            "jaccard": share(both, num_s + num_r - both),
            "recall_null": np.where(num_r > 0, num_s / s[0].size, np.nan),
            "recall_null_layer": share(by_chance, s.shape[2] * num_r),
            "recall_at_k": share(_count(order.best(self.k) & self._best), _count(self._best)),
            "cosine": _cosines(scores, self.reference),
            "spearman": _cosines(order.centred_ranks(), self._ranks),
            "num_heads": num_s.astype(np.float64),
            "num_reference_heads": num_r.astype(np.float64),
            **self._of_base,
        }
        if self.base is not None and self._learned is not None:
            new = _count(self._learned)
            found["recall_learned"] = share(_count(s & self._learned), new)
            changed = scores - self.base, self.reference - self.base
            found["cosine_learned"] = _cosines(*changed)
        return {name: np.broadcast_to(values, len(scores)) for name, values in found.items()}


def sets_above(scores: Stack, tau: float) -> Sets:
    """`head_set` of every map."""
    return np.round(scores, 9) > tau


class SharesOver:
    """Shares of sets at every threshold tau, or at every size k, beside one R and one B.

    Sets over a grid lie in one another, so a head is known by how many of them it is in, its depth;
    it is in two sets of a point if the lesser of its depths reaches that point. So one count of
    depths gives the sizes at all points.
    """

    def __init__(self, reference: Stack, base: Stack | None, at: Grid, *, by: str) -> None:
        """Set what stacks stand beside.

        Args:
            reference: R, one map for all or one for each of a stack's.
            base: B, the same, or None.
            at: thresholds, or sizes.
            by: "tau" or "k".
        """
        self.at, self.by = np.asarray(at, dtype=np.float64), by
        self._r = self._depths(reference)
        self._num_r = self._sizes(self._r)
        self._known = None
        if base is not None:
            self._known = np.minimum(self._r, self._depths(base))
            self._num_learned = self._num_r - self._sizes(self._known)

    def __call__(self, scores: Stack) -> dict[str, Float[np.ndarray, "_maps _points"]]:
        """recall, precision, jaccard and, where B is known, recall_learned; NaN for none.

        Raises ValueError if shapes do not fit.
        """
        s = self._depths(scores)
        if s.shape[1] != self._r.shape[1]:
            raise ValueError(f"shapes differ: {s.shape[1]} heads and {self._r.shape[1]}")
        num_s, both = self._sizes(s), self._sizes(np.minimum(s, self._r))
        found = {
            "recall": share(both, self._num_r),
            "precision": share(both, num_s),
            "jaccard": share(both, num_s + self._num_r - both),
        }
        if self._known is not None:
            new = both - self._sizes(np.minimum(s, self._known))
            found["recall_learned"] = share(new, self._num_learned)
        return found

    def _depths(self, maps: Stack) -> Int[np.ndarray, "_maps _heads"]:
        """In how many of the sets each head is, from the largest set on."""
        if self.by == "tau":
            rounded = np.nan_to_num(np.round(maps.reshape(len(maps), -1), 9), nan=-np.inf)
            return np.searchsorted(np.sort(self.at), rounded, side="left")
        places = _Order(maps).places.reshape(len(maps), -1)
        return len(self.at) - np.searchsorted(np.sort(self.at), places, side="right")

    def _sizes(self, depths: Int[np.ndarray, "_maps _heads"]) -> Int[np.ndarray, "_maps _points"]:
        """How many heads are in the set of every point."""
        size = len(self.at) + 1
        own = depths + size * np.arange(len(depths))[:, None]
        counts = np.bincount(own.ravel(), minlength=size * len(depths)).reshape(-1, size)
        nested = counts[:, ::-1].cumsum(axis=1)[:, -2::-1]  # of the largest set first
        falling = np.argsort(self.at if self.by == "tau" else -self.at, kind="stable")
        sizes = np.empty_like(nested)
        sizes[:, falling] = nested
        return sizes


def sets_over(scores: Stack, at: Grid, by: str) -> Iterator[Sets]:
    """The sets of every map at every tau or at every k."""
    if by == "tau":
        rounded = np.round(scores, 9)
        return (rounded > tau for tau in at)
    order = _Order(scores)
    return (order.best(k) for k in at)


def bounds(draws: Values, estimates: Values) -> dict[str, tuple[float, float] | None]:
    """95% of each measure over resamples, as `comparison_intervals` takes them.

    `draws` are a measure a resample, `estimates` the one value of each. None where a measure exists
    in fewer than half of the resamples.
    """
    found: dict[str, tuple[float, float] | None] = {}
    plain = [name for name in draws if name not in PULLED_DOWN]
    sides = column_bounds(np.stack([draws[name] for name in plain], axis=1))
    for name, low, high in zip(plain, *sides, strict=True):
        found[name] = None if np.isnan(low) else (float(low), float(high))
    for name in draws.keys() - set(plain):
        found[name] = interval_of(draws[name])
        if found[name] is not None:
            found[name] = centred_interval(draws[name], float(estimates[name][0]), 0.95)
    return found


def column_bounds(
    draws: Float[np.ndarray, "_resamples ..."],
) -> Float[np.ndarray, "2 ..."]:
    """`interval_of` of every column at once, NaN for None."""
    thin = 2 * np.isfinite(draws).sum(axis=0) < len(draws)
    whole = np.where(thin, 0.0, draws)
    quantile = np.nanquantile if np.isnan(whole).any() else np.quantile
    return np.where(thin, np.nan, quantile(whole, [0.025, 0.975], axis=0))


def _count(sets: Sets) -> np.ndarray:
    return _bits(_packed(sets))


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Part over whole, NaN where the whole is nothing."""
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


class _Order:
    """The heads of every map by falling score; a tie goes to the lowest (layer, head)."""

    def __init__(self, maps: Stack) -> None:
        self.shape = maps.shape
        self._flat = flat = maps.reshape(len(maps), -1)
        self._order = np.argsort(-flat, axis=1)
        self._sorted = np.take_along_axis(flat, self._order, axis=1)
        # A plain sort is fast and leaves ties in any order, which matters for heads that score.
        equal = (np.diff(self._sorted, axis=1) == 0) & (self._sorted[:, 1:] > 0)
        tied = equal.any(axis=1)
        self._order[tied] = np.argsort(-flat[tied], axis=1, kind="stable")

    def best(self, k: float | int) -> Sets:
        """`top_heads` of every map."""
        return self.places < k

    @cached_property
    def places(self) -> Int[np.ndarray, "_maps _layers _heads"]:
        """From 0 on; no k reaches that of a head that does not score."""
        places = np.empty_like(self._order)
        np.put_along_axis(places, self._order, np.arange(self._order.shape[1])[None], axis=1)
        never = np.iinfo(places.dtype).max
        return np.where(self._flat > 0, places, never).reshape(self.shape)

    def centred_ranks(self) -> Float[np.ndarray, "_maps 1 _heads"]:
        """Ranks among all heads, ties averaged, less their mean; 0 throughout for a constant."""
        size = self._flat.shape[1]
        places = np.arange(size)
        first = np.ones(self._flat.shape, dtype=bool)
        first[:, 1:] = np.diff(self._sorted, axis=1) != 0
        last = np.ones_like(first)
        last[:, :-1] = first[:, 1:]
        starts = np.maximum.accumulate(np.where(first, places, 0), axis=1)
        ends = np.minimum.accumulate(np.where(last, places, size)[:, ::-1], axis=1)[:, ::-1]
        ranks = np.empty(self._flat.shape)
        np.put_along_axis(ranks, self._order, -(starts + ends) / 2, axis=1)
        spread = np.abs(self._flat.max(axis=1) - self._flat.min(axis=1))
        constant = ~(spread > CONSTANT_SPREAD * np.abs(self._flat).max(axis=1))
        centred = ranks - ranks.mean(axis=1, keepdims=True)
        return np.where(constant[:, None] | (size < 3), 0.0, centred)[:, None]


def _cosines(a: Stack, b: Stack) -> np.ndarray:
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    dots = np.einsum("md,md->m", *np.broadcast_arrays(a, b))
    valid = np.isfinite(norms) & (norms > 0)
    return np.clip(np.divide(dots, norms, out=np.full_like(dots, np.nan), where=valid), -1, 1)


def _packed(sets: Sets) -> np.ndarray:
    """Eight heads a byte: [maps, bytes]."""
    return np.packbits(sets.reshape(len(sets), -1), axis=1)


def _bits(packed: np.ndarray) -> np.ndarray:
    """How many heads each packed set holds."""
    return np.bitwise_count(packed).sum(axis=1, dtype=np.int64)
