"""p values by exchange: what as large a figure would be worth had the labels been dealt otherwise.

Where there are few enough ways to exchange, all of them are counted and the p value is exact;
otherwise they are drawn, and it is (1 + hits) / (1 + draws), which is never 0 (Phipson and Smyth
2010). All tests of this package are two-sided but for that of the overlap of two head sets.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from math import factorial, prod

import numpy as np
from jaxtyping import Float, Int

from sce.stats.series import HeadSet, require_same_shape

MAX_ENUMERATED = 5040  # 7!: all orders of 7 units are counted, those of 8 are drawn
MAX_FLIPPED = 12  # all 4096 patterns of signs of 12 differences are counted
SIGNIFICANT = 0.05
DIGITS = 9  # statistics that differ by less are equal
BLOCK_ENTRIES = 2**22  # of the signs that are held at once (32 MiB in float64)


@dataclass(frozen=True)
class NullDraws:
    """What a statistic was under every exchange (`exact`) or under drawn ones, near -1..1."""

    values: Float[np.ndarray, " _draws"]
    exact: bool

    def p_value(self, observed: float) -> float:
        """Share of exchanges whose statistic is at least as far from 0: above 0, up to 1."""
        hits = int((self._sizes() >= round(abs(observed), DIGITS)).sum())
        return (hits + self._own()) / (len(self.values) + self._own())

    def smallest_significant(self) -> float | None:
        """The smallest size with a p value of 5% at most; None where no exchange has one."""
        sizes, counts = np.unique(self._sizes(), return_counts=True)
        as_large = counts[::-1].cumsum()[::-1]
        p_values = (as_large + self._own()) / (len(self.values) + self._own())
        left = sizes[p_values <= SIGNIFICANT]
        return float(left[0]) if left.size else None

    def _sizes(self) -> np.ndarray:
        return np.abs(self.values).round(DIGITS)

    def _own(self) -> int:
        """The observed arrangement counts as one of the drawn; enumeration holds it already."""
        return 0 if self.exact else 1


def permutation_p_value(
    s: HeadSet,
    r: HeadSet,
    base: HeadSet | None = None,
    *,
    seed: int,
    num_permutations: int = 10_000,
    layer_matched: bool,
) -> float | None:
    """How often a random S of the same size recalls as much of R or more: above 0, up to 1.

    With `layer_matched` the random set has S's number of heads in every layer. With `base`, the
    untuned model's set B, it is asked of S and R without B, among the heads outside B: a run that
    has learned nothing overlaps R beyond chance through B alone. The overlap with R is drawn from
    its own law, hypergeometric layer by layer, which is the same as shuffling heads.
    (1 + hits) / (1 + draws), after Phipson and Smyth (2010). None if R (without B) is empty.
    """
    free = np.ones_like(r) if base is None else ~base
    require_same_shape(s, r, free)
    s, r = s & free, r & free
    if not r.any():
        return None
    sets = (s, r, free) if layer_matched else [each.reshape(1, -1) for each in (s, r, free)]
    drawn, reference, among = (each.sum(axis=1) for each in sets)
    others = among - reference
    rng = np.random.default_rng(seed)
    overlaps = rng.hypergeometric(reference, others, drawn, size=(num_permutations, len(drawn)))
    return (1 + int((overlaps.sum(axis=1) >= (s & r).sum()).sum())) / (1 + num_permutations)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P values that hold for all of a number of tests together (Holm 1979); None stays None."""
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    found: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        found[place] = largest = max(largest, min(1.0, p * (len(known) - rank)))
    return found


def exchanges(
    units: Int[np.ndarray, " _points"],
    strata: Int[np.ndarray, " _points"],
    *,
    seed: int,
    num_permutations: int,
) -> tuple[Int[np.ndarray, "_orders _points"], bool] | None:
    """Orders of the points that keep units whole, and whether these are all such orders.

    A unit (all seeds of a setting) is one block, its points in their order. Blocks change places
    only with blocks of the same number of points, so that no block is torn (whole-block
    exchangeability, Winkler et al. 2015), and only within their stratum. None where no two blocks
    can. Raises ValueError if `num_permutations` < 1.
    """
    if num_permutations < 1:
        raise ValueError(f"num_permutations must be >= 1, got {num_permutations}")
    alike: dict[tuple[int, int], list[np.ndarray]] = defaultdict(list)
    for unit in dict.fromkeys(units.tolist()):
        block = np.flatnonzero(units == unit)
        alike[int(strata[block[0]]), len(block)].append(block)
    pools = [np.stack(blocks) for blocks in alike.values() if len(blocks) > 1]
    if not pools:
        return None
    num_orders = [factorial(len(pool)) for pool in pools]
    exact = prod(num_orders) <= MAX_ENUMERATED
    draws = prod(num_orders) if exact else num_permutations
    rng, orders, stride = np.random.default_rng(seed), np.tile(np.arange(len(units)), (draws, 1)), 1
    for pool, count in zip(pools, num_orders, strict=True):
        if exact:
            places = _all_orders(len(pool))[np.arange(draws) // stride % count]
            stride *= count
        else:
            places = rng.permuted(np.tile(np.arange(len(pool)), (draws, 1)), axis=1)
        orders[:, pool.ravel()] = pool[places].reshape(draws, -1)
    return orders, exact


def sign_flips(
    differences: Float[np.ndarray, " _points"], *, seed: int, num_permutations: int
) -> NullDraws:
    """The mean of the differences with their signs flipped at random; at least one difference.

    All patterns of signs for up to 12 differences, else `num_permutations` drawn ones. Raises
    ValueError if that is < 1.
    """
    if num_permutations < 1:
        raise ValueError(f"num_permutations must be >= 1, got {num_permutations}")
    n = len(differences)
    if n <= MAX_FLIPPED:
        patterns: Sequence[np.ndarray] = [np.arange(2**n)[:, None] >> np.arange(n) & 1]
    else:
        rng, block = np.random.default_rng(seed), max(1, BLOCK_ENTRIES // n)
        sizes = [min(block, num_permutations - at) for at in range(0, num_permutations, block)]
        patterns = [rng.integers(2, size=(size, n), dtype=np.int8) for size in sizes]
    means = [(1.0 - 2.0 * flipped) @ differences / n for flipped in patterns]
    return NullDraws(np.concatenate(means), exact=n <= MAX_FLIPPED)


def _all_orders(n: int) -> np.ndarray:
    return np.array(list(permutations(range(n))))
