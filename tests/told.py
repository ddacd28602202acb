"""What docs/findings.md tells of a study, made anew from the study's records."""

import gzip
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from scipy.stats import norm

from sce.analysis.accuracy import points_of
from sce.analysis.findings import Group, Rho, RhoOver, Task
from sce.analysis.parts import Pair, Run
from sce.metrics import substring_exact_match
from sce.stats import Correlation, Estimate, spearman
from sce.stats.scrutiny import reliability
from sce.stats.settings import correlate_settings

CALLED = {
    "answer_nll": "validation loss",
    "recall_at_k": "recall of the 20 best",
    "spearman": "Spearman of the scores",
}
NEEDLES = ("high", "template", "entity")
NO_REAL_QUESTIONS = ("high", "low_template", "low_entity", "symbolic")
"""Concepts of settings that have no question in common with real data."""


def called(measure: str) -> str:
    return CALLED.get(measure, measure.replace("_", " "))


def estimate(found: Estimate) -> str:
    if found.value is None:
        return ""
    if found.low is None or found.high is None:
        return f"{found.value:.2f}"
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def correlation(found: Correlation) -> str:
    return estimate(Estimate(found.spearman, found.spearman_low, found.spearman_high, found.n))


def short(found: Correlation) -> str:
    return f"{found.spearman:.2f} ({found.p_value:.2g})"


def rhos(group: Group, task: str, points: str = "synthetic") -> dict[str, Rho]:
    own = [rho for rho in group.correlations if (rho.task, rho.points) == (task, points)]
    return {rho.measure: rho for rho in own}


