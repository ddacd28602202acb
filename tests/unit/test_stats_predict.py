"""Leave-one-cell-out prediction against an independent ridge, and the proxy without real data."""

from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sce import stats

NAN = float("nan")
PROFILE = settings(max_examples=25, deadline=None, derandomize=True, database=None)
RNG = np.random.default_rng(0)
CELLS = [f"cell {i // 3}" for i in range(24)]
RECALL = RNG.uniform(size=24)
LOSS = RNG.normal(size=24)
F1 = 0.2 + 0.5 * RECALL + 0.05 * RNG.normal(size=24)
predict = partial(stats.leave_one_out, seed=0)
compare = partial(stats.compare_predictors, seed=0)


@PROFILE
@given(st.integers(0, 500), st.integers(1, 4), st.integers(3, 7))
def test_predictions_are_those_of_an_independent_ridge(seed, num_features, num_cells):
    rng = np.random.default_rng(seed)
    cells = [*range(num_cells), *rng.integers(num_cells, size=12)]
    x = rng.normal(3, 5, size=(len(cells), num_features))
    y = rng.normal(size=len(cells))
    theirs = cross_val_predict(
        make_pipeline(StandardScaler(), Ridge(alpha=1.0)), x, y, groups=cells, cv=LeaveOneGroupOut()
    )
    found = predict({str(i): x[:, i] for i in range(num_features)}, y, cells)
    assert found.mae == pytest.approx(np.abs(theirs - y).mean())
    assert found.rmse == pytest.approx(np.sqrt(np.square(theirs - y).mean()))
    for cell in found.cells:
        own = np.array(cells) == cell.cell
        assert cell.n == own.sum()
        assert cell.predicted == pytest.approx(theirs[own].mean())
        assert cell.mae == pytest.approx(np.abs(theirs - y)[own].mean())


def test_prediction_by_hand():
    # Each fold has two points, standardised to -1 and 1, so ridge gives 2 / 3 of the slope.
    found = predict({"x": [0, 1, 3]}, [0.0, 1.0, 3.0], list("abc"))
    mean_only = [2.0, 1.5, 0.5]
    predicted = [2 - 2 / 3 * 2, 1.5 - 2 / 3 * 0.5, 0.5 + 2 / 3 * 2.5]
    errors = np.abs(np.array([predicted, mean_only]) - [0, 1, 3])
    assert [cell.predicted for cell in found.cells] == pytest.approx(predicted)
    assert [cell.mean_only for cell in found.cells] == pytest.approx(mean_only)
    assert [cell.target for cell in found.cells] == [0, 1, 3]
    assert (found.mae, found.mean_only_mae) == pytest.approx(tuple(errors.mean(axis=1)))
    assert found.rmse == pytest.approx(np.sqrt(np.square(errors[0]).mean()))
    assert found.mean_only_rmse == pytest.approx(np.sqrt(np.square(errors[1]).mean()))
    assert found.ratio == pytest.approx(errors[0].sum() / errors[1].sum())
    assert (found.num_cells, found.n, found.features) == (3, 3, ("x",))


def test_a_cell_is_predicted_without_any_of_its_own_points():
    # The cell's mean and scale must not leak: its own targets change only its own errors.
    moved = np.where(np.array(CELLS) == "cell 0", 100.0, F1)
    features = {"recall": RECALL}
    first, second = (predict(features, target, CELLS).cells[0] for target in (F1, moved))
    assert first.predicted == second.predicted
    assert first.mean_only == second.mean_only
    assert second.mae > 90
    far = np.where(np.array(CELLS) == "cell 0", 1e6, RECALL)
    others = [predict({"recall": x}, F1, CELLS).cells[0] for x in (RECALL, far)]
    slope = (others[1].predicted - others[0].predicted) / (1e6 - RECALL[:3].mean())
    # A scale that knew of the far points would flatten the slope to nothing.
    assert slope == pytest.approx(0.5, abs=0.1)


def test_a_feature_that_says_all_beats_the_mean_and_noise_does_not():
    found = predict({"recall": RECALL}, F1, CELLS)
    assert found.ratio_low < found.ratio < found.ratio_high < 0.6
    assert found.ratio == pytest.approx(found.mae / found.mean_only_mae)
    noise = predict({"loss": LOSS}, F1, CELLS)
    assert noise.ratio_high > 0.95


def test_features_that_say_nothing_are_the_mean_only_predictor():
    for features in ({}, {"constant": [0.1 + 0.2] * 24}, {"constant": np.full(24, 7)}):
        found = predict(features, F1, CELLS)
        assert found.mae == found.mean_only_mae
        assert (found.ratio, found.ratio_low, found.ratio_high) == (1, 1, 1)


def test_points_that_lack_a_value_are_left_out():
    missing = [None, *RECALL[1:23], NAN]
    found = predict({"recall": missing}, F1, CELLS)
    assert asdict(found) == asdict(predict({"recall": RECALL[1:23]}, F1[1:23], CELLS[1:23]))
    assert (found.n, found.num_cells, found.cells[0].n) == (22, 8, 2)


