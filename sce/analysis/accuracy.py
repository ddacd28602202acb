"""Do heads go with accuracy over settings, and do they say more than validation loss?

A setting is a point: the mean of its seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sce.analysis.findings import NOTHING, Predictor, Question, Rho, RhoOver, Task
from sce.analysis.parts import PREDICTORS, Curve, Run, Setting
from sce.stats import Estimate, Prediction, compare_predictors, error_ratio
from sce.stats.permutation import holm
from sce.stats.scrutiny import by_family, reliability, rho_given
from sce.stats.settings import correlate_settings, rho_difference, rho_of_settings

SEED = 0
NUM_RESAMPLES_OVER = 500
"""Of a curve's bounds, which are there to be looked at."""
OVER = ("recall", "recall_learned", "precision", "jaccard")
SYNTHETIC = ("synthetic", "limited", "mixture")
LOSS = "validation loss"
FEATURES = {
    **{name: (name,) for name in ("recall", "recall_learned", "cosine", "cosine_learned")},
    "recall learned and cosine learned": ("recall_learned", "cosine_learned"),
    LOSS: ("answer_nll",),
}
"""Predictor -> measures it is fitted on."""
QUESTIONS = (
    ("Does recall learned say more of F1 than recall?", "recall_learned", "recall"),
    ("Does cosine learned say more of F1 than cosine?", "cosine_learned", "cosine"),
    ("Do heads (recall learned) say more of F1 than validation loss?", *("recall_learned", LOSS)),
    ("Do heads (cosine learned) say more of F1 than validation loss?", *("cosine_learned", LOSS)),
)


@dataclass(frozen=True)
class _Points:
    """Runs that are points, of one task or of several."""

    task: str | None
    points: str
    runs: Sequence[Run]

    @property
    def settings(self) -> list[tuple[str, str]]:
        """A setting is one of its task."""
        return [(run.task, run.setting) for run in self.runs]

    @property
    def families(self) -> list[str]:
        return [family(run) for run in self.runs]

    @property
    def tasks(self) -> list[str]:
        return [run.task for run in self.runs]

    def values(self, of: str) -> list[float | None]:
        """A measure of each run's last checkpoint."""
        return [_measure(run, of) for run in self.runs]

    def rising(self, of: str) -> list[float | None]:
        """Likewise, with the sign of a loss turned: what should rise with F1."""
        if of != LOSS:
            return self.values(of)
        return [None if value is None else -value for value in self.values("answer_nll")]


def correlations(tasks: Sequence[Task]) -> list[Rho]:
    """Rho of every measure with F1: by task and pooled, with and without real and untuned."""
    found = []
    for points in _all_points(tasks):
        f1 = points.values("f1")
        for measure in PREDICTORS:
            x = points.values(measure)
            if all(value is None for value in x):
                continue
            runs = sum(a is not None and b is not None for a, b in zip(x, f1, strict=True))
            for without in (False, True) if points.task is None else (False,):
                of = points.tasks if points.task is None else None
                rho = correlate_settings(
                    x, f1, points.settings, seed=SEED, tasks=of, centred=without
                )
                plain = Rho(measure, points.task, without, points.points, rho, runs)
                found.append(plain if points.task is None else _scrutinised(plain, points))
    return _corrected(found)


def _scrutinised(rho: Rho, points: _Points) -> Rho:
    """With what a task's correlation may owe to alike settings, to loss and to noise."""
    x, f1, settings = points.values(rho.measure), points.values("f1"), points.settings
    return replace(
        rho,
        families=by_family(x, f1, settings, points.families, seed=SEED),
        given_loss=rho_given(x, f1, points.values("answer_nll"), settings, seed=SEED),
        reliability=reliability(x, settings, seed=SEED),
    )


def _corrected(rhos: Sequence[Rho]) -> list[Rho]:
    """With p values that hold for all measures of the same points together."""
    found = list(rhos)
    keys = [(rho.task, rho.points, rho.without_task_means) for rho in rhos]
    for key in set(keys):
        own = [place for place, each in enumerate(keys) if each == key]
        for place, p in zip(own, holm([rhos[o].found.p_value for o in own]), strict=True):
            found[place] = replace(found[place], p_holm=p)
    return found


def rho_over(tasks: Sequence[Task], by: str) -> list[RhoOver]:
    """Rho with F1 at every threshold ("tau") or size of the sets ("k"), by task."""
    found = []
    for points in _all_points(tasks):
        curves = [run.curve(by) for run in points.runs]
        if points.task is None or any(curve is None for curve in curves) or not curves:
            continue
        at = list(curves[0].at) if curves[0] else []
        f1 = points.values("f1")
        for measure in OVER:
            each = [
                rho_of_settings(
                    [_at(curve, measure, index) for curve in curves],
                    f1,
                    points.settings,
                    seed=SEED,
                    num_resamples=NUM_RESAMPLES_OVER,
                )
                for index in range(len(at))
            ]
            found.append(
                RhoOver(
                    task=points.task,
                    points=points.points,
                    measure=measure,
                    by=by,
                    at=at,
                    rho=[e.value for e in each],
                    low=[e.low for e in each],
                    high=[e.high for e in each],
                    n=[e.n for e in each],
                )
            )
    return found


