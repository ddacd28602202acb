"""Accuracy over the number of ablated heads, and the area under it. Numpy and sce.stats alone."""

from collections.abc import Mapping, Sequence

import numpy as np

from sce.interventions.controls import HEADS, LAYER_MATCHED, UNIFORM, Condition
from sce.interventions.effects import Answers, Row, answer_nll, estimate
from sce.interventions.select import Heads
from sce.stats import bootstrap_interval, faithfulness, faithfulness_interval


def curves(
    conditions: Sequence[Condition],
    answers: Mapping[Heads, Answers],
    known: Mapping[Heads, np.ndarray] | None,
    *,
    seed: int,
) -> list[Row]:
    """F1 and answer NLL over k for every name and kind, draws averaged example by example.

    `cpr` and `cmd` are the areas of sce.stats.faithfulness over k from 0, where nothing is ablated,
    to the largest, of F1: a set that retrieval hangs on has a low cpr and a high cmd. Intervals
    are over examples; `draws` holds every draw's own mean F1.
    """
    found = []
    for name in dict.fromkeys(c.name for c in conditions):
        for kind in (HEADS, LAYER_MATCHED, UNIFORM):
            own = [c for c in conditions if (c.name, c.kind) == (name, kind)]
            if own:
                ks = sorted({c.k for c in own})
                sets = [[c.heads for c in own if c.k == k] for k in ks]
                curve: Row = {"name": name, "kind": kind, "k": ks}
                found.append(curve | _curve(ks, sets, answers, known, seed=seed))
    return found


def _curve(
    ks: Sequence[int],
    sets: Sequence[Sequence[Heads]],
    answers: Mapping[Heads, Answers],
    known: Mapping[Heads, np.ndarray] | None,
    *,
    seed: int,
) -> Row:
    """One curve; `sets` holds the draws of each k."""
    before = answers[frozenset()]
    f1 = [np.mean([answers[heads].f1 for heads in drawn], axis=0) for drawn in sets]
    curve: Row = {"n": len(before.ids)} | _points("f1", f1, seed=seed)
    curve["draws"] = [[float(answers[heads].f1.mean()) for heads in drawn] for drawn in sets]
    nll = [np.mean([answers[heads].nll for heads in drawn], axis=0) for drawn in sets]
    curve |= _lists([answer_nll(values, before.num_labels, seed=seed) for values in nll])
    if known is not None:
        shares = [np.mean([known[heads] for heads in drawn], axis=0) for drawn in sets]
        curve |= _points("closed_book", shares, seed=seed) | {"closed_book_n": len(shares[0])}
    return curve | _areas([0, *ks], np.stack([before.f1, *f1]), seed=seed)


def _points(name: str, per_k: Sequence[np.ndarray], *, seed: int) -> Row:
    """Means over examples and intervals, a list over k each."""
    means = [float(values.mean()) if len(values) else None for values in per_k]
    intervals = [bootstrap_interval(values, seed=seed) for values in per_k]
    return _lists([estimate(name, *both) for both in zip(means, intervals, strict=True)])


def _lists(points: Sequence[Row]) -> Row:
    return {key: [point[key] for point in points] for key in points[0]}


def _areas(ks: Sequence[int], f1: np.ndarray, *, seed: int) -> Row:
    """CPR and CMD of F1 over k with intervals; `f1` is [k, examples], the baseline first."""
    whole = faithfulness(ks, f1.mean(axis=1), float(f1[0].mean()))
    intervals = faithfulness_interval(ks, f1, f1[0], seed=seed)
    areas: Row = {}
    for name in ("cpr", "cmd"):
        interval = intervals[name]
        areas |= {name: getattr(whole, name)}
        areas |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return areas
