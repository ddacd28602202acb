"""Bands around the curves over tau and k: what they are, when they close, when there are none."""

import numpy as np
import pytest

from sce import stats
from sce.stats import bands

SHAPE = (3, 4)
OPTIONS = {"seed": 0, "num_resamples": 40}
ENDS = ("low", "high")


def scored(seed: int, n: int = 16) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of run, reference and untuned model, 0 to 1; some heads always score 0, and tie."""
    rng = np.random.default_rng(seed)
    mean = rng.uniform(0, 0.8, SHAPE)
    rows = mean + rng.normal(0, 0.3, (3, n, *SHAPE))
    rows[:, :, 2, 2:] = 0
    rows[2] *= 0.7
    run, real, base = np.clip(rows, 0, 1).round(1)
    return run, real, base


def curves(run, real, base, **grids) -> stats.Curves:
    maps = [None if scores is None else stats.mean_of(scores) for scores in (run, real, base)]
    assert maps[0] is not None and maps[1] is not None
    return stats.recall_curves(maps[0], maps[1], maps[2], **grids)


def points(found: dict[str, list]) -> set[str]:
    return {name for name in found if not name.endswith(ENDS)}


def bounds(found: dict[str, list], name: str) -> list[tuple]:
    return list(zip(found[f"{name}_low"], found[f"{name}_high"], strict=True))


def as_means(run, real, base, drawn: str) -> list:
    """Those that are not drawn as their mean."""
    named = zip("srb", (run, real, base), strict=True)
    return [scores if name in drawn else scores.mean(axis=0) for name, scores in named]


@pytest.mark.parametrize("drawn", ["srb", "s", "sr", "sb"])
def test_bands_are_the_intervals_of_the_comparison_at_every_tau_and_k(drawn):
    maps = as_means(*scored(0), drawn)
    # In no order, as a caller may give them.
    grids = {"taus": [0.3, 0.0, 0.5, 2.0], "ks": [4, 0, 12, 7]}
    found = stats.with_bands(curves(*maps, **grids), *maps, **OPTIONS)
    for place, tau in enumerate(grids["taus"]):
        at = stats.comparison_intervals(*maps, tau=tau, k=grids["ks"][place], **OPTIONS)
        for name in points(found.by_tau):
            low, high = bounds(found.by_tau, name)[place]
            expected = at[name]
            if expected is None:
                assert (low, high) == (None, None), name
            else:
                assert (low, high) == pytest.approx(expected, abs=1e-12), name
        expected = at["recall_at_k"] or (None, None)
        assert bounds(found.by_k, "recall")[place] == pytest.approx(expected)


def test_bands_leave_the_values_and_hold_them_where_examples_are_many():
    maps = scored(2, n=64)
    before = curves(*maps)
    found = stats.with_bands(before, *maps, seed=0)
    assert found.n == 64 and (found.taus, found.ks) == (before.taus, before.ks)
    inside, wide = [], []
    for one, plain in ((found.by_tau, before.by_tau), (found.by_k, before.by_k)):
        for name in points(one):
            assert one[name] == plain[name]
            for value, (low, high) in zip(one[name], bounds(one, name), strict=True):
                if value is not None and low is not None:
                    inside.append(low <= value <= high)
                    wide.append(low < high)
    assert all(inside) and len(inside) > 500 and any(wide)


def test_bands_close_where_all_examples_are_equal():
    maps = [np.repeat(rows.mean(axis=0, keepdims=True).round(3), 8, axis=0) for rows in scored(3)]
    found = stats.with_bands(curves(*maps), *maps, **OPTIONS)
    for one in (found.by_tau, found.by_k):
        for name in points(one):
            for value, both in zip(one[name], bounds(one, name), strict=True):
                assert both == ((None, None) if value is None else pytest.approx((value, value)))


def test_bands_are_those_of_the_seed():
    maps = scored(4)
    first, again, other = (
        stats.with_bands(curves(*maps), *maps, seed=seed).to_json() for seed in (0, 0, 1)
    )
    assert first == again != other


def test_what_was_not_drawn_has_no_band():
    run, real, base = scored(5)
    for drawn, without in (
        ("srb", set()),
        ("sr", {"recall_base"}),
        ("s", {"recall_base", "num_reference_heads"}),
    ):
        maps = as_means(run, real, base, drawn)
        found = stats.with_bands(curves(*maps), *maps, **OPTIONS)
        for one in (found.by_tau, found.by_k):
            empty = {n for n in points(one) if set(bounds(one, n)) == {(None, None)}}
            assert empty == without
    found = stats.with_bands(curves(run, real, None), run, real, None, **OPTIONS)
    assert set(bounds(found.by_tau, "recall_learned")) == {(None, None)}
    assert set(bounds(found.by_k, "recall")) != {(None, None)}


def test_a_reference_of_the_same_examples_is_drawn_with_the_run():
    run, _, _ = scored(6)
    both = stats.with_bands(curves(run, run, None), run, run, None, **OPTIONS)
    known = [each for each in bounds(both.by_tau, "recall") if each[0] is not None]
    assert set(known) == {(1, 1)}
    alone = stats.with_bands(curves(run, run, None), run, run.mean(axis=0), None, **OPTIONS)
    assert min(low for low, _ in bounds(alone.by_tau, "recall") if low is not None) < 1


def test_without_examples_there_are_no_bounds():
    run, real, base = scored(7)
    plain = curves(run, real, base)
    assert plain.n is None
    damaged = run.copy()
    damaged[0, 0, 0] = np.nan
    for rows, n in ((run[:1], 1), (np.full_like(run, np.nan), 0), (damaged, 16), (run[:0], 0)):
        found = stats.with_bands(plain, rows, real.mean(axis=0), None, **OPTIONS)
        assert found.n == n
        assert (found.by_tau, found.by_k) == (plain.by_tau, plain.by_k)
        for one in (found.by_tau, found.by_k):
            assert all(set(bounds(one, name)) == {(None, None)} for name in points(one))


def test_examples_that_were_not_kept_are_not_drawn():
    run, real, base = scored(8)
    kept = curves(run, real, base)
    rows = [np.insert(scores, 5, np.nan, axis=0) for scores in (run, real, base)]
    found = stats.with_bands(kept, *rows, **OPTIONS)
    assert found.n == 16
    assert found == stats.with_bands(kept, run, real, base, **OPTIONS)


def test_no_head_scores_and_a_reference_of_nan():
    run = np.zeros((6, *SHAPE))
    reference = np.full(SHAPE, np.nan)
    found = stats.with_bands(curves(run, reference, None), run, reference, None, **OPTIONS)
    assert set(bounds(found.by_tau, "recall")) == set(bounds(found.by_k, "jaccard"))
    assert set(bounds(found.by_k, "recall")) == {(None, None)}
    assert set(bounds(found.by_tau, "num_heads")) == {(0, 0)}
    assert (
        stats.with_bands(
            curves(run, reference, None, taus=[], ks=[]), run, reference, None, **OPTIONS
        ).by_tau
        == {}
    )


def test_other_shapes_are_refused():
    run, real, base = scored(9)
    for maps in ((run, real.mean(axis=0)[:1], None), (run, real, base[:, :, :1])):
        with pytest.raises(ValueError, match="shapes differ"):
            stats.with_bands(curves(run, real, None), *maps, **OPTIONS)


def test_blocks_of_resamples_change_nothing(monkeypatch):
    maps = scored(10)
    whole = stats.with_bands(curves(*maps), *maps, **OPTIONS)
    monkeypatch.setattr(bands, "BLOCK_ENTRIES", 1000)
    assert stats.with_bands(curves(*maps), *maps, **OPTIONS) == whole


def test_a_ratio_s_interval_is_of_pairs():
    tokens = np.arange(1, 31)
    assert stats.bootstrap_ratio(2.5 * tokens, tokens, seed=0) == pytest.approx((2.5, 2.5))
    nll = np.random.default_rng(0).gamma(2, size=30) * tokens
    low, high = stats.bootstrap_ratio(nll, tokens, seed=0) or (0, 0)
    assert low < nll.sum() / tokens.sum() < high
    assert stats.bootstrap_ratio(nll, tokens, seed=0) == (low, high)
    ones = np.ones(30)
    by_mean = stats.bootstrap_interval(nll, seed=0)
    assert stats.bootstrap_ratio(nll, ones, seed=0) == pytest.approx(by_mean)
    for values, counts in (([1.0], [2]), ([1.0, np.nan], [1, 1]), ([0.0, 0.0], [0, 0])):
        assert stats.bootstrap_ratio(values, counts, seed=0) is None
    with pytest.raises(ValueError, match="shapes differ"):
        stats.bootstrap_ratio([1.0, 2.0], [1, 2, 3], seed=0)
