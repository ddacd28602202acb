"""A needle in a long text: where it stands, how long the text is, and Wu et al.'s own files."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import SHARED_DATA
from plans import make_splits
from sce.data import needle
from sce.data.encode import Encoder
from sce.data.example import Document
from sce.data.sources import read_questions
from sce.data_options import DataOptions
from sce.errors import InputError


def one(sentence="The key to the attic lies under the blue pot.", answer="under the blue pot"):
    row = {"needle": sentence, "question": "Where is the attic's key?", "real_needle": answer}
    return needle.from_needle(row, "n0")


def text(count: int) -> list[Document]:
    return [
        Document(f"p{n}", "", f"Paragraph {n} begins here. It goes on for a while. It ends.")
        for n in range(count)
    ]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 30), st.floats(0, 1))
def test_the_needle_stands_between_two_sentences_at_its_depth(count, depth):
    example = needle.insert(one(), text(count), depth)
    assert example.evidence_texts() == [one().evidence_texts()[0]]
    whole = "\n".join(d.text for d in example.documents)
    without = whole.replace(one().evidence_texts()[0], "")
    assert without.split() == " ".join(d.text for d in text(count)).split()
    if count > 5:
        before = whole.index(one().evidence_texts()[0])
        assert abs(before / len(without) - depth) < 1 / count


def test_an_answer_that_the_text_holds_is_refused():
    paragraphs = [*text(3), Document("p", "", "It hung under the blue pot for years.")]
    with pytest.raises(InputError, match="the text around it holds its answer"):
        needle.insert(one(), paragraphs, 0.5)


def test_wrapped_lines_are_joined_and_long_paragraphs_cut():
    runs = needle.as_paragraphs("One is\nhere. Two. Three. Four. Five.\n\nSix.\n\n\n")
    assert runs == ["One is here. Two. Three. Four.", "Five.", "Six."]


def test_the_grid_is_needles_by_depths_by_lengths(tokenizer, tmp_path):
    book = tmp_path / "book.txt"
    book.write_text("\n\n".join(d.text for d in text(400)))
    options = DataOptions(
        task="needle",
        num_documents=None,
        haystack=[str(book)],
        depth=[0, 0.5, 1],
        lengths=[600, 1500],
        num_val=None,
        num_reference=None,
    )
    split = make_splits(options, Encoder(tokenizer), 0, ["reference"])["reference"]
    assert len(split.examples) == 15 * 3 * 2
    combinations = {(e.question, e.meta["depth"], e.meta["length"]) for e in split.examples}
    assert len(combinations) == 90
    for example, encoded in zip(split.examples, split.encoded, strict=True):
        length, depth = example.meta["length"], example.meta["depth"]
        assert length - 60 < len(encoded.prompt_ids) <= length
        inside = (len(encoded.prompt_ids) - 60) * depth
        assert abs(encoded.evidence[0] - inside) < 120


def test_depths_are_uniform_without_a_grid(tokenizer):
    from scipy.stats import kstest

    options = DataOptions(task="needle", num_documents=None, context_tokens=800, num_train=300)
    split = make_splits(options, Encoder(tokenizer), 0, ["train"])["train"]
    assert kstest([e.meta["depth"] for e in split.examples], "uniform").pvalue > 0.001
    assert len({e.id for e in split.examples}) == 300


@pytest.mark.data
def test_the_published_needles_stand_in_the_published_text(tokenizer, nq_file):
    folder = SHARED_DATA / "wu2024"
    needles = read_questions(str(folder / "needles.jsonl"))
    assert [len(e.answers) for e in needles] == [1, 1, 2]
    assert all(e.target in e.evidence_texts()[0] for e in needles)
    options = DataOptions(
        task="needle",
        num_documents=None,
        context_tokens=5000,
        haystack=[str(folder / "haystack_part1.txt.gz")],
        depth=np.linspace(0, 1, 10).tolist(),
        num_val=None,
        num_reference=None,
    )
    options.reference.path = str(folder / "needles.jsonl")
    split = make_splits(options, Encoder(tokenizer), 0, ["reference"])["reference"]
    assert len(split.examples) == 30
    assert all(4500 < len(e.prompt_ids) <= 5000 for e in split.encoded)
    for n in range(3):
        depths = [e.depth for e in split.encoded[n::3]]
        assert depths == sorted(depths)


def test_no_room_for_any_text_is_an_error(tokenizer):
    options = DataOptions(task="needle", num_documents=None, context_tokens=300)
    with pytest.raises(InputError, match=r"leave no room for text|takes .* prompt tokens"):
        _ = make_splits(options, Encoder(tokenizer), 0, ["train"])["train"].examples
