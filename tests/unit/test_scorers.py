"""Every scorer on hand-built heads whose scores are known, and on traces written out by hand."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import planted
from planted import (
    ASKING,
    BRIDGES,
    CITING,
    CLOSE,
    CODES,
    COMMA,
    DECOY_TOKEN,
    END,
    FIRST,
    HEADS,
    LETTERS,
    NULL,
    ONE,
    OPEN,
    SENTENCES,
    TWO,
    plant,
)
from sce.data.batch import collate
from sce.data.encode import Asked, Encoded
from sce.decode import DecodeSettings, Outcome, decode
from sce.errors import InputError
from sce.heads import GREEDY, PREFILL, SCORERS, TEACHER_FORCED, Trace
from sce.heads.insight import NO_CITATION, WRONG_CITATION, cited_spans

# 0 | 15 [2 3 4] | 16 [21 22 23 30] | 17 [11 12 13] | 18 | question 1 29 | 1, evidence in brackets.
# The letters stand before what leads to them, so that nothing is written where they are read.
PROMPT = [FIRST, 15, *LETTERS, 16, *CODES, DECOY_TOKEN, 17, *BRIDGES, 18, ASKING, 29, ASKING]
EVIDENCE = [2, 3, 4, 6, 7, 8, 9, 11, 12, 13]
QUESTION = Encoded(
    id="question",
    task="mdqa",
    prompt_ids=np.array(PROMPT, dtype=np.int32),
    target_ids=np.array(LETTERS, dtype=np.int32),
    end_id=END,
    evidence=np.array(EVIDENCE, dtype=np.int32),
    answers=("",),
    needles=np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 2], dtype=np.int32),
    cited=np.full(3, NO_CITATION, dtype=np.int32),
    asked=Asked(
        question=np.array([15, 17], dtype=np.int32),
        gold=np.array([[1, 5], [5, 10], [10, 14]], dtype=np.int32),
        null_start=15,
        null_ids=np.array([NULL], dtype=np.int32),
        num_null=1,
    ),
)
# 0 | 15 [25] | 16 [26] | 17 27 | 18 29 | 14, answered by [1, 2].
CITATION = Encoded(
    id="citation",
    task="summhay",
    prompt_ids=np.array(
        [FIRST, 15, SENTENCES[0], 16, SENTENCES[1], 17, SENTENCES[2], 18, 29, CITING],
        dtype=np.int32,
    ),
    target_ids=np.array([OPEN, ONE, COMMA, TWO, CLOSE], dtype=np.int32),
    end_id=END,
    evidence=np.array([2, 4], dtype=np.int32),
    answers=("1", "2"),
    needles=np.array([0, 1], dtype=np.int32),
    cited=np.array([-1, 0, -1, 1, -1], dtype=np.int32),
    asked=Asked(
        question=np.array([7, 9], dtype=np.int32),
        gold=np.array([[1, 3], [3, 5]], dtype=np.int32),
        null_start=8,
        null_ids=np.array([29], dtype=np.int32),
        num_null=1,
    ),
)
EVERY = ("copy", "hop_1", "hop_2", "decoy", "indirect", "insight")
SETTINGS = DecodeSettings(
    max_new_tokens=8,
    scorers=("copy", "copy_needle", "insight", "query_focused", "ov_write"),
    modes=(TEACHER_FORCED, GREEDY, PREFILL),
    detokenize=lambda ids: "".join(planted.TEXTS.get(token, "?") for token in ids),
)


def outcome(names, example: Encoded, implementation: str = "sce_fused") -> Outcome:
    (found,) = decode(plant(names, implementation), collate([example]), SETTINGS)
    return found


def table(**scores: float) -> torch.Tensor:
    """The scores of all heads: those of the named ones, 0 for all others."""
    heads = torch.zeros(3, 4, dtype=torch.float64)
    for name, score in scores.items():
        heads[HEADS[name].at] = score
    return heads


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Equal but for the rounding of a norm."""
    return torch.allclose(found, expected, atol=1e-5, rtol=0)


# -- planted heads ------------------------------------------------------------------------------

