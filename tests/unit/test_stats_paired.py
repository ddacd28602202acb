"""Paired tests, areas over k, the share of a gap recovered, means by bins."""

from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from sce import stats
from sce.stats.permutation import sign_flips

NAN, INF = float("nan"), float("inf")
PROFILE = settings(max_examples=40, deadline=None, derandomize=True, database=None)
outcomes = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30)
differences = st.lists(st.integers(-9, 9), min_size=1, max_size=9)
share = partial(stats.share_recovered, seed=0)
KS = [0, 1, 2, 5, 10]


def test_mcnemar_by_hand():
    before = [1] * 9 + [0] * 3 + [1, 0]
    after = [0] * 9 + [1] * 1 + [0] * 2 + [1, 0]
    # One in ten the other way: 2 * (1 + 10) / 2 ** 10.
    assert stats.mcnemar(before, after) == stats.McNemar(9, 1, 14, 22 / 1024)
    assert stats.mcnemar([1, 0], [1, 0]) == stats.McNemar(0, 0, 2, 1.0)
    assert stats.mcnemar([1, 0], [0, 1]) == stats.McNemar(1, 1, 2, 1.0)


@PROFILE
@given(outcomes)
def test_mcnemar_is_the_binomial_test_of_scipy(pairs):
    before, after = np.array(pairs, dtype=bool).T
    found, turned = stats.mcnemar(before, after), stats.mcnemar(after, before)
    assert (found.b, found.c, found.n) == (turned.c, turned.b, len(pairs))
    assert found.p_value == turned.p_value
    if found.b + found.c:
        theirs = scipy_stats.binomtest(found.b, found.b + found.c).pvalue
        assert found.p_value == pytest.approx(theirs)


def test_mcnemar_leaves_out_what_is_missing_and_refuses_what_is_no_outcome():
    found = stats.mcnemar([1, None, 0, NAN, 1], [0, 1, 0, 1, None])
    assert found == stats.McNemar(1, 0, 2, 1.0)
    assert stats.mcnemar([], []) == stats.mcnemar([None], [1]) == stats.McNemar(0, 0, 0, None)
    for bad in ([0.5, 1.0], [2, 0]):
        with pytest.raises(ValueError, match="must be 0 or 1"):
            stats.mcnemar(bad, [1, 0])
    with pytest.raises(ValueError, match="shapes differ"):
        stats.mcnemar([1, 0], [1])


@PROFILE
@given(differences)
def test_a_few_pairs_have_the_exact_p_value_of_scipy(values):
    before = np.linspace(0, 1, len(values))
    found = stats.paired_permutation(before, before + values, seed=0)
    theirs = scipy_stats.permutation_test(
        (np.array(values, dtype=float),),
        lambda drawn: abs(drawn.mean()),
        permutation_type="samples",
        alternative="greater",
        n_resamples=np.inf,
    ) if len(values) > 1 else None  # fmt: skip
    assert found.p_value == (1.0 if theirs is None else pytest.approx(theirs.pvalue))
    assert found.difference == pytest.approx(np.mean(values))


def test_many_pairs_have_the_drawn_p_value_and_the_paired_interval():
    rng = np.random.default_rng(1)
    before, after = rng.normal(size=40), rng.normal(0.5, size=40)
    found = stats.paired_permutation(before, after, seed=0)
    # Near the paired t test, by four standard errors of a share of 10000 draws and a bit of shape.
    assert found.p_value == pytest.approx(scipy_stats.ttest_rel(before, after).pvalue, abs=0.02)
    interval = stats.paired_bootstrap(before, after, seed=0)
    assert (found.difference, found.low, found.high) == pytest.approx(interval)
    sure = stats.paired_permutation(before, before + 1, seed=0, num_permutations=99)
    assert sure.p_value == 1 / 100
    turned = stats.paired_permutation(after, before, seed=0)
    assert turned.p_value == found.p_value
    assert turned.difference == pytest.approx(-found.difference)


def test_sign_flips_are_exact_up_to_twelve_and_drawn_in_blocks_beyond(monkeypatch):
    flips = partial(sign_flips, seed=0, num_permutations=100)
    assert (len(flips(np.ones(12)).values), flips(np.ones(12)).exact) == (4096, True)
    assert flips(np.array([1.0, 2.0])).values.tolist() == [1.5, 0.5, -0.5, -1.5]
    many = flips(np.ones(13))
    monkeypatch.setattr(stats.permutation, "BLOCK_ENTRIES", 13 * 7)
    blocks = flips(np.ones(13))
    for drawn in (many, blocks):
        assert (len(drawn.values), drawn.exact) == (100, False)
        # Four standard errors of the mean of 100 means of 13 signs.
        assert abs(drawn.values.mean()) < 4 / np.sqrt(13 * 100)
    with pytest.raises(ValueError, match="num_permutations must be >= 1"):
        stats.paired_permutation([1, 2], [2, 1], seed=0, num_permutations=0)


