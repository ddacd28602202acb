"""`Encoded.asked`: where question and gold documents stand, and the prompt of the null question."""

import json
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from datasets.arrow_writer import ArrowWriter

from conftest import CHAT_TEMPLATE
from kinds import KINDS, fast, llama2
from sce.data import table
from sce.data.encode import NULL_QUESTION, Encoded, Encoder
from sce.data.example import Document, Example, Span
from sce.data.prompt import render

CHAT = {"chat": CHAT_TEMPLATE, "plain": None}
ODD = "Où est née l\u2019actrice de « Rome » — in 1921, or was it 1922?"


def documents(*texts: str) -> tuple[Document, ...]:
    return tuple(Document(f"d{n}", f"Title {n}", text) for n, text in enumerate(texts))


def whole(document: Document) -> Span:
    return Span(document.id, 0, len(document.text))


FOUR = documents(
    "The tower is 121 metres high. It is old.",
    "Anna Kowalska was born in Rome in 1921.",
    "The bridge was built by N. Okafor, an engineer.",
    "Nothing of note happened here.\n\nOr did it?",
)
EXAMPLES = (
    Example("mdqa", "mdqa", FOUR, "Where was Anna Kowalska born?", ("Rome",), (whole(FOUR[1]),)),
    Example("odd", "mdqa", FOUR, ODD, ("Rome",), (whole(FOUR[1]),)),
    Example("last", "mdqa", FOUR[:3], "Who built it?", ("N. Okafor",), (whole(FOUR[2]),)),
    Example("alone", "mdqa", FOUR[:1], "How high?", ("121 metres",), (whole(FOUR[0]),)),
    Example("null", "mdqa", FOUR, "N/A", ("Rome",), (whole(FOUR[1]),)),
    Example("nearly", "mdqa", FOUR, "N/As?", ("Rome",), (whole(FOUR[1]),)),
    Example(
        "musique",
        "musique",
        FOUR,
        "Who built the bridge of Anna's town?",
        ("N. Okafor",),
        (whole(FOUR[1]), Span("d2", 0, 33)),
    ),
    Example(
        "summhay",
        "summhay",
        FOUR,
        "Which documents state this? The tower is 121 metres high.",
        ("d0", "d3"),
        (Span("d0", 0, 29), Span("d0", 30, 40), Span("d3", 0, 30)),
    ),
    Example("needle", "needle", FOUR, "How high is the tower?", ("121 metres",), (whole(FOUR[0]),)),
)
TASKS = {"mdqa", "musique", "summhay", "needle"}


@pytest.fixture(scope="module")
def alphabet():
    text = " ".join(json.dumps(e.to_json(), ensure_ascii=False) + e.question for e in EXAMPLES)
    return sorted({*text, *text.lower()} - set(" \n"))


@pytest.fixture(scope="module", params=[*KINDS, "spanning"])
def encoders(request, alphabet):
    """A tokenizer of each kind, with and without a chat template.

    `spanning` is one whose tokens may lie across pieces, so that prompts are tokenized whole.
    """
    kind = request.param
    inner = llama2(alphabet, spanning=True) if kind == "spanning" else KINDS[kind](alphabet)
    return kind, {chat: Encoder(fast(inner, template)) for chat, template in CHAT.items()}


@pytest.fixture(params=CHAT)
def encoder(request, encoders):
    kind, by_chat = encoders
    return kind, by_chat[request.param]


def plain(text: str) -> str:
    """What every kind of tokenizer gives back of a text: letters and digits."""
    letters = unicodedata.normalize("NFKD", text.lower())
    return "".join(c for c in letters if c.isalnum())


def decoded(encoder: Encoder, ids: np.ndarray) -> str:
    text = str(encoder.tokenizer.decode(ids.tolist()))
    return plain(text.replace("<unk>", ""))  # what a unigram makes of a line's end


def test_every_task_is_asked():
    assert {example.task for example in EXAMPLES} == TASKS


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.id)
def test_the_question_s_span_decodes_to_the_question(encoder, example):
    _, encoder = encoder
    found = encoder.encode(example)
    first, last = found.asked.question.tolist()
    assert decoded(encoder, found.prompt_ids[first:last]) == plain(example.question)
    # None of its neighbours holds a letter of it.
    assert first > found.evidence.max()
    before = decoded(encoder, found.prompt_ids[:first])
    assert before.endswith("question")
    assert decoded(encoder, found.prompt_ids[last:]).endswith("answer")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.id)
