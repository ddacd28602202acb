"""Do heads go with accuracy over settings, and do they say more than validation loss?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sce.analysis.findings import Predictor, Question, Rho, RhoOverTau, Task
from sce.analysis.parts import PREDICTORS, Run
from sce.stats import Estimate, Prediction, compare_predictors, error_ratio
from sce.stats.settings import correlate_settings, rho_difference, rho_of_settings

SEED = 0
NUM_RESAMPLES_OVER_TAU = 500
OVER_TAU = ("recall", "recall_learned", "precision", "jaccard")
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

Value = Callable[[Run], float | None]


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
                found.append(Rho(measure, points.task, without, points.points, rho, runs))
    return found


def over_tau(tasks: Sequence[Task]) -> list[RhoOverTau]:
    """Rho with F1 at every threshold, by task."""
    found = []
    for points in _all_points(tasks):
        curves = [run.over_tau for run in points.runs]
        if points.task is None or any(curve is None for curve in curves) or not curves:
            continue
        taus = list(curves[0].at) if curves[0] else []
        f1 = points.values("f1")
        for measure in OVER_TAU:
            each = [
                rho_of_settings(
                    [_at(run, measure, index) for run in points.runs],
                    f1,
                    points.settings,
                    seed=SEED,
                    num_resamples=NUM_RESAMPLES_OVER_TAU,
                )
                for index in range(len(taus))
            ]
            found.append(
                RhoOverTau(
                    task=points.task,
                    points=points.points,
                    measure=measure,
                    taus=taus,
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
            ratio = Estimate(None, None, None, 0)
            if one is not None and other is not None and points.points == "synthetic":
                ratio = error_ratio(one, other, seed=SEED)
            names = (first, "answer_nll" if second == LOSS else second)
            found.append(Question(asked, points.task, points.points, *names, gap, ratio))
    return found


def predictors(tasks: Sequence[Task]) -> list[Predictor]:
    """Leave-one-setting-out prediction of F1 by heads and by validation loss, by task."""
    found = []
    for task in tasks:
        errors = _errors(task)
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
                    num_runs=prediction.n,
                    ratio_to_loss=against,
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


def _errors(task: Task) -> dict[str, Prediction | None]:
    """Predictions by name; a measure that most runs lack is none of them."""
    runs = points_of(task, "synthetic")
    sets = {}
    for name, features in FEATURES.items():
        columns = {feature: [_measure(run, feature) for run in runs] for feature in features}
        known = [sum(v is not None for v in column) for column in columns.values()]
        if runs and 2 * min(known) >= len(runs):
            sets[name] = columns
    if not sets:
        return {}
    f1, cells = [_measure(run, "f1") for run in runs], [run.setting for run in runs]
    return compare_predictors(sets, f1, cells, seed=SEED)


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


def _at(run: Run, measure: str, index: int) -> float | None:
    values = run.over_tau.measures.get(measure) if run.over_tau else None
    value = values[index] if values else None
    return None if value is None or not np.isfinite(value) else value
