"""The planted head scores exactly 1, all others 0; batching, padding and modes change nothing."""

import numpy as np
import pytest
import torch

import planted
from sce.data.batch import collate
from sce.data.encode import Encoded
from sce.decode import DecodeSettings, decode

COPY = DecodeSettings(max_new_tokens=6, scorers=("copy", "copy_needle"))


def example(prompt: list[int], evidence: list[int], target: list[int], end: int, name: str = "x"):
    return Encoded(
        id=name,
        task="mdqa",
        prompt_ids=np.array(prompt, dtype=np.int32),
        target_ids=np.array(target, dtype=np.int32),
        end_id=end,
        evidence=np.array(evidence, dtype=np.int32),
        answers=("",),
        needles=np.zeros(len(evidence), dtype=np.int32),
        cited=np.full(len(target), -1, dtype=np.int32),
    )


# The current token 4 leads to 5, 6, 7, which stand at 3..5; 8 ends the answer.
SHORT = example([20, 21, 22, 5, 6, 7, 8, 23, 4], [3, 4, 5], [5, 6, 7], 8, "short")
LONG = example([20, 22, 24, 26, 28, 30, 10, 11, 12, 14, 16, 18, 9], [6, 7], [10, 11], 12, "long")


def planted_only(scores: torch.Tensor) -> bool:
    expected = torch.zeros_like(scores)
    expected[planted.LAYER, planted.HEAD] = 1
    return torch.equal(scores, expected)


@pytest.mark.parametrize("implementation", ["sce_fused", "sce_eager"])
@pytest.mark.parametrize("mode", ["teacher_forced", "greedy"])
def test_planted_head_scores_one_and_all_others_zero(implementation, mode):
    model = planted.build(implementation)
    outcomes = decode(model, collate([SHORT, LONG]), COPY)
    for outcome in outcomes:
        assert outcome.answer_ids == tuple(outcome.example.target_ids)
        assert planted_only(outcome.scores["copy", mode])
        assert planted_only(outcome.scores["copy_needle", mode])


def test_no_head_scores_where_the_evidence_is_elsewhere():
    moved = example(SHORT.prompt_ids.tolist(), [0, 1, 2], [5, 6, 7], 8)
    (outcome,) = decode(planted.build(), collate([moved]), COPY)
    assert all(scores.sum() == 0 for scores in outcome.scores.values())


def test_copy_counts_steps_and_copy_needle_positions():
    # The last gold token is another than the one the head looks at: 2 of 3 steps, 2 of 4 positions.
    half = example(SHORT.prompt_ids.tolist(), [2, 3, 4, 5], [5, 6, 9], 8)
    (outcome,) = decode(planted.build(), collate([half]), COPY)
    at = (planted.LAYER, planted.HEAD)
    assert outcome.scores["copy", "teacher_forced"][at] == pytest.approx(2 / 3)
    assert outcome.scores["copy_needle", "teacher_forced"][at] == pytest.approx(2 / 4)


def test_copy_needle_counts_a_position_once():
    # Fed 4, 5, 4, the head looks at the one 5 at the first and the third step.
    again = example([20, 5, 21, 22, 4], [1], [5, 4, 5], 8)
    (outcome,) = decode(planted.build(), collate([again]), COPY)
    at = (planted.LAYER, planted.HEAD)
    assert outcome.scores["copy", "teacher_forced"][at] == pytest.approx(2 / 3)
    assert outcome.scores["copy_needle", "teacher_forced"][at] == 1


def test_an_empty_greedy_answer_scores_zero():
    silent = example(SHORT.prompt_ids.tolist(), [3, 4, 5], [5, 6, 7], end=5)
    (outcome,) = decode(planted.build(), collate([silent]), COPY)
    assert outcome.answer_ids == ()
    assert outcome.scores["copy", "greedy"].sum() == 0
    assert planted_only(outcome.scores["copy", "teacher_forced"])


def test_a_batch_gives_what_its_examples_give_alone():
    model = planted.build()
    together = decode(model, collate([SHORT, LONG]), COPY)
    for example_, outcome in zip([SHORT, LONG], together, strict=True):
        (alone,) = decode(model, collate([example_]), COPY)
        assert alone.answer_ids == outcome.answer_ids
        assert alone.nll == pytest.approx(outcome.nll, abs=1e-4)
        for key, scores in alone.scores.items():
            assert torch.equal(scores, outcome.scores[key])


def test_fixed_steps_give_the_same_answers():
    model = planted.build()
    free = decode(model, collate([SHORT, LONG]), COPY)
    from dataclasses import replace

    fixed = decode(model, collate([SHORT, LONG]), replace(COPY, fixed_steps=True))
    assert [o.answer_ids for o in free] == [o.answer_ids for o in fixed]


def test_greedy_answers_equal_transformers_generate(tiny_folder):
    from transformers import AutoModelForCausalLM

    rng = np.random.default_rng(0)
    examples = [
        example(rng.integers(2, 800, size=n).tolist(), [1], [5], 1, str(n)) for n in (30, 41, 17)
    ]
    batch = collate(examples)
    model = AutoModelForCausalLM.from_pretrained(
        tiny_folder, attn_implementation="sce_fused"
    ).eval()
    ours = decode(model, batch, DecodeSettings(max_new_tokens=12))
    model.set_attn_implementation("eager")
    prompt = batch.num_prompt
    theirs = model.generate(
        input_ids=batch.input_ids[:, :prompt],
        attention_mask=batch.attention_mask[:, :prompt],
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=1,
        pad_token_id=1,
    )
    for outcome, row in zip(ours, theirs[:, prompt:].tolist(), strict=True):
        expected = row[: row.index(1)] if 1 in row else row
        assert list(outcome.answer_ids) == expected


def test_surface_match_equates_tokens_of_equal_text_but_not_white_space():
    from sce.heads import SCORERS, Trace
    from sce.heads.trace import canonical_ids

    table = canonical_ids(["a", " a", "b", " ", "\n"])
    prompt, emitted = torch.tensor([0, 2, 3]), torch.tensor([1, 4])
    looked_at = torch.tensor([[[0, 2], [1, 2]]])
    exact = Trace(looked_at, emitted, prompt, torch.tensor([0, 1, 2]))
    surface = Trace(looked_at, table[emitted], table[prompt], torch.tensor([0, 1, 2]))
    assert SCORERS["copy"].score(exact).tolist() == [[0.0, 0.0]]
    assert SCORERS["copy"].score(surface).tolist() == [[0.5, 0.0]]


def test_surface_match_keeps_parts_of_characters_apart():
    from sce.heads.trace import canonical_ids

    table = canonical_ids(["\ufffd", "\ufffd", "a"]).tolist()
    assert len(set(table)) == 3
