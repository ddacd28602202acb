"""The numbers behind each figure, a table each; a cell is text, a number or an estimate.

An estimate is [value, low, high, n]. `by` names the columns that hold a setting and a kind, which
the page's filters read.
"""

from collections.abc import Sequence
from typing import Any

from sce.analysis.charts.style import SHORT
from sce.analysis.findings import Group, Task
from sce.analysis.parts import LABELS, Baseline, Effect, Intervention, Run
from sce.stats import Estimate

Table = dict[str, Any]
Row = list[Any]
OVER = ("recall", "recall_learned", "precision", "jaccard")
MAX_PAIRS = 100
PAIR_COLUMNS = {
    "recall": "recall of both",
    "recall_null_layer": "by chance",
    "recall_learned": "recall learned of both",
    "precision": "precision of both",
    "num_heads": "heads of both",
    "mean_recall": "mean of their recalls",
    "mean_cosine": "mean of their cosines",
}
POINTS = {"synthetic": "synthetic, limited and mixed settings", "all": "with real and untuned"}


def estimate(found: Estimate | None) -> list[Any] | None:
    """[value, low, high, n]; None where there is no value."""
    if found is None or found.value is None:
        return None
    sides = [None if x is None else round(x, 6) for x in (found.value, found.low, found.high)]
    return [*sides, found.n]


def rhos(group: Group, task: str | None) -> list[Table]:
    """Correlations, and which measure says more."""
    rows = [
        [
            LABELS.get(rho.measure, rho.measure),
            POINTS[rho.points],
            "yes" if rho.without_task_means else "no",
            estimate(_bounds(rho.found, "spearman")),
            _rounded(rho.found.p_value),
            _rounded(rho.found.smallest_detectable),
            estimate(_bounds(rho.found, "pearson")),
            rho.found.n,
            rho.num_runs,
        ]
        for rho in group.correlations
        if rho.task == task
    ]
    names = "measure,points,without tasks' means,Spearman rho,p,smallest to be shown,Pearson r"
    asked = [
        [
            *(each.asked, POINTS[each.points], estimate(each.rho_difference)),
            *(estimate(each.error_ratio), each.rho_difference.n),
        ]
        for each in group.questions
        if each.task == task
    ]
    columns = ("question", "points", "rho higher by", "error of prediction, ratio", "settings")
    chosen = [
        [LABELS[each.measure], each.right, each.wrong, each.tied, each.num_settings]
        for each in group.choices
        if each.task == task
    ]
    picks = ("measure", "picks the better", "the worse", "neither", "settings")
    found = [
        _table("Correlation with F1", (*names.split(","), "settings", "runs"), rows),
        *_scrutiny(group, task),
        _table("Which measure says more", columns, asked),
    ]
    if chosen:
        found.append(_table("Which of two settings is better, where F1 tells", picks, chosen))
    return found


def _scrutiny(group: Group, task: str | None) -> list[Table]:
    """What each correlation may owe to alike settings, to loss and to noise; of a task's alone."""
    rows: list[Row] = []
    for rho in group.correlations:
        if rho.task != task or task is None or rho.found.spearman is None:
            continue
        parts: Row = [None] * 6
        if rho.families is not None:
            pair = rho.families.between, rho.families.within
            parts = [v for p in pair for v in (_rounded(p.spearman), _rounded(p.p_value), p.n)]
        beside = estimate(rho.given_loss), estimate(rho.reliability)
        measure = LABELS.get(rho.measure, rho.measure)
        rows.append([measure, POINTS[rho.points], _rounded(rho.p_holm), *parts, *beside])
    names = "measure,points,p after Holm,rho between families,p,families,rho within families,p"
    columns = (*names.split(","), "settings", "rho given validation loss", "reliability over seeds")
    return [_table("How far to trust these", columns, rows)] if rows else []


