"""From what was answered under every condition to numbers with n, interval and test.

Numpy and sce.stats alone. Arrays run over the examples, in one order throughout. A row is a flat
dict fit for a table; a quantity that does not exist is None.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sce.interventions.controls import HEADS, LAYER_MATCHED, UNIFORM, Condition
from sce.interventions.select import NO_HEADS, Heads, named
from sce.stats import bootstrap_interval, bootstrap_ratio, mcnemar, paired_permutation

Row = dict[str, Any]
BASELINE = "none"
"""Kind of the row without an intervention."""


@dataclass(frozen=True)
class Answers:
    """What came out under one condition."""

    ids: tuple[str, ...]
    predictions: tuple[str, ...]
    f1: np.ndarray
    """float64 [examples], 0..1; for citations that of the cited documents."""
    exact_match: np.ndarray
    """float64 [examples], 0 or 1."""
    nll: np.ndarray
    """float64 [examples]: summed over the gold answer's tokens and the end of turn, in nats."""
    num_labels: np.ndarray
    """[examples]: how many tokens that is."""

    def by_id(self) -> Row:
        """Everything, example by example."""
        values = {
            "f1": self.f1,
            "exact_match": self.exact_match,
            "answer_nll": self.nll / self.num_labels,
        }
        per_example = {n: dict(zip(self.ids, v.tolist(), strict=True)) for n, v in values.items()}
        return {**per_example, "prediction": dict(zip(self.ids, self.predictions, strict=True))}


def accuracy(answers: Answers, *, seed: int) -> Row:
    """F1, exact match and answer NLL (mean over tokens, in nats) with 95% bootstrap intervals."""
    row: Row = {"n": len(answers.ids)}
    for name in ("f1", "exact_match"):
        values = getattr(answers, name)
        row |= estimate(name, float(values.mean()), bootstrap_interval(values, seed=seed))
    return row | answer_nll(answers.nll, answers.num_labels, seed=seed)


def answer_nll(nll: np.ndarray, num_labels: np.ndarray, *, seed: int) -> Row:
    """The mean over tokens of all examples, in nats, with its 95% interval over examples."""
    total = float(num_labels.sum())
    mean = float(nll.sum() / total) if total else None
    return estimate("answer_nll", mean, bootstrap_ratio(nll, num_labels, seed=seed))


def estimate(name: str, value: float | None, interval: tuple[float, float] | None) -> Row:
    """A value and its interval, under their names in a row."""
    low, high = interval or (None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def against(before: Answers, after: Answers, *, seed: int) -> Row:
    """After less before on the same examples: F1 by a permutation test, exact match by McNemar's.

    `exact_match_lost` counts examples that were right before and wrong after, `_gained` the others.
    p values are of single tests, two-sided, not corrected for how many there are.
    """
    f1 = paired_permutation(before.f1, after.f1, seed=seed)
    exact = mcnemar(before.exact_match, after.exact_match)
    return {
        "f1_change": f1.difference,
        "f1_change_low": f1.low,
        "f1_change_high": f1.high,
        "f1_p": f1.p_value,
        "exact_match_lost": exact.b,
        "exact_match_gained": exact.c,
        "exact_match_p": exact.p_value,
    }


def rows(
    conditions: Sequence[Condition],
    answers: Mapping[Heads, Answers],
    known: Mapping[Heads, np.ndarray] | None,
    *,
    seed: int,
) -> list[Row]:
    """One row a condition, the first of them without an intervention.

    Args:
        conditions: the sets.
        answers: what was answered, by set; the empty set is no intervention.
        known: by set, which of the closed-book questions are still answered right (0 or 1, of those
            that are without an intervention); None: they were not asked.
        seed: of every draw.
    """
    before = answers[NO_HEADS]
    table = []
    for condition in (Condition("no ablation", BASELINE, NO_HEADS), *conditions):
        after = answers[condition.heads]
        row: Row = {"name": condition.name, "kind": condition.kind, "k": condition.k}
        row |= {"draw": condition.draw} | accuracy(after, seed=seed)
        if condition.kind != BASELINE:
            row |= against(before, after, seed=seed)
        if known is not None:
            row |= share_known(known[condition.heads], seed=seed)
        table.append(row)
    return table


def share_known(still_right: np.ndarray, *, seed: int) -> Row:
    """How many are right still, of the closed-book questions right without an intervention."""
    value = float(still_right.mean()) if len(still_right) else None
    interval = bootstrap_interval(still_right, seed=seed)
    return estimate("closed_book", value, interval) | {"closed_book_n": len(still_right)}


def contrasts(
    conditions: Sequence[Condition], answers: Mapping[Heads, Answers], *, seed: int
) -> list[Row]:
    """Every set against its random controls of the same size, kind by kind.

    Differences are the set's accuracy less the mean over the draws, example by example. That mean
    is not 0 or 1 for exact match, so it has a permutation test there too, and McNemar's test is
    given draw by draw.
    """
    found = []
    for chosen in (c for c in conditions if c.kind == HEADS):
        for kind in (LAYER_MATCHED, UNIFORM):
            of_chosen = (chosen.name, kind, chosen.k)
            drawn = [c for c in conditions if (c.name, c.kind, c.k) == of_chosen]
            if drawn:
                found.append(_contrast(chosen, drawn, answers, seed=seed) | {"control": kind})
    return found


def _contrast(
    chosen: Condition,
    drawn: Sequence[Condition],
    answers: Mapping[Heads, Answers],
    *,
    seed: int,
) -> Row:
    after = answers[chosen.heads]
    row: Row = {"name": chosen.name, "k": chosen.k, "num_draws": len(drawn), "n": len(after.ids)}
    for measure in ("f1", "exact_match"):
        mean = np.mean([getattr(answers[c.heads], measure) for c in drawn], axis=0)
        test = paired_permutation(mean, getattr(after, measure), seed=seed)
        row[f"{measure}_control"] = float(mean.mean())
        row |= {f"{measure}_{key}": value for key, value in asdict(test).items() if key != "n"}
    row["exact_match_by_draw"] = [
        asdict(mcnemar(answers[c.heads].exact_match, after.exact_match)) for c in drawn
    ]
    return row


def sets(conditions: Sequence[Condition], answers: Mapping[Heads, Answers]) -> list[Row]:
    """Which heads every set holds, and what was answered with it, example by example."""
    return [
        {
            "name": c.name,
            "kind": c.kind,
            "k": c.k,
            "draw": c.draw,
            "heads": named(c.heads),
            "moved_layers": [list(pair) for pair in c.moved],
            "per_example": answers[c.heads].by_id(),
        }
        for c in conditions
    ]