def test_paired_permutation_of_degenerate_pairs():
    test = partial(stats.paired_permutation, seed=0)
    nothing = stats.PairedDifference(None, None, None, 0, None)
    assert test([], []) == test([None], [1.0]) == test([1.0], [INF]) == nothing
    assert test([1.0], [3.0]) == stats.PairedDifference(2.0, None, None, 1, 1.0)
    assert test([0.5] * 20, [0.5] * 20) == stats.PairedDifference(0.0, 0.0, 0.0, 20, 1.0)
    assert test([0.1, None, 0.3], [0.2, 0.5, 0.5]) == test([0.1, 0.3], [0.2, 0.5])


def test_area_by_hand():
    assert stats.area([0, 1, 3], [1.0, 0.5, 0.0]) == pytest.approx((0.75 + 0.5) / 3)
    assert stats.area([5, 7], [0.2, 0.4]) == pytest.approx(0.3)
    for bad in ([None, 1.0], [NAN, 1.0], [INF, 1.0]):
        assert stats.area([0, 1], bad) is None
    assert stats.area([], []) is stats.area([3], [0.5]) is None
    for ks in ([1, 1], [2, 1], [0, NAN], [0, INF]):
        with pytest.raises(ValueError, match="ks must rise"):
            stats.area(ks, [0.5, 0.5])
    with pytest.raises(ValueError, match="3 values for 2 k"):
        stats.area([0, 1], [0.5] * 3)


def test_faithfulness_by_hand():
    found = stats.faithfulness([0, 2, 4], [0.8, 0.4, 0.0], 0.8)
    assert (found.cpr, found.cmd) == pytest.approx((0.5, 0.5))
    # Heads that nothing hangs on, and heads whose ablation helps: |1 - f| counts both ways.
    assert stats.faithfulness([0, 4], [0.8, 0.8], 0.8) == stats.Faithfulness(1.0, 0.0)
    better = stats.faithfulness([0, 4], [0.8, 1.6], 0.8)
    assert (better.cpr, better.cmd) == pytest.approx((1.5, 0.5))


@pytest.mark.parametrize("baseline", [0, 0.0, None, NAN, INF])
def test_faithfulness_to_nothing_does_not_exist(baseline):
    assert stats.faithfulness(KS, [0.5] * 5, baseline) == stats.Faithfulness(None, None)
    assert stats.faithfulness([0], [0.5], 0.5) == stats.Faithfulness(None, None)
    assert stats.faithfulness([0, 1], [0.5, None], 0.5) == stats.Faithfulness(None, None)


def test_the_interval_of_faithfulness_resamples_accuracy_and_baseline_together():
    rng = np.random.default_rng(2)
    baseline = (rng.uniform(size=60) < 0.7).astype(float)
    halved = np.stack([baseline * 2.0**-k for k in range(5)])
    exact = stats.faithfulness_interval(KS, halved, baseline, seed=0, num_resamples=200)
    expected = stats.area(KS, [1, 0.5, 0.25, 0.125, 0.0625])
    # Each example falls alike, so that there is nothing to be unsure of.
    for name, value in (("cpr", expected), ("cmd", 1 - expected)):
        found = exact[name]
        assert (found.value, found.low, found.high) == pytest.approx((value,) * 3)
        assert found.n == 60
    noisy = (rng.uniform(size=(5, 60)) < 0.4).astype(float)
    found = stats.faithfulness_interval(KS, noisy, baseline, seed=0, num_resamples=200)["cpr"]
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(
        stats.faithfulness(KS, noisy.mean(axis=1), baseline.mean()).cpr
    )


def test_the_interval_of_faithfulness_of_degenerate_input():
    interval = partial(stats.faithfulness_interval, KS, seed=0, num_resamples=50)
    none = {name: stats.Estimate(None, None, None, 0) for name in ("cpr", "cmd")}
    assert interval(np.empty((5, 0)), []) == none
    assert interval(np.full((5, 3), NAN), [1, 1, 1]) == none
    one = interval(np.ones((5, 1)), [1.0])
    assert one["cpr"] == stats.Estimate(1.0, None, None, 1)
    assert interval(np.ones((5, 3)), [0, 0, 0])["cmd"] == stats.Estimate(None, None, None, 3)
    for shape, n in (((4, 3), 3), ((5, 3), 2)):
        with pytest.raises(ValueError, match="shapes differ"):
            interval(np.ones(shape), [1.0] * n)


def test_share_recovered_by_hand():
    found = share([0.2, 0.4], [0.5, 0.7], [0.8, 1.0])
    assert found.n == 2
    assert (found.share, found.share_low, found.share_high) == pytest.approx((0.5,) * 3)
    assert (found.gap, found.gap_low, found.gap_high) == pytest.approx((0.6,) * 3)
    assert share([0.2] * 3, [0.1] * 3, [0.4] * 3).share == pytest.approx(-0.5)
    assert share([0.4] * 3, [0.1] * 3, [0.2] * 3).share == pytest.approx(1.5)