def rho_over(group: Group, task: Task, by: str) -> list[Table]:
    """Rho at every threshold, or at every size of the sets."""
    rows = [
        [SHORT[each.measure], POINTS[each.points], at, _estimate(rho, low, high, n), n]
        for each in group.rho_over
        if (each.task, each.by) == (task.task, by)
        for at, rho, low, high, n in zip(
            each.at, each.rho, each.low, each.high, each.n, strict=True
        )
    ]
    columns = ("measure", "points", by, "Spearman rho with F1", "settings")
    return [_table(f"Rho at every {by}", columns, rows)]


def predictors(group: Group, task: Task) -> list[Table]:
    """Errors of predicting settings left out."""
    rows = [
        [
            *(SHORT.get(p.name, p.name), _rounded(p.mae), _rounded(p.mean_only_mae)),
            *(estimate(p.ratio), estimate(p.ratio_to_loss), estimate(p.ratio_by_family)),
            *(p.ratio.n, p.num_runs),
        ]
        for p in group.predictors
        if p.task == task.task
    ]
    names = ("from", "mean absolute error", "that of the mean of the others", "ratio of the two")
    columns = (*names, "ratio to validation loss", "ratio, families left out", "settings", "runs")
    return [_table("Prediction of F1, settings left out", columns, rows)]


def over(task: Task, by: str) -> list[Table]:
    """What each run has in common with the reference, at every tau or k."""
    rows: list[Row] = []
    for run in task.runs:
        curve = run.curve(by)
        for index, at in enumerate(curve.at if curve else ()):
            own = curve.measures if curve else {}
            values = {name: numbers[index] for name, numbers in own.items()}
            found = [
                _estimate(values.get(name), values.get(f"{name}_low"), values.get(f"{name}_high"))
                for name in OVER
            ]
            dealt = [_rounded(values.get(f"{name}_null_layer")) for name in OVER]
            size = _rounded(values.get("num_heads"))
            rows.append([run.name, run.setting, run.kind, _rounded(at), *found, *dealt, size])
    names = [SHORT[name] for name in OVER]
    columns = ("run", "setting", "kind", by, *names, *(f"{n} by chance" for n in names), "heads")
    return [_table(f"Every run at every {by}", columns, rows, setting=1, kind=2)]


def learning(task: Task) -> list[Table]:
    """Measures at every validation of every run."""
    names = ("f1", "recall", "recall_learned", "cosine_learned", "answer_nll")
    rows = [
        [run.name, run.setting, run.kind, point.step]
        + [estimate(point.measures.get(name)) for name in names]
        for run in task.runs
        for point in run.checkpoints
    ]
    columns = ("run", "setting", "kind", "step", *(SHORT[name] for name in names))
    return [_table("Every validation", columns, rows, setting=1, kind=2)]


def layers(task: Task) -> list[Table]:
    """The share of heads that each layer holds."""
    rows = [
        [each.name, each.kind, _rounded(each.num_heads), *(estimate(s) for s in each.shares)]
        for each in task.layers
    ]
    columns = ("set", "kind", "heads", *(f"layer {i}" for i in range(task.num_layers)))
    return [_table("Share of the set's heads in each layer", columns, rows, setting=0, kind=1)]


def changes(task: Task) -> list[Table]:
    """Heads gained and lost by each run, and those that all seeds of a setting gained."""
    if task.untuned is None:
        return []
    by_run = [
        [
            *(run.name, run.setting, run.kind, len(run.heads), len(run.gained), len(run.lost)),
            _in_reference(task, run),
        ]
        for run in task.runs
        if run.kind != "untuned"
    ]
    columns = ("run", "setting", "kind", "heads", "gained", "lost", "gained, in the reference")
    always = [
        [
            *(setting.setting, setting.kind, len(setting.runs)),
            *(_names(heads, setting.runs) for heads in (setting.gained, setting.lost)),
        ]
        for setting in task.settings
        if setting.kind != "untuned"
    ]
    names = ("setting", "kind", "seeds", "gained by every seed", "lost by every seed")
    return [
        _table("Heads above tau, of every run", columns, by_run, setting=1, kind=2),
        _table("Layer-head of what all seeds agree on", names, always, setting=0, kind=1),
    ]


