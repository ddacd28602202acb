"""Every kind of tokenizer, with and without a chat template, on every cell of the grid."""

import json
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import CHAT_TEMPLATE
from kinds import KINDS, fast, llama2
from plans import make_splits
from sce.data.encode import Encoder, evidence_positions
from sce.data.example import Document, Example, Span
from sce.data.prompt import render
from sce.errors import InputError
from test_grid import CELLS, TASKS, options, stripped

NUM_DOCUMENTS = {"mdqa": 3, "musique": 5, "summhay": 12}
CASES = [(task, *cell) for task in TASKS for cell in CELLS]
CHAT = {"chat": CHAT_TEMPLATE, "plain": None}
# Share of the prompts of the grid whose ids are joined; the others are tokenized as a whole.
JOINED = {"gpt2": 1, "llama3": 1, "llama2": 1, "unigram": 1, "wordpiece": 1, "t5": 0}


@pytest.fixture(scope="session")
def examples(tokenizer):
    """Two examples of every cell; they do not depend on the tokenizer."""
    encoder = Encoder(tokenizer)
    made = []
    for case in CASES:
        chosen = options(*case, count=2, num_documents=NUM_DOCUMENTS[case[0]])
        made += make_splits(chosen, encoder, 0, ["train"])["train"].examples
    return made


@pytest.fixture(scope="session")
def alphabet(examples):
    """Every character of the examples."""
    text = " ".join(json.dumps(e.to_json(), ensure_ascii=False) for e in examples)
    return sorted({*text, *text.lower()} - set(" \n"))


@pytest.fixture(scope="session")
def encoders(alphabet):
    made = {kind: make(alphabet) for kind, make in KINDS.items()}
    return {
        (kind, chat): Encoder(fast(inner, template))
        for kind, inner in made.items()
        for chat, template in CHAT.items()
    }


@pytest.fixture(scope="session", params=[f"{kind} {chat}" for kind in KINDS for chat in CHAT])
def case(request, encoders, examples):
    """Kind, encoder, and examples as they are encoded and as the tokenizer encodes them whole."""
    kind, chat = request.param.split()
    encoder = encoders[kind, chat]
    return kind, encoder, [(e, encoder.encode(e), whole(encoder, e)) for e in examples]


def whole(encoder: Encoder, example: Example, more: str = ""):
    text = encoder.prompt(example) + more
    return encoder.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)


def test_joined_ids_are_those_of_the_whole_prompt(case, record_property):
    kind, encoder, encoded = case
    for _, found, tokens in encoded:
        assert found.prompt_ids.tolist() == tokens["input_ids"]
    share = np.mean([encoder.is_joined(example) for example, *_ in encoded])
    record_property("share_joined", float(share))
    assert share == JOINED[kind]


def test_the_tokens_of_the_evidence_decode_to_the_needles(case):
    kind, encoder, encoded = case
    for example, found, _ in encoded:
        for number, needle in enumerate(example.evidence_texts()):
            positions = found.evidence[found.needles == number]
            ids = found.prompt_ids[positions[0] : positions[-1] + 1]
            assert plain(kind, encoder.tokenizer.decode(ids)) == plain(kind, needle)


def plain(kind: str, text: str) -> str:
    """What a tokenizer of this kind can give back of a text, without punctuation at its edges."""
    if kind == "wordpiece":
        letters = unicodedata.normalize("NFD", text.lower())
        text = "".join(c for c in letters if not c.isspace() and unicodedata.category(c) != "Mn")
    return stripped(text)


def test_the_evidence_is_where_the_whole_prompt_has_it(case):
    _, encoder, encoded = case
    for example, found, tokens in encoded:
        assert found.evidence.tolist() == in_whole(encoder, example, tokens)


def in_whole(encoder: Encoder, example: Example, tokens) -> list[int]:
    """Positions of the evidence, by the offsets of the whole prompt."""
    text, pieces = encoder.prompt(example), render(example)
    at = text.index("".join(piece.text for piece in pieces))
    begins = {}
    for piece in pieces:
        begins[piece.document] = at + piece.offset
        at += len(piece.text)
    spans = [(begins[s.document] + s.start, begins[s.document] + s.end) for s in example.evidence]
    return evidence_positions(text, tokens["offset_mapping"], spans)


def test_the_target_s_tokens_follow_the_prompt(case):
    _, encoder, encoded = case
    for example, found, _ in encoded:
        tokens = whole(encoder, example, f" {example.target}")
        assert [*found.prompt_ids, *found.target_ids] == tokens["input_ids"]


def test_just_the_labels_of_citations_are_cited_each_with_its_evidence(case):
    _, encoder, encoded = case
    for example, found, _ in encoded:
        if example.task != "summhay":
            assert set(found.cited) == {-1}
            continue
        ids = [document.id for document in example.documents]
        cited = {ids[int(label) - 1]: label for label in example.gold}
        first = {}
        for number, span in enumerate(example.evidence):
            first.setdefault(span.document, number)
        assert set(found.cited) - {-1} == {first[document] for document in cited}
        for document, label in cited.items():
            part = encoder.tokenizer.decode(found.target_ids[found.cited == first[document]])
            assert re.sub(r"\D", "", part) == label
        rest = encoder.tokenizer.decode(found.target_ids[found.cited == -1])
        assert not re.search(r"\d", rest)


nasty = st.one_of(
    st.sampled_from(["\n", "\n\n", "\r\n", " ", "   ", "\t", "\xa0", "\u2028", "\x00", "[1]"]),
    st.sampled_from(["Document [3]", " (Title: ", "Question:", "Answer:", "<|im_end|>", "]", "'s"]),
    st.sampled_from(["\u0301", "\u200d", "\u05d0\u05d1", "é", "🙂", "👩\u200d🚀", "12345", "…"]),
    st.sampled_from(["▁", "<0x0A>", "<unk>", "##", "a" * 30, " " * 30, "\n" * 30, "." * 30]),
    st.just("The tower is 121 metres high."),
)
texts = st.lists(
    st.one_of(nasty, st.text(st.characters(exclude_categories=["Cs"]), max_size=8)), max_size=6
).map("".join)
contexts = st.lists(st.tuples(texts, texts), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(contexts, texts, st.sampled_from(["mdqa", "needle"]))
def test_ids_are_those_of_the_whole_prompt_whatever_the_documents(encoders, pairs, question, task):
    documents = tuple(Document(str(n), *pair) for n, pair in enumerate(pairs))
    last = documents[-1].text
    span = Span(documents[-1].id, 0, len(last))
    example = Example("x", task, documents, question, (last,), (span,))
    for (_, chat), encoder in encoders.items():
        if chat == "chat":
            tokens = whole(encoder, example)
            assert encoder.prompt_ids(example).tolist() == tokens["input_ids"]
            evidence = in_whole(encoder, example, tokens)
            try:
                assert encoder.encode(example).evidence.tolist() == evidence
            except InputError:  # white space and punctuation are no evidence
                assert evidence == []


def test_tokens_that_lie_across_a_boundary_keep_prompts_from_being_joined(alphabet, examples):
    encoder = Encoder(fast(llama2(alphabet, spanning=True), CHAT_TEMPLATE))
    assert any("\nDocument▁[" in token for token in encoder.tokenizer.get_vocab())
    for example in examples[::8]:
        assert not encoder.is_joined(example)
        encoder.check_joined(example)
        try:
            found = encoder.encode(example)
        except InputError as error:
            assert "merges 'Answer:' with the answer" in str(error)
        else:
            tokens = whole(encoder, example, f" {example.target}")
            assert [*found.prompt_ids, *found.target_ids] == tokens["input_ids"]
