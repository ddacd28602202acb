"""Every kind of tokenizer, with and without a chat template, on every cell of the grid."""

import json
import re
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from conftest import CHAT_TEMPLATE, ROOT
from plans import make_splits
from sce.data.encode import Encoder, evidence_positions
from sce.data.example import Document, Example, Span
from sce.data.prompt import render
from sce.errors import InputError
from test_grid import CELLS, TASKS, options, stripped

NUM_DOCUMENTS = {"mdqa": 3, "musique": 5, "summhay": 12}
CASES = [(task, *cell) for task in TASKS for cell in CELLS]
SPECIAL = ["<|im_start|>", "<|im_end|>"]
BYTES = pre_tokenizers.ByteLevel.alphabet()
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Share of the prompts of the grid whose ids are joined; the others are tokenized as a whole.
JOINED = {"gpt2": 1, "llama3": 1, "llama2": 1, "unigram": 1, "wordpiece": 1, "t5": 0}


@pytest.fixture(scope="session")
def examples(tokenizer):
    """Two examples of every cell; they do not depend on the tokenizer."""
    encoder = Encoder(tokenizer)
    made = {}
    for case in CASES:
        chosen = options(*case, count=2, num_documents=NUM_DOCUMENTS[case[0]])
        made[case] = make_splits(chosen, encoder, 0, ["train"])["train"].examples
    return [example for case in CASES for example in made[case]]


@pytest.fixture(scope="session")
def alphabet(examples):
    """Every character of the examples."""
    text = " ".join(json.dumps(e.to_json(), ensure_ascii=False) for e in examples)
    return sorted({*text, *text.lower()} - set(" \n"))


def lines() -> list[str]:
    """The sample's text, without line breaks."""
    found = []
    for row in rows():
        found += [row["question"], *(c["title"] + " " + c["text"] for c in row["ctxs"])]
    return list(dict.fromkeys(found))