def overlap(task: Task, measure: str) -> list[Table]:
    """Every pair of sets."""
    rows = [
        [run, reference, kind, estimate(cell), cell.n]
        for found in task.overlaps
        if found.measure == measure
        for run, kind, cells in zip(found.names, found.kinds, found.cells, strict=True)
        for reference, cell in zip(found.names, cells, strict=True)
        if cell.value is not None
    ]
    columns = ("as the run", "as the reference", "kind of the run", measure, "pairs")
    whole = _table("Every pair of sets", columns, rows, setting=0, kind=2)
    return [whole, *(_pairs(task) if measure == "recall" and task.pairs else ())]


def _pairs(task: Task) -> list[Table]:
    rows = [
        [pair.first, pair.second] + [_rounded(getattr(pair, name)) for name in PAIR_COLUMNS]
        for pair in task.pairs[:MAX_PAIRS]
    ]
    left = len(task.pairs) - len(rows)
    title = "Two kinds of data and the heads of either" + (f": the best {len(rows)}" * (left > 0))
    columns = ("one", "the other", *PAIR_COLUMNS.values())
    return [_table(title, columns, rows, setting=0)]


def effects(task: Task, method: str) -> list[Table]:
    """Every row of the interventions of one method, and what speaks against them."""
    own = [each for each in task.interventions if each.method == method]
    rows = [_effect(found, effect) for found in own for effect in found.effects]
    names = "setting,kind,seed,direction,set,of,heads,draw,F1,change of F1,p,share of the gap,gap,n"
    against = [
        [found.setting or "", found.kind or "", str(row.get("direction") or ""), *_words(row)]
        for found in own
        for row in (*found.worse_than_random, *found.counter_examples)
    ]
    title = "What speaks against it"
    columns = ("setting", "kind", "direction", "set", "what", "how much")
    return [
        _table("Every set that was tried", names.split(","), rows, setting=0, kind=1),
        _table(title, columns, against, setting=0, kind=1),
    ]


def baselines(task: Task) -> list[Table]:
    """F1 of two models by what they are shown."""
    rows = [_baseline(each) for each in task.baselines]
    return [_table("F1 by what is shown", ("model", "documents", "F1", "examples"), rows, kind=0)]


def _effect(found: Intervention, effect: Effect) -> Row:
    about = [found.setting or "", found.kind or "", found.seed, effect.direction or ""]
    own = [effect.name, effect.kind, effect.k, effect.draw, estimate(effect.f1)]
    rest = [estimate(effect.change), _rounded(effect.p_value), estimate(effect.share)]
    return [*about, *own, *rest, estimate(effect.gap), effect.f1.n]


def _words(row: Any) -> list[str]:
    if "f1_difference" in row:
        what = f"worse than random heads ({row.get('control')}, k {row.get('k')})"
        return [str(row.get("name")), what, f"F1 {row['f1_difference']:+.3f}"]
    share = f"{row.get('num')} of {row.get('n')} examples"
    return [str(row.get("name")), "examples that got worse though the source does better", share]


def _baseline(each: Baseline) -> Row:
    return [each.model, each.view.replace("_", " "), estimate(each.f1), each.f1.n]


def _in_reference(task: Task, run: Run) -> int | None:
    if task.reference is None:
        return None
    reference = {tuple(head) for head in task.reference.heads}
    return sum(tuple(head) in reference for head in run.gained)


def _names(counts: Any, runs: Sequence[str]) -> str:
    return ", ".join(head for head, times in counts.items() if times == len(runs)) or "none"


def _bounds(found: Any, name: str) -> Estimate:
    low, high = getattr(found, f"{name}_low"), getattr(found, f"{name}_high")
    return Estimate(getattr(found, name), low, high, found.n)


def _estimate(
    value: float | None, low: float | None, high: float | None, n: int | None = None
) -> list[Any] | None:
    return None if value is None else [*(_rounded(x) for x in (value, low, high)), n]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _table(
    title: str, columns: Sequence[str], rows: list[Row], setting: int = -1, kind: int = -1
) -> Table:
    return {"title": title, "columns": list(columns), "rows": rows, "by": [setting, kind]}
