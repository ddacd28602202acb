"""Families of alike settings, a third measure and noise between seeds, on planted settings."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from sce.stats import spearman
from sce.stats.permutation import holm
from sce.stats.scrutiny import by_family, reliability, rho_given

FAMILIES = np.repeat(list("abcd"), 3)
SETTINGS = [f"{family}{i}" for i, family in enumerate(FAMILIES)]


def test_what_differs_between_families_alone_is_found_there_and_not_within():
    level = np.repeat([1.0, 2.0, 3.0, 4.0], 3)
    x = level + np.tile([0.0, 0.1, 0.2], 4)
    y = level + np.tile([0.1, 0.2, 0.1], 4)  # within a family 0 with x
    found = by_family(x, y, SETTINGS, FAMILIES, seed=0)
    assert (found.between.spearman, found.between.n) == (pytest.approx(1), 4)
    assert found.between.p_value == pytest.approx(2 / 24)  # all orders are counted
    assert found.between.smallest_detectable is None
    assert (found.within.spearman, found.within.n) == (pytest.approx(0, abs=1e-9), 12)


def test_what_differs_within_families_alone_is_found_there():
    inside = np.tile([0.0, 0.1, 0.2], 4)
    x = np.repeat([1.0, 2.0, 3.0, 4.0], 3) + inside
    y = np.repeat([2.0, 4.0, 1.0, 3.0], 3) + inside
    found = by_family(x, y, SETTINGS, FAMILIES, seed=0)
    assert found.between.spearman == pytest.approx(spearmanr([1, 2, 3, 4], [2, 4, 1, 3])[0])
    assert found.within.spearman == pytest.approx(1)
    assert found.within.p_value == pytest.approx(2 / 6**4)  # all orders inside families


def test_a_family_counts_once_however_many_settings_and_seeds_it_has():
    """Family a: settings at 0 (three seeds) and 1, so its mean is 0.5; b and c have one."""
    settings, families = ["a0", "a0", "a0", "a1", "b", "c"], list("aaaabc")
    x, y = [0.0, 0.0, 0.0, 1.0, 0.4, 0.6], [0.0, 0.0, 0.0, 2.0, 3.0, 1.5]
    found = by_family(x, y, settings, families, seed=0)
    assert found.between.spearman == pytest.approx(spearman([0.5, 0.4, 0.6], [1.0, 3.0, 1.5]))
    assert found.within.n == 2  # a's: b and c have nothing to be compared with inside


def test_families_are_none_where_they_say_nothing():
    values = np.arange(12.0)
    assert by_family(values, values, SETTINGS, ["a"] * 6 + ["b"] * 6, seed=0) is None
    assert by_family(values, values, SETTINGS, SETTINGS, seed=0) is None
    assert by_family([], [], [], [], seed=0) is None
    with pytest.raises(ValueError, match="shapes differ"):
        by_family(values, values[:3], SETTINGS, FAMILIES, seed=0)


def test_partial_rho_is_that_of_the_formula_and_of_ranks_without_the_third():
    rng = np.random.default_rng(3)
    given = rng.normal(size=12)
    x, y = given + rng.normal(size=12), -given + rng.normal(size=12)
    found = rho_given(x, y, given, SETTINGS, seed=0)
    ranks = [np.argsort(np.argsort(v)) for v in (x, y, given)]
    left = [r - np.polyval(np.polyfit(ranks[2], r, 1), ranks[2]) for r in ranks[:2]]
    assert found.value == pytest.approx(np.corrcoef(*left)[0, 1])
    assert found.low < found.value < found.high
    assert found.n == 12


def test_what_only_repeats_the_third_says_nothing_beyond_it():
    """y is the third with noise; x is the third with other noise: all they share is the third."""
    rng = np.random.default_rng(0)
    names = [f"s{i}" for i in range(400)]
    given = rng.normal(size=400)
    x, y = (given + 0.3 * rng.normal(size=400) for _ in range(2))
    assert spearman(x, y) > 0.8
    found = rho_given(x, y, given, names, seed=0, num_resamples=200)
    assert found.low < 0 < found.high
    assert rho_given([1.0] * 400, y, given, names, seed=0).value is None


@pytest.mark.parametrize("again", [lambda g: g, lambda g: -g, np.exp])
def test_what_is_in_the_order_of_the_third_has_no_partial_rho(again):
    rng = np.random.default_rng(1)
    for n in range(5, 40):
        given, y = rng.normal(size=(2, n))
        assert rho_given(again(given), y, given, range(n), seed=0, num_resamples=9).value is None


def test_partial_rho_of_few_settings_has_no_bounds():
    x, y, given = [1, 2, 3, 5, 4], [1, 3, 2, 4, 5], [4, 1, 3, 2, 5]
    found = rho_given(x, y, given, list("abcde"), seed=0)
    assert found.value is not None
    assert found.low is found.high is None
    assert rho_given(x[:4], y[:4], given[:4], list("abcd"), seed=0).value is None


def test_reliability_is_the_formula_s():
    """Means 0, 1, 2 (variance 1); squares within 0.02 each, one degree of freedom each."""
    x = [-0.1, 0.1, 0.9, 1.1, 1.9, 2.1]
    found = reliability(x, list("aabbcc"), seed=0)
    assert (found.value, found.n) == (pytest.approx(1 - 0.02 / 2), 3)
    assert found.low is None
    once = reliability([*x, 1.0], list("aabbccd"), seed=0)  # of one seed, but its mean is noisier
    noise = 0.02 * (3 / 2 + 1) / 4
    assert once.value == pytest.approx(1 - noise / np.var([0, 1, 2, 1], ddof=1))
    assert once.n == 3


def test_reliability_falls_with_noise_and_is_none_where_nothing_repeats():
    rng = np.random.default_rng(0)
    settings = np.repeat(np.arange(30), 2)
    means = np.repeat(rng.normal(size=30), 2)
    quiet, loud = (means + s * rng.normal(size=60) for s in (0.1, 2.0))
    found = [reliability(values, settings, seed=0) for values in (means, quiet, loud)]
    assert found[0].value == 1
    assert 1 > found[1].value > 0.9 > found[2].value
    assert all(each.low <= each.value <= each.high for each in found)
    few = reliability(values_of(quiet, 7), settings, seed=0)  # seven settings have two seeds
    assert (few.n, few.low) == (7, None)
    assert reliability([1.0, 2.0, 3.0], list("abc"), seed=0).value is None  # a seed each
    assert reliability([1.0] * 6, list("aabbcc"), seed=0).value is None
    assert reliability([], [], seed=0).value is None


def values_of(values, num):
    """The first settings with both seeds, the others with one."""
    return [v if i < 2 * num or i % 2 else None for i, v in enumerate(values)]


def test_holm_multiplies_the_smallest_by_all_the_next_by_one_fewer():
    assert holm([0.04, 0.01, None, 0.03]) == [pytest.approx(0.06), 0.03, None, pytest.approx(0.06)]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
