"""Sentences and answers in running text, by character offsets."""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import lru_cache

import sentencex

FUNCTION_WORDS = frozenset(
    "a an and are as at by did do does for from had has have how in is it its of on or s that the"
    " their this to was were what when where which who whom whose why with".split()
)
_NOT_WORD = re.compile(r"[^\w\s]", re.UNICODE)
# sentencex panics on "B." with a no-break space, or another wide one, before the full stop.
_WIDE_SPACE = re.compile(r"[^\S\x00-\x7f]")
# Characters; a longer sentence is cut. sentencex takes quadratic time where quotation marks abound.
_WINDOW = 10_000


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
    start = 0
    for end in _sentence_ends(_WIDE_SPACE.sub(" ", text)):
        piece = text[start:end]
        first = start + len(piece) - len(piece.lstrip())
        last = first + len(piece.strip())
        if last > first:
            spans.append((first, last))
        start = end
    return spans


def _sentence_ends(text: str) -> Iterator[int]:
    """Where sentences end, and the white space around them; the text is read in windows."""
    boundaries = sentencex.get_sentence_boundaries  # pyright: ignore[reportAttributeAccessIssue]
    start = 0
    while start < len(text):
        cut = min(start + _WINDOW, len(text))
        ends = [start + int(b["end_index"]) for b in boundaries("en", text[start:cut])] or [cut]
        if cut < len(text) and len(ends) > 1:
            ends.pop()  # the window cut this sentence, which begins the next window
        yield from ends
        start = ends[-1] if cut < len(text) else cut


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
    if not answer:
        return []
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
    starts, ends = [s for s, _ in sentences], [e for _, e in sentences]
    holding = set()
    for start, end in spans:
        first, last = bisect_right(ends, start), bisect_left(starts, end) - 1
        if first <= last:
            holding.add((starts[first], ends[last]))
    return sorted(holding)
