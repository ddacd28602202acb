"""Where distractors come from: other questions' documents, or passages written for the purpose.

A pool belongs to a split and depends on its seed alone. Its documents come back in many contexts,
so that their token ids are made once; an example's generator decides which come, and in what order.
"""

import logging
import zlib
from collections.abc import Iterator, Sequence
from typing import Protocol, cast

import bm25s
import numpy as np
from numpy.random import Generator

from sce.data.example import Document
from sce.data.haystacks import Haystack

# It sets its own level to DEBUG when it is imported.
logging.getLogger("bm25s").setLevel(logging.WARNING)
# Enough for contexts of 128K tokens; larger ones ask for more.
_MIN_PASSAGES = 4096


class Pool(Protocol):
    """Documents that no question of the split is about."""

    def distractors(self, question: str, rng: Generator) -> Iterator[Document]:
        """Documents for one example, best first, none of them twice."""
        ...


class RealPool:
    """The split's own real documents, in random order or the hardest (BM25) first."""

    def __init__(self, documents: Sequence[Document], method: str) -> None:
        unique = {document.text: document for document in documents}
        self.documents = [
            Document(f"pool-{index}", document.title, document.text)
            for index, document in enumerate(unique.values())
        ]
        self._bm25 = None
        if method == "bm25" and self.documents:
            corpus = [f"{document.title}. {document.text}" for document in self.documents]
            self._bm25 = bm25s.BM25()
            self._bm25.index(self._tokenize(corpus), show_progress=False)

    @staticmethod
    def _tokenize(texts: list[str]) -> list[list[str]]:
        tokens = bm25s.tokenize(texts, stopwords="en", return_ids=False, show_progress=False)
        return [list(text) for text in cast("list[list[str]]", tokens)]

    def distractors(self, question: str, rng: Generator) -> Iterator[Document]:
        """All documents of the pool."""
        order = rng.permutation(len(self.documents))
        if self._bm25 is not None:
            scores = self._bm25.get_scores(self._tokenize([question])[0])
            order = order[np.argsort(-scores[order], kind="stable")]  # ties in drawn order
        for index in order.tolist():
            yield self.documents[index]


class WrittenPool:
    """Passages of an invented context: passage j depends on (seed, name, j) alone."""

    def __init__(self, haystack: Haystack, seed: int, name: str, size: int) -> None:
        self.haystack, self.seed, self.name = haystack, seed, name
        self.size = max(size, _MIN_PASSAGES)
        self._written: dict[int, Document] = {}

    def distractors(self, question: str, rng: Generator) -> Iterator[Document]:
        """Passages in drawn order."""
        del question
        for index in rng.permutation(self.size).tolist():
            yield self.passage(index)

    def passage(self, index: int) -> Document:
        """The index-th passage."""
        if index not in self._written:
            seed = [self.seed, index, zlib.crc32(f"passages {self.name}".encode())]
            rng = np.random.default_rng(seed)
            self._written[index] = self.haystack.passage(f"pool-{index}", rng)
        return self._written[index]


class PaddingPool:
    """The same padding, as often as it takes."""

    def __init__(self, haystack: Haystack) -> None:
        self.haystack = haystack

    def distractors(self, question: str, rng: Generator) -> Iterator[Document]:
        """Padding without end."""
        del question
        text = self.haystack.passage("", rng).text
        for number in range(2**31):
            yield Document(f"pool-{number}", "", text)