def rho_table(group: Group, task: str) -> str:
    """A line a measure: rho, what it may owe to what, and the error of predicting by it."""
    errors = {each.features: each for each in group.predictors if each.task == task}
    names = "measure,rho with F1,p,p after Holm,between families (p),within (p)"
    names += ",given validation loss,reliability over seeds,error (families left out)"
    lines = [names.split(","), ["---"] * 9]
    for measure, rho in rhos(group, task).items():
        parts, own = rho.families, errors.get((measure,))
        assert parts is not None
        error = "" if own is None else f"{estimate(own.ratio)} ({own.ratio_by_family.value:.2f})"
        lines.append(
            [
                *(called(measure), correlation(rho.found), f"{rho.found.p_value:.2g}"),
                *(f"{rho.p_holm:.2g}", short(parts.between), short(parts.within)),
                *(estimate(rho.given_loss), estimate(rho.reliability), error),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def over(group: Group, task: str, by: str) -> RhoOver:
    (found,) = (
        each
        for each in group.rho_over
        if (each.task, each.measure, each.points, each.by) == (task, "recall", "synthetic", by)
    )
    return found


def over_table(group: Group, task: str, by: str, ends: tuple[float, float]) -> str:
    """Rho of recall at every threshold or size between the ends: a column each."""
    found = over(group, task, by)
    pairs = [
        (at, rho)
        for at, rho in zip(found.at, found.rho, strict=True)
        if ends[0] <= at <= ends[1] and rho is not None
    ]
    lines = [
        [by, *(f"{at:.2g}" for at, _ in pairs)],
        ["---"] * (len(pairs) + 1),
        ["rho", *(f"{rho:.2f}" for _, rho in pairs)],
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def among(task: Task, measure: str, keep: Callable[[Run], bool]) -> Correlation:
    """Rho of some runs' settings."""
    runs = [run for run in points_of(task, "synthetic") if keep(run)]
    values = [[run.last.measures[name].value for run in runs] for name in (measure, "f1")]
    return correlate_settings(*values, [run.setting for run in runs], seed=0)


def has_no_real_question(run: Run) -> bool:
    """Neither as it is nor with its entities renamed, as low_entity in real documents has them."""
    renamed = (run.concept, run.context) == ("low_entity", "real")
    return run.setting.startswith("mix-high") or (run.concept in NO_REAL_QUESTIONS and not renamed)


def coarse(task: Task) -> str:
    """How many values recall has over settings, and what it counts."""
    runs = points_of(task, "synthetic")
    values = [[run.last.measures[name].value for run in runs] for name in ("recall", "num_heads")]
    names = {run.setting for run in runs}
    own = [s.measures for s in task.settings if s.setting in names]
    precision = [measures["precision"].value for measures in own]
    kinds = {round(measures["recall"].value, 9) for measures in own}
    assert task.reference is not None and task.untuned is not None
    before = set(task.reference.heads) & set(task.untuned.heads)
    assert all(before <= set(run.heads) for run in runs)
    return (
        f"{len(kinds)} different values over {len(own)} settings. Over runs its rho with the "
        f"number of heads above tau is {spearman(*values):.2f}, and of these heads "
        f"{min(precision):.2f} to {max(precision):.2f} are the reference's: settings differ in how "
        f"many scores exceed 0.1, hardly in which. All tuned models keep the {len(before)} "
        "reference heads that the untuned model has"
    )


def picks(group: Group) -> str:
    """How often measures pick the better of two settings."""
    own = {choice.measure: choice for choice in group.choices}
    recall, cosine, loss = (own[name] for name in ("recall", "cosine", "answer_nll"))
    return (
        f"Of {recall.right + recall.wrong + recall.tied} pairs of kinds whose F1 differ, recall "
        f"picks the better one in {recall.right} and the worse one in {recall.wrong}, cosine in "
        f"{cosine.right} and {cosine.wrong}, validation loss in {loss.right} and {loss.wrong}"
    )


def noise(group: Group, task: Task) -> str:
    """As what a true rho of 0.6 would be seen, and how often it would be found."""
    own = rhos(group, task.task)["recall"]
    runs = points_of(task, "synthetic")
    f1 = [run.last.measures["f1"].value for run in runs]
    other = reliability(f1, [run.setting for run in runs], seed=0).value
    found = own.reliability
    assert None not in (found.value, found.low, found.high, other)
    seen, low, high = (0.6 * (each * other) ** 0.5 for each in (found.value, found.low, found.high))
    spread = (1.06 / (own.found.n - 3)) ** 0.5  # of Fisher's z of a Spearman
    power = norm.sf(norm.isf(0.025) - math.atanh(seen) / spread)
    return (
        f"a true rho of 0.6 would be seen as about {seen:.1f} [{low:.1f}, {high:.1f}], which is "
        f"found in {power:.0%} of such studies"
    )


def against_loss(group: Group, task: str) -> str:
    """How much less measures of what was learned say than validation loss."""
    own = [
        q
        for q in group.questions
        if (q.task, q.points, q.second) == (task, "synthetic", "answer_nll")
    ]
    recall, cosine = (
        next(q for q in own if q.first == f"{n}_learned") for n in ("recall", "cosine")
    )
    less, hardly = (
        f"{-gap.value:.2f} [{-gap.high:.2f}, {-gap.low:.2f}]"
        for gap in (recall.rho_difference, cosine.rho_difference)
    )
    return (
        f"its rho is {less} lower; of cosine learned, {hardly}, that is not shown. In predicting "
        f"F1 its error is {estimate(recall.error_ratio)} times that of loss."
    )


def listed(found: Sequence[Correlation], names: Sequence[str]) -> str:
    """recall 0.37 (p = 0.21), cosine 0.69 (p = 0.01)."""
    return ", ".join(
        f"{name} {each.spearman:.2f} (p = {each.p_value:.2g})"
        for name, each in zip(names, found, strict=True)
    )


def words_of_answers(task: Task) -> str:
    """Mean length of answers after plainly real, template and symbolic data."""
    lengths: dict[str, list[int]] = {"real": [], "template-real": [], "symbolic": []}
    for run in task.runs:
        if run.setting in lengths and run.is_point:
            lengths[run.setting] += [len(said.split()) for said in _answers(run).values()]
    return ", ".join(
        f"{sum(own) / len(own):.1f} words after {name}" for name, own in lengths.items()
    )


def found_in_replies(task: Task, measures: Sequence[str], nq_file: Path) -> list[Correlation]:
    """Rho of measures with the share of replies that a right answer stands in."""
    with gzip.open(nq_file, "rt", encoding="utf-8") as lines:
        right = {f"nq-{index}": json.loads(line)["answers"] for index, line in enumerate(lines)}
    runs = points_of(task, "synthetic")
    found = []
    for run in runs:
        said = _answers(run)
        hits = [substring_exact_match(text, right[name]) for name, text in said.items()]
        found.append(sum(hits) / len(hits))
    settings = [run.setting for run in runs]
    return [
        correlate_settings([r.last.measures[name].value for r in runs], found, settings, seed=0)
        for name in measures
    ]


def _answers(run: Run) -> dict[str, str]:
    file = Path(run.folder) / "predictions" / f"step-{run.last.step:06d}.jsonl"
    with file.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return {row["id"]: row["prediction"] for row in rows}


PURE = (
    *(f"{needles}-{context}" for needles in NEEDLES for context in ("real", "high", "low")),
    "symbolic",
)
"""Pure cells whose needles are not real."""


def arms(task: Task) -> dict[str, str]:
    """Kinds of data that were to be tuned on after the grid, by what they were chosen by."""
    own = {each.setting: each.measures for each in task.settings}
    pairs = [pair for pair in task.pairs if {pair.first, pair.second} <= set(PURE)]
    matched = [pair for pair in pairs if "entity-real" not in (pair.first, pair.second)]

    def united(pair: Pair) -> list[float]:
        found = (pair.recall, pair.mean_recall, pair.mean_cosine)
        return [each for each in found if each is not None]

    def loss(pair: Pair) -> float:
        return sum(own[name]["answer_nll"].value or 0.0 for name in (pair.first, pair.second))

    chosen = {
        "recall": max(pairs, key=united),
        "least": min(matched, key=united),
        "loss": min(pairs, key=loss),
    }
    best = max(PURE, key=lambda name: own[name]["f1"].value or 0.0)
    named = {by: f"`{pair.first}` with `{pair.second}`" for by, pair in chosen.items()}
    return named | {"f1": f"`{best}`"}
