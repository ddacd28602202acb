from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats as scipy_stats

from sce import stats

NAN, INF = float("nan"), float("inf")
SHAPE = (3, 4)
PROFILE = settings(max_examples=40, deadline=None, derandomize=True, database=None)

head_sets = arrays(bool, SHAPE)
unit_scores = arrays(np.float64, SHAPE, elements=st.floats(0, 1))
any_scores = arrays(np.float64, SHAPE, elements=st.floats(allow_nan=True, allow_infinity=True))
points = st.tuples(st.integers(-50, 50), st.floats(-1e3, 1e3))
pairs = st.lists(points, min_size=3, max_size=12).map(lambda rows: np.array(rows).T)
OVERLAPS = (stats.recall, stats.precision, stats.jaccard)
NULLS = (stats.recall_null, stats.recall_null_layer)
CORRELATIONS = (stats.pearson, stats.spearman)


def heads(layers: str) -> np.ndarray:
    return np.array([[head == "x" for head in layer] for layer in layers.split()])


S = heads("xxx. ...x .x..")
R = heads(".xxx ...x ....")
B = heads(".x.. .... ..x.")
NONE, ONE_LAYER = heads(".... .... ...."), heads("xxxx")
SCORES = np.array([[0.9, 0.05], [0.0, 0.4]])
REFERENCE = np.array([[0.8, 0.3], [0.0, 0.5]])
BASE = np.array([[0.7, 0.0], [0.2, 0.1]])
PER_EXAMPLE = np.random.default_rng(0).uniform(size=(24, *SHAPE))


def test_head_set_is_strictly_above_tau_at_the_scores_own_precision():
    scores = np.array([[0.1, 0.1000001, NAN], [0.0, 1.0, -1.0]])
    assert stats.head_set(scores, 0.1).tolist() == [[False, True, False], [False, True, False]]
    assert not stats.head_set(np.full((1, 2), 0.1, dtype=np.float32), 0.1).any()


def test_top_heads_breaks_ties_by_lowest_layer_then_head():
    scores = np.array([[0.2, 0.5], [0.5, 0.5]])
    assert np.array_equal(stats.top_heads(scores, 2), heads(".x x."))
    assert np.array_equal(stats.top_heads(scores, 3), heads(".x xx"))
    large = np.tile([0.2, 0.5], (8, 16))
    assert np.flatnonzero(stats.top_heads(large, 3)).tolist() == [1, 3, 5]


def test_top_heads_never_takes_a_head_that_does_not_score():
    scores = np.array([[0.0, 0.3, -0.5], [NAN, 0.1, -0.0]])
    assert [stats.top_heads(scores, k).sum() for k in (0, 1, 2, 3, 99)] == [0, 1, 2, 2, 2]
    with pytest.raises(ValueError, match="k must be >= 0, got -1"):
        stats.top_heads(scores, -1)


@PROFILE
@given(unit_scores, st.integers(0, 20))
def test_top_heads_are_k_none_below_one_left_out_and_grow_with_k(scores, k):
    top = stats.top_heads(scores, k)
    assert top.sum() == min(k, (scores > 0).sum())
    assert not top.any() or top.all() or scores[top].min() >= scores[~top].max()
    assert not (top & ~stats.top_heads(scores, k + 1)).any()


def test_overlap_by_hand():
    assert stats.recall(S, R) == 3 / 4
    assert stats.precision(S, R) == 3 / 5
    assert stats.jaccard(S, R) == 3 / 6
    assert stats.recall_learned(S, R, B) == 2 / 3
    assert stats.recall_null(S, R) == 5 / 12
    assert stats.recall_null_layer(S, R) == (3 * 3 + 1 * 1 + 1 * 0) / (4 * 4)


def test_overlap_of_empty_sets():
    assert [measure(NONE, R) for measure in (*OVERLAPS, *NULLS)] == [0, None, 0, 0, 0]
    assert [measure(S, NONE) for measure in (*OVERLAPS, *NULLS)] == [None, 0, 0, None, None]
    assert [measure(NONE, NONE) for measure in (*OVERLAPS, *NULLS)] == [None] * 5
    assert stats.recall_learned(S, R, R) is stats.recall_learned(S, R, ~NONE) is None
    assert stats.recall_learned(NONE, R, B) == 0