def questions(tasks: Sequence[Task]) -> list[Question]:
    """Does one measure say more of F1 than another, by rho and by prediction.

    A measure of heads should rise with F1 and a loss fall: rho of the other sign says less than
    none. Pooled, the tasks' means are taken out first.
    """
    found = []
    errors = {task.task: _errors(task) for task in tasks}
    for points in _all_points(tasks):
        f1 = points.values("f1")
        for asked, first, second in QUESTIONS:
            pair = [points.values(first), points.rising(second)]
            gap = rho_difference(
                pair[0],
                pair[1],
                f1,
                points.settings,
                seed=SEED,
                tasks=points.tasks if points.task is None else None,
            )
            if gap.value is None:
                continue
            known = errors.get(points.task or "", {})
            one, other = known.get(first), known.get(second)
            ratio = NOTHING
            if one is not None and other is not None and points.points == "synthetic":
                ratio = error_ratio(one, other, seed=SEED)
            names = (first, "answer_nll" if second == LOSS else second)
            found.append(Question(asked, points.task, points.points, *names, gap, ratio))
    return found


def predictors(tasks: Sequence[Task]) -> list[Predictor]:
    """Leave-one-setting-out prediction of F1 by heads and by validation loss, by task."""
    found = []
    for task in tasks:
        errors, by_families = _errors(task), _errors(task, by_family=True)
        num_runs = len(points_of(task, "synthetic"))
        loss = errors.get(LOSS)
        for name, prediction in errors.items():
            if prediction is None:
                continue
            cells = prediction.num_cells
            ratio = Estimate(prediction.ratio, prediction.ratio_low, prediction.ratio_high, cells)
            against = Estimate(None, None, None, cells)
            if loss is not None and name != LOSS:
                against = error_ratio(prediction, loss, seed=SEED)
            found.append(
                Predictor(
                    task=task.task,
                    name=name,
                    features=prediction.features,
                    mae=prediction.mae,
                    mean_only_mae=prediction.mean_only_mae,
                    ratio=ratio,
                    num_runs=num_runs,
                    ratio_to_loss=against,
                    ratio_by_family=_ratio_of(by_families.get(name)),
                )
            )
    return found


def points_of(task: Task, points: str) -> list[Run]:
    """Runs of a task that are points: "all", or "synthetic" ones: not real data, however little."""
    kinds = SYNTHETIC if points == "synthetic" else (*SYNTHETIC, "real", "untuned")
    found = [run for run in task.runs if run.is_point and run.kind in kinds]
    if points == "synthetic":
        found = [run for run in found if not run.concept == run.context == "real"]
    return found


def family(run: Run) -> str:
    """How a setting's needles are worded, which others may share; mixtures are one of their own."""
    if run.kind in ("mixture", "untuned"):
        return run.kind
    return "real" if run.kind in ("real", "limited") else run.concept or run.kind


def _errors(task: Task, *, by_family: bool = False) -> dict[str, Prediction | None]:
    """Predictions by name; a measure that most settings lack is none of them."""
    families = {run.setting: family(run) for run in points_of(task, "synthetic")}
    own = [setting for setting in task.settings if setting.setting in families]
    sets = {}
    for name, features in FEATURES.items():
        columns = {feature: [_mean(setting, feature) for setting in own] for feature in features}
        known = [sum(v is not None for v in column) for column in columns.values()]
        if own and 2 * min(known) >= len(own):
            sets[name] = columns
    if not sets:
        return {}
    cells = [families[each.setting] if by_family else each.setting for each in own]
    return compare_predictors(sets, [_mean(each, "f1") for each in own], cells, seed=SEED)


def _ratio_of(found: Prediction | None) -> Estimate:
    if found is None:
        return NOTHING
    return Estimate(found.ratio, found.ratio_low, found.ratio_high, found.num_cells)


def _all_points(tasks: Sequence[Task]) -> list[_Points]:
    """By task, then pooled where several tasks have settings to compare."""
    found = []
    for points in ("synthetic", "all"):
        each = [(task.task, points_of(task, points)) for task in tasks]
        found += [_Points(name, points, runs) for name, runs in each if runs]
        if sum(len({run.setting for run in runs}) > 1 for _, runs in each) > 1:
            found.append(_Points(None, points, [run for _, runs in each for run in runs]))
    return found


def _measure(run: Run, name: str) -> float | None:
    found = run.last.measures.get(name)
    return None if found is None else found.value


def _mean(setting: Setting, name: str) -> float | None:
    found = setting.measures.get(name)
    return None if found is None else found.value


def _at(curve: Curve | None, measure: str, index: int) -> float | None:
    values = curve.measures.get(measure) if curve else None
    value = values[index] if values else None
    return None if value is None or not np.isfinite(value) else value
