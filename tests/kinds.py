"""Small tokenizers of every kind in use, trained on the sample's text, the same every time.

A kind is a function of an alphabet, the characters it has to know (those of bytes know all).
"""

import json
import math

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

from conftest import ROOT

SPECIAL = ["<|im_start|>", "<|im_end|>"]
BYTES = pre_tokenizers.ByteLevel.alphabet()
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


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
    if pre_tokenizer is not None:
        trained.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        trained.normalizer = normalizer
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
    words = pre_tokenizers.Split("▁", "merged_with_next")
    made = bpe(pages()[1:2], None, normalizer) if spanning else bpe(lines(), words, normalizer)
    trained = json.loads(made.to_str())["model"]
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
    # Scores of rare characters, and the order of pieces, differ a little from training to training;
    # scores that are rounded tie, which those of real tokenizers do not.
    unknown, *pieces = json.loads(trained.to_str())["model"]["vocab"]
    scores = sorted((piece, round(score, 1)) for piece, score in pieces)
    scores = [(piece, score + math.sqrt(n) / 1000) for n, (piece, score) in enumerate(scores)]
    made = Tokenizer(models.Unigram([tuple(unknown), *scores], 0))
    if normalizer is not None:
        made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.add_special_tokens(SPECIAL)
    return made


def t5(alphabet) -> Tokenizer:
    """One that takes line breaks for spaces, so that a word's token covers the line break too."""
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
    made.add_special_tokens(SPECIAL)
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
