"""Head sets from files, lists and chance; hand-worked, and properties over many draws."""

import numpy as np
import pytest

from sce.errors import InputError
from sce.interventions.controls import HEADS, Condition, controls, random_heads
from sce.interventions.select import (
    above,
    all_heads,
    check_scores,
    common,
    listed,
    named,
    only_source,
    top,
)
from sce.records import HeadScores

SHAPE = (3, 4)


def scores(values, **provenance) -> HeadScores:
    array = np.asarray(values, dtype=np.float64)
    return HeadScores("copy", "teacher_forced", "exact", array, 5, provenance=provenance)


MAP = scores([[0.1, 0.0, 0.3, 0.3], [0.0, 0.9, 0.0, 0.0], [0.05, 0.0, 0.0, 0.2]])


def test_top_is_by_score_with_ties_to_the_lowest_head():
    assert top(MAP, 1, "f") == {(1, 1)}
    assert top(MAP, 2, "f") == {(1, 1), (0, 2)}
    assert top(MAP, 4, "f") == {(1, 1), (0, 2), (0, 3), (2, 3)}


def test_above_is_strictly_above():
    assert above(MAP, 0.2, "f") == {(1, 1), (0, 2), (0, 3)}
    assert above(MAP, -1.0, "f") == all_heads(SHAPE)


def test_a_list_is_read_as_layer_and_head():
    assert listed(["2-3", " 0-1 "], SHAPE) == {(2, 3), (0, 1)}
    assert named({(10, 1), (2, 3)}) == ["2-3", "10-1"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: top(MAP, 0, "f"), "heads.k=0: must be at least 1"),
        (lambda: top(MAP, 13, "f"), "heads.k=13: the model has 12 heads"),
        (lambda: top(MAP, 7, "f"), "heads.k=7: only 6 heads of f score above 0"),
        (lambda: above(MAP, 0.9, "f"), r"no head of f scores above it \(the highest has 0.9\)"),
        (lambda: listed([], SHAPE), "the list is empty"),
        (lambda: listed(["3-0"], SHAPE), "head 3-0 is out of range; the model has layers 0 to 2"),
        (lambda: listed(["0-4"], SHAPE), "head 0-4 is out of range"),
        (lambda: listed(["0"], SHAPE), "'0' is no head; write layer-head"),
        (lambda: listed(["-1-0"], SHAPE), "'-1-0' is no head"),
        (lambda: listed(["0-1", "00-1"], SHAPE), "0-1 stands there twice"),
        (lambda: common(frozenset({(0, 1)}), frozenset({(1, 1)})), "intersection is empty"),
        (lambda: only_source(frozenset({(0, 1)}), all_heads(SHAPE)), "complement is empty"),
        (
            lambda: check_scores(MAP, "f", (3, 5), "a"),
            "3 layers x 4 heads, but .* has 3 x 5",
        ),
        (
            lambda: check_scores(scores(MAP.scores, weights_sha256="b" * 64), "f", SHAPE, "a" * 64),
            "f: scored on weights bbbbbbbbbbbb, but the model's are aaaaaaaaaaaa",
        ),
        (
            lambda: check_scores(scores([[0.1, np.nan]]), "f", (1, 2), "a"),
            "f: the score of head 0-1 is not a number",
        ),
    ],
)
def test_what_is_no_set_of_the_model_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_scores_of_this_model_or_of_unknown_weights_are_taken():
    check_scores(scores(MAP.scores, weights_sha256="a"), "f", SHAPE, "a")
    check_scores(MAP, "f", SHAPE, "a")


def test_intersection_and_complement():
    source, target = frozenset({(0, 1), (1, 1)}), frozenset({(1, 1), (2, 0)})
    assert common(source, target) == {(1, 1)}
    assert only_source(source, target) == {(0, 1)}


