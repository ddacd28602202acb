"""MDQA: multi-document question answering on Natural Questions, in the lost-in-the-middle format.

A row holds `question`, `answers`, `ctxs` (title, text, isgold, hasanswer) and `nq_annotated_gold`
(Liu et al. 2023, github.com/nelson-liu/lost-in-the-middle). The evidence is the sentence that holds
the answer.
"""

import re
from collections.abc import Mapping
from typing import Any

from sce.data.example import Document, Example, Span
from sce.data.fields import as_answers, as_flag, as_id, as_objects, as_text, as_texts
from sce.data.text import occurrences, sentences_holding
from sce.errors import InputError


def from_nq(row: Mapping[str, Any], row_id: str) -> Example:
    """An Example from one row of the Natural Questions multi-document format.

    Raises:
        InputError: a field is missing or of the wrong type, no document is gold, or no answer
            stands in a gold one.
    """
    try:
        row_id = as_id(row.get("id"), "id", row_id)
        question = as_text(row.get("question"), "question")
        answers = as_answers(row.get("answers"))
        contexts = as_objects(row.get("ctxs"), "ctxs")
        documents = tuple(
            Document(
                f"{row_id}:d{index}",
                as_text(context.get("title"), "title", ""),
                as_text(context.get("text"), "document's text"),
            )
            for index, context in enumerate(contexts)
        )
        is_gold = [as_flag(context.get("isgold"), "isgold") for context in contexts]
        short, long = _annotated(row.get("nq_annotated_gold"))
    except InputError as error:
        raise InputError(f"not a row of the Natural Questions format ({error})") from None
    gold = [document for document, marked in zip(documents, is_gold, strict=True) if marked]
    if not gold:
        raise InputError("no document is marked isgold")
    evidence = tuple(s for document in gold for s in _evidence(document, answers, short, long))
    if not evidence:
        raise InputError(f"none of the answers {list(answers)} stands in the gold document")
    example = Example(row_id, "mdqa", documents, question, answers, evidence)
    example.check()
    return example


def _annotated(annotation: Any) -> tuple[list[str], str]:
    """The annotator's short answers, and the part of the document marked as the long answer."""
    if annotation is None:
        return [], ""
    if not isinstance(annotation, Mapping):
        raise InputError("nq_annotated_gold is not an object")
    short = as_texts(annotation.get("short_answers"), "short_answers")
    chunk = as_text(annotation.get("chunked_long_answer"), "chunked_long_answer", "")
    return short, chunk or as_text(annotation.get("long_answer"), "long_answer", "")


def _evidence(
    document: Document, answers: tuple[str, ...], short: list[str], long: str
) -> list[Span]:
    """The sentence(s) of a gold document that hold the answer.

    Where it stands more than once the annotation narrows it down: to the annotated short answers,
    and to the part of the document that the annotator marked as the long answer. Sentences that are
    left all state the answer, and all count.
    """
    spans = [span for answer in answers for span in occurrences(document.text, answer)]
    if len(sentences_holding(document.text, spans)) > 1:
        spans = [s for answer in short for s in occurrences(document.text, answer)] or spans
        start = document.text.find(long) if long else -1
        if start >= 0:
            inside = [(s, e) for s, e in spans if start <= s and e <= start + len(long)]
            spans = inside or spans
    sentences = sentences_holding(document.text, spans)
    holding = [(s, e) for s, e in sentences if any(a in document.text[s:e] for a in answers)]
    return [Span(document.id, start, end) for start, end in holding]


_OPENINGS = {
    "who": re.compile(r"^\W*(?:(?:by|to|for|with|from) )?(?:who|whom|whose)\b", re.I),
    "when": re.compile(
        r"^\W*(?:when|(?:in |on |during )?(?:what|which) (?:year|date|day|month|century|decade))\b",
        re.I,
    ),
    "where": re.compile(
        r"^\W*(?:where|(?:in |from )?(?:what|which) (?:country|city|state|town|place|continent))\b",
        re.I,
    ),
}


def is_limited_to(question: str, relation: str) -> bool:
    """Whether a question asks who, when or where, by how it opens.

    Our rule for the limited-relation subsets of Natural Questions; the paper's is not known to us.
    """
    return bool(_OPENINGS[relation].match(question))
