"""All that is found of the runs of one task."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sce.analysis.findings import Task
from sce.analysis.forked import each_measured
from sce.analysis.groups import Key, Member, most, odd_ones
from sce.analysis.heads import layer_shares, overlaps, reference_set, sets_of, untuned_set
from sce.analysis.means import ceiling, nulls, settings
from sce.analysis.measured import Plan, measured
from sce.analysis.pairs import pairs
from sce.analysis.parts import Baseline, Intervention
from sce.analysis.references import Given, References, references
from sce.analysis.resample import Resampler
from sce.records import HeadScores
from sce.stats.sets import default_ks, default_taus

MAX_DRAWN = 200
"""Checkpoints of a task up to which those before the last have bounds drawn anew too."""
EVERY_TAU = 4
"""Of the grid of `sce.stats.sets.default_taus`, every so manieth."""


@dataclass(frozen=True)
class Limits:
    """What a user fixes; None: as the records have it."""

    tau: float | None = None
    k: int | None = None


def task_findings(
    key: Key,
    task: str,
    runs: Sequence[Member],
    given: Sequence[Given],
    limits: Limits,
) -> Task:
    """The runs of a task beside its reference, the untuned model, chance and one another.

    Args:
        key: of the group.
        task: its name.
        runs: at least one.
        given: reference files, of any task.
        limits: thresholds.
    """
    found, warnings = references(key, task, runs, given)
    tau, k = _agreed(runs, "tau", limits.tau, warnings), _agreed(runs, "k", limits.k, warnings)
    warnings = [*odd_ones(runs), *warnings]
    before = untuned_run(runs)
    base = _untuned_scores(before, found)
    plan = _plan(runs, found, float(tau), int(k))
    every = [*runs] if before is None or before in runs else [*runs, before]
    resampler = Resampler(before, base)
    each = each_measured(every, lambda run: measured(run, found, resampler, plan))
    if not plan.draw_all and any(m.run.last.source == "scores" for m in each):
        warnings.append(
            f"more than {MAX_DRAWN} checkpoints: only the last of each run has bounds that are "
            "drawn anew"
        )
    own = settings(each)
    reference, untuned = reference_set(found, plan.tau), untuned_set(before, base, plan.tau)
    sets = sets_of(each, reference)
    layers, heads = key.shape
    return Task(
        task=task,
        tau=plan.tau,
        k=plan.k,
        num_layers=layers,
        num_heads=heads,
        reference=reference,
        untuned=untuned,
        ceiling={} if found.is_one_pair else ceiling(each) or found.agreed(plan.tau, plan.k),
        nulls=nulls(own),
        runs=[m.run for m in each],
        settings=own,
        layers=layer_shares(sets, plan.tau),
        overlaps=overlaps(sets, plan.tau),
        pairs=pairs(own, reference, untuned, plan.tau),
        warnings=warnings,
    )


def untuned_run(runs: Sequence[Member]) -> Member | None:
    """The model before tuning as a run: one that is this by itself, else a run's step 0.

    Of the runs with a step 0 the first whose heads are scored on the examples that most are; what
    cannot be read of it is noted as the untuned model's.
    """
    if own := [run for run in runs if run.kind == "untuned"]:
        return own[0]
    usual = most([run.data_sha256 for run in runs])
    before = [run for run in runs if run.base is not None and run.data_sha256 == usual]
    if not before:
        return None
    first = before[0]
    files = replace(first.files, rows={0: first.files.rows[0]}, label="untuned")
    return Member(files, first.task, "untuned", "untuned", None, [0])


def with_extras(
    task: Task, baselines: Sequence[Baseline], interventions: Sequence[Intervention]
) -> Task:
    """The task with what a study's other folders hold of it."""
    return replace(task, baselines=baselines, interventions=interventions)


def _untuned_scores(before: Member | None, found: References) -> HeadScores | None:
    if before is not None:
        return before.last
    file = found.given.scores if found.given else None
    if file is None or file.base_scores is None:
        return None
    return replace(file, scores=file.base_scores, per_example=None, base_scores=None)


def _agreed(
    runs: Sequence[Member], name: str, fixed: float | None, warnings: list[str]
) -> float | int:
    values = [run.row[name] for run in runs]
    usual = most(values)
    if fixed is not None:
        return fixed
    if len(set(values)) > 1:
        others = ", ".join(f"{value:g}" for value in sorted(set(values) - {usual}))
        warnings.append(
            f"runs were recorded with {name} {usual:g} and {others}: all are measured at {usual:g} "
            f"here; --{name} takes another"
        )
    return usual


def _plan(runs: Sequence[Member], found: References, tau: float, k: int) -> Plan:
    whole = found.whole
    taus = [] if whole is None else default_taus(whole.scores)[::EVERY_TAU]
    layers, heads = runs[0].last.shape
    num_checkpoints = sum(len(run.steps) for run in runs)
    return Plan(
        tau=tau,
        k=k,
        taus=sorted({*taus, tau}),
        ks=sorted({*default_ks(layers * heads), k}),
        draw_all=num_checkpoints <= MAX_DRAWN,
    )
