"""What two kinds of data have of the reference's heads between them.

By this recall alone would choose what to mix. That a mixture learns the heads of both of its parts
is an assumption: mixtures among the runs show whether it holds.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from sce.analysis.parts import HeadSetOf, Pair, Setting
from sce.stats import head_set
from sce.stats.sets import precision, recall, recall_learned, recall_null_layer

KINDS = ("synthetic", "limited")
"""Of settings that are paired: one kind of data each, and not plainly real."""


def pairs(
    settings: Sequence[Setting],
    reference: HeadSetOf | None,
    untuned: HeadSetOf | None,
    tau: float,
) -> list[Pair]:
    """Every two settings and the heads that either has, best recall first.

    Equals come in the order of the two settings' mean recall, then of their mean cosine. None
    without a reference.
    """
    if reference is None:
        return []
    r = head_set(reference.scores, tau)
    b = None if untuned is None else head_set(untuned.scores, tau)
    own = [(each, head_set(each.scores, tau)) for each in settings if each.kind in KINDS]
    found = []
    for (one, first), (other, second) in combinations(own, 2):
        either = first | second
        found.append(
            Pair(
                first=one.setting,
                second=other.setting,
                recall=recall(either, r),
                recall_learned=None if b is None else recall_learned(either, r, b),
                precision=precision(either, r),
                recall_null_layer=recall_null_layer(either, r),
                num_heads=int(either.sum()),
                mean_recall=_mean(one, other, "recall"),
                mean_cosine=_mean(one, other, "cosine"),
            )
        )
    return sorted(found, key=_rank)


def _mean(one: Setting, other: Setting, measure: str) -> float | None:
    values = [each.measures[measure].value for each in (one, other) if measure in each.measures]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == 2 else None


def _rank(pair: Pair) -> tuple[float, ...]:
    values = pair.recall, pair.mean_recall, pair.mean_cosine
    return tuple(np.inf if value is None else -value for value in values)
