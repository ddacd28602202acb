"""Findings as tables: one CSV each, a line a thing, every number with its bounds and n."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from sce.analysis.findings import Findings, Group, Rho, Task
from sce.analysis.parts import Curve, Run, Skipped
from sce.stats import Estimate

Row = dict[str, Any]
Table = list[Row]


def tables(found: Findings) -> dict[str, Table]:
    """Every table that has a line, by the name of its file."""
    every: dict[str, Table] = {}
    for number, group in enumerate(found.groups, 1):
        parts = {**_of_group(group), **_together(_of_task(task) for task in group.tasks)}
        for name, table in parts.items():
            every.setdefault(name, []).extend({"group": number, **row} for row in table)
    every["groups"] = [
        {
            "group": number,
            **{name: getattr(group, name) for name in ("name", "model", "weights_sha256")},
            "runs": sum(len(task.runs) for task in group.tasks),
        }
        for number, group in enumerate(found.groups, 1)
    ]
    every["skipped"] = [asdict(skip) for skip in found.skipped]
    return {name: table for name, table in every.items() if table}


def save_tables(found: Findings, folder: Path) -> list[Path]:
    """Write <name>.csv of every table; what does not exist is empty.

    What was skipped has a file even if nothing was, so that none stays there of an earlier time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, table in {"skipped": [], **tables(found)}.items():
        file = folder / f"{name}.csv"
        columns = list(dict.fromkeys(column for row in table for column in row))
        columns = columns or [field.name for field in fields(Skipped)]
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(table)
        files.append(file)
    return files


def _of_group(group: Group) -> dict[str, Table]:
    correlations = []
    for rho in group.correlations:
        own = asdict(rho.found)
        own.pop("num_groups")
        about = {"task": rho.task or "pooled", "measure": rho.measure, "points": rho.points}
        about |= {"without_task_means": rho.without_task_means}
        correlations.append(about | own | {"runs": rho.num_runs} | _scrutiny(rho))
    questions = [
        {"task": each.task or "pooled", "points": each.points, "asked": each.asked}
        | {"first": each.first, "second": each.second}
        | _flat("rho_difference", each.rho_difference)
        | _flat("error_ratio", each.error_ratio)
        for each in group.questions
    ]
    predictors = [
        {"task": each.task, "predictor": each.name, "features": " ".join(each.features)}
        | {"mae": each.mae, "mean_only_mae": each.mean_only_mae, "runs": each.num_runs}
        | _flat("ratio", each.ratio)
        | _flat("ratio_to_loss", each.ratio_to_loss)
        | _flat("ratio_by_family", each.ratio_by_family)
        for each in group.predictors
    ]
    return {
        "correlations": correlations,
        "correlations_over_tau": _over(group, "tau"),
        "correlations_over_k": _over(group, "k"),
        "questions": questions,
        "predictors": predictors,
        "choices": [asdict(each) for each in group.choices],
    }


def _scrutiny(rho: Rho) -> Row:
    parts = {} if rho.families is None else asdict(rho.families)
    return {
        "p_holm": rho.p_holm,
        **{
            f"{part}_families_{name}": found[name]
            for part, found in parts.items()
            for name in ("spearman", "p_value", "n", "smallest_detectable")
        },
        **_flat("given_loss", rho.given_loss),
        **_flat("reliability", rho.reliability),
    }


def _over(group: Group, by: str) -> Table:
    """Rho with F1 at every point of a grid."""
    return [
        {"task": each.task, "measure": each.measure, "points": each.points}
        | {by: at, "rho": rho, "rho_low": low, "rho_high": high, "n": n}
        for each in group.rho_over
        if each.by == by
        for at, rho, low, high, n in zip(
            each.at, each.rho, each.low, each.high, each.n, strict=True
        )
    ]


