"""Correlations over settings with seeds inside."""

import numpy as np
import pytest

from sce.stats import correlate, spearman
from sce.stats.settings import correlate_settings, rho_difference, rho_of_settings


def study(num_settings=20, num_seeds=2, noise=0.02, seed=0):
    """x, y and the settings of runs whose settings lie on a line, their seeds around it."""
    rng = np.random.default_rng(seed)
    level = np.repeat(rng.permutation(num_settings) / num_settings, num_seeds)
    x = level + noise * rng.standard_normal(len(level))
    y = level + noise * rng.standard_normal(len(level))
    return x, y, np.repeat(np.arange(num_settings), num_seeds).tolist()


def test_the_correlation_is_that_of_the_means_over_seeds():
    x, y, settings = study(noise=0.2)
    found = correlate_settings(x, y, settings, seed=0)
    means = [np.mean(np.reshape(each, (20, 2)), axis=1) for each in (x, y)]
    assert found.spearman == pytest.approx(spearman(*means))
    assert found.n == found.num_groups == 20


def test_with_one_seed_each_it_is_the_plain_correlation():
    x, y, settings = study(num_seeds=1, noise=0.2)
    found, plain = correlate_settings(x, y, settings, seed=0), correlate(x, y, seed=0)
    assert found.spearman == pytest.approx(plain.spearman)
    assert found.p_value == pytest.approx(plain.p_value, abs=1e-3)  # orders are drawn
    assert found.smallest_detectable == pytest.approx(plain.smallest_detectable, abs=0.02)
    assert found.spearman_low == pytest.approx(plain.spearman_low, abs=0.05)
    assert found.spearman_high == pytest.approx(plain.spearman_high, abs=0.05)


def test_the_order_of_the_runs_changes_nothing():
    x, y, settings = study(noise=0.3)
    order = np.random.default_rng(7).permutation(len(x))
    mixed = x[order], y[order], [settings[run] for run in order]
    assert correlate_settings(*mixed, seed=0) == correlate_settings(x, y, settings, seed=0)
    tied = np.repeat(y[::2], 2)  # as F1 of few questions is: two seeds of a setting are equal
    mixed_tied = correlate_settings(mixed[0], tied[order], mixed[2], seed=0)
    assert mixed_tied == correlate_settings(x, tied, settings, seed=0)
    gaps = [
        rho_difference(a, -a, b, names, seed=0, num_resamples=100)
        for a, b, names in ((x, y, settings), mixed)
    ]
    assert gaps[0] == gaps[1]


def test_a_planted_correlation_is_found_and_chance_is_not():
    strong = correlate_settings(*study(), seed=0)
    assert strong.spearman > 0.95
    assert strong.spearman_low > 0.8
    assert strong.p_value < 0.001
    rng = np.random.default_rng(3)
    x, _, settings = study()
    chance = correlate_settings(x, rng.standard_normal(40), settings, seed=0)
    assert chance.spearman_low < 0 < chance.spearman_high
    assert chance.p_value > 0.05
    assert abs(chance.spearman) < chance.smallest_detectable


def test_seeds_that_scatter_widen_the_interval():
    """Settings alone would not: their means are what they are."""
    rng = np.random.default_rng(1)
    level = np.repeat(np.arange(12) / 12, 2)
    spread = np.tile([-0.4, 0.4], 12)
    settings = np.repeat(np.arange(12), 2).tolist()
    y = level + 0.05 * rng.standard_normal(24)
    still = correlate_settings(level, y, settings, seed=0)
    wide = correlate_settings(level + spread, y, settings, seed=0)
    assert wide.spearman == pytest.approx(still.spearman)
    assert wide.spearman_high - wide.spearman_low > 2 * (still.spearman_high - still.spearman_low)


