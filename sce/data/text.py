"""Sentences and answers in running text, by character offsets."""

import re
import unicodedata
from functools import lru_cache

import sentencex

FUNCTION_WORDS = frozenset(
    "a an and are as at by did do does for from had has have how in is it its of on or s that the"
    " their this to was were what when where which who whom whose why with".split()
)
_NOT_WORD = re.compile(r"[^\w\s]", re.UNICODE)


@lru_cache(maxsize=100_000)
def _words(text: str) -> str:
    """The words of `text`, normalised, for matching at word boundaries (punctuation separates)."""
    text = _NOT_WORD.sub(" ", unicodedata.normalize("NFKC", text).lower())
    return f" {' '.join(text.split())} "


def holds_answer(text: str, answers: tuple[str, ...]) -> bool:
    """Whether any answer stands in `text`, at word boundaries, whatever its case."""
    words = _words(text)
    return any(_words(answer) in words for answer in answers if _words(answer).strip())


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """(start, end) of every sentence of `text`, without the white space around it."""
    spans = []
    boundaries = sentencex.get_sentence_boundaries  # pyright: ignore[reportAttributeAccessIssue]
    for boundary in boundaries("en", text):
        start, end = int(boundary["start_index"]), int(boundary["end_index"])
        piece = text[start:end]
        start += len(piece) - len(piece.lstrip())
        end = start + len(piece.strip())
        if end > start:
            spans.append((start, end))
    return spans


def occurrences(text: str, answer: str, *, loosely: bool = False) -> list[tuple[int, int]]:
    """(start, end) of every verbatim occurrence of `answer`, whole words where there are any.

    Args:
        text: where to look.
        answer: what to look for.
        loosely: whatever the case, and whatever stands between the words.
    """
    if loosely:
        words = _words(answer).split()
        pattern = r"\b" + r"\W+".join(map(re.escape, words)) + r"\b"
        return [(m.start(), m.end()) for m in re.finditer(pattern, text, re.I)] if words else []
    found = [(m.start(), m.end()) for m in re.finditer(re.escape(answer), text)]
    whole = [
        (start, end)
        for start, end in found
        if not (start and text[start - 1].isalnum() and answer[0].isalnum())
        and not (end < len(text) and text[end].isalnum() and answer[-1].isalnum())
    ]
    return whole or found


def content_words(text: str) -> set[str]:
    """The normalised words of `text` without the commonest function words."""
    return set(_words(text).split()) - FUNCTION_WORDS


def sentences_holding(text: str, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The sentences that hold the given spans, in order; a span over two sentences joins them."""
    sentences = sentence_spans(text)
    holding = set()
    for start, end in spans:
        touched = [(s, e) for s, e in sentences if s < end and start < e]
        if touched:
            holding.add((touched[0][0], touched[-1][1]))
    return sorted(holding)
