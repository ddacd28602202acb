"""The findings of a group in sentences, each with its numbers."""

from collections.abc import Sequence

from sce.analysis.findings import Choice, Predictor, Question, Rho, RhoOver, Task
from sce.analysis.parts import LABELS
from sce.stats import Correlation, Estimate

MAIN = ("recall", "recall_learned")
"""Measures whose rho is told in words; the tables have all."""
TOLD = ("recall_learned", "recall learned and cosine learned", "validation loss")
"""Predictors that are told in words."""
CHOOSING = ("recall", "answer_nll")
"""Measures whose choices are told in words."""
REPEATED = {"recall": "recall", "cosine": "cosine", "answer_nll": "validation loss"}
"""Measures whose reliability is told in words -> what they are called there."""
OTHER = "synthetic, limited and mixed settings"
POOLED = "all tasks pooled, each task's mean taken out"


def answers(
    tasks: Sequence[Task],
    correlations: Sequence[Rho],
    questions: Sequence[Question],
    predictors: Sequence[Predictor],
    choices: Sequence[Choice] = (),
    rho_over: Sequence[RhoOver] = (),
) -> list[str]:
    """Rho of recall and F1 first, by task; then what else was asked, then ceiling and chance."""
    over = [c for c in rho_over if (c.measure, c.points) == (MAIN[0], "synthetic")]
    pooled = [None] if any(rho.task is None for rho in correlations) else []
    found = []
    for name in (*(task.task for task in tasks), *pooled):
        own = [rho for rho in correlations if rho.task == name and rho.is_told]
        for measure in MAIN:
            pair = {rho.points: rho for rho in own if rho.measure == measure}
            if sentence := _of_rho(name, measure, pair):
                found.append(sentence)
            if measure == MAIN[0] and (shown := pair.get("synthetic")):
                others = {rho.measure: rho for rho in own if rho.points == shown.points}
                found += _scrutinised(shown, others)
        found += [_of_curve(each) for each in over if each.task == name and each.ends]
        found += [_of_question(q) for q in questions if (q.task, q.points) == (name, "synthetic")]
    found += [_of_predictor(p) for p in predictors if p.name in TOLD]
    found += [_of_choice(c) for c in choices if c.measure in CHOOSING]
    return [*found, *(line for task in tasks for line in _of_ceiling(task))]


def estimate(found: Estimate, digits: int = 2) -> str:
    """0.41 [0.30, 0.52], without bounds where there are none; a dash for nothing."""
    if found.value is None:
        return "-"
    text = f"{found.value:.{digits}f}"
    if found.low is None or found.high is None:
        return text
    return f"{text} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def _of_rho(task: str | None, measure: str, pair: dict[str, Rho]) -> str | None:
    own, every = pair.get("synthetic"), pair.get("all")
    where = task or POOLED
    shown = own if own is not None and own.found.spearman is not None else every
    if shown is None or shown.found.spearman is None:
        if measure != "recall" or own is None:
            return None
        return f"{where}: no correlation of recall with F1 over n = {own.found.n} {OTHER}."
    found = shown.found
    verb = "goes with F1" if shown.found.spearman > 0 else "goes against F1"
    if found.p_value is not None:
        verb += " beyond chance" if found.p_value < 0.05 else ", if at all, by no more than chance"
    text = f"{where}: {LABELS[measure]} {verb}: {_rho(shown)}"
    if found.smallest_detectable is not None:
        text += f"; |rho| below {found.smallest_detectable:.2f} could not have been shown"
    elif found.p_value is not None:
        text += "; no rho could have been shown with so few settings"
    if own is shown and every is not None and every.found.spearman is not None:
        text += f". All points, untuned and real ones too: {_rho(every)}"
    return text + "."


def _rho(rho: Rho) -> str:
    found = rho.found
    if found.spearman is None:
        return f"no rho (n = {found.n})"
    of = Estimate(found.spearman, found.spearman_low, found.spearman_high, found.n)
    p = "" if found.p_value is None else f", p = {found.p_value:.2g}"
    kind = OTHER if rho.points == "synthetic" else "settings"
    return f"rho {estimate(of)}{p}, n = {found.n} {kind} ({rho.num_runs} runs)"


