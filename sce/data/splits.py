"""Training, validation and reference share no question, document or fact.

One source is split by document: questions whose gold documents, titles or wording coincide stay
together. Sources that the user names one by one are checked, and refused if they overlap.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from sce.data.example import Document, Example
from sce.errors import InputError
from sce.metrics import normalize


def gold_documents(example: Example) -> list[Document]:
    """The documents that hold the evidence."""
    ids = {span.document for span in example.evidence}
    return [document for document in example.documents if document.id in ids]


def _keys(example: Example) -> set[str]:
    """What two examples of different splits must not share."""
    keys = {f"question {normalize(example.question)}"}
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
        for key in _keys(example):
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


def check_disjoint(splits: Mapping[str, Sequence[Example]]) -> None:
    """Raise `InputError` naming what two splits share: a question, a document or a title.

    Gold documents are compared with every document of the other split, since a training distractor
    that is a validation needle leaks it.
    """
    names = list(splits)
    for first, left in enumerate(names):
        for right in names[first + 1 :]:
            shared = _shared(splits[left], splits[right]) + _shared(splits[right], splits[left])
            if shared:
                (what, text), _ = Counter(shared).most_common(1)[0]
                raise InputError(
                    f"data.{left} and data.{right} share {len(set(shared))} questions or "
                    f"documents, such as the {what} {text[:60]!r}; give them sources that share "
                    f"none, or name only data.train.path and let it be split by document"
                )


def _shared(golds: Sequence[Example], others: Sequence[Example]) -> list[tuple[str, str]]:
    questions = {normalize(example.question) for example in others}
    texts = {document.text for example in others for document in example.documents}
    titles = {d.title for example in others for d in gold_documents(example) if d.title}
    shared = []
    for example in golds:
        if normalize(example.question) in questions:
            shared.append(("question", example.question))
        for document in gold_documents(example):
            if document.text in texts:
                shared.append(("document", document.title or document.text))
            elif document.title in titles:
                shared.append(("title", document.title))
    return shared