def test_the_gold_spans_decode_to_the_gold_documents(encoder, example):
    kind, encoder = encoder
    found = encoder.encode(example)
    gold = [d for d in example.documents if d.id in example.gold_ids]
    assert len(found.asked.gold) == len(gold)
    shown = "" if example.task == "needle" else "Title: "
    for document, (first, last) in zip(gold, found.asked.gold.tolist(), strict=True):
        title = f"{shown}{document.title} " if shown else ""
        text = decoded(encoder, found.prompt_ids[first:last])
        expected = plain(f"{title}{document.text}")
        if kind in ("t5", "spanning"):  # a token there may hold the end of one and the next's start
            assert expected in text
            assert len(text) <= len(expected) + 16
        else:
            assert text == expected
    inside = {p for first, last in found.asked.gold.tolist() for p in range(first, last)}
    assert set(found.evidence.tolist()) <= inside


def tokens_of(encoder: Encoder, example: Example, document: Document) -> list[int]:
    """[first, past the last] token of the whole prompt that overlaps a document, title included."""
    text, label = encoder.prompt(example), ""
    if example.task != "needle":
        label = f" (Title: {document.title}) "
    assert text.count(label + document.text) == 1
    first = text.index(label + document.text)
    last = first + len(label + document.text)
    whole = encoder.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = enumerate(whole["offset_mapping"])
    inside = [n for n, (start, end) in offsets if start < last and first < end]
    return [inside[0], inside[-1] + 1]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.id)
def test_the_gold_spans_are_the_documents_tokens_exactly_and_no_line_s_end(encoder, example):
    _, encoder = encoder
    found = encoder.encode(example)
    gold = [d for d in example.documents if d.id in example.gold_ids]
    assert found.asked.gold.tolist() == [tokens_of(encoder, example, d) for d in gold]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.id)
def test_the_null_prompt_is_the_prompt_with_the_null_question(encoder, example):
    _, encoder = encoder
    found = encoder.encode(example)
    asked = found.asked
    null = [*found.prompt_ids[: asked.null_start].tolist(), *asked.null_ids.tolist()]
    whole = encoder.prompt_ids(replace(example, question=NULL_QUESTION)).tolist()
    assert null == whole[: len(null)]
    assert decoded(encoder, asked.null_ids[-asked.num_null :]) == plain(NULL_QUESTION)
    assert decoded(encoder, np.array(whole[len(null) :])).endswith("answer")
    assert plain(NULL_QUESTION) not in decoded(encoder, np.array(whole[len(null) :]))
    # The gold documents are shared, and all else up to where the two questions differ.
    most = min(int(asked.question[0]), len(null) - asked.num_null)
    assert 0 < asked.num_null <= len(asked.null_ids)
    assert asked.gold.max() <= asked.null_start <= most
    assert asked.null_start == most or whole[asked.null_start] != found.prompt_ids[asked.null_start]


@pytest.mark.parametrize("shift", [-2, 2])
def test_a_span_elsewhere_decodes_to_something_else(encoder, shift):
    _, encoder = encoder
    found = encoder.encode(EXAMPLES[0])
    for first, last in (found.asked.question.tolist(), *found.asked.gold.tolist()):
        there, moved = found.prompt_ids[first:last], found.prompt_ids[first + shift : last + shift]
        assert decoded(encoder, there) != decoded(encoder, moved)


def same(a: Encoded, b: Encoded) -> bool:
    names = ("prompt_ids", "target_ids", "evidence", "needles", "cited")
    mine, theirs = a.asked, b.asked
    parts = [(getattr(a, name), getattr(b, name)) for name in names]
    parts += [(getattr(mine, n), getattr(theirs, n)) for n in ("question", "gold", "null_ids")]
    return (
        all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in parts)
        and (mine.null_start, mine.num_null) == (theirs.null_start, theirs.num_null)
        and (a.id, a.task, a.answers, a.end_id) == (b.id, b.task, b.answers, b.end_id)
    )


def test_the_table_keeps_it(tokenizer, tmp_path):
    import datasets

    encoder = Encoder(tokenizer)
    encoded = [encoder.encode(example) for example in EXAMPLES]
    file = tmp_path / "data.arrow"
    with ArrowWriter(path=str(file), features=table._FEATURES) as writer:
        for example, found in zip(EXAMPLES, encoded, strict=True):
            writer.write(table._row(example, found))
        writer.finalize()
    read = table.EncodedTable(datasets.Dataset.from_file(str(file)).with_format("numpy"))
    assert len(read) == len(EXAMPLES)
    for found, kept in zip(encoded, read, strict=True):
        assert same(found, kept)
        assert kept.asked.gold.shape == (len({*found.asked.gold[:, 0]}), 2)
    assert not same(encoded[0], read[1])


def test_documents_before_the_question_do_not_hang_on_it(tokenizer):
    encoder = Encoder(tokenizer)
    for example in EXAMPLES:
        first = encoder.encode(example)
        other = encoder.encode(replace(example, question="Something else altogether?"))
        assert np.array_equal(first.asked.gold, other.asked.gold)
        assert first.asked.question[0] == other.asked.question[0]
        assert len(render(example)) == len(render(replace(example, question="?")))
