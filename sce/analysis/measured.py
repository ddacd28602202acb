"""One run beside its reference: every measure at every step, with its bounds over examples.

Bounds are those that the run recorded where it was compared with this very reference then, which
shows in its figures; else they are drawn anew from the scores of single examples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sce.analysis.groups import Member
from sce.analysis.parts import ACCURACY, MEASURES, Checkpoint, Curve, Heads, Numbers, Run
from sce.analysis.references import References, Target
from sce.analysis.resample import Resampled, Resampler, resampled
from sce.records import HeadScores
from sce.stats import Estimate, head_set, recall_curves
from sce.stats.nulls import layer_nulls, layer_nulls_over
from sce.stats.stacks import (
    CompareWith,
    Values,
    bounds,
    column_bounds,
    sets_above,
)

_BESIDE = (
    *("recall_null", "recall_null_layer", "recall_base", "cosine_base"),
    *("num_heads", "num_reference_heads"),
)
_RECORDED = ("greedy_recall", "greedy_cosine")
_SAME = ("recall", "cosine", "cosine_learned", "num_reference_heads")
"""What agrees with the records where the reference is the one the run had."""
_ROUNDING = 1e-5  # records hold single precision


@dataclass(frozen=True)
class Plan:
    """What all runs of a task are measured by."""

    tau: float
    k: int
    taus: Sequence[float]
    ks: Sequence[int]
    draw_all: bool
    """Whether steps before the last get bounds drawn anew too."""


@dataclass(frozen=True)
class Measured:
    """A run's figures, and what only other figures need."""

    run: Run
    nulls: Mapping[str, float | None]
    """MEASURES -> chance, of the last step."""
    set_draws: np.ndarray | None
    """S in every resample of the examples, bool [resamples, layers, heads]; None: not at hand."""
    num_examples: int


@dataclass
class _Beside:
    """R and B of a run, and its own scores drawn together with them."""

    member: Member
    target: Target
    base: HeadScores | None
    resampler: Resampler
    _last: Resampled | None = None

    def drawn(self, step: int) -> Resampled | None:
        """Resamples of a step; None where single examples are not at hand."""
        if step == self.member.steps[-1] and self._last is not None:
            return self._last
        found = self.resampler.of(self.member, step, self.target, self.base)
        if step == self.member.steps[-1]:
            self._last = found
        return found


def measured(member: Member, found: References, resampler: Resampler, plan: Plan) -> Measured:
    """All that is to be known of one run.

    Args:
        member: the run.
        found: its task's reference.
        resampler: of its task; its untuned model is that of a run without a step 0.
        plan: thresholds and grids.
    """
    target = found.of(member)
    base = member.base or resampler.untuned
    sides = None if target is None else _Beside(member, target, base, resampler)
    checkpoints = _checkpoints(member, sides, plan)
    scores = member.last.scores
    s = head_set(scores, plan.tau)
    b = None if base is None else head_set(base.scores, plan.tau)
    over_tau = over_k = set_draws = None
    nulls: dict[str, float | None] = dict.fromkeys(MEASURES)
    means = _own_draws(member, sides)
    if means is not None:
        set_draws = sets_above(means, plan.tau)
    if sides is not None:
        r, mean_b = sides.target.scores, None if base is None else base.scores
        nulls = layer_nulls(scores, r, mean_b, tau=plan.tau, k=plan.k)
        over_tau, over_k = _curves(sides, plan)
    files, row = member.files, member.row
    run = Run(
        name=member.name,
        folder=files.shown,
        task=member.task,
        setting=member.setting,
        kind=member.kind,
        seed=member.seed,
        concept=row.get("concept"),
        context=row.get("context"),
        mix=row.get("mix"),
        num_train=row.get("num_train"),
        is_point=found.is_point(member),
        in_reference=found.took_part(member),
        compared_with=None if target is None else target.words,
        checkpoints=checkpoints,
        scores=scores,
        heads=heads_of(s),
        gained=heads_of(s & ~b) if b is not None else [],
        lost=heads_of(b & ~s) if b is not None else [],
        over_tau=over_tau,
        over_k=over_k,
        warnings=[str(each) for each in row.get("warnings") or []],
    )
    return Measured(run, nulls, set_draws, member.last.num_examples)


def heads_of(chosen: np.ndarray) -> Heads:
    """The heads of a set, in order."""
    return [(int(layer), int(head)) for layer, head in np.argwhere(chosen)]


def _own_draws(member: Member, sides: _Beside | None) -> np.ndarray | None:
    """S of every resample of the last step, [resamples, layers, heads]."""
    if sides is not None:
        drawn = sides.drawn(member.steps[-1])
        return None if drawn is None else drawn.s
    rows = member.files.per_example(member.steps[-1])
    return None if rows is None else resampled(rows)


