"""How sure the curves over tau and over k are: 95% bands over resampled examples.

The heads above a falling tau, or among the k best for a rising k, are sets of which each holds the
one before. So a head is told by the first of them that it is in, its entry, and the sizes of all
sets, and of what any of them share, are counts of entries: no set is ever made.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from sce.stats.intervals import drawn_together
from sce.stats.resampling import (
    BLOCK_ENTRIES,
    PerExample,
    num_kept,
    resampled_maps,
)
from sce.stats.series import HeadMap
from sce.stats.sets import Curves
from sce.stats.stacks import column_bounds, share

NUM_RESAMPLES = 200

Maps = Float[np.ndarray, "_resamples _layers _heads"]
Entries = Int[np.ndarray, "_resamples _layers _heads"]
"""Of every head, the place in the grid of the first set that it is in; past the end: in none."""
Draws = dict[str, Float[np.ndarray, "_resamples _points"]]
Column = list[float | None]


def with_bands(
    curves: Curves,
    per_example: PerExample,
    reference: HeadMap | PerExample,
    base: HeadMap | PerExample | None,
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> Curves:
    """The curves with 95% bounds over the examples at every point, all from the same resamples.

    What is drawn together, what stays as it is and which resamples count is that of
    `comparison_intervals`, of which the bounds at one tau and one k are those here, given as many
    resamples and the same seed. They are pointwise: that the whole curve lies within is less sure.

    Args:
        curves: of the means (`recall_curves`); values stay, bounds are filled in.
        per_example: scores of the run, S.
        reference: R's scores of S's examples in S's order, or its mean.
        base: the same of the untuned model, B, or None.
        seed: of the resamples.
        num_resamples: of the examples.

    Returns:
        The curves with n, the kept examples. None at a point where a measure exists in fewer than
        half of the resamples, where nothing of it was drawn, and throughout for fewer than 2 kept
        examples or a score that is not finite.

    Raises:
        ValueError: shapes differ.
    """
    drawn = drawn_together(per_example, reference, base)
    means = resampled_maps(drawn.joined, seed, num_resamples)
    curves = replace(curves, n=num_kept(per_example))
    if means is None:
        return curves
    maps = {name: _stack(each) for name, each in drawn.split(means).items() if each is not None}
    taus, ks = np.array(curves.taus), np.array(curves.ks)
    falling, rising = np.argsort(-taus, kind="stable"), np.argsort(ks, kind="stable")
    above = {name: _above(each, taus[falling]) for name, each in maps.items()}
    best = {name: _best(each, ks[rising]) for name, each in maps.items()}
    return replace(
        curves,
        by_tau=_bounded(curves.by_tau, above, falling, drawn.undrawn),
        by_k=_bounded(curves.by_k, best, rising, drawn.undrawn),
    )


def _stack(means: np.ndarray) -> Maps:
    """A map that stays as it is, as the one resample that it is."""
    return means[None] if means.ndim == 2 else means


def _above(means: Maps, falling: np.ndarray) -> Entries:
    """Entries into the sets above each tau, as `head_set` has them."""
    scores = np.round(means, 9)
    entries = len(falling) - np.searchsorted(falling[::-1], scores, side="left")
    return np.where(np.isnan(scores), len(falling), entries)


def _best(means: Maps, rising: np.ndarray) -> Entries:
    """Entries into the sets of the k best, as `top_heads` has them."""
    flat = means.reshape(len(means), -1)
    order = np.argsort(-flat, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(flat.shape[1])[None], axis=1)
    entries = np.searchsorted(rising, ranks, side="right")
    return np.where(flat > 0, entries, len(rising)).reshape(means.shape)


def _bounded(
    columns: dict[str, Column],
    entries: dict[str, Entries],
    order: np.ndarray,
    undrawn: tuple[str, ...],
) -> dict[str, Column]:
    """The columns with their bounds; `order` are the points as the sets grow."""
    num_points, num_layers = len(order), entries["s"].shape[1]
    if not num_points:
        return columns
    size = max(1, BLOCK_ENTRIES // (num_layers * num_points))
    blocks = []
    for start in range(0, len(entries["s"]), size):
        part = {
            name: each if len(each) == 1 else each[start : start + size]
            for name, each in entries.items()
        }
        blocks.append(_measures(part, num_points))
    found = dict(columns)
    for name in blocks[0].keys() - set(undrawn):
        draws = np.concatenate([block[name] for block in blocks])
        in_order = np.empty_like(draws)
        in_order[:, order] = draws
        found[f"{name}_low"], found[f"{name}_high"] = _bounds(in_order)
    return found


def _measures(entries: dict[str, Entries], num_points: int) -> Draws:
    """What `recall_curves` gives, of every resample; NaN for what does not exist."""
    s, r, b = entries["s"], entries["r"], entries.get("b")
    num_heads = s.shape[2]
    in_s, in_r = (_by_layer(each, num_points) for each in (s, r))
    num_s, num_r = in_s.sum(axis=1), in_r.sum(axis=1)
    both = _sizes(np.maximum(s, r), num_points)
    by_chance = (in_s * in_r).sum(axis=1)
    found = {
        "recall": share(both, num_r),
        "recall_null": np.where(num_r > 0, num_s / s[0].size, np.nan),
        "recall_null_layer": share(by_chance, num_heads * num_r),
        "precision": share(both, num_s),
        "jaccard": share(both, num_s + num_r - both),
        "num_heads": num_s.astype(np.float64),
        "num_reference_heads": num_r.astype(np.float64),
    }
    if b is None:
        return found
    known = _sizes(np.maximum(b, r), num_points)
    learned = both - _sizes(np.maximum(np.maximum(s, b), r), num_points)
    return found | {
        "recall_base": share(known, num_r),
        "recall_learned": share(learned, num_r - known),
    }


def _sizes(entries: Entries, num_points: int) -> Int[np.ndarray, "_resamples _points"]:
    """How many heads each set holds."""
    return _by_layer(entries.reshape(len(entries), 1, -1), num_points)[:, 0]


def _by_layer(entries: Entries, num_points: int) -> Int[np.ndarray, "_resamples _layers _points"]:
    """How many heads each set holds in each layer."""
    rows = entries.reshape(-1, entries.shape[2])
    places = rows + (num_points + 1) * np.arange(len(rows))[:, None]
    counts = np.bincount(places.ravel(), minlength=len(rows) * (num_points + 1))
    return counts.reshape(*entries.shape[:2], -1).cumsum(axis=2)[:, :, :num_points]


def _bounds(draws: Float[np.ndarray, "_resamples _points"]) -> tuple[Column, Column]:
    low, high = column_bounds(draws)
    return _column(low), _column(high)


def _column(values: np.ndarray) -> Column:
    return [None if np.isnan(value) else float(value) for value in values]