def test_what_ranks_alike_says_the_same_however_its_means_are_rounded():
    """Ninths do not add up to equal numbers: 2/9 + 5/9 is not 3/9 + 4/9 to the last bit."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        counts = rng.integers(0, 10, size=(12, 2))
        settings = np.repeat(np.arange(12), 2).tolist()
        y = rng.random(24).tolist()
        recall, learned = ((7 + counts) / 16).ravel().tolist(), (counts / 9).ravel().tolist()
        rhos = [
            correlate_settings(x, y, settings, seed=0, num_resamples=50, num_permutations=50)
            for x in (recall, learned)
        ]
        assert rhos[0].spearman == rhos[1].spearman
        assert rhos[0].p_value == rhos[1].p_value
        gap = rho_difference(recall, learned, y, settings, seed=0, num_resamples=50)
        assert (gap.value, gap.low, gap.high) == (0, 0, 0)


def test_what_tasks_explain_is_taken_out():
    """Within each of two tasks there is nothing; their levels alone make a pooled correlation."""
    rng = np.random.default_rng(0)
    tasks = np.repeat([0.0, 1.0], 10)
    x, y = (5 * tasks + rng.standard_normal(20) for _ in range(2))
    settings = [f"s{i}" for i in range(20)]
    assert correlate_settings(x, y, settings, seed=0).p_value < 0.01
    within = correlate_settings(x, y, settings, seed=0, tasks=tasks.tolist())
    assert within.p_value > 0.05
    assert within.n == 20
    with_levels = correlate_settings(x, y, settings, seed=0, tasks=tasks.tolist(), centred=False)
    plain = correlate_settings(x, y, settings, seed=0)
    assert with_levels.spearman == pytest.approx(plain.spearman)
    assert plain.spearman > 0.5
    assert with_levels.p_value > 0.05  # settings change places within their task


def test_what_tasks_explain_makes_no_measure_the_better_one():
    """One measure tells the tasks apart and nothing else, the other goes with y within them."""
    rng = np.random.default_rng(0)
    tasks = np.repeat([0.0, 1.0], 12)
    own = rng.standard_normal(24)
    y = 9 * tasks + own
    levels, within = tasks + 0.01 * rng.standard_normal(24), own + 0.1 * rng.standard_normal(24)
    settings = [f"s{i}" for i in range(24)]
    assert rho_difference(levels, within, y, settings, seed=0).value > 0
    told = rho_difference(levels, within, y, settings, seed=0, tasks=tasks.tolist())
    assert told.high < 0


def test_a_measure_of_the_wrong_sign_says_less_than_none():
    x, y, settings = study(noise=0.05)
    noise = np.random.default_rng(5).standard_normal(40)
    assert rho_difference(-x, noise, y, settings, seed=0).high < 0


def test_a_setting_of_two_tasks_is_two_and_a_task_of_one_setting_is_none():
    x, y = np.arange(9.0), np.arange(9.0) ** 2
    settings = [*"abcd", *"abcd", "z"]
    tasks = [*"1111", *"2222", "3"]
    assert correlate_settings(x, y, settings, seed=0, tasks=tasks).n == 8


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_settings_have_no_correlation(count):
    x, y = list(range(count)), list(range(count))
    found = correlate_settings(x, y, list(range(count)), seed=0)
    assert (found.spearman, found.p_value, found.n) == (None, None, count)
    assert rho_of_settings(x, y, list(range(count)), seed=0).value is None
    assert correlate_settings(x, y, list(range(count)), seed=0, tasks=["t"] * count).n in (0, 2)


def test_constants_and_gaps():
    x, y, settings = study(num_settings=9)
    assert correlate_settings(np.ones(18), y, settings, seed=0).spearman is None
    gaps = [None if i < 2 else value for i, value in enumerate(x)]
    assert correlate_settings(gaps, y, settings, seed=0).n == 8
    few = correlate_settings(x[:14], y[:14], settings[:14], seed=0)
    assert (few.n, few.spearman_low) == (7, None)
    assert few.p_value == pytest.approx(2 / 5040, abs=0.01)


def test_the_better_of_two_measures_is_told():
    x, y, settings = study(noise=0.05)
    noise = np.random.default_rng(5).standard_normal(40)
    found = rho_difference(x, noise, y, settings, seed=0)
    assert found.n == 20
    assert found.value == pytest.approx(
        rho_of_settings(x, y, settings, seed=0).value
        - rho_of_settings(noise, y, settings, seed=0).value
    )
    assert 0 < found.low < found.value < found.high
    same = rho_difference(x, x, y, settings, seed=0)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert rho_difference(np.ones(40), x, y, settings, seed=0).value is None
