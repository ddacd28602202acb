"""From an `Example` to token ids with the positions of the evidence: the one place that tokenizes.

The prompt is built as text once, in pieces whose documents know where they begin, and tokenized
with the tokenizer's own offset mapping. Nothing is searched for and nothing is decoded and
re-encoded. The prompt ends, inside the assistant's turn, with `Answer:`, and the target begins with
a space, so that an answer's first token can be the very token that stands in the context.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from sce.data import prompt
from sce.data.chat import Turn
from sce.data.example import Document, Example, Span
from sce.data.join import Joiner
from sce.data.locate import Joined, Located, Whole, evidence_positions
from sce.data.prompt import Piece
from sce.errors import InputError

OPENING = "Answer:"
NULL_QUESTION = "N/A"


@dataclass(frozen=True)
class Asked:
    """Where the question stands, and the same prompt with a null question in its place."""

    question: np.ndarray
    """int32 [2]: first prompt position of the question, and the one after its last."""
    gold: np.ndarray
    """int32 [gold documents, 2]: the same of every document that holds evidence, its title
    included."""
    null_start: int
    """Tokens that the prompt with the null question shares with this one, from its beginning."""
    null_ids: np.ndarray
    """int32 [null]: what follows them, up to the end of the null question."""
    num_null: int
    """How many of `null_ids`, the last, are the null question's own."""


@dataclass(frozen=True)
class Encoded:
    """One example in token ids; positions count from the prompt's first token, without padding."""

    id: str
    task: str
    prompt_ids: np.ndarray
    """int32 [prompt]: ends with the opening of the answer."""
    target_ids: np.ndarray
    """int32 [target]: the gold answer, without the end of the turn."""
    end_id: int
    """Token that ends the assistant's turn; trained after the target, never scored."""
    evidence: np.ndarray
    """int32 [evidence]: prompt positions of the evidence, ascending."""
    answers: tuple[str, ...]
    """What a prediction is measured against: aliases, or labels of the documents to cite."""
    needles: np.ndarray
    """int32 [evidence]: which of the example's evidence spans each position belongs to."""
    cited: np.ndarray
    """int32 [target]: the evidence span of the document whose label a target token is part of, or
    -1; only citations have others."""
    asked: Asked | None = None
    """Where the question and the gold documents stand; what `query_focused` reads."""

    @property
    def num_tokens(self) -> int:
        """Tokens fed to the model in training: prompt and target."""
        return len(self.prompt_ids) + len(self.target_ids)

    @property
    def depth(self) -> float:
        """Share of the prompt that stands before the first evidence token, 0..1."""
        return float(self.evidence[0]) / len(self.prompt_ids)


