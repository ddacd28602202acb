"""Context diversity: the document that holds a needle, and passages on other facts.

A haystack has two functions. `host` writes a needle's own document; `passage` writes another of the
same kind and length. Which passages surround an example is up to sce.data.pools.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from numpy.random import Generator

from sce.data import expressions, invented
from sce.data.entities import substitute
from sce.data.example import Document, Span
from sce.data.problem import Needle, Problem
from sce.data.relations import backgrounds
from sce.data.text import holds_answer
from sce.errors import InputError

# The padding of the low context, in the manner of Mohtashami and Jaggi 2023 (passkey retrieval).
PADDING = (
    "The grass is green.",
    "The sky is blue.",
    "The sun is yellow.",
    "Here we go.",
    "There and back again.",
)
# Draws of a document that may not hold an answer by accident.
_MAX_DRAWS = 32


class Haystack(Protocol):
    """The surround of needles."""

    def host(self, needle: Needle, name: str, rng: Generator) -> tuple[Document, list[Span]]:
        """The document with id `name` that holds the needle, and where its sentences stand."""
        ...

    def passage(self, name: str, rng: Generator) -> Document:
        """A document of the same kind and length on other facts."""
        ...


def _assemble(
    name: str, title: str, parts: Sequence[str], needles: Sequence[int], separator: str
) -> tuple[Document, list[Span]]:
    """Join parts into a document, with the spans of the parts that are needles."""
    starts, at = [], 0
    for part in parts:
        starts.append(at)
        at += len(part) + len(separator)
    spans = [Span(name, starts[n], starts[n] + len(parts[n])) for n in needles]
    return Document(name, title, separator.join(parts)), spans


def _mixed(
    around: Sequence[str], sentences: Sequence[str], rng: Generator
) -> tuple[list[str], list[int]]:
    """Sentences put between others at drawn places, in order, and the places they took."""
    total = len(around) + len(sentences)
    places = sorted(int(p) for p in rng.permutation(total)[: len(sentences)])
    rest, wanted = iter(around), iter(sentences)
    return [next(wanted) if n in places else next(rest) for n in range(total)], places


@dataclass(frozen=True)
class HighHaystack:
    """Natural passages: a few sentences on one invented subject, each passage another."""

    task: str
    num_sentences: tuple[int, int] = (3, 5)

    def host(self, needle: Needle, name: str, rng: Generator) -> tuple[Document, list[Span]]:
        """The needle among background sentences on a subject of its kind."""
        kind = needle.kind or invented.pick(rng, sorted(backgrounds()))
        bank = backgrounds()[kind]
        low, high = self.num_sentences
        chosen = rng.permutation(len(bank))[: int(rng.integers(low, high + 1))]
        around = [self._fill(bank[int(index)], rng) for index in chosen]
        parts, places = _mixed(around, needle.sentences, rng)
        return _assemble(name, needle.title, parts, places, " ")

    def passage(self, name: str, rng: Generator) -> Document:
        """A passage written the same way around another needle."""
        # One fact of any relation: what a chain ends in must not be the only one of its kind.
        task = "mdqa" if self.task == "musique" else self.task
        problem = expressions.draw(task, "high", 1, rng)
        return self.host(problem.needles[0], name, rng)[0]

    @staticmethod
    def _fill(sentence: str, rng: Generator) -> str:
        for kind in ("person", "place", "organisation", "year", "number"):
            while f"{{{kind}}}" in sentence:
                drawn = invented.recent_year(rng) if kind == "year" else invented.draw(kind, rng)
                sentence = sentence.replace(f"{{{kind}}}", drawn, 1)
        return invented.capitalize(sentence)


@dataclass(frozen=True)
class LowHaystack:
    """The same five sentences over and over."""

    num_sentences: int = 15
    avoid: tuple[str, ...] = ()
    """Sentences that hold one of these are left out ("blue" can be an answer)."""

    def _padding(self) -> list[str]:
        kept = [sentence for sentence in PADDING if not holds_answer(sentence, self.avoid)]
        if not kept:
            raise InputError(f"every padding sentence holds one of {list(self.avoid)}")
        return [kept[index % len(kept)] for index in range(self.num_sentences)]

    def host(self, needle: Needle, name: str, rng: Generator) -> tuple[Document, list[Span]]:
        """The needle between padding sentences, under its title where it has one."""
        parts, places = _mixed(self._padding(), needle.sentences, rng)
        return _assemble(name, needle.title, parts, places, " ")

    def passage(self, name: str, rng: Generator) -> Document:
        """Padding alone."""
        del rng  # every padding document is the same
        return Document(name, "", " ".join(self._padding()))


@dataclass(frozen=True)
class SymbolicHaystack:
    """Tables of keys and values, or lists of identifiers."""

    lists: bool = False

    def _others(self, count: int, rng: Generator) -> list[str]:
        if self.lists:
            return [invented.symbol(rng) for _ in range(count)]
        return [": ".join(expressions.entry(rng)) for _ in range(count)]

    @property
    def _size(self) -> int:
        return 24 if self.lists else 8

    @property
    def _separator(self) -> str:
        return ", " if self.lists else "\n"

    def host(self, needle: Needle, name: str, rng: Generator) -> tuple[Document, list[Span]]:
        """The needle's entry among others."""
        others = self._others(self._size - len(needle.sentences), rng)
        parts, places = _mixed(others, needle.sentences, rng)
        return _assemble(name, needle.title, parts, places, self._separator)

    def passage(self, name: str, rng: Generator) -> Document:
        """More entries of the same kind."""
        return Document(name, "", self._separator.join(self._others(self._size, rng)))


