"""Correlations with intervals and p values, within and between runs, with and without labels."""

from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats as scipy_stats

from sce import stats
from sce.stats.permutation import exchanges
from sce.stats.resampling import resample_counts
from sce.stats.series import codes, without_means

NAN, INF = float("nan"), float("inf")
PROFILE = settings(max_examples=25, deadline=None, derandomize=True, database=None)
RNG = np.random.default_rng(0)
X = RNG.normal(size=12)
Y = X + RNG.normal(size=12)
quick = partial(stats.correlate, seed=0, num_resamples=200, num_permutations=400)
maps = arrays(np.float64, (3, 4), elements=st.integers(0, 5).map(float))
short = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=3, max_size=6)


def test_partial_given_layer_by_hand():
    layers = np.array([[1.0, 2.0, 3.0], [11.0, 12.0, 13.0]])
    within = np.array([[3.0, 2.0, 1.0], [13.0, 12.0, 11.0]])
    assert stats.spearman(layers.ravel(), within.ravel()) > 0.5
    assert stats.partial_given_layer(layers, within) == pytest.approx(-1)
    assert stats.partial_given_layer(layers, within, ranks=False) == pytest.approx(-1)
    bent = np.array([[1.0, 2.0, 9.0], [11.0, 12.0, 90.0]])
    assert stats.partial_given_layer(layers, bent) == pytest.approx(1)
    assert stats.partial_given_layer(layers, bent, ranks=False) < 0.95


@PROFILE
@given(maps, maps, st.booleans())
def test_partial_given_layer_is_that_of_residuals_of_a_regression_on_layers(x, y, ranks):
    dummies = np.kron(np.eye(3), np.ones((4, 1)))
    rows = [scipy_stats.rankdata(m) if ranks else m.ravel() for m in (x, y)]
    left = [row - dummies @ np.linalg.lstsq(dummies, row)[0] for row in rows]
    value = stats.partial_given_layer(x, y, ranks=ranks)
    assert value == stats.partial_given_layer(y, x, ranks=ranks)
    assert value == pytest.approx(stats.partial_given_layer(x[::-1], y[::-1], ranks=ranks))
    if min(np.abs(row).max() for row in left) < 1e-9:
        assert value is None
    else:
        assert value == pytest.approx(scipy_stats.pearsonr(*left).statistic, abs=1e-9)


def test_partial_given_one_layer_is_spearman():
    assert stats.partial_given_layer(X[None], Y[None]) == pytest.approx(stats.spearman(X, Y))


def test_partial_given_layer_where_there_is_none():
    good = np.arange(12.0).reshape(3, 4)
    by_layer = np.repeat([[0.1], [0.7], [0.3]], 4, axis=1)
    for bad in (by_layer, np.where(good == 5, NAN, good), np.where(good == 5, INF, good)):
        for ranks in (True, False):
            assert stats.partial_given_layer(good, bad, ranks=ranks) is None
    for shape in ((5, 1), (1, 2), (0, 4)):
        few = np.arange(float(np.prod(shape))).reshape(shape)
        assert stats.partial_given_layer(few, few) is None
    with pytest.raises(ValueError, match="shapes differ"):
        stats.partial_given_layer(good, good.T)


def test_what_is_left_without_means_is_exactly_equal_where_it_should_be():
    left = without_means(np.array([0.1, 0.3, 0.7, 0.9]), codes(["a", "a", "b", "b"]))
    assert left[0] == left[2] == -left[1] == -left[3]
    assert without_means(np.array([0.1, 0.3]), codes(["a", "b"])).tolist() == [0, 0]
    assert without_means(np.zeros(2), codes("ab")).tolist() == [0, 0]
    assert without_means(np.array([]), codes([])).size == 0


@settings(PROFILE, max_examples=12)
@given(short)
def test_short_series_have_the_exact_p_value_of_scipy(points):
    x, y = np.array(points, dtype=float).T
    assume(np.ptp(x) > 0 and np.ptp(y) > 0)
    found = quick(x, y)
    theirs = scipy_stats.permutation_test(
        (x,),
        lambda drawn: abs(round(stats.spearman(drawn, y), 9)),
        permutation_type="pairings",
        alternative="greater",
        n_resamples=np.inf,
    )
    assert found.p_value == pytest.approx(theirs.pvalue)
    assert found == quick(x, y) == quick(y, x)
    assert found.spearman_low is found.spearman_high is None


