"""Intervals of a comparison: what is drawn together, what noise pulls down, what has none."""

from dataclasses import asdict, fields

import numpy as np
import pytest

from sce import stats
from sce.stats.sets import PULLED_DOWN

SHAPE = (4, 5)
RNG = np.random.default_rng(0)
BASE = RNG.uniform(0, 0.4, SHAPE)
REAL = BASE + RNG.uniform(0, 0.3, SHAPE)
RUN = BASE + 0.7 * (REAL - BASE) + RNG.uniform(0, 0.15, SHAPE)
OPTIONS = {"tau": 0.3, "k": 5, "seed": 0}


def scored(seed: int, n: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of the run, the reference and the untuned model on n examples, odd alike for all."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(0, 0.25, (n, *SHAPE))
    own = rng.normal(0, 0.25, (3, n, *SHAPE))
    run, real, base = (
        mean + shared + noise for mean, noise in zip((RUN, REAL, BASE), own, strict=True)
    )
    return run, real, base


def compared(run: np.ndarray, real: np.ndarray, base: np.ndarray) -> dict[str, float]:
    maps = [stats.mean_of(scores) for scores in (run, real, base)]
    return asdict(stats.compare(*maps, tau=OPTIONS["tau"], k=OPTIONS["k"]))


@pytest.fixture(scope="module")
def repeated() -> dict[str, tuple[list[float], list[tuple[float, float]]]]:
    """Each pulled-down measure in 80 repetitions of one experiment: estimates and intervals."""
    found = {name: ([], []) for name in PULLED_DOWN}
    for seed in range(80):
        run, real, base = scored(seed)
        intervals = stats.comparison_intervals(run, real, base, num_resamples=150, **OPTIONS)
        values = compared(run, real, base)
        for name, (estimates, bounds) in found.items():
            estimates.append(values[name])
            bounds.append(intervals[name])
    return found


@pytest.mark.parametrize("name", PULLED_DOWN)
def test_intervals_hold_what_as_many_examples_give_on_average(repeated, name):
    estimates, bounds = repeated[name]
    low, high = np.array(bounds).T
    expected = np.mean(estimates)
    # 0.86 to 0.89 in 200 repetitions, 0.89 to 0.92 with 64 examples: a little too narrow.
    assert np.mean((low <= expected) & (expected <= high)) >= 0.8
    # Not by being wide: as wide as the repetitions differ, give or take a third.
    assert np.median(high - low) == pytest.approx(3.92 * np.std(estimates), rel=0.35)


@pytest.mark.parametrize("name", PULLED_DOWN)
def test_the_estimate_lies_within_its_interval(repeated, name):
    estimates, bounds = repeated[name]
    assert all(low <= value <= high for value, (low, high) in zip(estimates, bounds, strict=True))


def test_percentiles_alone_would_lie_below_the_estimate():
    run, _, _ = scored(0)
    near = run.mean(axis=0) + np.random.default_rng(1).normal(0, 0.02, SHAPE)
    plain = stats.bootstrap_many(run, lambda mean: {"": stats.cosine(mean, near)}, seed=0)[""]
    value = stats.cosine(run.mean(axis=0), near)
    moved = stats.comparison_intervals(run, near, None, **OPTIONS)["cosine"]
    assert plain is not None and moved is not None and value is not None
    assert plain[1] < value
    assert moved[0] < value < moved[1]


def test_a_run_against_itself_is_sure_when_both_are_drawn_and_not_when_one_is():
    run, _, _ = scored(1)
    both = stats.comparison_intervals(run, run, None, **OPTIONS)
    assert both["cosine"] == pytest.approx((1, 1)) and both["recall"] == (1, 1)
    one = stats.comparison_intervals(run, run.mean(axis=0), None, **OPTIONS)
    assert one["recall"] is not None and one["recall"][0] < 1


def test_what_examples_share_cancels_in_what_was_learned():
    run, real, base = scored(2)
    joint = stats.comparison_intervals(run, real, base, **OPTIONS)["cosine_learned"]
    alone = stats.comparison_intervals(run, real.mean(0), base.mean(0), **OPTIONS)["cosine_learned"]
    assert joint is not None and alone is not None
    assert joint[1] - joint[0] < alone[1] - alone[0]


def test_what_was_not_drawn_has_no_interval():
    run, real, base = scored(3)
    names = {field.name for field in fields(stats.Comparison)}
    both = stats.comparison_intervals(run, real, base, **OPTIONS)
    assert {name for name, bounds in both.items() if bounds} == names
    fixed = stats.comparison_intervals(run, real.mean(axis=0), base.mean(axis=0), **OPTIONS)
    undrawn = {"recall_base", "cosine_base", "num_reference_heads"}
    assert {name for name, bounds in fixed.items() if bounds} == names - undrawn
    half = stats.comparison_intervals(run, real.mean(axis=0), base, **OPTIONS)
    # Of R and B, which share what is odd about the examples, one alone would say too little.
    assert {name for name, bounds in half.items() if bounds} == names - undrawn
    none = stats.comparison_intervals(run, real, None, **OPTIONS)
    assert none["num_reference_heads"] is not None and none["cosine_learned"] is None


def test_a_reference_that_kept_other_examples_stays_as_it_is():
    run, real, base = scored(4)
    gated = real.copy()
    gated[3] = np.nan
    as_mean = stats.comparison_intervals(run, stats.mean_scores(gated), base, **OPTIONS)
    assert stats.comparison_intervals(run, gated, base, **OPTIONS) == as_mean
    run[3] = base[3] = np.nan
    together = stats.comparison_intervals(run, gated, base, **OPTIONS)
    without = [np.delete(rows, 3, axis=0) for rows in (run, real, base)]
    assert together == stats.comparison_intervals(*without, **OPTIONS)


def test_too_few_examples_have_no_interval():
    run, real, base = scored(5, n=1)
    assert set(stats.comparison_intervals(run, real, base, **OPTIONS).values()) == {None}


def test_centred_leaves_room_at_the_edge():
    rows = np.ones((6, 1, 2)) + np.arange(6)[:, None, None] * [[[0.0, 1e-9]]]
    found = stats.bootstrap_many(
        rows, lambda mean: {"": stats.cosine(mean, np.ones((1, 2)))}, centred=("",), seed=0
    )[""]
    assert found is not None and 0.999 < found[0] <= found[1] <= 1