COPIES = {"copy": 1, "hop_2": 1}
EXPECTED = {
    # All three letters; the others look at other tokens than the one that is emitted.
    ("copy", TEACHER_FORCED): table(**COPIES),
    ("copy", GREEDY): table(**COPIES),
    # 3 of the 10 tokens of the evidence.
    ("copy_needle", TEACHER_FORCED): table(copy=0.3, hop_2=0.3),
    ("copy_needle", GREEDY): table(copy=0.3, hop_2=0.3),
    ("insight", TEACHER_FORCED): table(),
    ("insight", GREEDY): table(),
    # Of the question's tokens 1 and 29 the first turns to the gold documents, the null question to
    # none; but the decoy turns there from the null question too: 1/2 - 1.
    ("query_focused", PREFILL): table(copy=0.5, hop_1=0.5, hop_2=0.5, indirect=0.5, decoy=-0.5),
    # 1 from the evidence at each step, nothing from elsewhere. The first hop writes to another room
    # than the unembedding's, the decoy nothing.
    ("ov_write", TEACHER_FORCED): table(copy=1, hop_2=1, indirect=1),
}


@pytest.mark.parametrize("implementation", ["sce_fused", "sce_eager"])
def test_every_scorer_gives_the_planted_heads_their_values(implementation):
    found = outcome(EVERY, QUESTION, implementation)
    assert found.answer_ids == LETTERS
    assert set(found.scores) == set(EXPECTED)
    for key, expected in EXPECTED.items():
        assert close(found.scores[key], expected), key


@pytest.mark.parametrize("name", EVERY)
def test_a_head_s_values_do_not_hang_on_the_other_heads(name):
    names = ("hop_1", "hop_2") if name.startswith("hop") else (name,)
    found = outcome(names, QUESTION)
    for key, expected in EXPECTED.items():
        if GREEDY not in key:
            alone = torch.zeros_like(expected)
            for one in names:
                alone[HEADS[one].at] = expected[HEADS[one].at]
            assert close(found.scores[key], alone), key


@pytest.mark.parametrize("names", [("copy",), ("hop_1", "hop_2"), ("indirect",)])
def test_each_way_of_answering_is_enough(names):
    assert outcome(names, QUESTION).answer_ids == LETTERS


@pytest.mark.parametrize("names", [("hop_1",), ("hop_2",), ("decoy",), ("insight",), ()])
def test_and_no_less(names):
    found = outcome(names, QUESTION)
    assert not set(found.answer_ids) & set(LETTERS)
    assert found.scores["copy", TEACHER_FORCED].sum() == 0
    assert close(found.scores["ov_write", TEACHER_FORCED], table())


def test_without_the_first_hop_the_second_finds_nothing():
    second = HEADS["hop_2"].at
    for names, expected in ((("hop_1", "hop_2"), 1.0), (("hop_2",), 0.0)):
        assert outcome(names, QUESTION).scores["copy", TEACHER_FORCED][second] == expected


def test_what_is_written_from_elsewhere_counts_against_a_head():
    # Without the letters 7 of the 18 + t visible positions at step t are evidence, so what comes
    # from one of the 11 + t others counts 7 / (11 + t).
    moved = replace(QUESTION, evidence=QUESTION.evidence[3:], needles=QUESTION.needles[3:])
    found = outcome(("copy", "indirect"), moved)
    against = -(7 / 11 + 7 / 12 + 7 / 13) / 3
    assert close(found.scores["ov_write", TEACHER_FORCED], table(copy=against, indirect=1))
    assert found.scores["copy", TEACHER_FORCED].sum() == 0


def test_a_wrong_gold_answer_is_written_by_no_head():
    wrong = replace(QUESTION, target_ids=np.array([ASKING], dtype=np.int32), cited=np.array([-1]))
    scores = outcome(EVERY, wrong).scores
    assert close(scores["ov_write", TEACHER_FORCED], table())
    assert scores["copy", TEACHER_FORCED].sum() == 0


def test_the_insight_head_alone_scores_on_citations():
    found = outcome(EVERY, CITATION)
    assert found.answer_ids == (OPEN, ONE, COMMA, TWO, CLOSE)
    for mode in (TEACHER_FORCED, GREEDY):
        assert torch.equal(found.scores["insight", mode], table(insight=1))
        assert found.scores["copy", mode].sum() == 0  # labels are no part of the sentences
    # It writes 2 of the 5 tokens.
    assert close(found.scores["ov_write", TEACHER_FORCED], table(insight=2 / 5))


def test_a_wrong_citation_is_a_miss_that_counts():
    found = outcome(("wrong_insight",), CITATION)
    assert found.answer_ids == (OPEN, ONE, COMMA, planted.THREE, CLOSE)
    # Greedy cites 1 and 3, of which 1 is right; with gold tokens 2 is due where it looks at 3's.
    assert torch.equal(found.scores["insight", GREEDY], table(wrong_insight=0.5))
    assert torch.equal(found.scores["insight", TEACHER_FORCED], table(wrong_insight=0.5))