def test_a_share_is_given_where_the_gap_is_unsure_and_the_gap_says_so():
    rng = np.random.default_rng(4)
    original, source = (rng.uniform(size=(2, 30)) < 0.5).astype(float)
    found = share(original, source, source)
    assert found.gap != 0
    assert found.gap_low < 0 < found.gap_high
    assert found.share == pytest.approx(1)
    assert (found.gap, found.gap_low, found.gap_high) == pytest.approx(
        stats.paired_bootstrap(original, source, seed=0)
    )


def test_share_of_no_gap_or_of_too_little():
    none = share([0.1 + 0.2] * 4, [0.5] * 4, [0.3] * 4)
    assert none.share is none.share_low is none.share_high is None
    assert none.gap == pytest.approx(0)
    assert set(asdict(share([], [], [])).values()) == {None, 0}
    one = share([0.0, None], [0.5, 0.5], [1.0, 1.0])
    assert (one.share, one.share_low, one.gap, one.gap_low, one.n) == (0.5, None, 1.0, None, 1)
    with pytest.raises(ValueError, match="shapes differ"):
        share([0.1], [0.1, 0.2], [0.1])


@PROFILE
@given(st.integers(0, 200), st.floats(0.1, 5))
def test_share_is_invariant_to_the_unit_of_accuracy(seed, unit):
    rows = np.random.default_rng(seed).uniform(size=(3, 6))
    found, scaled = share(*rows), share(*(unit * rows))
    assert scaled.share == pytest.approx(found.share)
    assert scaled.gap == pytest.approx(unit * found.gap)


def test_bins_by_depth():
    depth = [0.0, 0.1, 0.24, 0.25, 0.5, 1.0, 1.2, -0.1]
    values = [1.0, 0.0, 0.5, 0.2, 0.8, 0.6, 9.0, 9.0]
    found = stats.by_bins(values, depth, seed=0, edges=[0, 0.25, 0.5, 0.75, 1])
    assert [(b.low, b.high, b.n) for b in found] == [
        *[(0, 0.25, 3), (0.25, 0.5, 1), (0.5, 0.75, 1), (0.75, 1, 1)]
    ]
    assert [b.mean for b in found] == pytest.approx([0.5, 0.2, 0.8, 0.6])
    interval = stats.bootstrap_interval([1.0, 0.0, 0.5], seed=0)
    assert (found[0].mean_low, found[0].mean_high) == interval
    assert found[1].mean_low is found[1].mean_high is None


def test_bins_by_length_hold_as_many_examples_each():
    lengths = np.random.default_rng(0).permutation(100) ** 2
    found = stats.by_bins(np.sqrt(lengths), lengths, seed=0, num_bins=4)
    assert [b.n for b in found] == [25] * 4
    assert [b.mean for b in found] == pytest.approx([12, 37, 62, 87])
    assert (found[0].low, found[-1].high) == (0, 99**2)
    assert all(b.mean_low < b.mean < b.mean_high for b in found)


def test_bins_of_empty_equal_and_missing_positions():
    empty = stats.by_bins([1.0], [0.9], seed=0, edges=[0, 0.5, 1])[0]
    assert empty == stats.Bin(0.0, 0.5, 0, None, None, None)
    assert [b.n for b in stats.by_bins([], [], seed=0, edges=[0, 1])] == [0]
    assert stats.by_bins([None, 1.0], [3, NAN], seed=0, num_bins=4) == []
    equal = stats.by_bins([0.0, 1.0, None], [7, 7, 7], seed=0, num_bins=3)
    assert [(b.low, b.high, b.n, b.mean) for b in equal] == [(7, 7, 2, 0.5)]
    tied = stats.by_bins([0.0, 1.0, 2.0, 3.0], [7, 7, 7, 9], seed=0, num_bins=3)
    assert [(b.low, b.high, b.n) for b in tied] == [(7, 9, 4)]


@PROFILE
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(1, 6))
def test_every_example_is_in_one_quantile_bin(positions, num_bins):
    found = stats.by_bins(positions, positions, seed=0, num_bins=num_bins)
    assert sum(b.n for b in found) == len(positions)
    assert len(found) <= num_bins
    assert all(b.n == 0 or b.low - 1e-12 <= b.mean <= b.high + 1e-12 for b in found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either edges or num_bins"),
        ({"edges": [0, 1], "num_bins": 2}, "either edges or num_bins"),
        *[({"edges": edges}, "rise") for edges in ([0], [1, 0], [0, 0, 1], [0, NAN])],
        ({"num_bins": 0}, "num_bins must be >= 1"),
    ],
)
def test_bins_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        stats.by_bins([0.5], [0.5], seed=0, **options)
    with pytest.raises(ValueError, match="shapes differ"):
        stats.by_bins([0.5], [0.5, 0.6], seed=0, num_bins=1)


def test_a_seed_fixes_the_draws_of_pairs():
    before, after = np.random.default_rng(6).uniform(size=(2, 30))
    for draw in (
        partial(stats.paired_permutation, before, after),
        partial(stats.share_recovered, before, (before + after) / 2, after),
        partial(stats.faithfulness_interval, [0, 1], np.stack([before, after]), before),
        partial(stats.by_bins, before, after, num_bins=3),
    ):
        assert draw(seed=11) == draw(seed=11) != draw(seed=12)