def test_long_series_have_the_drawn_p_value_of_scipy():
    found = stats.correlate(X, Y, seed=0)
    exact = scipy_stats.spearmanr(X, Y)
    assert found.spearman == pytest.approx(exact.statistic)
    assert found.pearson == pytest.approx(scipy_stats.pearsonr(X, Y).statistic)
    theirs = scipy_stats.permutation_test(
        (X,),
        lambda drawn: abs(stats.spearman(drawn, Y)),
        permutation_type="pairings",
        alternative="greater",
        n_resamples=2000,
        rng=np.random.default_rng(1),
    )
    # Four standard errors of the difference of shares of 10000 and 2000 draws near 0.02.
    assert found.p_value == pytest.approx(theirs.pvalue, abs=0.014)
    assert 1 / 10_001 <= found.p_value < 0.2
    # (1 + hits) / (1 + draws) is a multiple of 1 / 10001.
    assert found.p_value * 10_001 == pytest.approx(round(found.p_value * 10_001))


def test_a_perfect_order_has_the_smallest_p_value_there_is():
    for n, expected in ((3, 2 / 6), (4, 2 / 24), (5, 2 / 120), (7, 2 / 5040), (30, 1 / 401)):
        for sign in (1, -1):
            assert quick(range(n), [sign * i for i in range(n)]).p_value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("n", "critical"),
    # Two-sided 5%: exact tables (Zar 1972) to 10, the t approximation at 60.
    [(3, None), (4, None), (5, 1.0), (6, 0.886), (7, 0.786), (8, 0.738), (10, 0.648), (60, 0.254)],
)
def test_smallest_detectable_is_the_critical_value_of_the_tables(n, critical):
    order = np.random.default_rng(n).permutation(n)
    found = stats.correlate(range(n), order, seed=0)
    if critical is None:
        assert found.smallest_detectable is None
    else:
        assert found.smallest_detectable == pytest.approx(critical, abs=6e-4 if n < 8 else 0.03)


@PROFILE
@given(st.integers(0, 10_000), st.integers(5, 10))
def test_what_is_detectable_is_what_has_a_p_value_of_5_percent(seed, n):
    x, y = np.random.default_rng(seed).integers(0, 6, size=(2, n)).astype(float)
    found = quick(x, y)
    assume(found.spearman is not None and found.smallest_detectable is not None)
    is_large = round(abs(found.spearman), 9) >= found.smallest_detectable
    assert found.p_value <= 0.05 or not is_large
    if n <= 7:  # a drawn null may hold nothing between the observed value and the next larger one
        assert found.p_value > 0.05 or is_large


def resampled(
    x: np.ndarray, y: np.ndarray, units: np.ndarray, correlation=scipy_stats.spearmanr
) -> tuple[float, float]:
    """The same draws by repeating points, correlated by scipy."""
    counts = np.concatenate(list(resample_counts(int(units.max()) + 1, 0, 200))).astype(int)
    draws = []
    for times in counts[:, units]:
        drawn = np.repeat(x, times), np.repeat(y, times)
        if min(map(np.ptp, drawn)) > 0:
            draws.append(correlation(*drawn).statistic)
    return tuple(np.quantile(draws, [0.025, 0.975]))


@settings(PROFILE, max_examples=5)
@given(st.integers(0, 1000), st.booleans())
def test_intervals_are_those_of_repeated_points_with_ties(seed, grouped):
    rng = np.random.default_rng(seed)
    units = np.sort(rng.integers(0, 9, size=20)) if grouped else np.arange(20)
    units = codes(units.tolist())
    assume(units.max() >= 7)
    x, y = rng.integers(0, 5, size=(2, 20)).astype(float)
    found = quick(x, y, groups=units.tolist() if grouped else None)
    assert (found.spearman_low, found.spearman_high) == pytest.approx(resampled(x, y, units))
    assert (found.pearson_low, found.pearson_high) == pytest.approx(
        resampled(x, y, units, scipy_stats.pearsonr)
    )
    assert found.num_groups == (units.max() + 1 if grouped else None)