def rows() -> list[dict]:
    text = (ROOT / "sce" / "data" / "sample" / "train.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def pages() -> list[str]:
    """The same with line breaks, brackets and indents, for tokens that hold them."""
    documents = [f"Document [{n}] (Title: {t[:9]}) {t}" for n, t in enumerate(lines(), start=1)]
    return [json.dumps(rows()[::8], indent=2), "\n".join(documents), "\n\n\n".join(lines())]


def bpe(texts: list[str], pre_tokenizer, normalizer=None, alphabet=(), special=()) -> Tokenizer:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizer
    trained.normalizer = normalizer or normalizers.Sequence([])
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=list(special),
        initial_alphabet=list(alphabet),
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    return trained


def gpt2(alphabet) -> Tokenizer:
    made = bpe(pages(), pre_tokenizers.ByteLevel(add_prefix_space=False), None, BYTES, SPECIAL)
    made.decoder = decoders.ByteLevel()
    return made


def llama3(alphabet) -> Tokenizer:
    words = pre_tokenizers.Split(Regex(LLAMA_3), "isolated")
    split = [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    made = bpe(pages(), pre_tokenizers.Sequence(split), None, BYTES, SPECIAL)
    made.decoder = decoders.ByteLevel()
    return made


def llama2(alphabet, *, spanning: bool = False) -> Tokenizer:
    """SentencePiece's BPE: the whole text is one word, unknown characters are bytes."""
    marks = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    normalizer = normalizers.Sequence(marks)
    # In training, tokens end at white space, unless they may span it.
    words = pre_tokenizers.Split("▁", "isolated" if spanning else "merged_with_next")
    whole = pre_tokenizers.Split("<no such text>", "isolated")
    trained = json.loads(
        bpe(pages() if spanning else lines(), whole if spanning else words, normalizer).to_str()
    )["model"]
    tokens = ["<unk>", *SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *trained["vocab"]]
    made = Tokenizer(
        models.BPE(
            {token: number for number, token in enumerate(tokens)},
            [tuple(merge) for merge in trained["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    made.normalizer = normalizer
    spaces = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*spaces, decoders.Strip(" ", 1, 0)])
    made.add_special_tokens(["<unk>", *SPECIAL])
    begin = (SPECIAL[0], tokens.index(SPECIAL[0]))
    made.post_processor = processors.TemplateProcessing(f"{begin[0]} $A", special_tokens=[begin])
    return made


def unigram(alphabet, normalizer=None) -> Tokenizer:
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=1000,
        special_tokens=["<unk>", *SPECIAL],
        unk_token="<unk>",
        initial_alphabet=alphabet,
        show_progress=False,
    )
    trained.train_from_iterator(lines(), trainer)
    # The last digits of the scores differ from one training to the next.
    vocabulary = json.loads(trained.to_str())["model"]["vocab"]
    made = Tokenizer(models.Unigram([(piece, round(p, 4)) for piece, p in vocabulary], 0))
    made.normalizer = normalizer or normalizers.Sequence([])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    return made


def t5(alphabet) -> Tokenizer:
    """One that takes line breaks for spaces: `\nDocument` is a token."""
    spaces = [normalizers.Replace("\n", " "), normalizers.Replace(Regex(" {2,}"), " ")]
    return unigram(alphabet, normalizers.Sequence(spaces))


def wordpiece(alphabet) -> Tokenizer:
    lower, words = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    trained = bpe(lines(), words, lower, alphabet)
    tokens = sorted(trained.get_vocab())
    tokens = ["[UNK]", *SPECIAL, *tokens, *(f"##{token}" for token in tokens)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = lower, words
    made.decoder = decoders.WordPiece(cleanup=False)
    return made


KINDS = {f.__name__: f for f in (gpt2, llama3, llama2, unigram, wordpiece, t5)}


def fast(inner: Tokenizer, chat_template: str | None) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=SPECIAL[0],
        eos_token=SPECIAL[1],
        pad_token=SPECIAL[1],
        chat_template=chat_template,
    )


@pytest.fixture(scope="session")
def encoders(alphabet):
    made = {kind: make(alphabet) for kind, make in KINDS.items()}
    return {
        (kind, chat): Encoder(fast(inner, CHAT_TEMPLATE if chat == "chat" else None))
        for kind, inner in made.items()
        for chat in ("chat", "plain")
    }


@pytest.fixture(
    scope="session", params=[(kind, chat) for kind in KINDS for chat in ("chat", "plain")]
)
def case(request, encoders, examples):
    """Kind, encoder, and the examples with their token ids."""
    encoder = encoders[request.param]
    return request.param[0], encoder, [(example, encoder.encode(example)) for example in examples]


def test_joined_ids_are_those_of_the_whole_prompt(case, record_property):
    kind, encoder, encoded = case
    for example, found in encoded:
        encoder.check_joined(example)
        assert found.prompt_ids.tolist() == whole(encoder, encoder.prompt(example))
    share = np.mean([encoder.is_joined(example) for example, _ in encoded])
    record_property("share_joined", share)
    assert share == JOINED[kind]


def whole(encoder: Encoder, text: str) -> list[int]:
    return encoder.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_the_tokens_of_the_evidence_decode_to_the_needles(case):
    kind, encoder, encoded = case
    for example, found in encoded:
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
    for example, found in encoded:
        assert found.evidence.tolist() == in_whole(encoder, example)


def in_whole(encoder: Encoder, example: Example) -> list[int]:
    """Positions of the evidence, by the offsets of the whole prompt."""
    text, pieces = encoder.prompt(example), render(example)
    at = text.index("".join(piece.text for piece in pieces))
    begins = {}
    for piece in pieces:
        begins[piece.document] = at + piece.offset
        at += len(piece.text)
    spans = [(begins[s.document] + s.start, begins[s.document] + s.end) for s in example.evidence]
    tokens = encoder.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return evidence_positions(text, tokens["offset_mapping"], spans)


def test_the_target_s_tokens_follow_the_prompt(case):
    _, encoder, encoded = case
    for example, found in encoded:
        text = f"{encoder.prompt(example)} {example.target}"
        assert [*found.prompt_ids, *found.target_ids] == whole(encoder, text)


def test_just_the_labels_of_citations_are_cited_each_with_its_evidence(case):
    _, encoder, encoded = case
    for example, found in encoded:
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


nasty = st.sampled_from(
    ["\n", "\n\n", "\r\n", " ", "   ", "\t", "\xa0", "\u2028", "\x00", "[1]", "Document [3]", "]"]
    + [" (Title: ", "Question:", "Answer:", "<|im_end|>", "▁", "<0x0A>", "<unk>", "##", "'s"]
    + ["\u0301", "\u200d", "\u05d0\u05d1", "é", "🙂", "👩‍🚀", "12345", "…", "a" * 30, " " * 30]
    + ["\n" * 30, "." * 30, "The tower is 121 metres high."]
)
texts = st.lists(
    st.one_of(nasty, st.text(st.characters(exclude_categories=["Cs"]), max_size=8)), max_size=6
).map("".join)
contexts = st.lists(st.tuples(texts, texts), min_size=1, max_size=4)


@settings(max_examples=250, deadline=None)
@given(contexts, texts, st.sampled_from(["mdqa", "needle"]))
def test_ids_are_those_of_the_whole_prompt_whatever_the_documents(encoders, pairs, question, task):
    documents = tuple(Document(str(n), *pair) for n, pair in enumerate(pairs))
    spans = tuple(Span(d.id, 0, len(d.text)) for d in documents if stripped(d.text))
    example = Example("x", task, documents, question, ("a",), spans)
    for (kind, chat), encoder in encoders.items():
        if chat == "chat":
            encoder.check_joined(example)
            if spans and encoder.is_joined(example):
                answered = Example("x", task, documents, question, (documents[0].text,), spans)
                assert positions(encoder, answered) in (None, in_whole(encoder, answered)), kind
