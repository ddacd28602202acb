"""Token positions of the evidence, and the space before the answer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sce.data.batch import IGNORE, collate, deal_batches
from sce.data.encode import Encoder
from sce.data.example import Document, Example, Span
from sce.data.locate import evidence_positions
from sce.errors import InputError


def example(text: str, start: int, end: int, answer: str) -> Example:
    documents = (Document("a", "Other", "Nothing here."), Document("b", "Title", text))
    return Example("x", "mdqa", documents, "what is it", (answer,), (Span("b", start, end),))


words = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12
)


@settings(max_examples=150, deadline=None)
@given(st.lists(words, min_size=3, max_size=12), st.data())
def test_evidence_tokens_cover_the_span_and_nothing_else(tokenizer, pieces, data):
    text = " ".join(pieces)
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoded["offset_mapping"]
    positions = evidence_positions(text, offsets, [(start, end)])
    assert positions == sorted(set(positions))
    covered = set()
    for position in positions:
        a, b = offsets[position]
        assert a < end and start < b
        covered.update(range(a, b))
    letters = {i for i in range(start, end) if text[i].isalnum()}
    assert letters <= covered


def test_a_token_of_white_space_or_punctuation_is_no_evidence():
    text = "ab. cd"
    offsets = [(0, 2), (2, 3), (3, 6)]
    assert evidence_positions(text, offsets, [(0, 4)]) == [0]
    assert evidence_positions(text, offsets, [(0, 5)]) == [0, 2]
    assert evidence_positions(text, offsets, [(2, 4)]) == []


def test_the_evidence_decodes_to_the_sentence(tokenizer):
    text = "First thing. The tower is 121 metres high! Last thing."
    encoder = Encoder(tokenizer)
    encoded = encoder.encode(example(text, 13, 42, "121 metres"))
    found = tokenizer.decode(encoded.prompt_ids[encoded.evidence])
    assert found.strip() == "The tower is 121 metres high"
    assert tokenizer.decode(encoded.prompt_ids).endswith("assistant\nAnswer:")
    assert tokenizer.decode(encoded.target_ids) == " 121 metres"
    assert encoded.end_id == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_the_answer_s_first_token_can_be_the_token_in_the_context(tokenizer):
    encoded = Encoder(tokenizer).encode(example("It was made in Rome by us.", 0, 26, "Rome"))
    assert encoded.target_ids[0] in encoded.prompt_ids[encoded.evidence]


@pytest.mark.real_model
def test_the_same_holds_for_the_default_model(real_tokenizer):
    encoded = Encoder(real_tokenizer).encode(example("It was made in Rome by us.", 0, 26, "Rome"))
    assert (
        encoded.target_ids.tolist()
        == real_tokenizer(" Rome", add_special_tokens=False)["input_ids"]
    )
    assert set(encoded.target_ids) <= set(encoded.prompt_ids[encoded.evidence])


def test_a_tokenizer_without_a_chat_template_gets_a_plain_prompt(tokenizer):
    import copy

    plain = copy.deepcopy(tokenizer)
    plain.chat_template = None
    encoded = Encoder(plain).encode(example("It was made in Rome by us.", 0, 26, "Rome"))
    text = plain.decode(encoded.prompt_ids)
    assert text.startswith("Answer the question")
    assert text.endswith("\n\nAnswer:")
    assert encoded.end_id == plain.eos_token_id


def test_a_slow_tokenizer_is_refused():
    class Slow:
        is_fast = False
        name_or_path = "slow"

    with pytest.raises(InputError, match="no offset mapping"):
        Encoder(Slow())  # type: ignore[arg-type]


def test_a_template_that_swallows_the_text_is_refused(tokenizer):
    import copy

    odd = copy.deepcopy(tokenizer)
    odd.chat_template = "nothing"
    with pytest.raises(InputError, match="does not show the user's text"):
        Encoder(odd)


def test_batches_pad_prompts_on_the_left_and_answers_on_the_right(tokenizer):
    encoder = Encoder(tokenizer)
    short = encoder.encode(example("In Rome.", 0, 8, "Rome"))
    long = encoder.encode(
        example("It is called the old bridge over there.", 0, 39, "the old bridge")
    )
    batch = collate([short, long])
    for row, encoded in enumerate((short, long)):
        start = batch.padding[row]
        assert (
            batch.input_ids[row, start : batch.num_prompt].tolist() == encoded.prompt_ids.tolist()
        )
        assert batch.position_ids[row, start] == 0
        labels = batch.labels[row][batch.labels[row] != IGNORE].tolist()
        assert labels == [*encoded.target_ids.tolist(), encoded.end_id]
        fed = batch.input_ids[row, batch.num_prompt :][: len(encoded.target_ids)]
        assert fed.tolist() == encoded.target_ids.tolist()
    assert collate([short]).attention_mask is None
    assert batch.num_labels == len(short.target_ids) + len(long.target_ids) + 2


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 8), st.integers(1, 4))
def test_every_example_is_dealt_once_and_ranks_get_equally_many_batches(lengths, size, world):
    batches = deal_batches(lengths, size, world)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert len(batches) % world == 0
    flat = [lengths[i] for batch in batches for i in batch]
    assert flat == sorted(flat)
    assert np.all([len(batch) <= size for batch in batches])