def test_no_interval_below_eight_units():
    for name in ("spearman_low", "spearman_high", "pearson_low", "pearson_high"):
        assert getattr(quick(X[:7], Y[:7]), name) is None
        assert getattr(quick(X[:8], Y[:8]), name) is not None
        assert getattr(quick(X, Y, groups=[i // 2 for i in range(12)]), name) is None


def test_the_interval_of_the_pearson_is_blind_to_units_and_to_what_only_rounding_varies():
    found = quick(X, Y)
    limits = found.pearson_low, found.pearson_high
    assert -1 <= found.pearson_low < found.pearson < found.pearson_high <= 1
    for x in (1e200 * X, 1e-200 * X, X - 1e3):
        scaled = quick(x, Y)
        assert (scaled.pearson_low, scaled.pearson_high) == pytest.approx(limits)
    # Two values a rounding apart are one: a resample without the third has no correlation.
    rare = np.array([0.3, 0.1 + 0.2, 0.3, 0.1 + 0.2, 0.3, 0.1 + 0.2, 0.3, 5.0])
    y = np.arange(8.0)
    drawn = np.concatenate(list(resample_counts(8, 0, 200))).astype(int)
    kept = [stats.pearson(np.repeat(rare, times), np.repeat(y, times)) for times in drawn]
    assert any(value is None for value in kept)
    expected = np.quantile([value for value in kept if value is not None], [0.025, 0.975])
    found = quick(rare, y)
    assert (found.pearson_low, found.pearson_high) == pytest.approx(tuple(expected))


def test_seeds_of_a_setting_are_no_more_evidence_than_one():
    n, seeds = 9, 3
    x, y = RNG.normal(size=(2, n))
    y += 1.2 * x
    alone = stats.correlate(x, y, seed=0)
    names = [f"setting {i}" for i in range(n) for _ in range(seeds)]
    copies = np.repeat(x, seeds), np.repeat(y, seeds)
    grouped = stats.correlate(*copies, seed=0, groups=names)
    pooled = stats.correlate(*copies, seed=0)
    assert grouped.spearman == pytest.approx(alone.spearman)
    assert (grouped.n, grouped.num_groups, alone.num_groups) == (27, 9, None)
    assert grouped.p_value == pytest.approx(alone.p_value, abs=0.01)
    assert (grouped.spearman_low, grouped.spearman_high) == pytest.approx(
        (alone.spearman_low, alone.spearman_high)
    )
    assert grouped.smallest_detectable == pytest.approx(alone.smallest_detectable, abs=0.03)
    assert pooled.p_value < grouped.p_value
    assert pooled.smallest_detectable < 0.7 * grouped.smallest_detectable


@PROFILE
@given(st.permutations(range(9)))
def test_names_of_groups_do_not_matter_and_a_point_each_is_no_group(names):
    x, y = X[:9], Y[:9]
    assert asdict(quick(x, y, groups=names)) == asdict(quick(x, y)) | {"num_groups": 9}
    thirds = [i // 3 for i in range(9)]
    assert quick(x, y, groups=[names[third] for third in thirds]) == quick(x, y, groups=thirds)


def test_groups_change_places_whole_and_only_with_groups_of_their_size():
    units, one = codes("aabbcdd"), np.zeros(7, dtype=np.int64)
    orders, exact = exchanges(units, one, seed=0, num_permutations=10)
    assert exact
    assert len(orders) == 6
    assert {tuple(order) for order in orders.tolist()} == {
        *[(0, 1, 2, 3, 4, 5, 6), (2, 3, 0, 1, 4, 5, 6), (0, 1, 5, 6, 4, 2, 3)],
        *[(5, 6, 2, 3, 4, 0, 1), (2, 3, 5, 6, 4, 0, 1), (5, 6, 0, 1, 4, 2, 3)],
    }
    strata = np.array([0, 0, 0, 0, 1, 1, 1])
    orders, _ = exchanges(units, strata, seed=0, num_permutations=10)
    assert {tuple(order) for order in orders.tolist()} == {
        (0, 1, 2, 3, 4, 5, 6), (2, 3, 0, 1, 4, 5, 6),
    }  # fmt: skip
    assert exchanges(codes("aab"), one[:3], seed=0, num_permutations=10) is None
    drawn, exact = exchanges(np.arange(8), one.repeat(2)[:8], seed=0, num_permutations=10)
    assert not exact
    assert all(sorted(order) == list(range(8)) for order in drawn.tolist())
    with pytest.raises(ValueError, match="num_permutations must be >= 1"):
        exchanges(units, one, seed=0, num_permutations=0)


def test_groups_that_cannot_change_places_have_no_p_value():
    found = quick(X[:6], Y[:6], groups=list("aaabbc"))
    assert found.p_value is found.smallest_detectable is None
    assert found.spearman is not None


def test_points_that_lack_a_value_are_left_out():
    x, y = [*X, None, 1.0, NAN, 2.0], [*Y, 1.0, None, 1.0, INF]
    names = [*range(12), *"abcd"]
    assert stats.correlate(x, y, seed=0) == stats.correlate(X, Y, seed=0)
    assert quick(x, y, groups=names) == quick(X, Y, groups=list(range(12)))


@pytest.mark.parametrize("x", [[], [0.1], [0.1, 0.2], [0.3] * 9, [None] * 9, [1.0, 2.0, NAN]])
def test_correlation_that_does_not_exist_still_has_its_n(x):
    found = asdict(quick(x, range(len(x))))
    assert found.pop("n") == sum(value is not None and value == value for value in x)
    assert set(found.values()) == {None}


def test_correlate_refuses_unequal_lengths():
    with pytest.raises(ValueError, match="shapes differ"):
        quick([1, 2, 3], [1, 2, 3, 4])
    with pytest.raises(ValueError, match="2 labels for 3 points"):
        quick([1, 2, 3], [1, 2, 3], groups=["a", "b"])


@PROFILE
@given(st.integers(0, 500))
def test_correlation_is_symmetric_bounded_and_blind_to_rising_maps(seed):
    x, y = np.random.default_rng(seed).normal(size=(2, 9))
    found, turned = quick(x, y), quick(y, x)
    assert found.spearman == pytest.approx(turned.spearman)
    assert (found.spearman_low, found.spearman_high) == pytest.approx(
        (turned.spearman_low, turned.spearman_high)
    )
    assert -1 <= found.spearman_low <= found.spearman_high <= 1
    assert 0 < found.p_value <= 1
    pearson = ("pearson", "pearson_low", "pearson_high")
    bent = asdict(quick(np.exp(x), y)) | {name: getattr(found, name) for name in pearson}
    assert bent == pytest.approx(asdict(found))


def test_within_and_between_runs_by_hand():
    # In every run y falls as x rises; runs with higher x have higher y.
    runs = [name for name in "abcd" for _ in range(4)]
    x = [run + step for run in (0, 10, 20, 30) for step in range(4)]
    y = [run - step for run in (0, 10, 20, 30) for step in range(4)]
    found = stats.within_and_between(runs, x, y)
    assert found.within.value == pytest.approx(-1)
    assert (found.within.low, found.within.high) == pytest.approx((-1, -1))
    assert (found.within.n, found.num_points) == (4, 16)
    assert found.within_pooled.value == pytest.approx(-1)
    assert (found.within_pooled.n, found.num_points_pooled) == (4, 16)
    assert found.between == stats.correlate([3, 13, 23, 33], [-3, 7, 17, 27], seed=0)
    assert found.between.spearman == pytest.approx(1)
    assert found.between.n == 4


def test_runs_without_a_correlation_are_not_counted_as_having_one():
    runs = ["a", "a", "a", "b", "b", "b", "c", "c", "d"]
    x = [1, 2, 3, 5, 5, 5, 1, 2, 4]
    y = [1, 3, 2, 1, 2, 3, 2, 1, None]
    found = stats.within_and_between(runs, x, y)
    assert asdict(found.within) == {"value": pytest.approx(0.5), "low": None, "high": None, "n": 1}
    assert (found.num_points, found.within_pooled.n, found.num_points_pooled) == (3, 3, 8)
    # Without the means: a (-1, 0, 1) with (-1, 1, 0), b constant in x, c (-.5, .5) with (.5, -.5).
    expected = (1 - 0.5) / np.sqrt((2 + 0.5) * (2 + 2 + 0.5))
    assert found.within_pooled.value == pytest.approx(expected)
    assert found.between == stats.correlate([3, 5, 2], [2, 3, 1], seed=0)


def test_pooled_within_runs_has_an_interval_over_runs():
    rng = np.random.default_rng(5)
    runs = np.repeat(np.arange(40), 5)
    own = rng.normal(size=200)
    x, y = runs + own, own + rng.normal(size=200) - 3 * runs
    pooled = stats.within_and_between(runs, x, y).within_pooled
    # The true correlation is 1 / sqrt(2); 160 free contrasts give a standard error of 0.04.
    assert pooled.value == pytest.approx(np.sqrt(0.5), abs=0.12)
    assert pooled.low < pooled.value < pooled.high
    assert 0.5 * 4 * 0.04 < pooled.high - pooled.low < 1.6 * 4 * 0.04


@pytest.mark.parametrize("n", [0, 1, 2])
def test_within_and_between_of_next_to_nothing(n):
    found = stats.within_and_between(["a"] * n, [1.0, 2.0][:n], [2.0, 1.0][:n])
    assert found.within == stats.Estimate(None, None, None, 0)
    assert found.within_pooled.value is found.between.spearman is None
    assert (found.num_points, found.between.n) == (0, min(n, 1))
    with pytest.raises(ValueError, match="3 labels for"):
        stats.within_and_between(["a"] * 3, [1.0] * n, [1.0] * n)


def test_a_correlation_of_tasks_alone_is_gone_without_their_means():
    rng = np.random.default_rng(3)
    labels = np.repeat(["mdqa", "musique", "summhay"], 10)
    shift = np.repeat([0.0, 5.0, 10.0], 10)
    x, y = shift + rng.normal(size=(2, 30))
    found = stats.pooled_and_by(x, y, labels, seed=0)
    assert found.pooled == stats.correlate(x, y, seed=0)
    assert found.pooled.spearman > 0.8
    assert found.pooled.p_value < 0.001
    assert list(found.by_label) == ["mdqa", "musique", "summhay"]
    assert found.by_label["musique"] == stats.correlate(x[10:20], y[10:20], seed=0)
    left = found.without_label_means
    assert left.n == 30
    assert abs(left.spearman) < left.smallest_detectable
    assert left.p_value > 0.05


def test_without_label_means_by_hand():
    # One task rises, one falls as steeply: pooled without means nothing is left; "c" is one point.
    found = stats.pooled_and_by(
        [1, 2, 3, 11, 12, 13, 99], [1, 2, 3, 23, 22, 21, 99], list("aaabbbc"), seed=0
    )
    assert found.without_label_means.n == 6
    assert found.without_label_means.pearson == pytest.approx(0)
    assert [own.spearman for own in found.by_label.values()] == pytest.approx([1, -1, None])
    assert found.by_label["c"].n == 1
    # Points change places within their task: 3! * 3! orders, 4 of which are as one-sided.
    same = stats.pooled_and_by([1, 2, 3, 11, 12, 13], [1, 2, 3, 21, 22, 23], list("aaabbb"), seed=0)
    assert same.without_label_means.p_value == pytest.approx(2 / 36)


def test_settings_stay_whole_in_every_part():
    rng = np.random.default_rng(8)
    labels = [task for task in ("a", "b") for _ in range(10)]
    groups = [f"cell {i // 2 % 5}" for i in range(20)]
    x, y = rng.normal(size=(2, 20))
    found = stats.pooled_and_by(x, y, labels, seed=0, groups=groups)
    assert (found.pooled.num_groups, found.without_label_means.num_groups) == (5, 10)
    assert {own.num_groups for own in found.by_label.values()} == {5}


def test_labels_with_nothing_left_and_no_points_at_all():
    found = stats.pooled_and_by([1, 2, 3, None], [1, 3, 2, 4], list("aaab"), seed=0)
    assert [own.n for own in found.by_label.values()] == [3, 0]
    nothing = stats.pooled_and_by([], [], [], seed=0)
    assert nothing.by_label == {}
    assert nothing.pooled.n == nothing.without_label_means.n == 0


def test_a_seed_fixes_the_draws_of_a_correlation():
    draw = partial(stats.correlate, X, Y)
    assert draw(seed=1) == draw(seed=1) != draw(seed=2)
