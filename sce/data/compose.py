"""From a question with its evidence to a context of the wanted size.

Distractors are added until a limit binds, and where something must go they go first; question and
evidence never do. Nothing is searched for or retried without end: what cannot fit is an error.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from numpy.random import Generator

from sce.data.encode import Encoder
from sce.data.example import Document, Example
from sce.data.text import holds_answer
from sce.errors import InputError


@dataclass(frozen=True)
class Limits:
    """Size of a context; whichever binds first. None: no limit of this sort."""

    num_documents: int | None
    context_tokens: int | None

    @property
    def any(self) -> bool:
        """Whether there is a limit to fill up to."""
        return self.num_documents is not None or self.context_tokens is not None


def compose(
    example: Example,
    extra: Iterator[Document],
    limits: Limits,
    encoder: Encoder,
    rng: Generator | None,
) -> Example:
    """Surround an example's gold documents with distractors and put them in order.

    Args:
        example: with its gold documents, and any distractors of its own, which are taken first.
        extra: more distractors, best first. Of both, those that hold an answer are passed over: a
            head that copied it from there would count as a miss.
        limits: the size to fill up to; with no limit the example keeps its own documents.
        encoder: counts tokens.
        rng: draws the order of the documents; None keeps gold and distractors in the given order.

    Raises:
        InputError: question and evidence alone are over a limit, or `extra` runs out below it.
    """
    gold_ids = {span.document for span in example.evidence}
    gold = [document for document in example.documents if document.id in gold_ids]
    own = [
        document
        for document in example.documents
        if document.id not in gold_ids and not _holds_answer(document, example)
    ]
    chosen = _fill(example, gold, own, extra, limits, encoder) if limits.any else own
    # With limits, what the file put together keeps the file's order unless rng draws another.
    kept = {document.id for document in (*gold, *chosen)}
    documents = [document for document in example.documents if document.id in kept]
    documents += [document for document in chosen if document not in documents]
    if rng is not None:
        documents = [documents[int(index)] for index in rng.permutation(len(documents))]
    composed = example.with_documents(tuple(documents))
    while limits.context_tokens and encoder.num_prompt_tokens(composed) > limits.context_tokens:
        if not chosen:
            raise _too_long(example, encoder.num_prompt_tokens(composed), limits.context_tokens)
        dropped = chosen.pop().id
        composed = composed.with_documents(
            tuple(document for document in composed.documents if document.id != dropped)
        )
    return composed


def _too_long(example: Example, tokens: int, limit: int) -> InputError:
    return InputError(
        f"example {example.id}: question and evidence take {tokens} prompt tokens, over "
        f"data.context_tokens={limit}; raise it or leave the example out"
    )


def _fill(
    example: Example,
    gold: list[Document],
    own: list[Document],
    extra: Iterator[Document],
    limits: Limits,
    encoder: Encoder,
) -> list[Document]:
    """Distractors until a limit binds."""
    room = None if limits.num_documents is None else limits.num_documents - len(gold)
    if room is not None and room < 0:
        raise InputError(
            f"example {example.id}: its evidence lies in {len(gold)} documents, over "
            f"data.num_documents={limits.num_documents}"
        )
    tokens = 0
    if limits.context_tokens is not None:
        tokens = encoder.num_prompt_tokens(example.with_documents(tuple(gold)))
        if tokens > limits.context_tokens:
            raise _too_long(example, tokens, limits.context_tokens)
    chosen: list[Document] = []
    for document in _candidates(example, own, extra):
        if room is not None and len(chosen) >= room:
            return chosen
        tokens += encoder.num_document_tokens(document.title, document.text)
        if limits.context_tokens is not None and tokens > limits.context_tokens:
            return chosen
        chosen.append(document)
    if room is None or len(chosen) < room:
        wanted = f"data.num_documents={limits.num_documents}"
        if limits.num_documents is None:
            wanted = f"data.context_tokens={limits.context_tokens}"
        raise InputError(
            f"example {example.id}: only {len(chosen)} documents at hand that do not hold its "
            f"answer, too few for {wanted}; lower it or give the split a larger source"
        )
    return chosen


def _candidates(
    example: Example, own: list[Document], extra: Iterator[Document]
) -> Iterator[Document]:
    """The example's own distractors, then extra ones that hold no answer."""
    yield from own
    for document in extra:
        if not _holds_answer(document, example):
            yield document


def _holds_answer(document: Document, example: Example) -> bool:
    return holds_answer(f"{document.title} {document.text}", example.answers)