@pytest.mark.parametrize("layer_matched", [True, False])
def test_controls_are_seeded_of_equal_size_and_never_of_the_swept_set(layer_matched):
    heads, swept = frozenset({(0, 1), (4, 3)}), frozenset({(0, 1), (4, 3), (0, 0), (2, 2)})
    seen = set()
    for draw in range(50):
        options = {"draw": draw, "layer_matched": layer_matched, "avoid": swept}
        drawn = random_heads(heads, (6, 5), seed=3, **options)
        assert drawn == random_heads(heads, (6, 5), seed=3, **options)
        assert len(drawn.heads) == 2
        assert not drawn.heads & swept
        assert drawn.heads <= all_heads((6, 5))
        if layer_matched:
            assert sorted(layer for layer, _ in drawn.heads) == [0, 4]
        seen.add(drawn.heads)
    assert len(seen) > 10
    other = random_heads(heads, (6, 5), seed=4, draw=0, layer_matched=layer_matched, avoid=swept)
    assert other != random_heads(
        heads, (6, 5), seed=3, draw=0, layer_matched=layer_matched, avoid=swept
    )


@pytest.mark.parametrize("layer_matched", [True, False])
def test_every_free_head_is_drawn_about_as_often(layer_matched):
    counts = np.zeros((4, 5))
    heads, swept = frozenset({(1, 0)}), frozenset({(1, 0), (3, 4)})
    for draw in range(600):
        options = {"layer_matched": layer_matched, "avoid": swept}
        for head in random_heads(heads, (4, 5), seed=0, draw=draw, **options).heads:
            counts[head] += 1
    free = [h for h in all_heads((4, 5)) - swept if not layer_matched or h[0] == 1]
    expected = 600 / len(free)
    assert sum(counts[h] for h in free) == 600
    assert all(abs(counts[h] - expected) < 5 * expected**0.5 for h in free)


@pytest.mark.parametrize("layer_matched", [True, False])
def test_a_larger_set_s_control_holds_the_smaller_one_s(layer_matched):
    large = frozenset({(0, 1), (2, 3), (2, 0), (5, 1)})
    options = {"seed": 1, "draw": 2, "layer_matched": layer_matched, "avoid": large}
    small = random_heads(frozenset({(0, 1), (2, 3)}), (6, 5), **options).heads
    assert small < random_heads(large, (6, 5), **options).heads


def test_where_a_layer_has_too_few_left_the_nearest_is_taken_and_reported():
    # Layer 1 is all but swept; 0 and 2 are as near, and the lower comes first.
    swept = frozenset((1, head) for head in range(3))
    drawn = random_heads(swept, (4, 4), seed=0, draw=0, layer_matched=True, avoid=swept)
    assert sorted(layer for layer, _ in drawn.heads) == [0, 0, 1]
    assert drawn.moved == ((1, 0), (1, 0))
    swept |= {(0, head) for head in range(4)}
    drawn = random_heads(swept, (5, 4), seed=0, draw=0, layer_matched=True, avoid=swept)
    assert sorted(layer for layer, _ in drawn.heads) == [1, 2, 2, 2, 2, 3, 3]
    assert len(drawn.moved) == 6


def test_a_control_that_cannot_be_drawn_is_an_error():
    heads = frozenset((0, head) for head in range(4)) | {(1, 0), (1, 1), (1, 2)}
    message = r"of 7 heads cannot be drawn: 5 of 12 are left .*\(layer 0 has 0 left of 4 wanted, "
    with pytest.raises(InputError, match=message + "layer 1 has 1 left of 3 wanted"):
        random_heads(heads, SHAPE, seed=0, draw=0, layer_matched=False, avoid=heads)


def test_controls_of_a_set_carry_its_name_kind_and_draw():
    condition = Condition("copy", HEADS, frozenset({(0, 1)}))
    made = controls(
        condition,
        SHAPE,
        seed=0,
        num=2,
        kinds=("layer_matched", "uniform"),
        avoid=condition.heads,
    )
    assert [(c.name, c.kind, c.draw, c.k) for c in made] == [
        ("copy", "layer_matched", 0, 1),
        ("copy", "layer_matched", 1, 1),
        ("copy", "uniform", 0, 1),
        ("copy", "uniform", 1, 1),
    ]