class Encoder:
    """Turns examples into token ids for one tokenizer.

    Raises:
        InputError: the tokenizer has no offset mapping, or its template alters the user's text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise InputError(
                f"{tokenizer.name_or_path}: its tokenizer gives no offset mapping (it is a slow "
                "one), so evidence cannot be located; use a model with a tokenizer.json"
            )
        self.tokenizer = tokenizer
        self._joiner = Joiner(tokenizer)
        turn = Turn.of(tokenizer)
        self._prefix, self._suffix, self.end_id = turn.before, turn.after + OPENING, turn.end_id

    @property
    def sha256(self) -> str:
        """Identity of the tokenizer and its chat template."""
        fast: Any = self.tokenizer.backend_tokenizer
        parts = [fast.to_str(), str(self.tokenizer.chat_template)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def prompt_sha256(self, task: str) -> str:
        """Identity of everything around an example's own text, by one that has almost none."""
        answer = "d" if task == "summhay" else "a"
        dummy = Example("x", task, (Document("d", "t", "a"),), "q", (answer,), (Span("d", 0, 1),))
        return hashlib.sha256(self.prompt(dummy).encode()).hexdigest()

    def _pieces(self, example: Example) -> list[Piece]:
        first, *middle, last = prompt.render(example)
        first = replace(first, text=self._prefix + first.text)
        return [first, *middle, replace(last, text=last.text + self._suffix)]

    def prompt(self, example: Example) -> str:
        """The whole prompt as text."""
        return "".join(piece.text for piece in self._pieces(example))

    def prompt_ids(self, example: Example) -> np.ndarray:
        """int32 ids of the prompt, joined from its pieces' where the tokenizer allows it."""
        pieces = self._pieces(example)
        joined = self._joiner.join(pieces)
        return self._whole(pieces)[0] if joined is None else joined

    def num_prompt_tokens(self, example: Example) -> int:
        """Length of the encoded prompt."""
        return len(self.prompt_ids(example))

    def is_joined(self, example: Example) -> bool:
        """Whether the prompt's ids are joined, and not found by tokenizing it as a whole."""
        return self._joiner.join(self._pieces(example)) is not None

    def check_joined(self, example: Example) -> None:
        """Raise unless the joined ids are those of the whole prompt (a check for builders)."""
        whole = self._whole(self._pieces(example))[0]
        if not np.array_equal(self.prompt_ids(example), whole):
            raise RuntimeError(
                f"example {example.id}: joined token ids differ from the tokenizer's"
            )

    def _whole(self, pieces: Sequence[Piece]) -> tuple[np.ndarray, list[tuple[int, int]]]:
        text = "".join(piece.text for piece in pieces)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return np.asarray(encoded["input_ids"], dtype=np.int32), encoded["offset_mapping"]

    def num_document_tokens(self, document: Document, number: int, task: str) -> int:
        """Tokens that a document adds to a prompt as its number-th, to within one."""
        labelled = prompt.is_labelled(task)
        pieces = [prompt.body(document, labelled=labelled)]
        if labelled:
            pieces.append(prompt.label(number))
        ids = [self._joiner.ids(piece) for piece in pieces]
        if any(part is None for part in ids):
            text = "".join(piece.text for piece in pieces)
            return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return sum(len(part) for part in ids if part is not None)

    def encode(self, example: Example) -> Encoded:
        """Token ids, and the evidence as token positions.

        Raises:
            InputError: no token of the prompt covers a piece of evidence, or the target would merge
                with the prompt's last token.
        """
        pieces = self._pieces(example)
        located = self._locate(pieces)
        positions = [_content(located, span) for span in example.evidence]
        for span, found in zip(example.evidence, positions, strict=True):
            if not found:
                raise InputError(
                    f"example {example.id}: no token of the prompt covers its evidence "
                    f"{span.start}..{span.end} of document {span.document}"
                )
        needle_of = {p: n for n in reversed(range(len(positions))) for p in positions[n]}
        evidence = sorted(needle_of)
        target_ids, cited = self._target(example, *located.last())
        return Encoded(
            id=example.id,
            task=example.task,
            prompt_ids=located.ids,
            target_ids=target_ids,
            end_id=self.end_id,
            evidence=np.asarray(evidence, dtype=np.int32),
            answers=example.gold,
            needles=np.asarray([needle_of[p] for p in evidence], dtype=np.int32),
            cited=cited,
            asked=self._asked(example, located),
        )

    def _locate(self, pieces: Sequence[Piece]) -> Located:
        ids = self._joiner.join(pieces)
        if ids is None:
            return Whole(pieces, *self._whole(pieces))
        return Joined(pieces, ids, self._joiner)

    def _asked(self, example: Example, located: Located) -> Asked:
        """The question's tokens, the gold documents', and those of the null question."""
        begin = len(prompt.QUESTION)
        last = len(located.pieces) - 1
        first, end = located.span(last, begin, begin + len(example.question))
        nulled = self._locate(self._pieces(replace(example, question=NULL_QUESTION)))
        null_first, null_end = nulled.span(last, begin, begin + len(NULL_QUESTION))
        most = min(first, null_first)
        same = located.ids[:most] == nulled.ids[:most]
        start = most if same.all() else int(same.argmin())
        holding = {span.document for span in example.evidence}
        gold = [
            located.span(index, 0, located.pieces[index].offset + len(document.text))
            for document in example.documents
            if document.id in holding
            for index in [located.documents[document.id]]
        ]
        return Asked(
            question=np.asarray([first, end], dtype=np.int32),
            gold=np.asarray(gold, dtype=np.int32),
            null_start=start,
            null_ids=nulled.ids[start:null_end],
            num_null=null_end - null_first,
        )

    def _target(
        self, example: Example, last: Piece, alone: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids of the target after `last`, whose own are `alone`, and what each token cites."""
        target = f" {example.target}"
        both = self._joiner.inside(last.before, last.text + target, "")
        if both is None or both[0][: len(alone)] != alone.tolist():
            raise InputError(
                f"example {example.id}: "
                f"this tokenizer merges {OPENING!r} with the answer {example.target!r}"
            )
        ids = both[0][len(alone) :]
        offsets = [(a - len(last.text), b - len(last.text)) for a, b in both[1][len(alone) :]]
        cited = np.full(len(ids), -1, dtype=np.int32)
        if example.task == "summhay":
            first_span = {s.document: n for n, s in reversed(list(enumerate(example.evidence)))}
            for match in re.finditer(r"\d+", target):
                document = example.documents[int(match[0]) - 1].id
                for position, (start, end) in enumerate(offsets):
                    if start < match.end() and match.start() < end:
                        cited[position] = first_span[document]
        return np.asarray(ids, dtype=np.int32), cited


def _content(located: Located, span: Span) -> list[int]:
    """Prompt positions of a span of a document's text, ascending."""
    index = located.documents[span.document]
    piece, (offsets, shift) = located.pieces[index], located.offsets(index)
    bounds = (piece.offset + span.start, piece.offset + span.end)
    return [shift + position for position in evidence_positions(piece.text, offsets, [bounds])]
