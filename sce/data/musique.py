"""MuSiQue: multi-hop questions, in the published JSONL (Trivedi et al. 2022, arXiv 2108.00573).

A row holds `question`, `answer`, `answer_aliases`, `paragraphs` (idx, title, paragraph_text) and
`question_decomposition` (question, answer, paragraph_support_idx), one entry a hop. The evidence is
one sentence a hop: of the supporting paragraph's sentences that hold the hop's answer, the one that
shares most words with the hop's question.
"""

import re
from collections.abc import Mapping
from typing import Any

from sce.data.example import Document, Example, Span
from sce.data.fields import as_answers, as_id, as_number, as_objects, as_text
from sce.data.text import content_words, occurrences, sentences_holding
from sce.errors import InputError


def from_musique(row: Mapping[str, Any], row_id: str) -> Example:
    """An Example from one row; its meta holds the hops and their answers.

    Raises:
        InputError: a field is missing or of the wrong type, a hop points at no paragraph, or its
            answer does not stand in it.
    """
    try:
        row_id = as_id(row.get("id"), "id", row_id)
        question = as_text(row.get("question"), "question")
        documents = _paragraphs(row, row_id)
        hops = [
            (
                as_text(h.get("question"), "hop's question"),
                as_text(h.get("answer"), "hop's answer"),
                as_number(h.get("paragraph_support_idx"), "paragraph_support_idx"),
            )
            for h in as_objects(row.get("question_decomposition"), "question_decomposition")
        ]
        answers = (
            as_text(row.get("answer"), "answer"),
            *as_answers(row.get("answer_aliases"), "answer_aliases", optional=True),
        )
    except InputError as error:
        raise InputError(f"not a row of the MuSiQue format ({error})") from None
    if not hops:
        raise InputError("question_decomposition is empty")
    evidence, found = [], []
    for number, (hop, answer, index) in enumerate(hops, start=1):
        if index not in documents:
            raise InputError(f"hop {number}: paragraph_support_idx={index} is no paragraph's idx")
        aliases = answers if number == len(hops) else (answer,)
        span, verbatim = _sentence(documents[index], (answer, *aliases), _asked(hop, hops), number)
        evidence.append(span)
        found.append(verbatim)
    # The last answer may be spelled otherwise in its paragraph; what stands there is an alias.
    answers = tuple(dict.fromkeys((*answers, found[-1])))
    meta = {
        "hops": [hop for hop, _, _ in hops],
        "hop_answers": list(dict.fromkeys((*(answer for _, answer, _ in hops), *found))),
    }
    example = Example(
        row_id, "musique", tuple(documents.values()), question, answers, tuple(evidence), meta
    )
    example.check()
    return example


def _paragraphs(row: Mapping[str, Any], row_id: str) -> dict[int, Document]:
    """Documents by idx."""
    documents = {}
    for paragraph in as_objects(row.get("paragraphs"), "paragraphs"):
        index = as_number(paragraph.get("idx"), "idx")
        if index in documents:
            raise InputError(f"two paragraphs share the idx {index}")
        documents[index] = Document(
            f"{row_id}:p{index}",
            as_text(paragraph.get("title"), "title", ""),
            as_text(paragraph.get("paragraph_text"), "paragraph_text"),
        )
    return documents


def _asked(hop: str, hops: list[tuple[str, str, int]]) -> str:
    """A hop's question with earlier answers in place of #1, #2."""
    answers = {f"#{number}": answer for number, (_, answer, _) in enumerate(hops, start=1)}
    return re.sub(r"#\d+", lambda m: answers.get(m[0], m[0]), hop)


def _sentence(
    document: Document, answers: tuple[str, ...], asked: str, number: int
) -> tuple[Span, str]:
    """The sentence that answers a hop, and the answer as it stands in it."""
    text = document.text
    for answer in answers:
        spans = occurrences(text, answer) or occurrences(text, answer, loosely=True)
        sentences = sentences_holding(text, spans)
        if not sentences:
            continue
        wanted = content_words(asked)
        start, end = max(
            sentences, key=lambda s: (len(wanted & content_words(text[s[0] : s[1]])), -s[0])
        )
        # An answer with white space around it may begin before its sentence.
        first = next((max(a, start), min(b, end)) for a, b in spans if a < end and start < b)
        return Span(document.id, start, end), text[first[0] : first[1]]
    raise InputError(
        f"hop {number}: its answer {answers[0]!r} does not stand in its paragraph "
        f"{document.title or document.id!r}"
    )
