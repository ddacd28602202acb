"""Context diversity: the document that holds a needle, and the documents around it.

A haystack has two functions. `host` writes the needle's own document; `distractors` yields others
without end (real: until they run out). None of them holds the answer: compose.py sees to it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, cast

import bm25s
import numpy as np
from numpy.random import Generator

from sce.data import expressions, invented
from sce.data.example import Document, Example, Span
from sce.data.expressions import Needle

# The padding of the low context, in the manner of Mohtashami and Jaggi 2023 (passkey retrieval).
PADDING = (
    "The grass is green.",
    "The sky is blue.",
    "The sun is yellow.",
    "Here we go.",
    "There and back again.",
)


class Haystack(Protocol):
    """The surround of synthetic needles."""

    def host(self, needle: Needle, rng: Generator) -> tuple[Document, Span]:
        """The document that holds the needle, and where in its text the needle stands."""
        ...

    def distractors(self, rng: Generator) -> Iterator[Document]:
        """Documents of the same kind and length on other facts, without end."""
        ...


def _assemble(title: str, parts: list[str], needle: int, separator: str) -> tuple[Document, Span]:
    """Join parts into document `gold`, with the span of parts[needle]."""
    start = sum(len(part) + len(separator) for part in parts[:needle])
    document = Document("gold", title, separator.join(parts))
    return document, Span("gold", start, start + len(parts[needle]))


class HighHaystack:
    """Natural passages: three to five sentences on one invented subject, each passage another."""

    def host(self, needle: Needle, rng: Generator) -> tuple[Document, Span]:
        """The needle among background sentences on a subject of its kind."""
        bank = expressions.backgrounds()[needle.kind]
        chosen = rng.permutation(len(bank))[: int(rng.integers(3, 6))]
        parts = [self._fill(bank[int(index)], rng) for index in chosen]
        position = int(rng.integers(len(parts) + 1))
        parts.insert(position, needle.sentence)
        title = expressions.capitalize(needle.subject.removeprefix("the "))
        return _assemble(title, parts, position, " ")

    def distractors(self, rng: Generator) -> Iterator[Document]:
        """Passages written the same way around other needles."""
        for number in range(2**31):
            document, _ = self.host(expressions.high(rng), rng)
            yield Document(f"d{number}", document.title, document.text)

    @staticmethod
    def _fill(sentence: str, rng: Generator) -> str:
        for kind in ("person", "place", "organisation", "year", "number"):
            while f"{{{kind}}}" in sentence:
                sentence = sentence.replace(f"{{{kind}}}", invented.draw(kind, rng), 1)
        return expressions.capitalize(sentence)


class LowHaystack:
    """The same five sentences over and over."""

    num_sentences = 15

    def _padding(self) -> list[str]:
        return [PADDING[index % len(PADDING)] for index in range(self.num_sentences)]

    def host(self, needle: Needle, rng: Generator) -> tuple[Document, Span]:
        """The needle between two padding sentences."""
        parts = self._padding()
        position = int(rng.integers(len(parts) + 1))
        parts.insert(position, needle.sentence)
        return _assemble("", parts, position, " ")

    def distractors(self, rng: Generator) -> Iterator[Document]:
        """Padding alone."""
        del rng  # every padding document is the same
        for number in range(2**31):
            yield Document(f"d{number}", "", " ".join(self._padding()))


class SymbolicHaystack:
    """Tables of keys and values."""

    num_entries = 8

    def host(self, needle: Needle, rng: Generator) -> tuple[Document, Span]:
        """The needle's entry among others."""
        parts = [expressions.symbolic(rng).sentence for _ in range(self.num_entries - 1)]
        position = int(rng.integers(self.num_entries))
        parts.insert(position, needle.sentence)
        return _assemble("", parts, position, "\n")

    def distractors(self, rng: Generator) -> Iterator[Document]:
        """More entries of the same kind."""
        for number in range(2**31):
            parts = [expressions.symbolic(rng).sentence for _ in range(self.num_entries)]
            yield Document(f"d{number}", "", "\n".join(parts))


HAYSTACKS: dict[str, Haystack] = {
    "high": HighHaystack(),
    "low": LowHaystack(),
    "symbolic": SymbolicHaystack(),
}


@dataclass
class RealHaystack:
    """The other questions' documents, in random order or the hardest (BM25) first."""

    documents: list[Document]
    method: str

    def __post_init__(self) -> None:
        self._bm25 = None
        if self.method == "bm25" and self.documents:
            corpus = [f"{document.title}. {document.text}" for document in self.documents]
            self._bm25 = bm25s.BM25()
            self._bm25.index(self._tokenize(corpus), show_progress=False)

    @staticmethod
    def _tokenize(texts: list[str]) -> list[list[str]]:
        tokens = bm25s.tokenize(texts, stopwords="en", return_ids=False, show_progress=False)
        return [list(text) for text in cast("list[list[str]]", tokens)]

    def distractors(self, example: Example, rng: Generator) -> Iterator[Document]:
        """All documents but the example's own, by text."""
        own = {document.text for document in example.documents}
        for index in self._order(example.question, rng):
            document = self.documents[index]
            if document.text not in own:
                yield Document(f"pool-{index}", document.title, document.text)

    def _order(self, question: str, rng: Generator) -> list[int]:
        order = rng.permutation(len(self.documents))
        if self._bm25 is None:
            return order.tolist()
        scores = self._bm25.get_scores(self._tokenize([question])[0])
        return order[np.argsort(-scores[order], kind="stable")].tolist()  # ties in drawn order
