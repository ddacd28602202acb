"""Settings: means over their seeds, and what real runs share among themselves."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sce.analysis.measured import Measured
from sce.analysis.parts import MEASURES, Checkpoint, Heads, Run, Setting
from sce.stats import Estimate


def settings(found: Sequence[Measured]) -> list[Setting]:
    """One for each setting among the runs that are points, in the order of their first run."""
    by_name: dict[str, list[Measured]] = {}
    for each in found:
        if each.run.is_point:
            by_name.setdefault(each.run.setting, []).append(each)
    return [_setting(own) for own in by_name.values()]


def ceiling(found: Sequence[Measured]) -> dict[str, Estimate]:
    """Measures of real runs that are points, each against a reference it took no part in.

    The very reference that the other settings are compared with where a file gives it, so the
    ceiling is theirs; without a file the mean of the other real runs. n is the runs; empty without
    one.
    """
    real = [r for m in found if (r := m.run).kind == "real" and r.is_point and r.compared_with]
    return mean_measures([run.last.measures for run in real])


def nulls(found: Sequence[Setting]) -> dict[str, Estimate]:
    """Chance over synthetic settings: mean, smallest and largest; over all where there are none."""
    own = [s for s in found if s.kind not in ("real", "untuned")] or list(found)
    means = {}
    for name in MEASURES:
        values = [v for s in own if (v := s.nulls.get(name)) is not None]
        low, high = (min(values), max(values)) if values else (None, None)
        mean = float(np.mean(values)) if values else None
        means[name] = Estimate(mean, low, high, len(values))
    return means


def mean_measures(each: Sequence[Mapping[str, Estimate]]) -> dict[str, Estimate]:
    """Means of values and of bounds, over those that have the value; n is how many these are."""
    names = dict.fromkeys(name for measures in each for name in measures)
    return {
        name: mean_estimate([measures[name] for measures in each if name in measures])
        for name in names
    }


def mean_estimate(each: Sequence[Estimate]) -> Estimate:
    """The mean of the values that exist, and of their bounds where all of them have some."""
    values = [e.value for e in each if e.value is not None]
    lows = [e.low for e in each if e.value is not None and e.low is not None]
    highs = [e.high for e in each if e.value is not None and e.high is not None]
    if not values:
        return Estimate(None, None, None, 0)
    whole = len(lows) == len(highs) == len(values)
    low, high = (float(np.mean(lows)), float(np.mean(highs))) if whole else (None, None)
    return Estimate(float(np.mean(values)), low, high, len(values))


def _setting(own: Sequence[Measured]) -> Setting:
    runs = [each.run for each in own]
    measures = mean_measures([run.last.measures for run in runs])
    chance = {}
    for name in MEASURES:
        values = [v for each in own if (v := each.nulls.get(name)) is not None]
        chance[name] = float(np.mean(values)) if values else None
    return Setting(
        setting=runs[0].setting,
        kind=runs[0].kind,
        task=runs[0].task,
        runs=[run.name for run in runs],
        seeds=[run.seed for run in runs],
        measures=measures,
        by_seed={name: [_value(run, name) for run in runs] for name in measures},
        nulls=chance,
        curve=_curve(runs),
        scores=np.mean([run.scores for run in runs], axis=0),
        gained=_counted(run.gained for run in runs),
        lost=_counted(run.lost for run in runs),
    )


def _value(run: Run, name: str) -> float | None:
    found = run.last.measures.get(name)
    return None if found is None else found.value


def _curve(runs: Sequence[Run]) -> list[Checkpoint]:
    """At the steps that all runs have."""
    each = [{c.step: c for c in run.checkpoints} for run in runs]
    shared = sorted(set.intersection(*(set(steps) for steps in each)))
    found = []
    for step in shared:
        own = [steps[step] for steps in each]
        sources = {checkpoint.source for checkpoint in own}
        source = sources.pop() if len(sources) == 1 else "scores"
        found.append(Checkpoint(step, mean_measures([c.measures for c in own]), source))
    return found


def _counted(each: Iterable[Heads]) -> dict[str, int]:
    return dict(Counter(f"{layer}-{head}" for heads in each for layer, head in heads))
