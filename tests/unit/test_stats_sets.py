"""Curves over tau and k, the mean over kept examples, several intervals at once, halves."""

import json
from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sce import stats
from sce.stats.sets import default_ks, default_taus

NAN, INF = float("nan"), float("inf")
SHAPE = (3, 4)
PROFILE = settings(max_examples=40, deadline=None, derandomize=True, database=None)
SCORES = np.array([[0.9, 0.05], [0.0, 0.4]])
REFERENCE = np.array([[0.8, 0.3], [0.0, 0.5]])
BASE = np.array([[0.7, 0.0], [0.2, 0.1]])
PER_EXAMPLE = np.random.default_rng(0).uniform(size=(24, *SHAPE))
unit_maps = arrays(np.float64, SHAPE, elements=st.floats(0, 1))
scored_examples = arrays(np.float64, (6, 2, 3), elements=st.floats(0, 1))
measures = partial(stats.split_half, tau=0.5, k=3, seed=0)


def with_rows(per_example: np.ndarray, **rows: float) -> np.ndarray:
    """A copy in which row N is filled with the value of the argument rowN."""
    changed = per_example.copy()
    for name, value in rows.items():
        changed[int(name.removeprefix("row"))] = value
    return changed


def is_bound(name: str) -> bool:
    return name.endswith(("_low", "_high"))


def test_curves_by_hand():
    found = stats.recall_curves(SCORES, REFERENCE, BASE, taus=[0.1, 0.6, 0.95], ks=[1, 2, 4])
    assert found.taus == [0.1, 0.6, 0.95]
    points = {name: values for name, values in found.by_tau.items() if not is_bound(name)}
    assert found.by_tau.keys() - points.keys() == {
        f"{name}_{end}" for name in points for end in ("low", "high")
    }
    assert points == {
        "recall": [2 / 3, 1, None],
        "recall_null": [2 / 4, 1 / 4, None],
        "recall_null_layer": [(1 * 2 + 1 * 1) / (2 * 3), 1 / 2, None],
        "recall_base": [1 / 3, 1, None],
        "recall_learned": [1 / 2, None, None],
        "precision": [1, 1, None],
        "jaccard": [2 / 3, 1, None],
        "num_heads": [2, 1, 0],
        "num_reference_heads": [3, 1, 0],
    }
    assert found.by_k["recall"] == [1, 1, 1]
    assert found.by_k["recall_base"] == [1, 1 / 2, 2 / 3]
    assert found.by_k["recall_learned"] == [None, 1, 1]
    assert found.by_k["num_heads"] == [1, 2, 3]


@PROFILE
@given(unit_maps, unit_maps, unit_maps, st.sampled_from([0.0, 0.02, 0.1, 0.5]), st.integers(0, 12))
def test_every_point_of_a_curve_is_the_comparison_there(scores, reference, base, tau, k):
    found = stats.recall_curves(scores, reference, base, taus=[tau], ks=[k])
    whole = asdict(stats.compare(scores, reference, base, tau=tau, k=k))
    assert {name: values[0] for name, values in found.by_tau.items()} == {
        name: None if is_bound(name) else whole[name] for name in found.by_tau
    }
    assert found.by_k["recall"] == [whole["recall_at_k"]]


def test_curves_without_the_untuned_model_or_any_score():
    found = stats.recall_curves(SCORES, REFERENCE)
    assert set(found.by_tau["recall_learned"]) == set(found.by_k["recall_base"]) == {None}
    empty = stats.recall_curves(np.zeros(SHAPE), np.full(SHAPE, NAN))
    assert empty.taus == default_taus(np.array([[1.0]]))
    assert set(empty.by_tau["recall"]) == set(empty.by_k["jaccard"]) == {None}
    assert stats.recall_curves(SCORES, REFERENCE, taus=[], ks=[]).by_tau == {}


def test_curves_are_plain_json_and_refuse_other_shapes():
    found = stats.recall_curves(SCORES, REFERENCE, BASE)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False)) == found.to_json()
    assert all(len(values) == len(found.ks) for values in found.by_k.values())
    for shapes in ((SCORES[:1], REFERENCE), (SCORES, REFERENCE, BASE[:1])):
        with pytest.raises(ValueError, match="shapes differ"):
            stats.recall_curves(*shapes)
    with pytest.raises(ValueError, match="k must be >= 0"):
        stats.recall_curves(SCORES, REFERENCE, ks=[-1])