def haystack(task: str, context: str, avoid: tuple[str, ...] = ()) -> Haystack:
    """The haystack of an invented context, in the length that a task's documents have.

    `avoid` is what padding must not say; of the other kinds a passage that says it is passed over.
    """
    long = task == "summhay"
    if context == "high":
        return HighHaystack(task, (10, 15) if long else (3, 5))
    if context == "low":
        return LowHaystack(58 if long else 15, avoid)
    return SymbolicHaystack(lists=long)


def host_in_invented(
    problem: Problem, context: Haystack, rng: Generator
) -> tuple[list[Document], list[tuple[int, Span]]]:
    """Documents for all needles and decoys, and (place in the evidence, span) of every sentence."""
    documents, placed = [], []
    for number, needle in enumerate(problem.needles):
        name = needle.document or ("gold" if len(problem.needles) == 1 else f"gold-{number}")
        document, spans = _clean_host(problem, needle, context, name, rng)
        documents.append(document)
        for places, span in zip(needle.order or ((number,),), spans, strict=True):
            placed += [(place, span) for place in places]
    decoys = [context.host(n, f"decoy-{i}", rng)[0] for i, n in enumerate(problem.decoys)]
    return documents + decoys, placed


def _clean_host(
    problem: Problem, needle: Needle, context: Haystack, name: str, rng: Generator
) -> tuple[Document, list[Span]]:
    """A host that says nothing of what is secret beside its own sentences, by drawing anew."""
    # What the needle's title or sentences say themselves may stand around them.
    own = f"{needle.title} {' '.join(needle.sentences)}"
    secrets = tuple(s for s in problem.secrets if not holds_answer(needle.title, (s,)))
    for _ in range(_MAX_DRAWS):
        document, spans = context.host(needle, name, rng)
        rest = remainder(document, spans)
        if not holds_answer(rest, secrets):
            return document, spans
    raise InputError(f"no {type(context).__name__} document could be drawn around {own[:80]!r}")


def remainder(document: Document, spans: Sequence[Span]) -> str:
    """A document's text without some spans."""
    text, at = "", 0
    for span in sorted(spans, key=lambda s: s.start):
        text += document.text[at : span.start] + " "
        at = max(at, span.end)
    return text + document.text[at:]


def host_in_real(
    problem: Problem, golds: Sequence[tuple[Document, Sequence[Span]]], symbols: bool
) -> tuple[list[Document], list[tuple[int, Span]]]:
    """Real documents with other needles in place of their own evidence.

    Args:
        problem: needle n goes to the n-th document; documents left over lose their evidence.
        golds: documents with the spans of their own evidence, in hop order.
        symbols: whether the rest of the documents is to follow the problem's symbols.
    """
    documents, placed = [], []
    for number, (document, spans) in enumerate(golds):
        needle = problem.needles[number] if number < len(problem.needles) else None
        sentences = list(needle.sentences) if needle else []
        merged = _merged(spans)
        # As many sentences to an old place as it takes for all to stand in order.
        share = math.ceil(len(sentences) / len(merged)) if sentences else 0
        parts: list[str] = []
        new: list[int] = []
        at = 0
        for start, end in merged:
            parts.append(document.text[at:start])
            for sentence in sentences[:share]:
                if new and not parts[-1].strip():
                    parts[-1] = " "
                new.append(len(parts))
                parts += [sentence, " "]
            if sentences[:share]:
                parts.pop()
            sentences = sentences[share:]
            at = end
        parts.append(document.text[at:])
        if symbols:
            parts = [
                part if n in new else substitute(part, problem.symbols)
                for n, part in enumerate(parts)
            ]
        title = substitute(document.title, problem.symbols) if symbols else document.title
        host, found = _assemble(document.id, title, parts, new, "")
        documents.append(host)
        if needle:
            for places, span in zip(needle.order or ((number,),), found, strict=True):
                placed += [(place, span) for place in places]
    return documents, placed


def _merged(spans: Sequence[Span]) -> list[tuple[int, int]]:
    """Spans of one document in order, overlapping ones as one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted({(s.start, s.end) for s in spans}):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