def test_a_wrong_citation_counts_even_where_its_sentence_is_evidence():
    # Greedy cites 3 while it looks at a sentence of the evidence: not that of a document to cite 3.
    wider = replace(
        CITATION,
        evidence=np.array([2, 4, 6], dtype=np.int32),
        needles=np.array([0, 1, 1], dtype=np.int32),
    )
    assert torch.equal(
        outcome(("wrong_insight",), wider).scores["insight", GREEDY], table(wrong_insight=0.5)
    )


def test_another_cited_document_s_sentence_is_a_miss():
    swapped = replace(CITATION, needles=np.array([1, 0], dtype=np.int32))
    for mode in (TEACHER_FORCED, GREEDY):
        assert outcome(("insight",), swapped).scores["insight", mode].sum() == 0


def test_every_sentence_of_a_cited_document_is_its_evidence():
    # Document 1 states it twice, and the head looks at the second sentence.
    twice = replace(
        CITATION,
        evidence=np.array([1, 2, 4], dtype=np.int32),
        needles=np.array([0, 1, 2], dtype=np.int32),
        cited=np.array([-1, 0, -1, 2, -1], dtype=np.int32),
    )
    found = outcome(("insight",), twice)
    for mode in (TEACHER_FORCED, GREEDY):
        assert torch.equal(found.scores["insight", mode], table(insight=1))


def test_an_answer_that_cites_nothing_scores_zero():
    found = outcome(("copy",), CITATION)
    assert ONE not in found.answer_ids
    assert found.scores["insight", GREEDY].sum() == 0


def test_an_empty_answer_scores_zero():
    silent = replace(QUESTION, target_ids=QUESTION.target_ids[:0], cited=QUESTION.cited[:0])
    found = outcome(EVERY, replace(silent, end_id=LETTERS[0]))
    assert found.answer_ids == ()
    for (scorer, mode), scores in found.scores.items():
        if mode != PREFILL:
            assert torch.equal(scores, table()), (scorer, mode)


def test_ties_go_to_the_lowest_position():
    # The letters twice, so that each is looked at by halves; the evidence is the second time alone.
    prompt = [FIRST, *LETTERS, *LETTERS, ASKING]
    for evidence, expected in (([1, 2, 3], 1.0), ([4, 5, 6], 0.0)):
        twice = replace(
            QUESTION,
            prompt_ids=np.array(prompt, dtype=np.int32),
            evidence=np.array(evidence, dtype=np.int32),
            needles=np.zeros(3, dtype=np.int32),
            asked=replace(
                QUESTION.asked,
                question=np.array([7, 8], dtype=np.int32),
                gold=np.array([[1, 4]], dtype=np.int32),
                null_start=7,
            ),
        )
        scores = outcome(("copy",), twice).scores
        assert scores["copy", TEACHER_FORCED][HEADS["copy"].at] == expected
        assert scores["query_focused", PREFILL][HEADS["copy"].at] == pytest.approx(0.5, abs=1e-5)


def test_evidence_out_of_a_window_s_reach_scores_zero():
    # The last prompt token sees itself and 7 before it: no letter, code or decoy token.
    from transformers import MistralConfig, MistralForCausalLM

    whole = plant(EVERY)
    values = {k: v for k, v in whole.config.to_dict().items() if k != "model_type"}
    local = MistralForCausalLM._from_config(
        MistralConfig(**{**values, "sliding_window": 8}), attn_implementation="sce_fused"
    )
    local.load_state_dict(whole.state_dict())
    far = replace(QUESTION, evidence=QUESTION.evidence[:7], needles=QUESTION.needles[:7])
    (found,) = decode(local.eval(), collate([far]), SETTINGS)
    for key in EXPECTED:
        if key != ("query_focused", PREFILL):
            assert torch.equal(found.scores[key].abs(), table()), key


def test_a_batch_gives_what_its_examples_give_alone():
    together = decode(plant(EVERY), collate([CITATION, QUESTION]), SETTINGS)
    for found in together:
        alone = outcome(EVERY, found.example)
        assert found.answer_ids == alone.answer_ids
        assert set(found.scores) == set(alone.scores)
        for key, scores in alone.scores.items():
            assert close(found.scores[key], scores), key


def test_an_example_that_does_not_know_its_question_is_refused_by_name():
    with pytest.raises(InputError, match=r"example question: .*query_focused"):
        outcome(("copy",), replace(QUESTION, asked=None))


# -- traces by hand -------------------------------------------------------------------------------


def trace(looked_at: list[int], emitted: list[int], prompt: list[int], evidence: list[int], **more):
    """One head."""
    return Trace(
        torch.tensor(looked_at, dtype=torch.long).view(1, 1, -1),
        torch.tensor(emitted, dtype=torch.long),
        torch.tensor(prompt, dtype=torch.long),
        torch.tensor(evidence, dtype=torch.long),
        **more,
    )


