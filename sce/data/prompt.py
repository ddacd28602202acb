r"""The user's turn, as pieces of text that can be tokenized one by one and joined.

    instruction \n\n | Document [1] |  (Title: T) text \n | Document [2] | ... | Question: q

Pieces are cut where tokenizers cut anyway (before a word at the start of a line, after a bracket),
so that a document's token ids do not depend on where it stands. The wording is ours.
"""

from dataclasses import dataclass

from sce.data.example import Document, Example

_INSTRUCTIONS = {
    "mdqa": (
        "Answer the question using the documents below. Reply with the short answer alone, "
        "copied word for word from the documents."
    ),
    "musique": (
        "Answer the question by putting together facts from several of the documents below. Reply "
        "with the short answer alone, copied word for word from the documents."
    ),
    "summhay": (
        "Find every document below that states the given insight. Reply with the numbers of those "
        "documents in brackets alone, such as [2, 5]."
    ),
    "needle": (
        "Read the text below and answer the question about it. Reply with words copied from the "
        "text."
    ),
}


QUESTION = "Question: "


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of the prompt's text."""

    text: str
    before: str
    """The character right before it in the prompt; none at the start."""
    after: str
    """A character such as follows it (white space is cut by what comes next); none at the end."""
    document: str | None = None
    """Id of the document whose text is in this piece."""
    offset: int = 0
    """Where in this piece the document's text begins."""
    number: int | None = None
    """Set where the piece is nothing but the label of document `number`."""


def label(number: int) -> Piece:
    """The label of the number-th document, counted from 1."""
    return Piece(f"Document [{number}]", "\n", " ", number=number)


def body(document: Document, *, labelled: bool, last: bool = False) -> Piece:
    """A document's title and text, and the line's end."""
    if not labelled:
        return Piece(f"{document.text}{_end(last)}", "\n", "D", document.id)
    head = f" (Title: {document.title}) " if document.title else " "
    return Piece(f"{head}{document.text}{_end(last)}", "]", "D", document.id, len(head))


def _end(last: bool) -> str:
    return "\n\n" if last else "\n"


def is_labelled(task: str) -> bool:
    """Whether documents are numbered in the prompt; `needle` shows one running text."""
    return task != "needle"


def render(example: Example) -> list[Piece]:
    """The user's turn, piece by piece."""
    labelled = is_labelled(example.task)
    pieces = [Piece(f"{_INSTRUCTIONS[example.task]}\n\n", "", "D")]
    count = len(example.documents)
    for number, document in enumerate(example.documents, start=1):
        if labelled:
            pieces.append(label(number))
        pieces.append(body(document, labelled=labelled, last=number == count))
    pieces.append(Piece(f"{QUESTION}{example.question}", "\n", ""))
    return pieces
