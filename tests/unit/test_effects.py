"""From answers to numbers: rows, curves, contrasts and recovery, worked out by hand."""

import math

import numpy as np
import pytest

from sce.interventions.closed_book import SHIPPED, closed_book
from sce.interventions.controls import HEADS, LAYER_MATCHED, UNIFORM, Condition
from sce.interventions.curves import curves, drawn_once, knockout_figure
from sce.interventions.effects import BASELINE, Answers, accuracy, against, contrasts, rows, sets
from sce.interventions.recovery import (
    counter_examples,
    patch_figure,
    patch_rows,
    worse_than_random,
)

IDS = ("a", "b", "c", "d")
OUT, ONE, TWO, WIDE = (frozenset(h) for h in (set(), {(0, 0)}, {(1, 1)}, {(0, 0), (2, 0)}))


def answers(f1, nll=(1.0, 2.0, 3.0, 4.0), ids=IDS) -> Answers:
    f1 = np.array(f1, dtype=np.float64)
    exact = (f1 == 1).astype(np.float64)
    labels = np.array([1, 2, 1, 4])[: len(f1)]
    return Answers(ids, tuple("x" for _ in ids), f1, exact, np.array(nll), labels)


BEFORE = answers([1, 1, 0.5, 1])
AFTER = answers([0, 1, 0.5, 0])


def test_accuracy_has_n_and_intervals_and_the_nll_is_a_mean_over_tokens():
    row = accuracy(BEFORE, seed=0)
    assert (row["n"], row["f1"], row["exact_match"]) == (4, 0.875, 0.75)
    assert row["answer_nll"] == (1 + 2 + 3 + 4) / (1 + 2 + 1 + 4)
    assert row["f1_low"] < 0.875 < row["f1_high"] <= 1
    # Tokens of an example stay together: no resample is above 3 or below 1 nats a token.
    assert 1 <= row["answer_nll_low"] < 1.25 < row["answer_nll_high"] <= 3


def test_a_single_example_has_no_interval():
    row = accuracy(answers([1], nll=(1.0,), ids=("a",)), seed=0)
    assert row["f1"] == 1
    assert row["f1_low"] is None and row["answer_nll_high"] is None


def test_against_counts_what_was_lost_and_gained():
    row = against(BEFORE, AFTER, seed=0)
    assert row["f1_change"] == -0.5
    assert (row["exact_match_lost"], row["exact_match_gained"]) == (2, 0)
    assert row["exact_match_p"] == 0.5  # two of two discordant pairs: 2 * 1/4
    assert row["f1_p"] == 0.5  # of 16 sign flips as extreme: 8, two differences being 0
    back = against(AFTER, BEFORE, seed=0)
    assert back["f1_change"] == 0.5
    assert (back["exact_match_lost"], back["exact_match_gained"]) == (0, 2)


CONDITIONS = [
    Condition("copy", HEADS, ONE),
    Condition("copy", HEADS, WIDE),
    Condition("copy", UNIFORM, TWO, 0),
    Condition("copy", UNIFORM, frozenset({(2, 2)}), 1),
]
BY_SET = {
    OUT: BEFORE,
    ONE: AFTER,
    WIDE: answers([0, 0, 0, 0]),
    TWO: BEFORE,
    frozenset({(2, 2)}): answers([1, 0, 0.5, 1]),
}
KNOWN = {heads: np.array([1.0, 1.0 if heads != WIDE else 0.0]) for heads in BY_SET}


def test_rows_begin_with_no_ablation_and_carry_tests_and_what_is_known():
    table = rows(CONDITIONS, BY_SET, KNOWN, seed=0)
    assert [(r["kind"], r["k"], r["draw"]) for r in table] == [
        (BASELINE, 0, None),
        (HEADS, 1, None),
        (HEADS, 2, None),
        (UNIFORM, 1, 0),
        (UNIFORM, 1, 1),
    ]
    assert "f1_change" not in table[0]
    assert [r["f1_change"] for r in table[1:]] == [-0.5, -0.875, 0.0, -0.25]
    assert [r["closed_book"] for r in table] == [1, 1, 0.5, 1, 1]
    assert {r["closed_book_n"] for r in table} == {2}
    assert "closed_book" not in rows(CONDITIONS, BY_SET, None, seed=0)[0]


def test_nothing_known_is_none_and_not_nan():
    nothing = {heads: np.zeros(0) for heads in BY_SET}
    table = rows(CONDITIONS, BY_SET, nothing, seed=0)
    assert {(r["closed_book"], r["closed_book_low"], r["closed_book_n"]) for r in table} == {
        (None, None, 0)
    }
    assert curves(CONDITIONS, BY_SET, nothing, seed=0)[0]["closed_book"] == [None, None]


