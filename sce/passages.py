"""What a written document is asked to be, and whether what came back is that.

Item i of a run depends on (seed, i) alone, so a longer run has a shorter one's items in it. The
wording of the prompt is ours: no paper's. What is checked is form (names, sentences, length), not
truth: whether the sentence with the answer says what it should, nobody has read. Knows no server.
"""

import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sce.data import expressions
from sce.data.example import Document, Example, Span
from sce.data.text import holds_answer, occurrences, sentences_holding

PROMPT = """\
Write one passage of an encyclopaedia, about {words} words long, about {name}, {kind}.

The passage must state this fact: {sentence}
Put it into one sentence in wording of your own. Spell these two exactly as they stand here: \
{name}; {answer}. Name {answer} in that one sentence only.

Say nothing else about the {attribute} of {name}. Fill the rest of the passage with other, \
specific details; everything here is invented, so make them up. Answer with the passage alone, as \
plain text: no title, no list, no markup, no remark before or after it."""
AGAIN = "\n\nAn earlier answer to this could not be used: {reason}."

CUT = "cut off (finish_reason not stop)"
MARKUP = "markup or a list"
NO_SUBJECT = "subject not in it"
NO_ANSWER = "answer not in it"
TWICE = "answer in several sentences"
SHORT = "too short"
LONG = "too long"
LEAK = "a name of another document"

_THINKING = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
_MARKUP = re.compile(r"\*\*|```|<\w+>|^\s*(#+|[-*•]|\d{1,2}[.)])\s", re.MULTILINE)


@dataclass(frozen=True)
class Fact:
    """What a document is to state."""

    kind: str
    """Of the subject: person, river and so on."""
    name: str
    """The subject without an article, which may open a sentence or stand before an adjective."""
    relation: str
    """<kind>.<attribute>"""
    sentence: str
    question: str
    answer: str


@dataclass(frozen=True)
class Passage:
    """A text that passed every check, and where the sentence with its answer lies in it."""

    text: str
    start: int
    end: int


def fact_of(seed: int, index: int) -> Fact:
    """The fact of item `index`, drawn as the synthetic cell (high, high) draws its needles."""
    rng = np.random.default_rng([seed, index, zlib.crc32(b"written")])
    problem = expressions.draw("mdqa", "high", 1, rng)
    (needle,) = problem.needles
    relation = problem.meta["relation"]
    return Fact(
        kind=relation.partition(".")[0],
        name=needle.title,
        relation=relation,
        sentence=needle.sentences[0],
        question=problem.question,
        answer=problem.answers[0],
    )


def prompt(fact: Fact, words: int, reason: str | None = None) -> str:
    """What the model is asked for; `reason` is why its last answer was rejected.

    Servers that sample nothing whatever the temperature would give the same answer again to the
    same words.
    """
    article = "an" if fact.kind[0] in "aeiou" else "a"
    asked = PROMPT.format(
        words=words,
        name=fact.name,
        kind=f"{article} {fact.kind}",
        sentence=fact.sentence,
        answer=fact.answer,
        attribute=fact.relation.rpartition(".")[2].replace("_", " "),
    )
    return asked if reason is None else asked + AGAIN.format(reason=reason)


def passage(content: str, fact: Fact, limits: tuple[int, int]) -> Passage | str:
    """The passage in an answer of the model, or why there is none.

    Args:
        content: the answer; what a reasoning model thought before it is left out.
        fact: what it was asked to state.
        limits: words it must and may have.
    """
    content = _THINKING.sub("", content)
    text = " ".join(content.split())
    num_words = len(text.split())
    if num_words < limits[0]:
        return SHORT
    if num_words > limits[1]:
        return LONG
    if _MARKUP.search(content):
        return MARKUP
    if not _stands_in(fact.name, text):
        return NO_SUBJECT
    sentences = sentences_holding(text, occurrences(text, fact.answer))
    if not sentences:
        return NO_ANSWER
    start, end = sentences[0]
    rest = f"{text[:start]} {text[end:]}"
    # In another case ("Oak") it would still be an answer that stands twice.
    if len(sentences) > 1 or holds_answer(rest, (fact.answer,)):
        return TWICE
    if not _stands_in(fact.answer, text[start:end]):
        return NO_ANSWER
    return Passage(text, start, end)


def _stands_in(name: str, text: str) -> bool:
    """Verbatim, and as whole words."""
    return name in text and holds_answer(text, (name,))


def example(index: int, fact: Fact, found: Passage, seed: int, meta: dict[str, Any]) -> Example:
    """The passage as an example with one document."""
    return Example(
        id=f"written-{seed}-{index}",
        task="mdqa",
        documents=(Document("gold", fact.name, found.text),),
        question=fact.question,
        answers=(fact.answer,),
        evidence=(Span("gold", found.start, found.end),),
        meta={"writer": "llm", **meta, "relation": fact.relation},
    )


class Names:
    """The invented names of a run, each with the one item it belongs to.

    An item that shares a name with an earlier one has no place here: a document about either would
    give the other away. Names are compared as words, whatever their case and punctuation.
    """

    def __init__(self, facts: Sequence[Fact]) -> None:
        self._owner: dict[tuple[str, ...], int] = {}
        self._parts: set[tuple[str, ...]] = set()
        self._longest = 0
        self.taken = tuple(i for i, fact in enumerate(facts) if not self._add(i, _names(fact)))
        """Items that were left out."""

    def _add(self, index: int, names: list[tuple[str, ...]]) -> bool:
        for name in names:
            # Neither may an earlier name stand in this one, nor this one in an earlier.
            if name in self._parts or any(part in self._owner for part in self._windows(name)):
                return False
        for name in names:
            self._longest = max(self._longest, len(name))
        for name in names:
            self._owner[name] = index
            self._parts.update(self._windows(name))
        return True

    def leak(self, text: str, index: int) -> bool:
        """Whether `text`, the document of item `index`, holds a name of another item."""
        windows = self._windows(_words(text))
        return any(self._owner.get(window, index) != index for window in windows)

    def _windows(self, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """All runs of words as short as a name may be."""
        for start in range(len(words)):
            for end in range(start + 1, min(start + self._longest, len(words)) + 1):
                yield words[start:end]


def _names(fact: Fact) -> list[tuple[str, ...]]:
    """The subject, and the answer where it is a name: years, counts and materials are shared."""
    names = [fact.name]
    if fact.answer != fact.answer.lower():
        names.append(fact.answer)
    return [_words(name) for name in names]


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", unicodedata.normalize("NFKC", text).lower()))