@pytest.mark.parametrize(
    ("measure", "arguments"),
    [
        *[(measure, (ONE_LAYER, R)) for measure in (*OVERLAPS, *NULLS)],
        (stats.recall_learned, (S, R, ONE_LAYER)),
        (partial(stats.permutation_p_value, seed=0, layer_matched=True), (ONE_LAYER, R)),
        (stats.cosine, (np.ones((2, 3)), np.ones((3, 2)))),
        *[(measure, ([1, 2, 3], [1, 2, 3, 4])) for measure in CORRELATIONS],
        (partial(stats.compare, tau=0.1, k=1), (SCORES[:1], REFERENCE, BASE)),
        (partial(stats.compare, tau=0.1, k=1), (SCORES, REFERENCE[:1], None)),
        (partial(stats.compare, tau=0.1, k=1), (SCORES, REFERENCE, BASE[:1])),
        (partial(stats.paired_bootstrap, seed=0), ([0.5, 0.6], [0.6])),
    ],
)
def test_different_shapes_are_refused_even_where_they_would_broadcast(measure, arguments):
    with pytest.raises(ValueError, match="shapes differ"):
        measure(*arguments)


@PROFILE
@given(head_sets, head_sets, head_sets, head_sets)
def test_shares_are_bounded_and_recall_grows_with_the_set(s, more, r, b):
    assert stats.jaccard(s, r) == stats.jaccard(r, s)
    assert stats.recall(s | r, r) == (1 if r.any() else None)
    assert stats.recall_learned(s, r, NONE) == stats.recall(s, r)
    for share in (stats.precision(s, r), stats.jaccard(s, r)):
        assert share is None or 0 <= share <= 1
    learned = partial(stats.recall_learned, b=b)
    for measure, whole in ((stats.recall, r), (NULLS[0], r), (NULLS[1], r), (learned, r & ~b)):
        small, large = measure(s, r), measure(s | more, r)
        assert 0 <= small <= large <= 1 if whole.any() else small is large is None


def test_cosine_by_hand():
    assert stats.cosine(np.array([3.0, 4.0]), np.array([4.0, 3.0])) == pytest.approx(24 / 25)
    assert stats.cosine(np.eye(2), np.ones((2, 2))) == pytest.approx(2 / np.sqrt(8))
    assert stats.cosine(np.array([1, 0]), np.array([0, 1])) == 0
    for aimless in ([], [0.0, 0.0], [NAN, 1.0], [INF, 1.0], [-INF, 0.0]):
        pair = np.array(aimless), np.ones(len(aimless))
        assert stats.cosine(*pair) is stats.cosine(*pair[::-1]) is None


@PROFILE
@given(any_scores, any_scores, st.sampled_from([1e300, 3.0, 1e-300, 5e-324]))
def test_cosine_is_symmetric_and_bounded_at_any_magnitude(a, b, magnitude):
    value = stats.cosine(a, b)
    assert value == stats.cosine(b, a)
    assert value is None or -1 <= value <= 1
    assert stats.cosine(np.full(4, magnitude), np.eye(4)[0]) == pytest.approx(0.5)


