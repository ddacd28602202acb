"""Training, validation and reference share no question, document or fact.

One source is split by document: questions whose gold documents, titles or wording coincide stay
together. Sources that the user names one by one are checked, and refused if they overlap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sce.data.example import Document, Example
from sce.errors import InputError
from sce.metrics import normalize


def gold_documents(example: Example) -> list[Document]:
    """The documents that hold the evidence."""
    ids = {span.document for span in example.evidence}
    return [document for document in example.documents if document.id in ids]


def keys_of(example: Example) -> set[str]:
    """What two examples of different splits must not share."""
    keys = {f"question {normalize(example.question)}"}
    keys |= {f"needle {normalize(text)}" for text in example.evidence_texts()}
    for document in gold_documents(example):
        keys.add(f"document {normalize(document.text)}")
        if document.title:
            keys.add(f"title {normalize(document.title)}")
    return keys


def _groups(examples: Sequence[Example]) -> list[list[Example]]:
    """Connected components under shared keys (union-find), in order of first appearance."""
    parent = list(range(len(examples)))

    def find(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    owner: dict[str, int] = {}
    for index, example in enumerate(examples):
        for key in keys_of(example):
            parent[find(index)] = find(owner.setdefault(key, index))
    groups: dict[int, list[Example]] = {}
    for index, example in enumerate(examples):
        groups.setdefault(find(index), []).append(example)
    return list(groups.values())


def split_by_document(
    examples: Sequence[Example], shares: Mapping[str, float], seed: int
) -> dict[str, list[Example]]:
    """Deal groups of related questions to splits until each has its share of the questions.

    Args:
        examples: the questions of one source.
        shares: split name -> wanted share; they are normalised to 1.
        seed: draws the order in which groups are dealt.

    Returns:
        split name -> examples. A split's own distractors that are another split's gold documents
        are taken out, since distractors go first.
    """
    groups = _groups(examples)
    order = np.random.default_rng([seed, len(groups)]).permutation(len(groups))
    total = sum(shares.values())
    splits: dict[str, list[Example]] = {name: [] for name in shares}
    for index in order:
        missing = {
            name: share / total - len(splits[name]) / len(examples)
            for name, share in shares.items()
        }
        splits[max(missing, key=missing.__getitem__)].extend(groups[int(index)])
    taken: set[str] = set()
    for name in reversed(list(splits)):
        splits[name] = [_without(example, taken) for example in splits[name]]
        taken |= {document.text for example in splits[name] for document in example.documents}
    return splits


def _without(example: Example, texts: set[str]) -> Example:
    gold = {document.id for document in gold_documents(example)}
    return example.with_documents(
        tuple(d for d in example.documents if d.id in gold or d.text not in texts)
    )


@dataclass(frozen=True)
class Overlap:
    """What was compared between splits, which share none of it."""

    questions: Mapping[str, int]
    """Split -> questions."""
    documents: Mapping[str, int]
    """Split -> different documents, distractors included."""
    needles: Mapping[str, int]
    """Split -> different needle sentences."""

    def __str__(self) -> str:
        def listed(counts: Mapping[str, int]) -> str:
            return " / ".join(f"{count:,}" for count in counts.values())

        return (
            f"0 of {listed(self.questions)} questions, {listed(self.documents)} documents, "
            f"{listed(self.needles)} needles ({' / '.join(self.questions)}; checked)"
        )


def check_disjoint(splits: Mapping[str, Sequence[Example]]) -> Overlap:
    """Raise `InputError` naming what two splits share: a question, document, title or needle.

    Gold documents are compared with every document of the other split, since a training distractor
    that is a validation needle leaks it.
    """
    views = {name: _View(examples) for name, examples in splits.items()}
    names = list(views)
    for first, left in enumerate(names):
        for right in names[first + 1 :]:
            shared = views[left].shared_with(views[right]) | views[right].shared_with(views[left])
            if shared:
                what, text = min(shared)
                raise InputError(
                    f"data.{left} and data.{right} share {len(shared)} questions or "
                    f"documents, such as the {what} {text[:60]!r}; give them sources that share "
                    f"none, or name only data.train.path and let it be split by document"
                )
    return Overlap(
        questions={name: len(view.examples) for name, view in views.items()},
        documents={name: len(view.texts) for name, view in views.items()},
        needles={name: len(view.needles) for name, view in views.items()},
    )


class _View:
    """What one split shows, for comparing it with others."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples
        self.questions = {normalize(example.question): example.question for example in examples}
        # Documents shared by many questions are looked at once.
        self.texts = {d.text for d in {id(d): d for e in examples for d in e.documents}.values()}
        self.golds = {d.text: d for e in examples for d in gold_documents(e)}
        self.titles = {d.title for d in self.golds.values() if d.title}
        self.needles = {text for example in examples for text in example.evidence_texts()}

    def shared_with(self, other: "_View") -> set[tuple[str, str]]:
        """(kind, text) of what this split asks about and the other shows too."""
        found = {("question", self.questions[q]) for q in self.questions.keys() & other.questions}
        found |= {("needle", needle) for needle in self.needles & other.needles}
        for text, document in self.golds.items():
            if text in other.texts:
                found.add(("document", document.title or text))
            elif document.title and document.title in other.titles:
                found.add(("title", document.title))
        return found