def wu2024(looks: list[int], pieces: list[str], answer: str = "a b", evidence=(1, 2)) -> float:
    """The score of a head; the prompt is x a b, and its tokens are what they read as."""
    prompt = ["x", "a", "b"]
    vocabulary = [*prompt, *(p for p in dict.fromkeys(pieces) if p not in prompt)]
    made = trace(
        looks,
        [vocabulary.index(piece) for piece in pieces],
        [0, 1, 2],
        list(evidence),
        pieces=tuple(pieces),
        text=lambda count: " ".join(pieces[:count]),
        answers=(answer,),
    )
    return float(SCORERS["wu2024_code"].score(made))


def test_wu2024_code_counts_steps_so_a_score_may_exceed_one():
    assert wu2024([1, 2], ["a", "b"]) == 2 / 2
    assert wu2024([1, 1], ["a", "b"]) == 1 / 2
    assert wu2024([1, 1, 1, 2], ["a", "a", "a", "b"]) == 4 / 2
    assert wu2024([1, 2], ["a", "b"], evidence=(1,)) == 1 / 1
    assert wu2024([0, 2], ["x", "b"], answer="x") == 1 / 2  # 0 holds x, and is no evidence


def test_wu2024_code_takes_fifty_steps_at_most():
    assert wu2024([1] * 49 + [2, 2, 2], ["a"] * 49 + ["b"] * 3) == 50 / 2
    # What follows is not read either: the answer's b comes too late to count.
    assert np.isnan(wu2024([1] * 50 + [2], ["a"] * 50 + ["b"], answer="b"))


def test_wu2024_code_stops_after_the_first_piece_that_ends_a_line():
    assert wu2024([1, 2, 1, 1], ["a", "b", "\n", "a"]) == 2 / 2
    assert wu2024([1, 1, 2], ["a", "b\n", "b"]) == 1 / 2
    assert np.isnan(wu2024([1, 1, 2], ["a", "\n", "b"], answer="b"))
    # The token that ends the line is a step too: their loop counts it before it stops.
    assert wu2024([1, 2], ["a", "\n"], answer="a") == 1 / 2


@pytest.mark.parametrize(
    ("answer", "kept"),
    [("a", True), ("a z", False), ("a b z", True), ("a b y z", False), ("z", False)],
)
def test_wu2024_code_keeps_an_answer_of_which_more_than_half_is_said(answer, kept):
    assert np.isnan(wu2024([1, 2], ["a", "b"], answer)) != kept


def test_wu2024_code_compares_stems_and_takes_the_best_alias():
    made = trace([0], [0], [0], [0], pieces=("taking",), text=lambda count: "taking")
    score = SCORERS["wu2024_code"].score
    assert score(replace(made, answers=("takes",))) == 1
    assert score(replace(made, answers=("no", "takes"))) == 1
    assert score(replace(made, answers=("no",))).isnan()


def test_wu2024_code_has_no_score_for_an_empty_answer():
    assert np.isnan(wu2024([], []))


def test_copy_needle_counts_positions_and_copy_steps():
    made = trace([1, 1, 2], [5, 5, 6], [4, 5, 6, 7], [1, 2, 3])
    assert SCORERS["copy"].score(made) == 3 / 3
    assert SCORERS["copy_needle"].score(made) == pytest.approx(2 / 3)


REFUSALS = {
    # What is wrong, and what would be right.
    ("wu2024_code", TEACHER_FORCED, "needle"): ("mode=teacher_forced", "mode=greedy"),
    ("wu2024_code", GREEDY, "mdqa"): ("data=mdqa", "data=needle"),
    ("insight", TEACHER_FORCED, "musique"): ("data=musique", "data=summhay"),
    ("insight", PREFILL, "summhay"): ("mode=prefill", "mode=teacher_forced or mode=greedy"),
    ("query_focused", GREEDY, "mdqa"): ("mode=greedy", "mode=prefill"),
    ("ov_write", GREEDY, "mdqa"): ("mode=greedy", "mode=teacher_forced"),
    ("copy", PREFILL, "mdqa"): ("mode=prefill", "mode=teacher_forced or mode=greedy"),
}
MODES_OF = {
    "copy": (TEACHER_FORCED, GREEDY),
    "copy_needle": (TEACHER_FORCED, GREEDY),
    "wu2024_code": (GREEDY,),
    "insight": (TEACHER_FORCED, GREEDY),
    "query_focused": (PREFILL,),
    "ov_write": (TEACHER_FORCED,),
}
TASKS_OF = {"wu2024_code": ("needle",), "insight": ("summhay",)}