def test_correlations_by_hand():
    assert stats.pearson([1.0, 2.0, 3.0], [2, 4, 6]) == pytest.approx(1)
    assert stats.pearson([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)
    assert stats.spearman([1, 2, 3], [1, 10, 100]) == pytest.approx(1)
    assert stats.spearman([1, 2, 3, 4], [4, 3, 1, 2]) == pytest.approx(-0.8)
    # Ties share their mean rank: (1, 2.5, 2.5, 4) against (1, 2, 3, 4).
    assert stats.spearman([0, 5, 5, 9], [1, 2, 3, 4]) == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    assert stats.spearman([1e-300, 2e-300, 1e300], [1, 2, 3]) == pytest.approx(1)
    assert stats.pearson([-1e308, 0.0, 1e308], [1, 2, 3]) == pytest.approx(1)


@pytest.mark.parametrize(
    "bad",
    [
        *([], [0.1], [0.1, 0.2]),  # too few
        *([0.3, 0.3, 0.3], [0, 0, 0], [0.3, 0.1 + 0.2, 0.3]),  # constant, if only up to rounding
        *([1.0, NAN, 2.0], [1.0, INF, 2.0], [1.0, None, 2.0]),
    ],
)
def test_correlation_of_a_degenerate_series_is_none(bad):
    good = list(range(len(bad)))
    for measure in CORRELATIONS:
        assert measure(bad, good) is measure(good, bad) is None


@PROFILE
@given(pairs)
def test_correlations_are_symmetric_bounded_and_those_of_scipy(pair):
    reference = (scipy_stats.pearsonr, scipy_stats.spearmanr)
    for measure, theirs in zip(CORRELATIONS, reference, strict=True):
        value = measure(*pair)
        assert value == measure(*pair[::-1])
        assert value is None or -1 <= value <= 1
        if np.ptp(pair, axis=1).min() > 1e-6:
            assert value == pytest.approx(theirs(*pair).statistic, abs=1e-9)


def test_first_differences():
    assert stats.first_differences([0.5, 0.75, 0.25]).tolist() == [0.25, -0.5]
    assert stats.first_differences([]).size == stats.first_differences([0.5]).size == 0
    for gap in ([0.5, None, 1.0], [INF, INF]):
        assert np.isnan(stats.first_differences(gap)).all()


def test_compare_by_hand():
    expected = {
        "recall": 2 / 3,
        "recall_null": 2 / 4,
        "recall_null_layer": (1 * 2 + 1 * 1) / (2 * 3),
        "recall_base": 1 / 3,
        "recall_learned": 1 / 2,
        "precision": 1,
        "jaccard": 2 / 3,
        "recall_at_k": 1,
        "cosine": 0.935 / np.sqrt(0.9725 * 0.98),
        "cosine_base": 0.61 / np.sqrt(0.54 * 0.98),
        "cosine_learned": 0.195 / np.sqrt(0.1725 * 0.30),
        "spearman": 1,
        "num_heads": 2,
        "num_reference_heads": 3,
    }
    assert asdict(stats.compare(SCORES, REFERENCE, BASE, tau=0.1, k=3)) == pytest.approx(expected)
    without = dict.fromkeys(("recall_base", "recall_learned", "cosine_base", "cosine_learned"))
    found = asdict(stats.compare(SCORES, REFERENCE, None, tau=0.1, k=3))
    assert found == pytest.approx(expected | without)


def test_compare_where_nothing_is_learned_nothing_scores_or_scores_are_not_finite():
    found = stats.compare(BASE, REFERENCE, BASE, tau=0.1, k=2)
    assert (found.cosine_learned, found.recall_learned) == (None, 0)
    assert (found.recall, found.cosine) == (found.recall_base, found.cosine_base)
    zero = np.zeros((2, 2))
    *shares, n, m = asdict(stats.compare(zero, zero, zero, tau=0.1, k=3)).values()
    assert (set(shares), n, m) == ({None}, 0, 0)
    found = stats.compare(zero, REFERENCE, None, tau=0.1, k=3)
    assert (found.recall, found.precision, found.recall_at_k, found.cosine) == (0, None, 0, None)
    for bad in (np.full((2, 2), NAN), np.full((2, 2), INF)):
        found = stats.compare(bad, REFERENCE, bad, tau=0.1, k=2)
        assert found.cosine is found.cosine_learned is found.spearman is None


def test_bootstrap_interval_matches_the_normal_one_for_many_examples():
    values = np.random.default_rng(0).normal(0.5, 0.1, size=400)
    half_width = 1.96 * values.std() / np.sqrt(400)
    # With 2000 resamples each end has a standard error of 3% of the half-width.
    expected = (values.mean() - half_width, values.mean() + half_width)
    found = stats.bootstrap_interval(values, seed=1)
    assert found == pytest.approx(expected, abs=0.1 * half_width)


def test_bootstrap_in_blocks_draws_as_many_resamples(monkeypatch):
    monkeypatch.setattr(stats.resampling, "BLOCK_ENTRIES", 24 * 7)
    shapes = []
    stats.bootstrap_statistic(PER_EXAMPLE, lambda mean: shapes.append(mean.shape), seed=0)
    assert shapes == [SHAPE] * 2000


@pytest.mark.parametrize("values", [[], [0.5], [0.5, NAN, 0.1], [0.5, None], [0.5, INF]])
def test_bootstrap_of_too_little_or_broken_data_is_none(values):
    assert stats.bootstrap_interval(values, seed=0) is None
    assert stats.paired_bootstrap(values, values, seed=0) is None
    per_example = np.array(values, dtype=np.float64).reshape(-1, 1, 1)
    # An example that is NaN throughout was not kept: with it gone, two of the third case are left.
    expected = (1.0, 1.0) if len(values) == 3 else None
    assert stats.bootstrap_statistic(per_example, lambda _: 1.0, seed=0) == expected


def test_bootstrap_refuses_options_out_of_range():
    for options in ({"num_resamples": 0}, {"level": 1.0}, {"level": 0.0}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} must"):
            stats.bootstrap_interval([0, 1], seed=0, **options)


@settings(PROFILE, max_examples=20)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.integers(0, 5))
def test_bootstrap_interval_lies_within_the_values_and_widens_with_the_level(values, seed):
    low, high = stats.bootstrap_interval(values, seed=seed, num_resamples=200)
    inner = stats.bootstrap_interval(values, seed=seed, num_resamples=200, level=0.5)
    assert min(values) - 1e-12 <= low <= inner[0] <= inner[1] <= high <= max(values) + 1e-12


def test_paired_bootstrap_sees_a_shift_that_the_spread_hides():
    before = np.linspace(0, 1, 50)
    after = before + 0.1 + 0.01 * np.sin(np.arange(50))
    mean, low, high = stats.paired_bootstrap(before, after, seed=0)
    assert mean == pytest.approx((after - before).mean())
    assert 0.09 < low < mean < high < 0.11
    turned = stats.paired_bootstrap(after, before, seed=0)
    assert turned == pytest.approx((-mean, -high, -low))


