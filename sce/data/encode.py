"""From an `Example` to token ids with the positions of the evidence: the one place that tokenizes.

The prompt is built as text once, with the character span of every document in it, and tokenized
once with the tokenizer's own offset mapping. Nothing is searched for and nothing is decoded and
re-encoded. The prompt ends, inside the assistant's turn, with `Answer:`, and the target begins with
a space, so that an answer's first token can be the very token that stands in the context.
"""

import hashlib
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from sce.data import mdqa
from sce.data.example import Document, Example, Span
from sce.errors import InputError

OPENING = "Answer:"
_BODY, _REPLY = "<<sce-body>>", "<<sce-reply>>"

_RENDER: dict[str, Callable[[Example], tuple[str, dict[str, int]]]] = {"mdqa": mdqa.render}


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

    @property
    def num_tokens(self) -> int:
        """Tokens fed to the model in training: prompt and target."""
        return len(self.prompt_ids) + len(self.target_ids)


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
        self._prefix, self._suffix = self._template()
        self.end_id = self._end_of_turn()
        self._document_tokens: dict[str, int] = {}

    def _chat(self, messages: list[dict[str, str]], generate: bool) -> str:
        # enable_thinking: Qwen3's switch; templates without it ignore the name.
        return self.tokenizer.apply_chat_template(  # type: ignore[return-value]
            messages, tokenize=False, add_generation_prompt=generate, enable_thinking=False
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
    def prompt_sha256(self) -> str:
        """Identity of everything around the example's own text, by one that has almost none."""
        document = Document("d", "t", "a")
        dummy = Example("x", "mdqa", (document,), "q", ("a",), (Span("d", 0, 1),))
        return hashlib.sha256(self.prompt(dummy)[0].encode()).hexdigest()

    def prompt(self, example: Example) -> tuple[str, dict[str, int]]:
        """The whole prompt and where in it each document's text begins."""
        body, offsets = _RENDER[example.task](example)
        text = self._prefix + body + self._suffix
        return text, {name: at + len(self._prefix) for name, at in offsets.items()}

    def num_prompt_tokens(self, example: Example) -> int:
        """Length of the encoded prompt."""
        return len(self.tokenizer(self.prompt(example)[0], add_special_tokens=False)["input_ids"])

    def num_document_tokens(self, title: str, text: str) -> int:
        """Tokens that a document adds to a prompt, to within a few."""
        key = f"{title}\0{text}"
        if key not in self._document_tokens:
            ids = self.tokenizer(
                f"\nDocument [10] (Title: {title}) {text}", add_special_tokens=False
            )
            self._document_tokens[key] = len(ids["input_ids"])
        return self._document_tokens[key]

    def encode(self, example: Example) -> Encoded:
        """Token ids, and the evidence as token positions.

        Raises:
            InputError: no token of the prompt covers the evidence, or the target would merge with
                the prompt's last token.
        """
        text, offsets = self.prompt(example)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = encoded["input_ids"]
        spans = [
            (offsets[s.document] + s.start, offsets[s.document] + s.end) for s in example.evidence
        ]
        positions = evidence_positions(text, encoded["offset_mapping"], spans)
        if not positions:
            raise InputError(f"example {example.id}: no token of the prompt covers its evidence")
        target = example.target
        whole = self.tokenizer(f"{text} {target}", add_special_tokens=False)["input_ids"]
        if whole[: len(ids)] != ids:
            raise InputError(
                f"example {example.id}: "
                f"this tokenizer merges {OPENING!r} with the answer {target!r}"
            )
        return Encoded(
            id=example.id,
            task=example.task,
            prompt_ids=np.asarray(ids, dtype=np.int32),
            target_ids=np.asarray(whole[len(ids) :], dtype=np.int32),
            end_id=self.end_id,
            evidence=np.asarray(positions, dtype=np.int32),
            answers=example.answers,
        )


def evidence_positions(
    text: str, offsets: list[tuple[int, int]], spans: list[tuple[int, int]]
) -> list[int]:
    """Tokens that overlap a span by more than white space or punctuation, ascending.

    Args:
        text: what was tokenized.
        offsets: (start, end) characters of every token, as the tokenizer gives them.
        spans: (start, end) characters of the evidence.
    """
    positions = set()
    for start, end in spans:
        for position, (token_start, token_end) in enumerate(offsets):
            if token_start < end and start < token_end:
                overlap = text[max(start, token_start) : min(end, token_end)]
                if any(_is_content(character) for character in overlap):
                    positions.add(position)
    return sorted(positions)


def _is_content(character: str) -> bool:
    """Neither white space nor punctuation (Unicode categories Z, C and P)."""
    return not character.isspace() and unicodedata.category(character)[0] not in "ZPC"