def _scrutinised(rho: Rho, others: dict[str, Rho]) -> list[str]:
    """What a task's rho may owe to families of settings, to validation loss and to noise."""
    where, found = rho.task or POOLED, []
    if (parts := rho.families) is not None and parts.between.spearman is not None:
        text = (
            f"{where}: settings whose needles are worded alike are not independent: between their "
            f"{parts.between.n} families rho of {rho.measure} is {_plain(parts.between)}"
        )
        if parts.within.spearman is not None:
            text += f"; within them {_plain(parts.within)}, n = {parts.within.n}"
        found.append(f"{text}.")
    if rho.given_loss.low is not None:
        found.append(
            f"{where}: given validation loss, rho of {rho.measure} with F1 is "
            f"{estimate(rho.given_loss)}, n = {rho.given_loss.n}."
        )
    repeats = [
        f"{name} {estimate(others[measure].reliability)} (n = {others[measure].reliability.n})"
        for measure, name in REPEATED.items()
        if measure in others and others[measure].reliability.value is not None
    ]
    if repeats:
        found.append(
            f"{where}: reliability over seeds, 1 where other seeds would give settings the same "
            f"values: {', '.join(repeats)}; n settings with two seeds or more."
        )
    return found


def _plain(found: Correlation) -> str:
    p = "" if found.p_value is None else f", p = {found.p_value:.2g}"
    return f"{found.spearman:.2f}{p}"


def _of_curve(found: RhoOver) -> str:
    low, high = found.ends or (0.0, 0.0)
    known = [at for at, rho in zip(found.at, found.rho, strict=True) if rho is not None]
    return (
        f"{found.task}: with another {found.by}, from {known[0]:g} to {known[-1]:g}, rho of recall "
        f"is anything from {low:.2f} to {high:.2f}."
    )


def _of_question(question: Question) -> str:
    gap = question.rho_difference
    where = question.task or POOLED
    text = f"{where}: {question.asked} "
    if gap.low is None or gap.high is None:
        text += "Too few settings to tell"
    elif gap.low == gap.high == 0:
        text += "Cannot be told, as both rank the settings alike"
    else:
        text += "Yes" if gap.low > 0 else "No, less" if gap.high < 0 else "Not shown"
    text += f": rho differs by {estimate(gap)}, n = {gap.n}"
    if question.error_ratio.value is not None:
        text += f"; error of prediction {estimate(question.error_ratio)} of the other's"
    return text + "."


def _of_predictor(found: Predictor) -> str:
    name = LABELS.get(found.name, found.name)
    ratio = found.ratio
    if ratio.low is None or ratio.high is None:
        said = "beside"
    else:
        said = (
            "better than" if ratio.high < 1 else "worse than" if ratio.low > 1 else "no better than"
        )
    verb = "predict" if " and " in name else "predicts"
    return (
        f"{found.task}: {name} {verb} F1 of a setting left out {said} the mean of the others: "
        f"error {found.mae:.3f} against {found.mean_only_mae:.3f}, ratio {estimate(ratio)}, "
        f"n = {ratio.n} settings."
    )


def _of_choice(found: Choice) -> str:
    num = found.right + found.wrong + found.tied
    pairs = f"{num} pairs of {found.num_settings} settings whose F1 differ"
    name = "validation loss" if found.measure == "answer_nll" else LABELS[found.measure]
    return (
        f"{found.task}: of {pairs}, {name} picks the better one in {found.right}, the worse one in "
        f"{found.wrong} and neither in {found.tied}."
    )


def _of_ceiling(task: Task) -> list[str]:
    if task.reference is None:
        return [f"{task.task}: no reference, so no recall."]
    lines = []
    for name in ("recall", "recall_learned"):
        null = task.nulls[name]
        chance = "-" if null.value is None else f"{null.value:.2f}"
        top = task.ceiling.get(name)
        ceiling = "no ceiling" if top is None else f"ceiling {estimate(top)} (n = {top.n})"
        untuned = [s.measures.get(name) for s in task.settings if s.kind == "untuned"]
        before = untuned[0].value if untuned and untuned[0] else None
        beside = "" if before is None else f", untuned model {before:.2f}"
        lines.append(f"{task.task}: {LABELS[name]}: {ceiling}, chance {chance}{beside}.")
    return lines
