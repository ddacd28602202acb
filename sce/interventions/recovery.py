"""How much of the gap between two models patching closes, and what speaks against it.

Numpy and sce.stats alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from sce.interventions.controls import Condition
from sce.interventions.effects import NONE, Answers, Row, accuracy, against
from sce.interventions.select import Heads
from sce.stats import share_recovered


def patch_rows(
    conditions: Sequence[Condition],
    answers: Mapping[Heads, Answers],
    source: Answers,
    *,
    seed: int,
) -> list[Row]:
    """The recipient as it is, as patched with every set, and the model whose outputs are taken.

    `share` is the share of the gap between the two that a patch closes; read `gap` first.
    """
    original = answers[frozenset()]
    table: list[Row] = []
    first: Row = {"name": "original", "kind": NONE, "k": 0, "draw": None}
    table.append(first | accuracy(original, seed=seed))
    for condition in conditions:
        after = answers[condition.heads]
        row: Row = {"name": condition.name, "kind": condition.kind, "k": condition.k}
        row |= {"draw": condition.draw} | accuracy(after, seed=seed)
        row |= against(original, after, seed=seed)
        recovered = asdict(share_recovered(original.f1, after.f1, source.f1, seed=seed))
        table.append(row | {key: value for key, value in recovered.items() if key != "n"})
    last: Row = {"name": "source", "kind": "source", "k": 0, "draw": None}
    last |= accuracy(source, seed=seed) | against(original, source, seed=seed)
    return [*table, last]


def counter_examples(
    conditions: Sequence[Condition], answers: Mapping[Heads, Answers], source: Answers
) -> list[Row]:
    """Examples that speak against patching, set by set, by id.

    Those whose patched answer is worse than the original although the source's own is better; by
    F1. Draws are listed like sets.
    """
    original = answers[frozenset()].f1
    found = []
    for condition in conditions:
        worse = (answers[condition.heads].f1 < original) & (source.f1 > original)
        ids = [source.ids[index] for index in np.flatnonzero(worse)]
        row: Row = {"name": condition.name, "kind": condition.kind, "draw": condition.draw}
        found.append(row | {"num": len(ids), "n": len(original), "ids": ids})
    return found


def worse_than_random(found: Sequence[Row]) -> list[Row]:
    """The contrasts, of `contrasts`, in which the set does worse than its random controls."""
    return [row for row in found if row["f1_difference"] is not None and row["f1_difference"] < 0]