def test_too_few_cells_or_nothing_to_predict():
    assert predict({"x": [1, 2, 3, 4]}, [1, 2, 3, 4], list("aabb")) is None
    assert predict({"x": [1, 2, None]}, [1, 2, 3], list("abc")) is None
    assert predict({"x": []}, [], []) is predict({}, [], []) is None
    constant = predict({"x": [1, 2, 4, 8]}, [0.1 + 0.2] * 4, list("abcd"))
    assert (constant.mae, constant.mean_only_mae) == (0, 0)
    assert constant.ratio is constant.ratio_low is None
    with pytest.raises(ValueError, match="shapes differ"):
        predict({"x": [1, 2]}, [1, 2, 3], list("abc"))
    with pytest.raises(ValueError, match="2 labels for 3 points"):
        predict({"x": [1, 2, 3]}, [1, 2, 3], list("ab"))


@PROFILE
@given(st.permutations(range(8)), st.floats(0.01, 100), st.floats(-5, 5))
def test_names_of_cells_and_units_of_features_do_not_matter(names, unit, shift):
    found = predict({"recall": RECALL}, F1, CELLS)
    other = predict({"recall": unit * RECALL + shift}, F1, [names[i // 3] for i in range(24)])
    assert other.mae == pytest.approx(found.mae)
    assert (other.ratio_low, other.ratio_high) == pytest.approx((found.ratio_low, found.ratio_high))


def test_predictors_are_compared_on_the_same_points_with_the_mean_first():
    gap = [None, *LOSS[1:]]
    found = compare({"recall": RECALL, "both": {"recall": RECALL, "loss": gap}}, F1, CELLS)
    assert list(found) == ["mean only", "recall", "both"]
    assert [row.n for row in found.values()] == [23] * 3
    assert found["mean only"].features == ()
    assert found["both"].features == ("recall", "loss")
    assert found["recall"] == predict({"recall": RECALL[1:]}, F1[1:], CELLS[1:])
    assert {row.mean_only_mae for row in found.values()} == {found["mean only"].mae}
    assert list(compare({}, F1, CELLS)) == ["mean only"]
    assert compare({"x": [1, 2]}, [1, 2], list("ab")) == {"mean only": None, "x": None}
    with pytest.raises(ValueError, match="another name"):
        compare({"mean only": RECALL}, F1, CELLS)


def test_error_ratio_of_two_predictors():
    found = compare({"recall": RECALL, "validation loss": LOSS}, F1, CELLS)
    recall, loss = found["recall"], found["validation loss"]
    ratio = stats.error_ratio(recall, loss, seed=0)
    assert ratio.value == pytest.approx(recall.mae / loss.mae)
    assert ratio.low < ratio.value < ratio.high < 1
    assert ratio.n == 8
    against_mean = stats.error_ratio(recall, found["mean only"], seed=0)
    assert asdict(against_mean) == pytest.approx(
        {"value": recall.ratio, "low": recall.ratio_low, "high": recall.ratio_high, "n": 8}
    )
    with pytest.raises(ValueError, match="different cells"):
        stats.error_ratio(recall, predict({"recall": RECALL[1:]}, F1[1:], CELLS[1:]), seed=0)


def test_concentration_by_hand():
    assert stats.concentration(np.ones((2, 3))) == 0
    assert stats.concentration(np.eye(1, 6)) == pytest.approx(5 / 6)
    # Sorted 0, 0, 1, 3 of sum 4: (1 * 1 + 3 * 3) / (4 * 4); below 0 counts as 0.
    assert stats.concentration(np.array([[3.0, -2.0], [0.0, 1.0]])) == pytest.approx(10 / 16)
    for bad in (np.zeros((2, 2)), np.full((2, 2), -1.0), np.array([[NAN, 1.0]]), np.empty((0, 2))):
        assert stats.concentration(bad) is None
    assert stats.concentration(np.array([[np.inf, 1.0]])) is None


@PROFILE
# Of subnormal numbers nothing is left when they are halved.
@given(
    arrays(np.float64, (3, 4), elements=st.sampled_from([0.0, 1e-9, 0.1, 0.25, 0.5, 1.0])),
    st.floats(1e-3, 1e3),
)
def test_concentration_is_bounded_and_blind_to_unit_and_order(scores, unit):
    found = stats.concentration(scores)
    assert found is None or 0 <= found <= 11 / 12 + 1e-12
    turned = stats.concentration(unit * scores[::-1, ::-1])
    assert turned is None if found is None else turned == pytest.approx(found)


def test_the_proxy_knows_a_signal_from_noise():
    rng = np.random.default_rng(3)
    noise = rng.uniform(size=(20, 4, 6))
    signal = np.zeros((4, 6))
    signal[2, :3] = 3.0, 2.0, 1.0
    proxy = partial(stats.needs_no_real_data, tau=0.1, k=3, seed=0)
    clear, nothing = proxy(noise / 10 + signal), proxy(noise)
    assert clear["concentration"] > nothing["concentration"] + 0.3
    halves = stats.split_half(noise, tau=0.1, k=3, seed=0)
    assert nothing["reliability"] == stats.spearman_brown(halves["spearman"])
    same = proxy(np.broadcast_to(noise[0], noise.shape))
    assert same["reliability"] == pytest.approx(1)
    assert proxy(noise[:3]) == {"reliability": None, "concentration": pytest.approx(
        stats.concentration(noise[:3].mean(axis=0)))}  # fmt: skip
    assert proxy(np.full((5, 4, 6), NAN)) == {"reliability": None, "concentration": None}


def test_a_seed_fixes_the_draws_of_predictions():
    draw = partial(stats.leave_one_out, {"recall": RECALL}, F1, CELLS)
    assert draw(seed=11) == draw(seed=11) != draw(seed=12)
