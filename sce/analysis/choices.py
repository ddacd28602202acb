"""Does a measure pick the better of two kinds of data?

What a choice of data by heads comes down to. Asked of every two settings whose F1 differ beyond the
95% interval of their paired difference over the validation questions; those that do not differ
cannot be told apart by anything. Pairs share their settings, so counts of them have no test.
"""

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from jaxtyping import Float

from sce.analysis.accuracy import points_of
from sce.analysis.findings import Choice, Task
from sce.analysis.parts import Run, Skipped

MEASURES = {
    **dict.fromkeys(("recall", "recall_learned", "cosine", "cosine_learned"), 1),
    "answer_nll": -1,
}
"""Measure -> whether the better data has more or less of it."""
NUM_RESAMPLES = 2000


def choices(tasks: Sequence[Task], skipped: list[Skipped]) -> list[Choice]:
    """Every measure of every task that has two settings with predictions.

    Args:
        tasks: of a group.
        skipped: is added what cannot be read.
    """
    found = []
    for task in tasks:
        answers = _answers(points_of(task, "synthetic"), skipped)
        if len(answers) > 1:
            found += _of_task(task, answers)
    return found


def _of_task(task: Task, answers: dict[str, dict[str, float]]) -> list[Choice]:
    shared = sorted(set.intersection(*(set(own) for own in answers.values())))
    if len(shared) < 2:
        return []
    f1 = np.array([[own[example] for example in shared] for own in answers.values()])
    better = _better(f1)
    settings = {each.setting: each for each in task.settings}
    found = []
    for measure, sign in MEASURES.items():
        known = [settings[name].measures.get(measure) for name in answers]
        values = [None if each is None else each.value for each in known]
        if any(value is None for value in values):
            continue
        signs = [
            np.sign(round(sign * (float(values[a] or 0) - float(values[b] or 0)), 12))
            for a, b in better
        ]
        found.append(
            Choice(
                task=task.task,
                measure=measure,
                right=signs.count(1),
                wrong=signs.count(-1),
                tied=signs.count(0),
                num_settings=len(answers),
            )
        )
    return found


def _better(f1: Float[np.ndarray, "_settings _examples"]) -> list[tuple[int, int]]:
    """Pairs of settings that differ, the better one first."""
    num_settings, num_examples = f1.shape
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(num_examples, np.full(num_examples, 1 / num_examples), NUM_RESAMPLES)
    means = drawn @ f1.T / num_examples
    found = []
    for a, b in combinations(range(num_settings), 2):
        low, high = np.percentile(means[:, a] - means[:, b], (2.5, 97.5))
        if low > 0:
            found.append((a, b))
        elif high < 0:
            found.append((b, a))
    return found


def _answers(runs: Sequence[Run], skipped: list[Skipped]) -> dict[str, dict[str, float]]:
    """Setting -> example -> F1, the mean over the setting's runs; settings without are left out."""
    by_setting: dict[str, list[dict[str, float]]] = {}
    for run in runs:
        by_setting.setdefault(run.setting, []).append(_read(run, skipped))
    found = {}
    for setting, own in by_setting.items():
        shared = set.intersection(*(set(each) for each in own))
        if shared:
            found[setting] = {e: float(np.mean([each[e] for each in own])) for e in shared}
    return found


def _read(run: Run, skipped: list[Skipped]) -> dict[str, float]:
    """F1 of every example at the last step; empty where that is not at hand."""
    file = Path(run.folder) / "predictions" / f"step-{run.last.step:06d}.jsonl"
    if not file.is_file():
        return {}
    try:
        with file.open(encoding="utf-8") as lines:  # splitlines would cut at what answers hold too
            rows = [json.loads(line) for line in lines]
        return {str(row["id"]): float(row["f1"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        skipped.append(Skipped(str(file), run.name, f"cannot be read ({error})"))
        return {}
