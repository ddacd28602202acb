"""`Example`: a question over documents whose evidence is known as character spans from birth."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sce.data.fields import as_answers, as_id, as_number, as_objects, as_text
from sce.errors import InputError
from sce.options import TASKS


@dataclass(frozen=True)
class Document:
    """One passage of a context."""

    id: str
    title: str
    text: str


@dataclass(frozen=True)
class Span:
    """Characters start..end (a Python slice) of the text of the document with id `document`."""

    document: str
    start: int
    end: int


def _checked_meta(meta: Any) -> dict[str, Any]:
    """A row's meta: plain JSON, and texts in what is read of it."""
    if meta is None:
        return {}
    if not isinstance(meta, Mapping):
        raise InputError("meta is not an object")
    try:
        json.dumps(meta, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"meta is not plain JSON ({error})") from None
    read = {
        name: list(as_answers(meta[name], f"meta.{name}", optional=True))
        for name in ("hop_answers", "avoid")
        if name in meta
    }
    return {**meta, **read}


@dataclass(frozen=True)
class Example:
    """One question, its documents in prompt order, and the sentences that hold the answer.

    `answers` are aliases of one answer; for `summhay`, which asks for citations, the ids of the
    documents to cite. `evidence` is in hop order. `meta` travels along; of it only `hop_answers`
    (answers of all hops) and `avoid` are read: no document that is added may hold one.
    """

    id: str
    task: str
    documents: tuple[Document, ...]
    question: str
    answers: tuple[str, ...]
    evidence: tuple[Span, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def evidence_texts(self) -> list[str]:
        """The evidence sentences, in hop order."""
        texts = {document.id: document.text for document in self.documents}
        return [texts[span.document][span.start : span.end] for span in self.evidence]

    @property
    def gold_ids(self) -> set[str]:
        """Ids of the documents that hold evidence."""
        return {span.document for span in self.evidence}

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no document that is added may hold: the answer, and the answers of all hops."""
        own = () if self.task == "summhay" else self.answers
        more = (*self.meta.get("hop_answers", ()), *self.meta.get("avoid", ()))
        return tuple(dict.fromkeys((*own, *map(str, more))))

    @property
    def gold(self) -> tuple[str, ...]:
        """What a prediction is measured against: aliases, or the labels of documents to cite."""
        if self.task != "summhay":
            return self.answers
        cited = set(self.answers)
        numbered = enumerate(self.documents, start=1)
        return tuple(str(number) for number, document in numbered if document.id in cited)

    @property
    def target(self) -> str:
        """The answer that is trained and scored.

        The first alias verbatim in the evidence; for `summhay` the printed labels of the documents
        to cite, in prompt order, as [2, 5].
        """
        if self.task == "summhay":
            return f"[{', '.join(self.gold)}]"
        evidence = self.evidence_texts()
        for answer in self.answers:
            if any(answer in text for text in evidence):
                return answer
        raise InputError(
            f"example {self.id}: none of its answers {list(self.answers)} is in its evidence"
        )

    def with_documents(self, documents: tuple[Document, ...]) -> "Example":
        """The same question over other documents."""
        return replace(self, documents=documents)

    def to_json(self) -> dict[str, Any]:
        """The object of one line of an Example JSONL file."""
        return {
            "id": self.id,
            "task": self.task,
            "documents": [{"id": d.id, "title": d.title, "text": d.text} for d in self.documents],
            "question": self.question,
            "answers": list(self.answers),
            "evidence": [
                {"document": s.document, "start": s.start, "end": s.end} for s in self.evidence
            ],
            "meta": dict(self.meta),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Example":
        """Read one object of an Example JSONL file.

        Raises:
            InputError: a field is missing or of the wrong type, a span points nowhere, or no answer
                stands in the evidence. The caller adds file and line.
        """
        try:
            example = cls(
                id=as_id(row.get("id"), "id"),
                task=as_text(row.get("task"), "task"),
                documents=tuple(
                    Document(
                        as_id(d.get("id"), "document's id"),
                        as_text(d.get("title"), "title", ""),
                        as_text(d.get("text"), "document's text"),
                    )
                    for d in as_objects(row.get("documents"), "documents")
                ),
                question=as_text(row.get("question"), "question"),
                answers=as_answers(row.get("answers")),
                evidence=tuple(
                    Span(
                        as_id(s.get("document"), "evidence's document"),
                        as_number(s.get("start"), "evidence's start"),
                        as_number(s.get("end"), "evidence's end"),
                    )
                    for s in as_objects(row.get("evidence"), "evidence")
                ),
                meta=_checked_meta(row.get("meta")),
            )
        except InputError as error:
            raise InputError(f"a malformed example ({error})") from None
        example.check()
        return example

    def check(self) -> None:
        """Raise `InputError` unless ids differ, spans lie in their documents and hold an answer."""
        texts = {document.id: document.text for document in self.documents}
        if len(texts) != len(self.documents):
            raise InputError(f"example {self.id}: two documents share an id")
        if self.task not in TASKS:
            raise InputError(f"example {self.id}: task {self.task!r}; known: {', '.join(TASKS)}")
        if not self.question.strip():
            raise InputError(f"example {self.id}: the question is empty")
        if not self.evidence:
            raise InputError(f"example {self.id}: no evidence")
        for span in self.evidence:
            text = texts.get(span.document)
            if text is None:
                raise InputError(
                    f"example {self.id}: evidence in document {span.document}, which it lacks"
                )
            if not 0 <= span.start < span.end <= len(text):
                raise InputError(
                    f"example {self.id}: evidence {span.start}..{span.end} is outside document "
                    f"{span.document} of {len(text)} characters"
                )
        if self.task == "summhay" and set(self.answers) != self.gold_ids:
            raise InputError(
                f"example {self.id}: answers must be the ids of the documents that hold evidence, "
                f"got {sorted(self.answers)} and {sorted(self.gold_ids)}"
            )
        _ = self.target