def test_a_scorer_is_refused_outside_its_modes_and_tasks_with_the_reason():
    for (name, mode, task), (wrong, right) in REFUSALS.items():
        text = SCORERS[name].SPEC.refusal(name, mode, task)
        assert text is not None
        assert text.startswith(f"scorer={name} is not defined for {wrong}; add {right}")
    assert set(SCORERS) == set(MODES_OF)
    for name, modes in MODES_OF.items():
        for mode in (TEACHER_FORCED, GREEDY, PREFILL):
            for task in ("mdqa", "musique", "summhay", "needle"):
                fits = mode in modes and task in TASKS_OF.get(name, (task,))
                assert (SCORERS[name].SPEC.refusal(name, mode, task) is None) == fits


# -- against plain re-implementations -------------------------------------------------------------


def number_at(text: str, at: int) -> str | None:
    """The number that a bracket cites of which this character is a digit."""
    digits, inside = "0123456789", "0123456789, "

    def skip(start: int, step: int, what: str) -> int:
        while 0 <= start < len(text) and text[start] in what:
            start += step
        return start

    first, last = skip(at, -1, digits) + 1, skip(at, 1, digits)
    ends = [(skip(first - 1, -1, " "), "[,"), (skip(last, 1, " "), "],")]
    ends += [(skip(first - 1, -1, inside), "["), (skip(last, 1, inside), "]")]
    whole = all(0 <= end < len(text) and text[end] in wanted for end, wanted in ends)
    return str(int(text[first:last])) if text[at] in digits and whole else None


def brute_force_citations(pieces: list[str], span_of: dict[str, int]) -> list[int]:
    """Character by character; a token with digits of two numbers is part of the last."""
    text, cited, begin = "".join(pieces), [], 0
    for piece in pieces:
        end = begin + len(piece)
        numbers = [n for at in range(begin, end) if (n := number_at(text, at)) is not None]
        cited.append(span_of.get(numbers[-1], WRONG_CITATION) if numbers else NO_CITATION)
        begin = end
    return cited


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.text("[]0123, a", max_size=4), max_size=14),
    st.dictionaries(st.sampled_from("0 1 2 3 12 21 10".split()), st.integers(0, 5)),
)
@example(["[1", "", "2]"], {"12": 0})  # a token without text is part of no label
def test_cited_spans_are_those_found_character_by_character(pieces, span_of):
    assert cited_spans(pieces, span_of) == brute_force_citations(pieces, span_of)


@st.composite
def steps_of_four_heads(draw):
    """What a `Trace` is made of, whose own checks must not draw at random while hypothesis does."""
    prompt = draw(st.lists(st.integers(-1, 4), min_size=1, max_size=9))
    steps = draw(st.integers(0, 6))
    positions = st.integers(-12, len(prompt) + 5)
    looks = draw(
        st.lists(st.lists(positions, min_size=steps, max_size=steps), min_size=4, max_size=4)
    )
    evidence = sorted(draw(st.sets(st.integers(0, len(prompt) - 1))))
    emitted = draw(st.lists(st.integers(-1, 4), min_size=steps, max_size=steps))
    spans = st.lists(st.integers(0, 2), min_size=len(evidence), max_size=len(evidence))
    return looks, emitted, prompt, evidence, draw(spans)


@settings(max_examples=200, deadline=None)
@given(steps_of_four_heads())
def test_what_is_copied_is_what_the_definition_says(steps):
    looked_at, emitted, prompt, evidence, spans = steps
    long = partial(torch.tensor, dtype=torch.long)
    looks = long(looked_at).view(2, 2, len(emitted))
    made = Trace(looks, long(emitted), long(prompt), long(evidence), long(spans))
    span_of = dict(zip(evidence, spans, strict=True))
    for layer, head in np.ndindex(2, 2):
        looks = made.looked_at[layer, head].tolist()
        copied = [j in span_of and prompt[j] == y >= 0 for j, y in zip(looks, emitted, strict=True)]
        assert made.copied[layer, head].tolist() == copied
        assert made.in_evidence[layer, head].tolist() == [j in span_of for j in looks]
        assert made.span_looked_at[layer, head].tolist() == [span_of.get(j, -1) for j in looks]
        taken = {j for j, hit in zip(looks, copied, strict=True) if hit}
        shares = {
            "copy": sum(copied) / len(copied) if copied else 0,
            "copy_needle": len(taken) / len(evidence) if evidence else 0,
        }
        for name, share in shares.items():
            assert float(SCORERS[name].score(made)[layer, head]) == pytest.approx(share, abs=1e-12)