def _checkpoints(member: Member, sides: _Beside | None, plan: Plan) -> list[Checkpoint]:
    values: Values = {}
    if sides is not None:
        stack = np.stack([member.scores(step).scores for step in member.steps])
        b = None if sides.base is None else sides.base.scores[None]
        compare = CompareWith(sides.target.scores[None], b, tau=plan.tau, k=plan.k)
        values = compare(stack)
    found = []
    for index, step in enumerate(member.steps):
        own = {name: column[index : index + 1] for name, column in values.items()}
        drawn = plan.draw_all or step == member.steps[-1]
        found.append(_checkpoint(member, step, own, sides if drawn else None, plan))
    return found


def _checkpoint(
    member: Member, step: int, values: Values, sides: _Beside | None, plan: Plan
) -> Checkpoint:
    """`values` are a number each; `sides` None: nothing is drawn anew."""
    row, scores = member.files.rows[step], member.scores(step)
    recorded = _is_recorded(row, values, plan)
    limits: Mapping[str, Any] = {}
    if recorded:
        limits = {name: _pair(row, name) for name in values}
    elif sides is not None and values:
        limits = _drawn(step, sides, plan, values)
    measures = {}
    for name in (*MEASURES, *_BESIDE):
        value = _number(values[name][0]) if name in values else None
        if not values and name == "num_heads":
            value = float(head_set(scores.scores, plan.tau).sum())
        low, high = (None if value is None else limits.get(name)) or (None, None)
        measures[name] = Estimate(value, low, high, scores.num_examples)
    for name in _RECORDED:
        if row.get(name) is not None:
            measures[name] = Estimate(row[name], *_bounds_in(row, name), scores.num_examples)
    for name in (*ACCURACY, "answer_nll"):
        if name not in row:
            continue
        limits_of = _bounds_in(row, name)
        n = int(row.get("num_examples") or 0)
        measures[name] = Estimate(_number(row.get(name)), *limits_of, n)
    source = "records" if recorded else "scores" if limits else "none"
    return Checkpoint(step, measures, source)


def _is_recorded(row: Mapping[str, Any], values: Values, plan: Plan) -> bool:
    """Whether the run was compared with this very reference when it wrote its records."""
    if not values or row["tau"] != plan.tau or row["k"] != plan.k:
        return False
    for name in _SAME:
        own = _number(values[name][0]) if name in values else None
        theirs = _number(row.get(name))
        if own is None or theirs is None:
            if own is not theirs:
                return False
        elif abs(own - theirs) > _ROUNDING * max(1, abs(own)):
            return False
    return row.get("recall_low") is not None


def _drawn(
    step: int, sides: _Beside, plan: Plan, values: Values
) -> dict[str, tuple[float, float] | None]:
    """Bounds over resampled examples, R and B drawn with them where they are of the same ones."""
    drawn = sides.drawn(step)
    if drawn is None:
        return {}
    found = sides.resampler.compared(drawn, plan.tau, plan.k)
    return bounds(found, values) | dict.fromkeys(drawn.undrawn)


def _curves(sides: _Beside, plan: Plan) -> tuple[Curve, Curve]:
    """Overlap over tau and over k at the last step, shares with their bounds."""
    b = None if sides.base is None else sides.base.scores
    member = sides.member
    found = recall_curves(member.last.scores, sides.target.scores, b, taus=plan.taus, ks=plan.ks)
    drawn = sides.drawn(member.steps[-1])
    curves = []
    for at, columns, by in ((plan.taus, found.by_tau, "tau"), (plan.ks, found.by_k, "k")):
        own: dict[str, Numbers]
        own = {n: values for n, values in columns.items() if not n.endswith(("_low", "_high"))}
        maps = member.last.scores, sides.target.scores, b
        dealt = layer_nulls_over(*maps, at, by=by)
        own |= {f"{name}_null_layer": [*values] for name, values in dealt.items()}
        if drawn is not None:
            for name, draws in sides.resampler.over(drawn, at, by).items():
                own[f"{name}_low"], own[f"{name}_high"] = _columns(draws)
        curves.append(Curve(list(at), own))
    return curves[0], curves[1]


def _columns(draws: np.ndarray) -> list[Numbers]:
    """Low and high of every point of [resamples, points]; None where most do not exist."""
    return [[_number(value) for value in side] for side in column_bounds(draws)]


def _pair(row: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    low, high = _bounds_in(row, name)
    return None if low is None or high is None else (low, high)


def _bounds_in(row: Mapping[str, Any], name: str) -> tuple[float | None, float | None]:
    return _number(row.get(f"{name}_low")), _number(row.get(f"{name}_high"))


def _number(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
