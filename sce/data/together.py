"""Questions that share one context: which fit together, their joint context, and each over it.

Questions fit together where no document that one of them needs holds what another must not see, so
that the context of all is a clean context for each.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sce.data.encode import Encoder
from sce.data.example import Document, Example
from sce.data.text import holds_answer

# Groups that wait for questions that fit; in a source where hardly any do, the oldest is given up.
_MAX_OPEN = 64


@dataclass(frozen=True)
class Member:
    """One of the questions of a context, with the documents that it brings along."""

    example: Example
    origin: Mapping[str, str] = field(default_factory=dict)
    """Document id -> text of the real document it was made from, by which the same document is
    known in two members; empty where documents are invented."""


@dataclass(frozen=True)
class _Needs:
    """What decides whether a question fits beside others."""

    gold: str
    secrets: tuple[str, ...]
    sentences: frozenset[str]
    gold_texts: frozenset[str]
    texts: frozenset[str]

    @classmethod
    def of(cls, example: Example) -> "_Needs":
        golds = [d for d in example.documents if d.id in example.gold_ids]
        return cls(
            gold=" | ".join(f"{d.title} {d.text}" for d in golds),
            secrets=example.secrets,
            sentences=frozenset(example.evidence_texts()),
            gold_texts=frozenset(d.text for d in golds),
            texts=frozenset(d.text for d in example.documents),
        )

    def holds(self, other: "_Needs") -> bool:
        """Whether these gold documents say what the other question must not see."""
        return holds_answer(self.gold, other.secrets)


@dataclass(frozen=True)
class Fit:
    """Which real questions may share a context."""

    size: int
    """Questions of a context."""
    one_haystack: bool = False
    """Every question's gold documents are among the documents of all the others: which documents
    state an insight is known within its own haystack alone (summhay)."""
    own_hosts: bool = False
    """No gold document is shared, since each question writes its own needle into its own."""

    def grouped(self, examples: Sequence[Example], order: Sequence[int]) -> list[int]:
        """The order in which every `size` examples after one another fit together.

        Each example goes to the first group that it fits. Groups that are never full are left out.

        Args:
            examples: all of a source.
            order: places in it.
        """
        waiting: list[list[int]] = []
        done: list[int] = []
        needs: dict[int, _Needs] = {}
        for place in order:
            own = needs[place] = _Needs.of(examples[place])
            fitting = (g for g in waiting if all(self._fit(own, needs[other]) for other in g))
            group = next(fitting, None)
            if group is None:
                waiting = [*waiting, []][-_MAX_OPEN:]
                group = waiting[-1]
            group.append(place)
            if len(group) == self.size:
                waiting = [g for g in waiting if g is not group]
                done += group
                for other in group:
                    del needs[other]
        return done

    def _fit(self, left: _Needs, right: _Needs) -> bool:
        if left.holds(right) or right.holds(left) or left.sentences & right.sentences:
            return False
        if self.own_hosts and left.gold_texts & right.gold_texts:
            return False
        return not self.one_haystack or (
            left.gold_texts <= right.texts and right.gold_texts <= left.texts
        )


def clash(members: Sequence[Member]) -> tuple[int, int] | None:
    """The first two members of which one needs a document that says what the other must not see."""
    needs = [_Needs.of(member.example) for member in members]
    pairs = ((i, j) for i in range(len(needs)) for j in range(len(needs)) if i != j)
    return next(((i, j) for i, j in pairs if needs[j].holds(needs[i])), None)


def joined(members: Sequence[Member], encoder: Encoder) -> tuple[Example, list[Example]]:
    """One example that needs and avoids what all members do, to be composed in their place.

    Of distractors that members bring along, those that any of them must not see are left out; in
    summhay a member's own may be on its subject, and only those in every member's haystack stay.

    Args:
        members: that do not clash.
        encoder: finds the member whose prompt is longest; its question stands for all.

    Returns:
        The joint example, and the members with document ids as in it. The first one's meta counts
        the distractors left out (`own_drops`).
    """
    documents: dict[Hashable, Document] = {}
    own: list[Example] = []
    for number, member in enumerate(members):
        named: dict[str, str] = {}
        for document in member.example.documents:
            if document.id in member.example.gold_ids:
                kept = _added(documents, _identity(number, member, document), document)
                named[document.id] = kept.id
        own.append(_renamed(member.example, named))
    dropped = _add_distractors(documents, members)
    if dropped:
        own[0] = replace(own[0], meta={**own[0].meta, "own_drops": dropped})
    some = (next(iter(documents.values())),)
    longest = max(own, key=lambda e: encoder.num_prompt_tokens(e.with_documents(some)))
    secrets = dict.fromkeys(s for member in members for s in member.example.secrets)
    whole = Example(
        id=f"{own[0].id} and the {len(own) - 1} that share its context",
        task=longest.task,
        documents=tuple(documents.values()),
        question=longest.question,
        answers=(),
        evidence=tuple(span for example in own for span in example.evidence),
        meta={"avoid": list(secrets)},
    )
    return whole, own


def _add_distractors(documents: dict[Hashable, Document], members: Sequence[Member]) -> int:
    """Add what members bring along beside their gold documents; how many had to stay out."""
    dropped = 0
    for number, member in enumerate(members):
        for document in member.example.documents:
            key = _identity(number, member, document)
            if document.id in member.example.gold_ids or key in documents:
                continue
            if _clean(members, number, document):
                _added(documents, key, document)
            else:
                dropped += 1
    return dropped


def _identity(number: int, member: Member, document: Document) -> Hashable:
    return member.origin.get(document.id, (number, document.id))


def _added(documents: dict[Hashable, Document], key: Hashable, document: Document) -> Document:
    """The document under its key, with an id of its own among the others."""
    if key not in documents:
        names = {other.id for other in documents.values()}
        name, count = document.id, 1
        while name in names:
            count += 1
            name = f"{document.id}-{count}"
        documents[key] = replace(document, id=name)
    return documents[key]


def _renamed(example: Example, named: Mapping[str, str]) -> Example:
    cites = example.task == "summhay"
    return replace(
        example,
        evidence=tuple(replace(s, document=named[s.document]) for s in example.evidence),
        answers=tuple(named[a] for a in example.answers) if cites else example.answers,
    )


def _clean(members: Sequence[Member], number: int, document: Document) -> bool:
    """Whether a distractor of one member may stand in the context of all."""
    cites = members[number].example.task == "summhay"
    text = f"{document.title} {document.text}"
    for other, member in enumerate(members):
        if not (cites and other == number) and holds_answer(text, member.example.secrets):
            return False
        source = members[number].origin.get(document.id)
        if cites and source is not None and source not in member.origin.values():
            return False
    return True


def parted(composed: Example, own: Sequence[Example]) -> list[Example]:
    """The members, each over the documents of the composed joint example."""
    drops = int(composed.meta.get("own_drops", 0))
    if drops:
        meta = own[0].meta
        meta = {**meta, "own_drops": drops + int(meta.get("own_drops", 0))}
        own = [replace(own[0], meta=meta), *own[1:]]
    parts = [example.with_documents(composed.documents) for example in own]
    for part in parts:
        part.check()
    return parts
