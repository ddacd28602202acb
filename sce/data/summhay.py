"""SummHay Citation: which documents of a haystack state an insight (Laban et al. 2024).

A haystack in the published schema (github.com/salesforce/summary-of-a-haystack) is one object with
`subtopics` (each with `insights`) and `documents` (document_text, insights_included). Every insight
becomes one question; its answer are the documents that include it. The schema does not say which
sentence states an insight, so the one most like it is taken: cosine of TF-IDF vectors over words
and pairs of words, fitted on the haystack's sentences. Asking for citations alone, insight by
insight, is our reading of the task that Zhao et al. 2025 call SummHay Citation.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from sce.data.example import Document, Example, Span
from sce.data.fields import as_id, as_list, as_objects, as_text
from sce.data.text import sentence_spans
from sce.errors import InputError

# Below this cosine the best sentence of a document is not taken to state the insight.
MIN_ALIGNMENT = 0.15


def from_summhay(row: Mapping[str, Any], row_id: str, counts: Counter[str]) -> list[Example]:
    """One Example an insight; its meta holds the alignment score of every cited document.

    A document whose alignment is weak is left out of that insight's example, since it holds the
    insight in a sentence that is not known; such are counted in `counts`.

    Raises:
        InputError: a field is missing or of the wrong type, or a document includes an insight that
            no subtopic has.
    """
    try:
        topic = as_id(row.get("topic_id"), "topic_id", row_id)
        documents, insights, included = _parsed(row)
    except InputError as error:
        raise InputError(f"not a haystack in SummHay's schema ({error})") from None
    aligned = _align(documents, insights, included)
    examples = []
    for insight_id, text in insights.items():
        best = {d: aligned[insight_id, d] for d in documents if insight_id in included[d]}
        strong = {d: found for d, found in best.items() if found[1] >= MIN_ALIGNMENT}
        counts["weak alignments dropped"] += len(best) - len(strong)
        counts["alignments kept"] += len(strong)
        if not strong:
            counts["insights without a document"] += 1
            continue
        example = Example(
            id=f"{topic}:{insight_id}",
            task="summhay",
            documents=tuple(
                d for name, d in documents.items() if name in strong or name not in best
            ),
            question=citation_question(text),
            answers=tuple(strong),
            evidence=tuple(span for span, _ in strong.values()),
            meta={"alignment": {name: round(score, 4) for name, (_, score) in strong.items()}},
        )
        example.check()
        examples.append(example)
    if not examples:
        raise InputError("no insight of this haystack stands in any of its documents")
    return examples


def citation_question(statement: str) -> str:
    """The question for the documents that make a statement."""
    return f"Which documents state this? {statement}"


def _parsed(
    row: Mapping[str, Any],
) -> tuple[dict[str, Document], dict[str, str], dict[str, set[str]]]:
    """Documents by id, insights by id, and the insights that each document includes."""
    listed = [
        (
            Document(
                as_id(d.get("document_id"), "document_id"),
                "",
                as_text(d.get("document_text"), "document_text"),
            ),
            [
                as_id(insight, "insights_included")
                for insight in as_list(d.get("insights_included"), "insights_included", "ids")
            ],
        )
        for d in as_objects(row.get("documents"), "documents")
    ]
    insights = [
        (as_id(i.get("insight_id"), "insight_id"), as_text(i.get("insight"), "insight"))
        for subtopic in as_objects(row.get("subtopics"), "subtopics")
        for i in as_objects(subtopic.get("insights"), "insights")
    ]
    if not insights:
        raise InputError("no subtopic has an insight")
    documents = {document.id: document for document, _ in listed}
    texts = dict(insights)
    if len(documents) != len(listed):
        raise InputError("two documents share a document_id")
    if len(texts) != len(insights):
        raise InputError("two insights share an insight_id")
    for document, names in listed:
        unknown = sorted(set(names) - texts.keys())
        if unknown:
            raise InputError(
                f"document {document.id} includes insight {unknown[0]}, which no subtopic has"
            )
    return documents, texts, {document.id: set(names) for document, names in listed}


def _align(
    documents: Mapping[str, Document],
    insights: Mapping[str, str],
    included: Mapping[str, set[str]],
) -> dict[tuple[str, str], tuple[Span, float]]:
    """(insight, document) -> the document's sentence most like the insight, and the cosine."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    spans = {name: sentence_spans(d.text) for name, d in documents.items()}
    sentences = [d.text[a:b] for name, d in documents.items() for a, b in spans[name]]
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, strip_accents="unicode")
    # Rows have length 1, so that their products are cosines.
    try:
        vectors = vectorizer.fit_transform(sentences)
    except ValueError:  # an empty vocabulary
        raise InputError("no document of this haystack has a word in it") from None
    wanted = vectorizer.transform(list(insights.values()))
    similar = np.asarray((wanted @ vectors.T).todense())
    found, start = {}, 0
    rows = {insight: row for row, insight in enumerate(insights)}
    for name in documents:
        end = start + len(spans[name])
        for insight in sorted(included[name]):
            if end == start:
                raise InputError(f"document {name} has no sentence")
            best = int(similar[rows[insight], start:end].argmax())
            score = float(similar[rows[insight], start + best])
            found[insight, name] = (Span(name, *spans[name][best]), score)
        start = end
    return found
