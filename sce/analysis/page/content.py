"""What the page shows, as plain data: every number of it is one of the findings, rounded."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import vl_convert

from sce.analysis.charts.accuracy import SCATTERED
from sce.analysis.charts.axes import STRETCHED, stretched, ticks
from sce.analysis.charts.figure import Figure
from sce.analysis.charts.files import VERSION, Key, figures
from sce.analysis.charts.style import COLOURS, SHAPES, SHORT
from sce.analysis.findings import Findings, Group, Task
from sce.analysis.page.figures import figures_of
from sce.analysis.page.looks import LOOKS, fits
from sce.analysis.page.tables import estimate
from sce.analysis.parts import ACCURACY, LABELS, PREDICTORS, HeadSetOf, Run, Setting
from sce.stats import Estimate

SHOWN = (*PREDICTORS, *ACCURACY, "num_heads", "num_reference_heads", "recall_base")
"""Measures of runs and settings that the page has."""
Plain = dict[str, Any]


def content(
    found: Findings,
    looks: Sequence[Mapping[str, Any]],
    drawn: Mapping[Key, Figure] | None = None,
) -> Plain:
    """Everything that the page's scripts read; figures are drawn here where they are not given."""
    drawn = figures(found) if drawn is None else drawn
    groups = [_group(place, group, drawn) for place, group in enumerate(found.groups)]
    return {
        "study": found.study,
        "num_runs": found.num_runs - found.num_left_out,
        "num_left_out": found.num_left_out,
        "version": found.sce_version,
        "library": library(),
        "warnings": list(found.warnings),
        "notes": dict(found.notes),
        "skipped": [[each.file, each.run or "", each.reason] for each in found.skipped],
        "labels": {**LABELS, "num_heads": "heads above tau"},
        "short": {
            **SHORT,
            "num_heads": "heads",
            "exact_match": "exact match",
            "substring_exact_match": "substring match",
        },
        "colours": COLOURS,
        "shapes": SHAPES,
        "first_measures": list(SCATTERED),
        "groups": groups,
        "looks": [_look(each) for each in looks],
    }


def library() -> str:
    """The plotting library in the page."""
    return f"Vega {vl_convert.get_vega_version()}, Vega-Lite {VERSION}"


def _group(place: int, group: Group, drawn: Mapping[Key, Figure]) -> Plain:
    return {
        "name": group.name,
        "model": group.model,
        "scorer": group.scorer,
        "mode": group.mode,
        "match": group.match,
        "answers": list(group.answers),
        "tasks": [_task(task) for task in group.tasks],
        "rhos": [
            {
                "task": rho.task,
                "measure": rho.measure,
                "points": rho.points,
                "rho": _rho(rho.found),
                "p": rho.found.p_value,
                "least": rho.found.smallest_detectable,
                "n": rho.found.n,
                "runs": rho.num_runs,
            }
            for rho in group.correlations
            if rho.is_told
        ],
        "figures": figures_of(place, group, drawn),
    }


def _rho(found: Any) -> list[Any] | None:
    return estimate(Estimate(found.spearman, found.spearman_low, found.spearman_high, found.n))


def _task(task: Task) -> Plain:
    return {
        "task": task.task,
        "tau": task.tau,
        "k": task.k,
        "layers": task.num_layers,
        "heads": task.num_heads,
        "reference": _set(task.reference, task.num_heads),
        "untuned": _set(task.untuned, task.num_heads),
        "ceiling": _measures(task.ceiling),
        "nulls": _measures(task.nulls),
        "stretched": _stretched(task),
        "warnings": list(task.warnings),
        "runs": [_run(run, task.num_heads) for run in task.runs],
        "settings": [_setting(each) for each in task.settings],
    }


def _stretched(task: Task) -> Plain:
    """Measure -> exponent and ticks of its axis, where that is not a plain one."""
    powers = {measure: stretched(task, measure) for measure in STRETCHED}
    return {m: {"power": each, "ticks": ticks(each)} for m, each in powers.items() if each > 1}


def _run(run: Run, num_heads: int) -> Plain:
    return {
        "name": run.name,
        "setting": run.setting,
        "kind": run.kind,
        "seed": run.seed,
        "point": run.is_point,
        "member": run.in_reference,
        "against": run.compared_with,
        "train": run.num_train,
        "step": run.last.step,
        "measures": _measures(run.last.measures),
        "map": _flat(run.scores),
        "above": _indices(run.heads, num_heads),
        "gained": len(run.gained),
        "lost": len(run.lost),
        "warnings": list(run.warnings),
    }


def _setting(setting: Setting) -> Plain:
    return {
        "setting": setting.setting,
        "kind": setting.kind,
        "runs": list(setting.runs),
        "measures": _measures(setting.measures),
        "nulls": {name: setting.nulls.get(name) for name in ("recall", "recall_learned", "cosine")},
    }


def _set(found: HeadSetOf | None, num_heads: int) -> Plain | None:
    if found is None:
        return None
    return {
        "source": found.source,
        "members": list(found.members),
        "examples": found.num_examples,
        "map": _flat(found.scores),
        "above": _indices(found.heads, num_heads),
    }


def _measures(measures: Mapping[str, Estimate]) -> Plain:
    found = {name: estimate(measures.get(name)) for name in SHOWN}
    return {name: value for name, value in found.items() if value is not None}


def _flat(scores: np.ndarray) -> list[float | None]:
    """Layer by layer, rounded to 4 digits; None for what is no number."""
    return [None if np.isnan(x) else _short(x) for x in scores.ravel()]


def _short(value: float) -> float:
    rounded = round(float(value), 4)
    return int(rounded) if rounded == int(rounded) else rounded


def _indices(heads: Iterable[tuple[int, int]], num_heads: int) -> list[int]:
    return [layer * num_heads + head for layer, head in heads]


def _look(look: Mapping[str, Any]) -> Plain:
    if not fits(look):
        raise ValueError(f"an example to look at is not what {LOOKS} says: {look.get('id')!r}")
    names = ("model", "task", "id", "tokens", "evidence", "answer", "looked_at")
    scores = np.asarray(look["scores"], dtype=np.float64)
    shape = {"layers": scores.shape[0], "heads": scores.shape[1]}
    about = {"scorer": str(look.get("scorer") or ""), "mode": str(look.get("mode") or "")}
    return {name: look[name] for name in names} | about | shape | {"map": _flat(scores)}
