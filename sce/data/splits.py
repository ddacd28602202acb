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
        split name -> examples.
    """
    groups = _groups(examples)
    order = np.random.default_rng([seed, len(groups)]).permutation(len(groups))
    total = sum(shares.values())
    splits: dict[str, list[Example]] = {name: [] for name in shares}
    for dealt, index in enumerate(order):
        empty = [name for name in shares if not splits[name]]
        missing = {
            name: share / total - len(splits[name]) / len(examples)
            for name, share in shares.items()
            if len(empty) < len(order) - dealt or name in empty  # the last ones fill what is empty
        }
        splits[max(missing, key=missing.__getitem__)].extend(groups[int(index)])
    return splits


def take_out_foreign(
    splits: Mapping[str, Sequence[Example]], *, drop: bool
) -> tuple[dict[str, list[Example]], dict[str, int]]:
    """Splits without what belongs to another one, and how much went.

    An example's own distractors that are another split's gold documents are taken out, since
    distractors go first; so are a split's that a later one shows too. With `drop`, so are training
    examples that share a question, gold document or needle with validation or reference, and
    validation examples that share one with reference.
    """
    kept = {name: list(examples) for name, examples in splits.items()}
    counts = {"examples": 0, "distractors": 0}
    names = list(kept)
    for index, name in enumerate(names):
        if drop:
            later = {k for other in names[index + 1 :] for e in kept[other] for k in keys_of(e)}
            clean = [e for e in kept[name] if not {k for k in keys_of(e) if _strict(k)} & later]
            counts["examples"] += len(kept[name]) - len(clean)
            kept[name] = clean
    golds = {name: {d.text for e in kept[name] for d in gold_documents(e)} for name in names}
    shown: set[str] = set()
    for name in reversed(names):
        foreign = shown.union(*(golds[other] for other in names if other != name))
        clean = [_without(example, foreign) for example in kept[name]]
        counts["distractors"] += sum(
            len(before.documents) - len(after.documents)
            for before, after in zip(kept[name], clean, strict=True)
        )
        kept[name] = clean
        shown |= {document.text for example in clean for document in example.documents}
    return kept, counts


def _strict(key: str) -> bool:
    """Titles keep questions together when a source is dealt, but two paragraphs may share one."""
    return not key.startswith("title ")


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
    removed: Mapping[str, int]
    """Examples dropped, and own distractors taken out, for being another split's."""

    def __str__(self) -> str:
        def listed(counts: Mapping[str, int]) -> str:
            return " / ".join(f"{count:,}" for count in counts.values())

        return (
            f"0 of {listed(self.questions)} questions, {listed(self.documents)} documents, "
            f"{listed(self.needles)} needles ({' / '.join(self.questions)}; checked)"
        )

    @property
    def taken_out(self) -> str:
        """What had to go for it, or nothing."""
        return "".join(f"; {n:,} {what} taken out for it" for what, n in self.removed.items() if n)


def check_disjoint(
    splits: Mapping[str, Sequence[Example]], removed: Mapping[str, int] | None = None
) -> Overlap:
    """Raise `InputError` naming what two splits share: a question, document or needle.

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
                    f"data.{left} and data.{right} share {len(shared)} questions, documents "
                    f"or needles, such as the {what} {text[:60]!r}; give them sources that share "
                    f"none, let the earlier split lose them (data.on_overlap=drop), or name "
                    f"one file of real questions alone and let it be split by document"
                )
    return Overlap(
        questions={name: len(view.examples) for name, view in views.items()},
        documents={name: len(view.texts) for name, view in views.items()},
        needles={name: len(view.needles) for name, view in views.items()},
        removed=removed or {},
    )


class _View:
    """What one split shows, for comparing it with others."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples
        self.questions = {normalize(example.question): example.question for example in examples}
        # Documents shared by many questions are looked at once.
        self.texts = {d.text for d in {id(d): d for e in examples for d in e.documents}.values()}
        self.golds = {d.text: d for e in examples for d in gold_documents(e)}
        self.needles = {text for example in examples for text in example.evidence_texts()}

    def shared_with(self, other: "_View") -> set[tuple[str, str]]:
        """(kind, text) of what this split asks about and the other shows too."""
        found = {("question", self.questions[q]) for q in self.questions.keys() & other.questions}
        found |= {("needle", needle) for needle in self.needles & other.needles}
        for text, document in self.golds.items():
            if text in other.texts:
                found.add(("document", document.title or text))
        return found