def _of_task(task: Task) -> dict[str, Table]:
    where = {"task": task.task}
    limits = [
        where | {"measure": name, "kind": kind} | _flat("value", found)
        for kind, each in (("ceiling", task.ceiling), ("null", task.nulls))
        for name, found in each.items()
    ]
    layers = [
        where | {"set": own.name, "kind": own.kind, "layer": layer} | _flat("share", found)
        for own in task.layers
        for layer, found in enumerate(own.shares)
    ]
    overlaps = [
        where | {"measure": each.measure, "run": run, "reference": other} | _flat("share", cell)
        for each in task.overlaps
        for run, cells in zip(each.names, each.cells, strict=True)
        for other, cell in zip(each.names, cells, strict=True)
        if cell.value is not None
    ]
    baselines = [
        where | {"model": each.model, "view": each.view} | _flat("f1", each.f1)
        for each in task.baselines
    ]
    return {
        "runs": [_about(run) | _measures(run.last.measures) for run in task.runs],
        "checkpoints": [
            {"task": task.task, "run": run.name, "setting": run.setting, "step": each.step}
            | _measures(each.measures)
            for run in task.runs
            for each in run.checkpoints
        ],
        "settings": [
            where
            | {"setting": each.setting, "kind": each.kind, "seeds": len(each.runs)}
            | _measures(each.measures)
            | {f"{name}_chance": value for name, value in each.nulls.items()}
            for each in task.settings
        ],
        "ceilings_and_nulls": limits,
        "heads": [row for run in task.runs for row in _heads(task, run)],
        "recall_over_tau": [row for run in task.runs for row in _curve(run, run.over_tau, "tau")],
        "recall_over_k": [row for run in task.runs for row in _curve(run, run.over_k, "k")],
        "layers": layers,
        "overlaps": overlaps,
        "pairs": [where | asdict(each) for each in task.pairs],
        "baselines": baselines,
        "interventions": list(_effects(task)),
        "against_patching": list(_against(task)),
    }


def _about(run: Run) -> Row:
    names = ("task", "name", "setting", "kind", "seed", "concept", "context", "mix", "num_train")
    names = (*names, "is_point", "in_reference", "compared_with", "folder")
    return {name: getattr(run, name) for name in names} | {"step": run.last.step}


def _heads(task: Task, run: Run) -> Iterator[Row]:
    """Heads above tau and heads lost, with their score here, untuned and in the reference."""
    reference = set(task.reference.heads) if task.reference else set()
    gained, lost = set(run.gained), set(run.lost)
    for layer, head in sorted({*run.heads, *lost}):
        what = "gained" if (layer, head) in gained else "kept"
        yield {
            "task": task.task,
            "run": run.name,
            "layer": layer,
            "head": head,
            "change": "lost" if (layer, head) in lost else what if task.untuned else None,
            "in_reference": (layer, head) in reference if task.reference else None,
            "score": float(run.scores[layer, head]),
            "untuned_score": float(task.untuned.scores[layer, head]) if task.untuned else None,
            "reference_score": float(task.reference.scores[layer, head])
            if task.reference
            else None,
        }


def _curve(run: Run, curve: Curve | None, by: str) -> Iterator[Row]:
    for index, at in enumerate(curve.at if curve else []):
        values = {name: column[index] for name, column in curve.measures.items()} if curve else {}
        n = run.last.measures["recall"].n
        yield {"task": run.task, "run": run.name, by: at, **values, "n": n}


def _effects(task: Task) -> Iterator[Row]:
    for each in task.interventions:
        about = {"task": task.task, "method": each.method, "setting": each.setting}
        about |= {"seed": each.seed}
        for effect in each.effects:
            own = {
                name: getattr(effect, name) for name in ("direction", "name", "kind", "k", "draw")
            }
            yield (
                about
                | own
                | _flat("f1", effect.f1)
                | _flat("f1_change", effect.change)
                | {"p_value": effect.p_value}
                | _flat("share", effect.share)
                | _flat("gap", effect.gap)
            )


def _against(task: Task) -> Iterator[Row]:
    """What speaks against patching: sets worse than random, and examples that got worse."""
    for each in task.interventions:
        about = {"task": task.task, "setting": each.setting, "seed": each.seed}
        for row in each.worse_than_random:
            yield about | {"what": "set worse than random"} | dict(row)
        for row in each.counter_examples:
            yield about | {"what": "examples worse though the source is better"} | dict(row)


def _measures(measures: Mapping[str, Estimate]) -> Row:
    flat: Row = {}
    for name, found in measures.items():
        flat |= _flat(name, found)
    return flat


def _flat(name: str, found: Estimate) -> Row:
    """An estimate as four columns."""
    ends = {f"{name}_low": found.low, f"{name}_high": found.high, f"{name}_n": found.n}
    return {name: found.value, **ends}


def _together(each: Iterator[dict[str, Table]]) -> dict[str, Table]:
    every: dict[str, Table] = {}
    for parts in each:
        for name, table in parts.items():
            every.setdefault(name, []).extend(table)
    return every