def test_a_curve_averages_draws_and_its_areas_start_without_ablation():
    heads, random = curves(CONDITIONS, BY_SET, KNOWN, seed=0)
    assert (heads["kind"], heads["k"], heads["f1"]) == (HEADS, [1, 2], [0.375, 0.0])
    assert heads["draws"] == [[0.375], [0.0]]
    assert heads["closed_book"] == [1, 0.5]
    # f(0), f(1), f(2) = 1, 3/7, 0: trapezoids over a range of 2.
    assert heads["cpr"] == pytest.approx((0.5 * (1 + 3 / 7) + 0.5 * (3 / 7 + 0)) / 2)
    assert heads["cmd"] == pytest.approx(1 - heads["cpr"])
    assert heads["cpr_low"] <= heads["cpr"] <= heads["cpr_high"]
    assert random["f1"] == [(0.875 + 0.625) / 2]
    assert random["draws"] == [[0.875, 0.625]]
    assert random["cpr"] > heads["cpr"]
    assert random["n"] == 4


def test_a_baseline_of_zero_has_no_area():
    zero = dict.fromkeys(BY_SET, answers([0, 0, 0, 0]))
    curve = curves(CONDITIONS, zero, None, seed=0)[0]
    assert (curve["cpr"], curve["cmd"], curve["cpr_low"]) == (None, None, None)


def test_a_contrast_is_against_the_mean_of_the_draws_example_by_example():
    (row,) = contrasts(CONDITIONS, BY_SET, seed=0)  # k = 2 has no control
    assert (row["name"], row["k"], row["control"], row["num_draws"]) == ("copy", 1, UNIFORM, 2)
    # Control, mean of two draws: 1, 0.5, 0.5, 1; heads: 0, 1, 0.5, 0.
    assert row["f1_control"] == 0.75
    assert row["f1_difference"] == pytest.approx((-1 + 0.5 + 0 - 1) / 4)
    assert row["exact_match_control"] == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert [(d["b"], d["c"]) for d in row["exact_match_by_draw"]] == [(2, 0), (2, 1)]
    assert 0 < row["f1_p_value"] <= 1


def test_sets_name_their_heads_and_hold_every_example():
    found = sets(CONDITIONS, BY_SET)
    assert found[1]["heads"] == ["0-0", "2-0"]
    assert found[0]["per_example"]["f1"] == {"a": 0, "b": 1, "c": 0.5, "d": 0}
    assert found[0]["per_example"]["answer_nll"] == {"a": 1, "b": 1, "c": 3, "d": 1}
    moved = Condition("copy", LAYER_MATCHED, ONE, 0, ((1, 0),))
    assert sets([moved], BY_SET)[0]["moved_layers"] == [[1, 0]]


SOURCE = answers([1, 1, 1, 1])
ORIGINAL = answers([0, 0.5, 0.5, 1])
PATCHES = [
    Condition("intersection", HEADS, ONE),
    Condition("intersection", LAYER_MATCHED, TWO, 0),
]
PATCHED = {OUT: ORIGINAL, ONE: answers([1, 0, 0.5, 0]), TWO: answers([1, 1, 0.5, 1])}


def test_the_share_of_the_gap_that_a_patch_closes():
    table = patch_rows(PATCHES, PATCHED, SOURCE, seed=0)
    assert [r["name"] for r in table] == ["original", "intersection", "intersection", "source"]
    assert [r["f1"] for r in table] == [0.5, 0.375, 0.875, 1]
    assert [r.get("share") for r in table] == [None, -0.25, 0.75, None]
    assert {r["gap"] for r in table[1:3]} == {0.5}
    assert table[1]["gap_low"] <= 0.5 <= table[1]["gap_high"]
    assert table[3]["f1_change"] == 0.5


def test_no_gap_has_no_share():
    table = patch_rows(PATCHES, {**PATCHED, OUT: SOURCE}, SOURCE, seed=0)
    assert table[1]["share"] is None
    assert table[1]["gap"] == 0


def test_counter_examples_are_worse_than_the_original_where_the_source_is_better():
    # b: patched 0 below 0.5, source 1. d is worse too, but there the source has no more.
    found = counter_examples(PATCHES, PATCHED, SOURCE)
    assert [(row["name"], row["kind"], row["ids"], row["num"]) for row in found] == [
        ("intersection", HEADS, ["b"], 1),
        ("intersection", LAYER_MATCHED, [], 0),
    ]


