"""Stacks of maps are compared as single maps are; what chance within layers gives."""

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sce.stats import compare, recall_curves
from sce.stats.nulls import layer_nulls, layer_nulls_over
from sce.stats.stacks import SHARES, CompareWith, SharesOver, sets_over


def maps(seed, count=5, shape=(4, 3), levels=6):
    """Maps of few distinct values, so that ties, zeros and empty sets all come up."""
    rng = np.random.default_rng(seed)
    return (
        rng.integers(0, levels, size=(count, *shape)) / 10 * rng.integers(0, 2, size=(count, 1, 1))
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.booleans(), st.integers(0, 14))
def test_every_map_has_the_measures_of_compare(seed, with_base, one_reference, k):
    scores, reference, base = maps(seed), maps(seed + 1), maps(seed + 2)
    reference = reference[:1] if one_reference else reference
    found = CompareWith(reference, base if with_base else None, tau=0.1, k=k)(scores)
    for index, own in enumerate(scores):
        other = reference[0 if one_reference else index]
        single = compare(own, other, base[index] if with_base else None, tau=0.1, k=k)
        for name, value in asdict(single).items():
            got = found[name][index] if name in found else np.nan
            assert got == pytest.approx(np.nan if value is None else value, nan_ok=True), name


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_curves_are_those_of_recall_curves(seed):
    scores, reference, base = maps(seed), maps(seed + 1), maps(seed + 2)
    taus, ks = [0.0, 0.1, 0.25, 0.4], [0, 1, 3, 12]
    by_tau = SharesOver(reference, base, taus, by="tau")(scores)
    by_k = SharesOver(reference, base, ks, by="k")(scores)
    for index in range(len(scores)):
        curves = recall_curves(scores[index], reference[index], base[index], taus=taus, ks=ks)
        for found, column in ((by_tau, curves.by_tau), (by_k, curves.by_k)):
            for name in SHARES:
                expected = [np.nan if v is None else v for v in column[name]]
                assert found[name][index] == pytest.approx(expected, nan_ok=True), name


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="shapes differ"):
        CompareWith(maps(1, shape=(3, 4)), None, tau=0.1, k=2)(maps(0))
    with pytest.raises(ValueError, match="shapes differ"):
        CompareWith(maps(1, count=2), None, tau=0.1, k=2)(maps(0))


def test_a_grid_in_any_order_and_scores_that_do_not_exist():
    scores, reference = maps(0), maps(1)
    scores[0, 0, 0] = np.nan
    for by, at in (("tau", [0.4, 0.0, 0.25, 0.25]), ("k", [3, 12, 1, 3])):
        mixed = SharesOver(reference, None, at, by=by)(scores)["recall"]
        for index, point in enumerate(at):
            alone = SharesOver(reference, None, [point], by=by)(scores)["recall"]
            assert mixed[:, [index]] == pytest.approx(alone, nan_ok=True)
    without = np.nan_to_num(scores, nan=0.0)
    for by, at in (("tau", [0.0, 0.2]), ("k", [2, 5])):
        pair = [
            SharesOver(reference, None, at, by=by)(each)["precision"] for each in (scores, without)
        ]
        assert pair[0] == pytest.approx(pair[1], nan_ok=True)
    with pytest.raises(ValueError, match="shapes differ"):
        SharesOver(reference, None, [0.1], by="tau")(maps(1, shape=(3, 5)))


def test_nulls_are_what_dealing_heads_within_their_layer_gives():
    rng = np.random.default_rng(0)
    s, r, b = rng.random((3, 5, 8)) ** 3
    dealt = rng.permuted(np.broadcast_to(s, (4000, 5, 8)), axis=2)
    found = CompareWith(r[None], None, tau=0.3, k=9)(dealt)
    nulls = layer_nulls(s, r, b, tau=0.3, k=9)
    for name in ("recall", "precision", "jaccard", "recall_at_k", "cosine", "spearman"):
        assert nulls[name] == pytest.approx(np.nanmean(found[name]), abs=0.01), name
    changed = rng.permuted(np.broadcast_to(s - b, (4000, 5, 8)), axis=2)
    learned = CompareWith((r - b)[None], None, tau=0.3, k=9)(changed)["cosine"]
    assert nulls["cosine_learned"] == pytest.approx(learned.mean(), abs=0.01)


def test_learned_heads_are_dealt_to_heads_that_the_untuned_model_has_not():
    s = np.array([[1.0, 1.0, 0.0, 0.0]])
    b = np.array([[1.0, 0.0, 0.0, 0.0]])
    r = np.array([[1.0, 0.0, 1.0, 0.0]])
    # One new head, three places for it, one of them learned by the reference.
    assert layer_nulls(s, r, b, tau=0.5, k=2)["recall_learned"] == pytest.approx(1 / 3)


def test_nulls_over_thresholds_and_sizes_are_those_of_dealt_maps_at_each():
    rng = np.random.default_rng(0)
    s, r = rng.random((2, 5, 8)) ** 3
    dealt = rng.permuted(np.broadcast_to(s, (3000, 5, 8)), axis=2)
    for by, at in (("tau", [0.0, 0.2, 0.5, 2.0]), ("k", [1, 9, 40])):
        expected = SharesOver(r[None], None, at, by=by)(dealt)
        found = layer_nulls_over(s, r, None, at, by=by)
        assert list(found) == list(expected)
        for name, draws in expected.items():
            means = [np.mean(column) for column in draws.T]
            got = [np.nan if value is None else value for value in found[name]]
            assert got == pytest.approx(means, abs=0.01, nan_ok=True), (by, name)


@pytest.mark.parametrize(("by", "at"), [("tau", 0.2), ("tau", 0.5), ("k", 5), ("k", 12)])
def test_the_null_of_recall_learned_is_what_dealing_new_heads_outside_the_untuned_gives(by, at):
    rng = np.random.default_rng(0)
    maps = rng.random((3, 5, 8)) ** 3
    s, r, b = (next(sets_over(one[None], [at], by))[0] for one in maps)
    taken = np.argsort(rng.random((4000, 5, 8)) + b, axis=2)  # the untuned model's heads come last
    places = np.argsort(taken, axis=2)
    new = places < (s & ~b).sum(axis=1)[:, None]
    recalled = (new & r & ~b).sum(axis=(1, 2)) / (r & ~b).sum()
    (found,) = layer_nulls_over(*maps, [at], by=by)["recall_learned"]
    assert found == pytest.approx(recalled.mean(), abs=0.01)


def test_nothing_has_no_null():
    zeros = np.zeros((2, 3))
    found = layer_nulls(zeros, zeros, None, tau=0.1, k=2)
    assert set(found.values()) == {None}
