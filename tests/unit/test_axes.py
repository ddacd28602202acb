"""An axis of powers: the median in its middle, ticks that do not run into one another."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sce.analysis.charts.axes import APART, stretch, ticks


def test_the_median_of_values_near_1_is_in_the_middle():
    assert 0.98 ** stretch([0.9, 0.98, 0.99]) == pytest.approx(0.5)


@pytest.mark.parametrize("values", [[0.3, 0.7, 0.8], [-0.1, 0.9, 0.95], [0.9, 0.95, 1.2]])
def test_other_values_stand_on_a_plain_axis(values):
    assert stretch(values) == 1


def test_an_axis_of_ones_is_still_one():
    assert 1 < stretch([1.0, 1.0]) < 100


@given(st.floats(1, 60))
def test_ticks_rise_to_1_and_stand_apart(exponent):
    places = [tick**exponent for tick in ticks(exponent)]
    assert places[-1] == 1 and len(places) > 2
    assert all(b - a >= APART for a, b in pairwise(places))