def test_a_set_that_does_worse_than_random_is_named():
    (row,) = worse_than_random(contrasts(PATCHES, PATCHED, seed=0))
    assert (row["name"], row["f1_difference"]) == ("intersection", -0.5)
    better = {**PATCHED, ONE: SOURCE}
    assert worse_than_random(contrasts(PATCHES, better, seed=0)) == []


def test_the_shipped_questions_are_prompts_without_documents(tokenizer):
    encoded = closed_book(tokenizer)
    assert len(encoded) >= 60
    assert len({e.id for e in encoded}) == len(encoded)
    one = encoded[0]
    text = tokenizer.decode(one.prompt_ids.tolist())
    assert text.startswith("<|im_start|>user\nAnswer the question.")
    assert text.endswith("<|im_start|>assistant\nAnswer:")
    assert "Document" not in text
    assert tokenizer.decode(one.target_ids.tolist()) == " Paris"
    assert one.end_id == tokenizer.eos_token_id
    assert all(len(e.evidence) == 0 and e.answers for e in encoded)
    assert all(math.isfinite(len(e.target_ids)) and len(e.target_ids) for e in encoded)
    assert SHIPPED.is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": 1, "question": "q"}\n', r"q\.jsonl:1: answers"),
        ('{"id": 1, "answers": ["a"]}\n', "question must be a text"),
        ('{"id": 1, "question": "q", "answers": ["a"]}\n' * 2, "the id 1 stands there twice"),
        ("", "no question in it"),
        ("[1]\n", r"q\.jsonl:1"),
    ],
)
def test_a_file_of_no_questions_is_refused(tokenizer, tmp_path, text, message):
    from sce.errors import InputError

    file = tmp_path / "q.jsonl"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        closed_book(tokenizer, file)


def test_a_curve_averages_every_measure_over_its_draws():
    first, second = TWO, frozenset({(2, 2)})
    by_set = {**BY_SET, second: answers([1, 0, 0.5, 1], nll=(3.0, 4.0, 5.0, 8.0))}
    known = {**KNOWN, first: np.array([1.0, 1.0]), second: np.array([0.0, 1.0])}
    _, random = curves(CONDITIONS, by_set, known, seed=0)
    assert random["answer_nll"] == [pytest.approx((10 / 8 + 20 / 8) / 2)]
    assert random["closed_book"] == [0.75]
    assert random["closed_book_n"] == 2


def test_a_control_that_several_files_share_is_drawn_once():
    other = [Condition("other", c.kind, c.heads, c.draw) for c in CONDITIONS]
    found = curves([*CONDITIONS, *other], BY_SET, KNOWN, seed=0)
    once = [(curve["name"], curve["kind"], shared) for curve, shared in drawn_once(found)]
    assert once == [("copy", HEADS, False), ("copy", UNIFORM, True), ("other", HEADS, False)]
    elsewhere = [*CONDITIONS, *other[:2], Condition("other", UNIFORM, ONE, 0)]
    found = curves(elsewhere, BY_SET, KNOWN, seed=0)
    assert [shared for _, shared in drawn_once(found)] == [False] * 4


def test_a_figure_of_curves_has_every_size_as_a_plain_tick_evenly_spaced():
    many = frozenset((3, head) for head in range(50))
    conditions = [*CONDITIONS, Condition("copy", HEADS, many)]
    by_set, known = {**BY_SET, many: BY_SET[WIDE]}, {**KNOWN, many: KNOWN[WIDE]}
    before = rows(conditions, by_set, known, seed=0)[0]
    found = curves(conditions, by_set, known, seed=0)
    figure = knockout_figure(found, before, title="t")
    for axis in figure.axes:
        assert [tick.get_text() for tick in axis.get_xticklabels()] == ["0", "1", "2", "50"]
        assert list(axis.get_xticks()) == [0, 1, 2, 3]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["copy", "heads", "random"]
    # Both curves, and a dot for every draw.
    lines = {tuple(line.get_ydata()) for line in figure.axes[0].lines}
    assert {(0.875, 0.375, 0.0, 0.0), (0.875, 0.75), (0.875, 0.625)} <= lines


def test_the_bars_of_patching_have_their_legend_outside():
    figure = patch_figure({"forward": patch_rows(PATCHES, PATCHED, SOURCE, seed=0)}, title="t")
    (axis,) = figure.axes
    assert axis.get_legend() is None
    assert [bar.get_height() for bar in axis.patches[:3]] == [0.5, 0.375, 0.875]
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert legend.get_window_extent().y1 <= axis.get_window_extent().y0
