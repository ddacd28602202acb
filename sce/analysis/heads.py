"""Where the heads above tau are, and which sets share them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from sce.analysis.groups import Member
from sce.analysis.means import mean_estimate
from sce.analysis.measured import Measured, heads_of
from sce.analysis.parts import HeadSetOf, LayerShares, Overlap
from sce.analysis.references import References
from sce.records import HeadScores
from sce.stats import Estimate, head_set
from sce.stats.stacks import column_bounds

MATRIX = ("recall", "jaccard", "cosine")


@dataclass(frozen=True)
class Sets:
    """The runs behind one row of the matrix, or behind one line of shares by layer."""

    name: str
    kind: str
    maps: Sequence[np.ndarray]
    """Scores of each run, [layers, heads]."""
    draws: Sequence[np.ndarray | None]
    """Sets of each run in every resample, bool [resamples, layers, heads]."""
    runs: Sequence[str]


def sets_of(found: Sequence[Measured], reference: HeadSetOf | None) -> list[Sets]:
    """The reference first, the untuned model next, then settings in order."""
    sets = []
    if reference is not None:
        own = Sets("reference", "reference", [reference.scores], [None], reference.members)
        sets.append(own)
    points = [each for each in found if each.run.is_point]
    points.sort(key=lambda each: (each.run.kind != "untuned", each.run.kind != "real"))
    order = list(dict.fromkeys(each.run.setting for each in points))
    points.sort(key=lambda each: order.index(each.run.setting))
    for _, same in groupby(points, key=lambda each: each.run.setting):
        own = list(same)
        run = own[0].run
        names = [each.run.name for each in own]
        maps, draws = [each.run.scores for each in own], [each.set_draws for each in own]
        sets.append(Sets(run.setting, run.kind, maps, draws, names))
    return sets


def reference_set(found: References, tau: float) -> HeadSetOf | None:
    """The whole reference; None where there is none."""
    if (whole := found.whole) is None:
        return None
    n = whole.file.num_examples if whole.file else min(r.last.num_examples for r in whole.runs)
    heads = heads_of(head_set(whole.scores, tau))
    return HeadSetOf(whole.words, found.names, whole.scores, heads, n)


def untuned_set(member: Member | None, scores: HeadScores | None, tau: float) -> HeadSetOf | None:
    """The untuned model's, of a run's step 0 or of the reference's file."""
    if scores is None:
        return None
    source = "the reference's file" if member is None else f"{member.files.shown}, step 0"
    heads = heads_of(head_set(scores.scores, tau))
    return HeadSetOf(source, [], scores.scores, heads, scores.num_examples)


def layer_shares(sets: Sequence[Sets], tau: float) -> list[LayerShares]:
    """The share of a set's heads that each layer holds."""
    found = []
    for own in sets:
        each = [
            _shares(head_set(scores, tau), draws)
            for scores, draws in zip(own.maps, own.draws, strict=True)
        ]
        by_layer = [mean_estimate([run[layer] for run in each]) for layer in range(len(each[0]))]
        size = float(np.mean([head_set(scores, tau).sum() for scores in own.maps]))
        found.append(LayerShares(own.name, own.kind, by_layer, size))
    return found


def overlaps(sets: Sequence[Sets], tau: float) -> list[Overlap]:
    """Recall, Jaccard and cosine of every set with every other.

    Bounds of the first two are over examples, which all runs are drawn alike; a cosine has none.
    """
    owner = np.array([index for index, own in enumerate(sets) for _ in own.maps])
    if not len(owner):
        return []
    maps = np.array([scores.ravel() for own in sets for scores in own.maps])
    chosen = np.round(maps, 9) > tau
    names = _names(sets)
    apart = np.array([[not (set(a) & set(b)) for b in names] for a in names])
    draws = _all_draws(sets, tau)
    found = []
    for measure in MATRIX:
        values = _cosines(maps) if measure == "cosine" else _shared(chosen, measure)
        cells, pairs = _by_set(values, owner, apart)
        low = high = np.full_like(cells, np.nan)
        if draws is not None and measure != "cosine":
            each = np.array([_by_set(_shared(d, measure), owner, apart)[0] for d in draws])
            low, high = column_bounds(each)
        rows = [
            [_estimate(cells[i, j], low[i, j], high[i, j], pairs[i, j]) for j in range(len(sets))]
            for i in range(len(sets))
        ]
        found.append(Overlap(measure, [s.name for s in sets], [s.kind for s in sets], rows))
    return found


def _names(sets: Sequence[Sets]) -> list[list[str]]:
    """Of every map, the runs in it: a reference's are all of its members."""
    return [
        list(own.runs) if own.kind == "reference" else [own.runs[index]]
        for own in sets
        for index in range(len(own.maps))
    ]


def _all_draws(sets: Sequence[Sets], tau: float) -> np.ndarray | None:
    """[resamples, maps, heads]; what has no draws (a mean) stays; None where nothing has."""
    known = [d for own in sets for d in own.draws if d is not None]
    if not known:
        return None
    count = min(map(len, known))
    return np.stack(
        [
            np.broadcast_to(head_set(scores, tau).ravel(), (count, scores.size))
            if d is None
            else d[:count].reshape(count, -1)
            for own in sets
            for scores, d in zip(own.maps, own.draws, strict=True)
        ],
        axis=1,
    )


def _shared(chosen: np.ndarray, measure: str) -> np.ndarray:
    """Recall (row as the run, column as the reference) or Jaccard of sets [maps, heads]."""
    both = chosen.astype(np.float32) @ chosen.T.astype(np.float32)
    sizes = chosen.sum(axis=1)
    whole = np.broadcast_to(sizes, both.shape)
    if measure == "jaccard":
        whole = sizes[:, None] + sizes[None] - both
    return np.divide(both, whole, out=np.full(both.shape, np.nan), where=whole > 0)


def _cosines(maps: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(maps, axis=1, keepdims=True)
    unit = np.divide(maps, norms, out=np.full_like(maps, np.nan), where=norms > 0)
    return np.clip(unit @ unit.T, -1, 1)


def _by_set(
    values: np.ndarray, owner: np.ndarray, apart: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Means over the pairs of maps of two sets, and how many these are; NaN for none."""
    usable = apart & np.isfinite(values)
    member = np.eye(owner.max() + 1)[owner]
    pairs = member.T @ usable @ member
    sums = member.T @ np.where(usable, values, 0) @ member
    return np.divide(sums, pairs, out=np.full_like(sums, np.nan), where=pairs > 0), pairs


def _estimate(value: float, low: float, high: float, pairs: float) -> Estimate:
    numbers = [float(v) if np.isfinite(v) else None for v in (value, low, high)]
    return Estimate(numbers[0], numbers[1], numbers[2], int(pairs))


def _shares(chosen: np.ndarray, draws: np.ndarray | None) -> list[Estimate]:
    total = int(chosen.sum())
    counts = chosen.sum(axis=1)
    if not total:
        return [Estimate(None, None, None, 1) for _ in counts]
    low = high = np.full(len(counts), np.nan)
    if draws is not None:
        each = draws.sum(axis=2, dtype=np.float64)
        sizes = each.sum(axis=1, keepdims=True)
        parts = np.divide(each, sizes, out=np.full_like(each, np.nan), where=sizes > 0)
        low, high = column_bounds(parts)
    return [_estimate(*each, 1) for each in zip(counts / total, low, high, strict=True)]
