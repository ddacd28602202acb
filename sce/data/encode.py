"""From an `Example` to token ids with the positions of the evidence: the one place that tokenizes.

The prompt is built as text once, in pieces whose documents know where they begin, and tokenized
with the tokenizer's own offset mapping. Nothing is searched for and nothing is decoded and
re-encoded. The prompt ends, inside the assistant's turn, with `Answer:`, and the target begins with
a space, so that an answer's first token can be the very token that stands in the context.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from sce.data import prompt
from sce.data.example import Document, Example, Span
from sce.data.join import Joiner
from sce.data.prompt import Piece
from sce.errors import InputError

OPENING = "Answer:"
_BODY, _REPLY = "<<sce-body>>", "<<sce-reply>>"


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
        self._prefix, self._suffix = self._template()
        self.end_id = self._end_of_turn()

    def _chat(self, messages: list[dict[str, str]], generate: bool) -> str:
        # enable_thinking: Qwen3's switch; date_string: Llama 3's day, or every day would have a
        # prompt of its own. Templates without them ignore the names.
        return self.tokenizer.apply_chat_template(  # type: ignore[return-value]
            messages,
            tokenize=False,
            add_generation_prompt=generate,
            enable_thinking=False,
            date_string="01 Jan 2026",
        )

    def _template(self) -> tuple[str, str]:
        """What the chat template puts before and after the user's text."""
        if self.tokenizer.chat_template is None:
            starts = self.tokenizer("a")["input_ids"][0] == self.tokenizer.bos_token_id
            return (str(self.tokenizer.bos_token) if starts else ""), f"\n\n{OPENING}"
        parts = self._chat([{"role": "user", "content": _BODY}], generate=True).split(_BODY)
        if len(parts) != 2:
            raise InputError(
                f"{self.tokenizer.name_or_path}: "
                "its chat template does not show the user's text once"
            )
        return parts[0], parts[1] + OPENING

    def _end_of_turn(self) -> int:
        """The first token after an assistant's reply, else the end of the sequence."""
        if self.tokenizer.chat_template is not None:
            turns = [{"role": "user", "content": _BODY}, {"role": "assistant", "content": _REPLY}]
            tail = self._chat(turns, generate=False).partition(_REPLY)[2]
            ids = self.tokenizer(tail, add_special_tokens=False)["input_ids"]
            if ids and ids[0] in self.tokenizer.all_special_ids:
                return int(ids[0])
        if self.tokenizer.eos_token_id is None:
            raise InputError(
                f"{self.tokenizer.name_or_path}: no token ends an answer (no eos_token)"
            )
        return int(self.tokenizer.eos_token_id)  # pyright: ignore[reportArgumentType]

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
        ids = self._joiner.join(pieces)
        if ids is None:
            ids, offsets = self._whole(pieces)
            positions = _in_whole(pieces, offsets, example.evidence)
            before, last = ids, Piece("".join(piece.text for piece in pieces), "", "")
        else:
            positions = self._in_pieces(pieces, example.evidence)
            before, last = self._joiner.ids(pieces[-1]), pieces[-1]
        for span, found in zip(example.evidence, positions, strict=True):
            if not found:
                raise InputError(
                    f"example {example.id}: no token of the prompt covers its evidence "
                    f"{span.start}..{span.end} of document {span.document}"
                )
        needle_of = {p: n for n in reversed(range(len(positions))) for p in positions[n]}
        evidence = sorted(needle_of)
        target_ids, cited = self._target(example, last, before)  # type: ignore[arg-type]
        return Encoded(
            id=example.id,
            task=example.task,
            prompt_ids=ids,
            target_ids=target_ids,
            end_id=self.end_id,
            evidence=np.asarray(evidence, dtype=np.int32),
            answers=example.gold,
            needles=np.asarray([needle_of[p] for p in evidence], dtype=np.int32),
            cited=cited,
        )

    def _in_pieces(self, pieces: Sequence[Piece], evidence: Sequence[Span]) -> list[list[int]]:
        """Prompt positions of every span, through the offsets of its document's piece alone."""
        starts = np.cumsum([0, *(len(self._joiner.ids(p)) for p in pieces)])  # type: ignore[arg-type]
        at = {piece.document: n for n, piece in enumerate(pieces) if piece.document is not None}
        offsets = {}
        found = []
        for span in evidence:
            index = at[span.document]
            piece = pieces[index]
            if index not in offsets:
                offsets[index] = self._joiner.offsets(piece)
            bounds = (piece.offset + span.start, piece.offset + span.end)
            positions = evidence_positions(piece.text, offsets[index], [bounds])
            found.append([int(starts[index]) + position for position in positions])
        return found

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


def _in_whole(
    pieces: Sequence[Piece], offsets: list[tuple[int, int]], evidence: Sequence[Span]
) -> list[list[int]]:
    """Prompt positions of every span, through the offsets of the whole prompt."""
    text = "".join(piece.text for piece in pieces)
    begins, at = {}, 0
    for piece in pieces:
        if piece.document is not None:
            begins[piece.document] = at + piece.offset
        at += len(piece.text)
    bounds = [(begins[s.document] + s.start, begins[s.document] + s.end) for s in evidence]
    return [evidence_positions(text, offsets, [bound]) for bound in bounds]


def evidence_positions(
    text: str, offsets: list[tuple[int, int]], spans: list[tuple[int, int]]
) -> list[int]:
    """Tokens that overlap a span by more than white space or punctuation, ascending.

    Args:
        text: what was tokenized.
        offsets: (start, end) characters of every token, as the tokenizer gives them.
        spans: (start, end) characters of the evidence.
    """
    bounds = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
    positions = set()
    for start, end in spans:
        for position in np.flatnonzero((bounds[:, 0] < end) & (start < bounds[:, 1])).tolist():
            overlap = text[max(start, bounds[position, 0]) : min(end, bounds[position, 1])]
            if any(_is_content(character) for character in overlap):
                positions.add(position)
    return sorted(positions)


def _is_content(character: str) -> bool:
    """Neither white space nor punctuation (Unicode categories Z, C and P)."""
    return not character.isspace() and unicodedata.category(character)[0] not in "ZPC"
