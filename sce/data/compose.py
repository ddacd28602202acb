"""From a question with its evidence to a context of the wanted size.

Distractors are added until a limit binds, and where something must go they go first; question and
evidence never do. Nothing is searched for or retried without end: what cannot fit is an error.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

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


@dataclass(frozen=True)
class Order:
    """How documents are put in order."""

    rng: Generator | None
    """Draws the order; None keeps what the file has."""
    depth: float | None = None
    """Share of the distractors that stand before the gold documents, which then stand together;
    None: gold documents stand anywhere."""


def compose(
    example: Example, extra: Iterator[Document], limits: Limits, encoder: Encoder, order: Order
) -> Example:
    """Surround an example's gold documents with distractors and put them in order.

    Args:
        example: with its gold documents, and any distractors of its own, which are taken first.
        extra: more distractors, best first; those that hold a secret of the example or are among
            its own documents are passed over.
        limits: the size to fill up to; with no limit the example keeps its own documents.
        encoder: counts tokens.
        order: of the documents.

    Returns:
        The example; its meta says how many of its own documents hold a secret (`own_leaks`) or
        were dropped for it (`own_drops`).

    Raises:
        InputError: question and evidence alone are over a limit, or `extra` runs out below it.
    """
    gold_ids = example.gold_ids
    gold = [document for document in example.documents if document.id in gold_ids]
    own, leaks, num_dropped = _own(example)
    if order.rng is not None:  # so that not the file's first are the only ones ever seen
        own = [own[int(index)] for index in order.rng.permutation(len(own))]
    chosen = _fill(example, gold, own, extra, limits, encoder) if limits.any else own
    # With limits, what the file put together keeps the file's order unless one is drawn.
    kept = {document.id for document in (*gold, *chosen)}
    listed = [document for document in example.documents if document.id in kept]
    mine = {document.id for document in listed}
    listed += [document for document in chosen if document.id not in mine]
    composed = example.with_documents(_ordered(listed, gold_ids, order))
    while limits.context_tokens and (
        (tokens := encoder.num_prompt_tokens(composed)) > limits.context_tokens
    ):
        if not chosen:
            raise _too_long(example, tokens, limits.context_tokens)
        dropped = chosen.pop().id
        composed = composed.with_documents(
            tuple(document for document in composed.documents if document.id != dropped)
        )
    leaking = {document.id for document in leaks}
    num_leaks = sum(document.id in leaking for document in composed.documents)
    return _noted(composed, own_leaks=num_leaks, own_drops=num_dropped)


def _noted(example: Example, **counts: int) -> Example:
    """The example with the counts that are not zero in its meta, and none of an earlier time."""
    rest = {name: value for name, value in example.meta.items() if name not in counts}
    return replace(example, meta={**rest, **{n: count for n, count in counts.items() if count}})


def _own(example: Example) -> tuple[list[Document], list[Document], int]:
    """An example's own distractors to keep, those of them that hold a secret, and how many went.

    Where one hop answers the question, another document that holds the answer may be evidence that
    nobody marked, and goes. A hop's answer elsewhere answers nothing, and MuSiQue put it there on
    purpose: such documents stay, and are counted.
    """
    own = [document for document in example.documents if document.id not in example.gold_ids]
    leaks = [document for document in own if _leaks(document, example.secrets)]
    if example.task == "mdqa":
        return [document for document in own if document not in leaks], [], len(leaks)
    return own, leaks if example.task == "musique" else [], 0


def _ordered(
    documents: Sequence[Document], gold_ids: set[str], order: Order
) -> tuple[Document, ...]:
    if order.rng is None and order.depth is None:
        return tuple(documents)
    listed = list(documents)
    if order.rng is not None:
        listed = [listed[int(index)] for index in order.rng.permutation(len(listed))]
    if order.depth is None:
        return tuple(listed)
    gold = [document for document in listed if document.id in gold_ids]
    others = [document for document in listed if document.id not in gold_ids]
    before = round(order.depth * len(others))
    return (*others[:before], *gold, *others[before:])


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
        if limits.context_tokens is not None:
            number = len(gold) + len(chosen) + 1
            tokens += encoder.num_document_tokens(document, number, example.task)
            if tokens > limits.context_tokens:
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
    """The example's own distractors, then extra ones that hold no secret."""
    yield from own
    texts = {document.text for document in example.documents}
    names = {document.id for document in example.documents}
    secrets = example.secrets
    for document in extra:
        if document.text not in texts and not _leaks(document, secrets):
            while document.id in names:  # a file that we wrote may have the pool's own names
                document = replace(document, id=f"{document.id}+")
            yield document


def _leaks(document: Document, secrets: tuple[str, ...]) -> bool:
    return bool(secrets) and holds_answer(f"{document.title} {document.text}", secrets)