@pytest.mark.parametrize(
    ("largest", "first", "last"),
    [
        *[(1.0, 1e-4, 0.9), (0.95, 1e-4, 0.9), (0.11, 1e-4, 0.9), (0.1, 1e-5, 0.09)],
        *[(0.01, 1e-6, 0.009), (0.001, 1e-7, 0.0009), (1.79, 1e-3, 9.0), (-1.0, 1e-4, 0.9)],
    ],
)
def test_default_taus_are_round_rise_and_follow_the_reference(largest, first, last):
    taus = default_taus(np.array([[largest, -5.0, NAN]]))
    assert (len(taus), taus[0], taus[1], taus[-1]) == (101, 0.0, first, last)
    steps = np.array(taus[2:]) / taus[1:-1]
    assert steps.min() > 1.05
    assert steps.max() < 1.15
    assert taus == default_taus(np.array([[largest, -9.0, INF]]))


def test_default_taus_hold_the_usual_thresholds_exactly():
    assert {0.02, 0.05, 0.1, 0.2, 0.25, 0.5} < set(default_taus(REFERENCE))


def test_default_ks_go_up_to_all_heads():
    assert default_ks(270) == [1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 270]
    assert default_ks(1024)[-4:] == [500, 700, 1000, 1024]
    assert (default_ks(0), default_ks(1), default_ks(10)[-2:]) == ([], [1], [7, 10])


def test_mean_scores_leaves_out_examples_that_were_not_kept():
    rows = with_rows(PER_EXAMPLE, row3=NAN, row9=NAN)
    kept = np.delete(PER_EXAMPLE, [3, 9], axis=0)
    assert stats.num_kept(rows) == 22
    assert stats.mean_scores(rows) == pytest.approx(kept.mean(axis=0))
    nothing = np.full((2, *SHAPE), NAN)
    assert (stats.num_kept(nothing), stats.num_kept(nothing[:0])) == (0, 0)
    for none_kept in (nothing, nothing[:0]):
        assert np.isnan(stats.mean_scores(none_kept)).all()
        assert stats.mean_scores(none_kept).shape == SHAPE


def test_a_head_missing_from_a_kept_example_is_missing_from_the_mean():
    rows = PER_EXAMPLE.copy()
    rows[3, 0, 1] = NAN
    assert stats.num_kept(rows) == 24
    assert np.argwhere(np.isnan(stats.mean_scores(rows))).tolist() == [[0, 1]]
    rows[3:5, 0, 1] = INF, -INF
    assert np.isnan(stats.mean_scores(rows)[0, 1])


def statistics(mean: np.ndarray) -> dict[str, float | None]:
    found = stats.compare(mean, PER_EXAMPLE[12:].mean(axis=0), None, tau=0.5, k=3)
    return {"recall": found.recall, "cosine": found.cosine, "learned": found.cosine_learned}


def test_bootstrap_many_gives_every_statistic_its_own_interval():
    found = stats.bootstrap_many(PER_EXAMPLE[:12], statistics, seed=4, num_resamples=300)
    assert list(found) == ["recall", "cosine", "learned"]
    assert found["learned"] is None
    for name in ("recall", "cosine"):
        alone = stats.bootstrap_statistic(
            PER_EXAMPLE[:12], lambda mean, name=name: statistics(mean)[name], seed=4,
            num_resamples=300,
        )  # fmt: skip
        assert found[name] == alone
        assert alone is not None


def test_bootstrap_many_of_unkept_damaged_and_few_examples():
    draw = partial(stats.bootstrap_many, statistics=statistics, seed=4, num_resamples=300)
    unkept = with_rows(PER_EXAMPLE[:12], row0=NAN)
    assert draw(unkept) == draw(PER_EXAMPLE[1:12])
    damaged = PER_EXAMPLE[:12].copy()
    damaged[0, 1, 2] = NAN
    for rows in (damaged, PER_EXAMPLE[:1], PER_EXAMPLE[:0], with_rows(unkept[:2], row1=INF)):
        assert draw(rows) == dict.fromkeys(["recall", "cosine", "learned"])