def test_bootstrap_statistic_of_one_head_recall_and_cosine():
    one = stats.bootstrap_statistic(PER_EXAMPLE, lambda mean: float(mean[1, 2]), seed=3)
    assert one == pytest.approx(stats.bootstrap_interval(PER_EXAMPLE[:, 1, 2], seed=3))
    run, reference = PER_EXAMPLE[:12], PER_EXAMPLE[12:].mean(axis=0)
    for statistic in (
        lambda mean: stats.compare(mean, reference, None, tau=0.5, k=3).recall,
        lambda mean: stats.cosine(mean, reference),
    ):
        draw = partial(stats.bootstrap_statistic, statistic=statistic, seed=0, num_resamples=200)
        low, high = draw(run)
        assert 0 <= low < high <= 1
        expected = (statistic(run[0]), statistic(run[0]))
        assert draw(np.broadcast_to(run[:1], (5, *SHAPE))) == pytest.approx(expected)


@pytest.mark.parametrize("missing", [None, NAN, INF])
@pytest.mark.parametrize(("num_missing", "interval"), [(0, (1, 1)), (50, (1, 1)), (51, None)])
def test_bootstrap_statistic_needs_half_of_its_resamples(missing, num_missing, interval):
    values = iter([missing] * num_missing + [1.0] * (100 - num_missing))
    draw = {"seed": 0, "num_resamples": 100}
    assert stats.bootstrap_statistic(PER_EXAMPLE, lambda _: next(values), **draw) == interval


@pytest.mark.parametrize("layer_matched", [False, True])
def test_nulls_and_p_values_are_those_of_shuffled_heads(layer_matched):
    rng = np.random.default_rng(7)
    rows = S if layer_matched else S.reshape(1, -1)
    shuffles = (rng.permuted(rows, axis=1).reshape(SHAPE) for _ in range(4000))
    recalls = np.array([(shuffle & R).sum() / R.sum() for shuffle in shuffles])
    null = stats.recall_null_layer if layer_matched else stats.recall_null
    # One draw's recall spreads by less than 0.25: 0.016 is four standard errors of 4000 draws.
    assert null(S, R) == pytest.approx(recalls.mean(), abs=0.016)
    p_value = partial(stats.permutation_p_value, seed=0, layer_matched=layer_matched)
    # Four standard errors of the difference of shares of 4000 and of 10000 draws, at most.
    assert p_value(S, R) == pytest.approx((recalls >= 3 / 4).mean(), abs=0.038)
    assert p_value(S, NONE) is None
    assert p_value(NONE, R) == 1


def test_what_the_untuned_model_had_makes_no_overlap_significant():
    """S has learned nothing: all it shares with R is B."""
    b = np.zeros((4, 16), dtype=bool)
    b[:, :4] = True
    s, r = b.copy(), b.copy()
    r[:, 4:6] = True
    s[:, 10] = True
    p_value = partial(stats.permutation_p_value, s, r, seed=0, layer_matched=True)
    assert p_value() < 0.001
    assert p_value(b) == 1.0
    s[:, 4] = True
    missed = 10 * 9 / (12 * 11)  # two of twelve heads a layer, neither of R's two
    one, both = 2 * 2 * 10 / (12 * 11), 2 / (12 * 11)
    law = np.array([1.0])
    for _ in range(4):
        law = np.convolve(law, [missed, one, both])
    assert p_value(b) == pytest.approx(law[4:].sum(), abs=0.01)
    assert p_value(r) is None


def test_permutation_p_value_is_the_hypergeometric_tail_and_never_0():
    p_value = partial(stats.permutation_p_value, seed=0)
    # Four standard errors of a share of 10000 draws, at most.
    exact = scipy_stats.hypergeom.sf(3 - 1, 12, 4, 5)
    assert p_value(S, R, layer_matched=False) == pytest.approx(exact, abs=0.02)
    layer = np.arange(400).reshape(20, 20) < 20
    assert p_value(layer, layer, num_permutations=99, layer_matched=False) == 1 / 100
    assert p_value(layer, layer, num_permutations=99, layer_matched=True) == 1


def test_a_seed_fixes_the_draws():
    first, second = PER_EXAMPLE[:, 0, 0], PER_EXAMPLE[:, 0, 1]
    for draw in (
        partial(stats.bootstrap_interval, first),
        partial(stats.paired_bootstrap, first, second),
        partial(stats.bootstrap_statistic, PER_EXAMPLE, lambda mean: float(mean.max())),
        partial(stats.permutation_p_value, S, R, layer_matched=True),
    ):
        assert draw(seed=11) == draw(seed=11) != draw(seed=12)
