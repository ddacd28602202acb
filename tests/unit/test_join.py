"""Ids joined from those of pieces: where they may be, where not, and what is kept."""

import string

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sce.data import join
from sce.data.example import Document
from sce.data.join import Joiner
from sce.data.prompt import Piece, body, label


class Counting:
    """A tokenizer that keeps what it was asked to tokenize."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer, self.texts = tokenizer, []

    def __call__(self, text, **settings):
        self.texts.append(text)
        return self.tokenizer(text, **settings)

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)


@pytest.fixture
def counting(tokenizer):
    return Counting(tokenizer)


def prompt(*texts: str, first: int = 1) -> list[Piece]:
    """Labelled documents and a question."""
    pieces = [Piece("Answer.\n\n", "", "D")]
    for number, text in enumerate(texts, start=first):
        pieces += [label(number), body(Document(str(number), "", text), labelled=True)]
    return [*pieces, Piece("Question: why?", "\n", "")]


def paragraphs(*texts: str) -> list[Piece]:
    """Documents without labels, and a question."""
    made = [body(Document(text, "", text), labelled=False) for text in texts]
    return [Piece("Read.\n\n", "", "D"), *made, Piece("Question: why?", "\n", "")]


def whole(tokenizer, pieces: list[Piece]) -> list[int]:
    text = "".join(piece.text for piece in pieces)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def agrees(tokenizer, pieces: list[Piece]) -> bool:
    """Whether the pieces are joined; if so their ids must be those of the whole."""
    joined = Joiner(tokenizer).join(pieces)
    assert joined is None or joined.tolist() == whole(tokenizer, pieces)
    return joined is not None


def test_labels_with_numbers_up_to_3000_are_joined(tokenizer):
    joiner = Joiner(tokenizer)
    for number in range(1, 3001):
        pieces = prompt("A tower.", first=number)
        joined = joiner.join(pieces)
        assert joined is not None
        assert joined.tolist() == whole(tokenizer, pieces)


def test_a_document_is_tokenized_once_whatever_its_number_and_neighbours(counting):
    joiner = Joiner(counting)
    tower, bridge = "A tower stands by the river.", "The bridge is old."
    joiner.join(prompt(tower, bridge))
    joiner.join(prompt(bridge, tower, first=2999))
    counting.texts.clear()
    joiner.join(prompt(tower, bridge, first=2999))
    joiner.join(prompt(bridge, tower))
    joiner.join(prompt(tower, tower, bridge))
    assert counting.texts == ["\nDocument [3] "]


def test_a_boundary_is_checked_on_the_characters_around_it_alone(counting):
    joiner = Joiner(counting)
    begin, end = "It stands in the old town", "and is the tallest of its kind."
    joiner.join(prompt(f"{begin} of Rome {end}"))
    counting.texts.clear()
    document = body(Document("d", "", f"{begin} of Oslo {end}"), labelled=True)
    assert joiner.join(prompt(f"{begin} of Oslo {end}")) is not None
    assert counting.texts == [f"]{document.text}D"]


def test_a_piece_that_merges_with_what_is_around_it_has_no_ids():
    joiner = Joiner(merging("T|h"))
    assert joiner.ids(Piece("he", "\n", " ")) is not None
    assert joiner.ids(Piece("he", "T", " ")) is None
    assert joiner.ids(Piece("T", "\n", "h")) is None
    assert joiner.join([Piece("T", "", " "), Piece("he", "T", "")]) is None


def test_a_document_that_begins_with_white_space_where_none_was_thought_of_is_not_joined(tokenizer):
    assert agrees(tokenizer, paragraphs("One.", "Two."))
    assert not agrees(tokenizer, paragraphs("One.", " Two."))
    assert not agrees(tokenizer, paragraphs("One.", "\nTwo."))
    assert agrees(tokenizer, prompt("One.", " Two.", "\nThree.", ""))


def test_what_is_kept_is_cleared_when_it_grows_and_ids_stay_right(counting, monkeypatch):
    monkeypatch.setattr(join, "_MAX_PIECES", 3)
    joiner = Joiner(counting)
    for number in range(20):
        pieces = prompt("A tower.", f"{number} bridges.", first=number + 1)
        joined = joiner.join(pieces)
        assert joined is not None
        assert joined.tolist() == whole(counting, pieces)
        assert len(joiner._ids) <= 3
        assert len(joiner._joins) <= 6


def test_kept_ids_take_four_bytes_a_token(tokenizer):
    joined = Joiner(tokenizer).join(prompt("A tower."))
    assert joined is not None
    assert joined.dtype == np.int32


def fast(model, pre_tokenizer=None) -> PreTrainedTokenizerFast:
    inner = Tokenizer(model)
    if pre_tokenizer is not None:
        inner.pre_tokenizer = pre_tokenizer
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def merging(*merges: str, pre_tokenizer=None) -> PreTrainedTokenizerFast:
    """A BPE with these merges, the two sides of each divided by a bar."""
    pairs = [tuple(merge.split("|")) for merge in merges]
    characters = pre_tokenizers.ByteLevel.alphabet() if pre_tokenizer else string.printable
    tokens = [*sorted(characters), *("".join(pair) for pair in pairs)]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return fast(models.BPE(vocabulary, pairs), pre_tokenizer)


def test_without_words_ids_are_joined_if_no_token_can_lie_across_a_boundary():
    assert agrees(merging("a|a", "D|o", "aa|b"), prompt("aaab", "b"))
    assert agrees(merging("a|a", ".|\n"), prompt("aaa.", "b."))
    assert not agrees(merging("a|a", "\n|D"), prompt("aaa.", "b."))
    assert not agrees(merging("a|a", "]| "), prompt("aaa.", "b."))


@pytest.mark.parametrize("length", range(20, 32))
def test_a_run_longer_than_the_window_decides_nothing_unseen(length):
    # Whether "a", both line breaks and "Qu" become one token depends on the run's length, even or
    # odd, which the characters around the boundary do not tell.
    tokenizer = merging("a|a", "Q|u", "\n|\n", "a|\n\n", "a\n\n|Qu")
    assert not agrees(tokenizer, prompt("a" * length + "\n"))


@pytest.mark.parametrize("length", range(20, 32))
def test_nor_does_a_run_of_white_space_before_a_document_that_begins_with_it(length):
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = merging("ĉ|ĉ", "ĉ|Ċ", "ĉĊ|Ċ", pre_tokenizer=words)
    assert not agrees(tokenizer, paragraphs("a" + "\t" * length + "\n", " b"))
    assert agrees(tokenizer, paragraphs("a" + "\t" * length + "\n", "b"))


@pytest.mark.parametrize("length", range(10, 20))
def test_nor_does_the_rounding_of_a_sum_of_scores(length):
    # After 14 letters, "aaa" is cut as a + aa, after 13 as aa + a: both sums are the same but for
    # their last bit.
    scores = [(c, -4.1) for c in string.printable if not c.isspace() and c != "a"]
    scores += [("<unk>", 0.0), ("▁", -4.1), ("a", -1.7), ("aa", -2.3)]
    model = models.Unigram(scores, len(scores) - 4)
    tokenizer = fast(model, pre_tokenizers.Metaspace())
    assert not agrees(tokenizer, paragraphs("x" * length, "aaa"))
    assert agrees(tokenizer, prompt("x" * length, "aaa"))


def test_words_that_are_cut_by_their_length_are_not_joined():
    tokens = ["[UNK]", *string.printable, *(f"##{c}" for c in string.printable)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    model = models.WordPiece(vocab=vocabulary, unk_token="[UNK]", max_input_chars_per_word=50)
    assert not agrees(fast(model), prompt("aaa.", "b."))
    assert agrees(fast(model, pre_tokenizers.WhitespaceSplit()), prompt("aaa.", "b."))