def test_halves_of_equal_examples_agree_fully():
    one = np.random.default_rng(1).uniform(size=SHAPE)
    rows = np.broadcast_to(one, (7, *SHAPE))
    found = measures(rows, rows / 2)
    agree = dict.fromkeys(set(found) - {"num_splits", "n"}, pytest.approx(1))
    assert found == {**agree, "num_splits": 20, "n": 7}


def test_halves_by_hand():
    # Two examples score one head, two another: a half holds both, or the two halves share nothing.
    heads = np.zeros((4, 1, 3))
    heads[:2, 0, 0] = heads[2:, 0, 1] = 1.0
    found = stats.split_half(heads, tau=0.4, k=3, seed=0, num_splits=400)
    # Of the 3 ways to halve four, one separates the pairs; four standard errors of 400 draws.
    assert found["recall"] == pytest.approx(2 / 3, abs=0.095)
    for name in ("precision", "jaccard", "recall_at_k", "cosine"):
        assert found[name] == pytest.approx(found["recall"])
    assert found["recall_learned"] is found["cosine_learned"] is None


def test_halves_of_noise_do_not_agree_and_of_a_signal_do():
    rng = np.random.default_rng(2)
    noise, signal = rng.normal(size=(40, 5, 8)), rng.normal(size=(5, 8))
    # Spearman of 40 unrelated points spreads by 0.16; the splits share examples but average it out.
    assert abs(measures(noise)["spearman"]) < 0.35
    # A half's mean has variance 1/20 about a signal of variance 1: correlation 20 / 21.
    assert measures(noise + signal)["spearman"] == pytest.approx(20 / 21, abs=0.06)


def test_halves_of_an_untuned_model_s_noise_do_not_speak_against_what_was_learned():
    """With one B over all examples the halves' noise has opposite signs, and this were -0.4."""
    rng = np.random.default_rng(5)
    learned = np.zeros((5, 8))
    learned[:2] = 0.5
    rows = rng.normal(size=(2, 40, 5, 8))
    found = measures(rows[0] + learned, rows[1])
    assert found["cosine_learned"] == pytest.approx(0.6, abs=0.25)
    assert measures(rows[0] + learned)["cosine_learned"] is None
    with pytest.raises(ValueError, match="shape"):
        measures(rows[0], rows[1][1:])


def test_halves_need_four_kept_examples_and_finite_scores():
    assert measures(PER_EXAMPLE[:3]) is None
    assert measures(with_rows(PER_EXAMPLE[:4], row2=NAN)) is None
    assert measures(with_rows(PER_EXAMPLE[:5], row2=NAN)) == measures(
        np.delete(PER_EXAMPLE[:5], 2, axis=0)
    )
    damaged = PER_EXAMPLE.copy()
    damaged[0, 0, 0] = NAN
    assert measures(damaged) is None
    assert measures(np.zeros((6, *SHAPE)))["recall"] is None
    with pytest.raises(ValueError, match="num_splits must be >= 1"):
        measures(PER_EXAMPLE, num_splits=0)


@PROFILE
@given(scored_examples, st.integers(0, 3))
def test_reliability_is_bounded_and_fixed_by_its_seed(per_example, seed):
    found = stats.split_half(per_example, tau=0.5, k=2, seed=seed, num_splits=3)
    assert found == stats.split_half(per_example, tau=0.5, k=2, seed=seed, num_splits=3)
    assert (found.pop("num_splits"), found.pop("n")) == (3, 6)
    assert all(value is None or -1 <= value <= 1 for value in found.values())
    whole = stats.spearman_brown(found["spearman"])
    assert (whole is None) == (found["spearman"] is None)


def test_spearman_brown():
    assert [stats.spearman_brown(r) for r in (0.0, 0.5, 1.0)] == [0, pytest.approx(2 / 3), 1]
    assert [stats.spearman_brown(r) for r in (-1.0, -0.5, -0.2)] == [-1, -1, pytest.approx(-0.5)]
    assert stats.spearman_brown(None) is stats.spearman_brown(NAN) is None
    with pytest.raises(ValueError, match=r"-1\.\.1, got 1\.5"):
        stats.spearman_brown(1.5)
