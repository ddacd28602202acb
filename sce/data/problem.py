"""`Problem`: a question and the needles that answer it, before anything surrounds them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sce.data.example import Example


@dataclass(frozen=True)
class Needle:
    """The sentences that one document is to hold."""

    kind: str | None
    """Kind of the subject, for a haystack that writes about such; None: any will do."""
    title: str
    sentences: tuple[str, ...]
    order: tuple[tuple[int, ...], ...] = ()
    """For each sentence its places in the example's evidence; (): one needle, one place."""
    document: str | None = None
    """Id that the document keeps; None: a new one."""


@dataclass(frozen=True)
class Problem:
    """A question, its answer, and one needle a document, in hop order."""

    question: str
    answers: tuple[str, ...]
    """Empty: the answer is which documents hold the needles."""
    needles: tuple[Needle, ...]
    secrets: tuple[str, ...]
    """What no other document may hold."""
    decoys: tuple[Needle, ...] = ()
    """Sentences on the same subject that answer something else, for documents of their own."""
    symbols: Mapping[str, str] = field(default_factory=dict)
    """Entities of the source -> symbols that stand for them throughout (real documents too)."""
    meta: Mapping[str, Any] = field(default_factory=dict)


def from_example(example: Example) -> Problem:
    """The needles of a real example: its evidence, document by document."""
    needles = []
    for document in example.documents:
        spans: list[list[int]] = []
        places: list[list[int]] = []
        ordered = sorted(
            (s.start, s.end, n) for n, s in enumerate(example.evidence) if s.document == document.id
        )
        for start, end, place in ordered:
            if spans and start < spans[-1][1]:  # overlapping evidence is one sentence
                spans[-1][1] = max(spans[-1][1], end)
                places[-1].append(place)
            else:
                spans.append([start, end])
                places.append([place])
        if spans:
            sentences = tuple(document.text[start:end] for start, end in spans)
            order = tuple(tuple(p) for p in places)
            needles.append(Needle(None, document.title, sentences, order, document.id))
    needles.sort(key=lambda needle: min(place for places in needle.order for place in places))
    return Problem(
        question=example.question,
        answers=() if example.task == "summhay" else example.answers,
        needles=tuple(needles),
        secrets=example.secrets,
        meta=example.meta,
    )
