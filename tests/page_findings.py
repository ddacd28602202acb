"""Findings of made-up studies for the report, and an example to look at."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from sce.analysis.findings import Findings
from sce.analysis.study import analyse
from study_runs import Planted, Tuned, World, write_run, write_runs, write_study

SMALL = {"layers": 8, "heads": 6, "num_untuned": 5, "num_learned": 8}


def two_tasks(folder: Path) -> Findings:
    """Two tasks of eight synthetic settings and two real seeds, with everything a study has."""
    worlds = [World(task="mdqa", **SMALL), World(task="musique", seed=3, **SMALL)]
    return analyse([write_study(folder, worlds, Planted(num_settings=8, noise=0.03))])


def hundred_runs(folder: Path) -> Findings:
    """A hundred runs of 1,024 heads each."""
    world = World(layers=32, heads=32, num_untuned=25, num_learned=30, per_example=False)
    planted = Planted(num_settings=48, noise=0.03, real_seeds=(100, 101, 102, 103))
    return analyse([write_study(folder, [world], planted)])


def two_groups(folder: Path) -> Findings:
    """The same kinds of data by two scorers, which are never compared."""
    for scorer in ("copy", "ov_write"):
        write_runs(folder / scorer, World(scorer=scorer, **SMALL), Planted(num_settings=3))
    return analyse([folder / "copy", folder / "ov_write"])


def one_run(folder: Path) -> Findings:
    """One run, without a reference: hardly anything is known."""
    world = World(per_example=False, **SMALL)
    write_run(folder / "lonely", world, Tuned(0.5, 0.4, steps=(0, 12)))
    found = analyse([folder])
    (group,) = found.groups
    (task,) = group.tasks
    runs = [run for run in task.runs if run.kind != "untuned"]
    settings = [setting for setting in task.settings if setting.kind != "untuned"]
    task = replace(task, untuned=None, runs=runs, settings=settings)
    return replace(found, groups=[replace(group, tasks=[task])])


def look(task: str, layers: int, heads: int, num_tokens: int = 900) -> dict:
    """A prompt whose evidence some heads look at while its answer is emitted."""
    rng = np.random.default_rng(num_tokens)
    words = "The river rises in the hills and passes a mill before it meets the sea .".split()
    tokens = [f" {words[at % len(words)]}" for at in range(num_tokens)]
    needle = " The lighthouse keeper was named Isolde Marchetti until 1931 .".split(" ")[1:]
    start = num_tokens // 2
    tokens[start : start + len(needle)] = [f" {word}" for word in needle]
    targets = [start + 5, start + 6, start + 6]
    looked_at = rng.integers(-1, start, (layers, heads, len(targets)))
    scores = np.round(rng.uniform(0, 0.03, (layers, heads)), 4)
    for layer, head, hits in ((layers - 1, 1, 3), (layers - 2, 0, 2)):
        looked_at[layer, head, :hits] = targets[:hits]
        scores[layer, head] = hits / len(targets)
    return {
        "schema": "sce.looks/1",
        "model": "made-up model",
        "task": task,
        "id": f"example-{num_tokens}",
        "tokens": tokens,
        "evidence": list(range(start, start + len(needle))),
        "answer": [" Isolde", " March", "etti"],
        "looked_at": looked_at.tolist(),
        "scores": scores.tolist(),
    }
