"""A needle in a long text: one sentence at a given depth (Kamradt 2023, Wu et al. 2024 sec. 2).

A row holds `needle` (the sentence), `question`, and `real_needle` or `answer` (the words of the
needle that answer it); Wu et al.'s own files have these names. The text around it is any .txt file
and is taken from its beginning, paragraph by paragraph, as their protocol does.
"""

import gzip
import textwrap
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sce.data.encode import Encoder
from sce.data.example import Document, Example, Span
from sce.data.fields import as_id, as_text
from sce.data.text import holds_answer, occurrences, sentence_spans
from sce.errors import InputError

# Paragraphs are cut here, so that the text's length can be met to within one of them.
_MAX_SENTENCES = 4
_MAX_CHARACTERS = 800


def from_needle(row: Mapping[str, Any], row_id: str) -> Example:
    """A needle alone: an Example whose one document is the sentence itself.

    Raises:
        InputError: a field is missing or of the wrong type, or the answer does not stand in the
            needle.
    """
    try:
        row_id = as_id(row.get("id"), "id", row_id)
        sentence = as_text(row.get("needle"), "needle").strip()
        question = as_text(row.get("question"), "question").strip()
        answer = as_text(row.get("real_needle"), "real_needle", "")
        answer = (answer or as_text(row.get("answer"), "answer")).strip().rstrip(".")
    except InputError as error:
        raise InputError(f"not a needle ({error}); it has needle, question, real_needle") from None
    found = occurrences(sentence, answer) or occurrences(sentence, answer, loosely=True)
    if not found:
        raise InputError(f"the answer {answer!r:.60} does not stand in the needle")
    # As it stands in the needle: a published answer may differ in its first letter's case.
    answers = tuple(dict.fromkeys((sentence[found[0][0] : found[0][1]], answer)))
    example = Example(
        id=row_id,
        task="needle",
        documents=(Document("needle", "", sentence),),
        question=question,
        answers=answers,
        evidence=(Span("needle", 0, len(sentence)),),
    )
    example.check()
    return example


def read_text(paths: Sequence[str]) -> list[Document]:
    """The paragraphs of some .txt files (plain or .gz), in the given order.

    Raises:
        InputError: a file is missing, empty or no UTF-8 text.
    """
    paragraphs = []
    for path in paths:
        try:
            file = Path(path).expanduser()
            data = file.read_bytes()
            text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8-sig")
        except (OSError, EOFError, RuntimeError, zlib.error, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as text ({error})") from None
        if not text.strip():
            raise InputError(f"{path}: no text in it")
        paragraphs += as_paragraphs(text.replace("\r\n", "\n"))
    return [Document(f"p{number}", "", text) for number, text in enumerate(paragraphs)]


def as_paragraphs(text: str) -> list[str]:
    """A text in runs of a few sentences; lines that were wrapped are joined."""
    runs = []
    for block in text.split("\n\n"):
        block = " ".join(block.split())
        spans = sentence_spans(block)
        for first in range(0, len(spans), _MAX_SENTENCES):
            chosen = spans[first : first + _MAX_SENTENCES]
            run = block[chosen[0][0] : chosen[-1][1]]
            runs += textwrap.wrap(run, _MAX_CHARACTERS) if len(run) > _MAX_CHARACTERS else [run]
    return runs


def insert(example: Example, text: Sequence[Document], depth: float) -> Example:
    """The needle between two sentences of a text, with `depth` of its characters before it.

    Raises:
        InputError: the text holds the needle's answer.
    """
    if any(holds_answer(paragraph.text, example.answers) for paragraph in text):
        raise InputError(f"example {example.id}: the text around it holds its answer")
    needle = example.evidence_texts()[0]
    if not text:
        return example
    index, paragraph = 0, text[0]
    target = depth * sum(len(paragraph.text) for paragraph in text)
    before = 0
    for index, paragraph in enumerate(text):
        if before + len(paragraph.text) >= target or index == len(text) - 1:
            break
        before += len(paragraph.text)
    cuts = [0, *(end for _, end in sentence_spans(paragraph.text))]
    cut = min(cuts, key=lambda c: abs(before + c - target))
    head, tail = paragraph.text[:cut].rstrip(), paragraph.text[cut:].lstrip()
    start = len(head) + 1 if head else 0
    joined = " ".join(part for part in (head, needle, tail) if part)
    host = Document(paragraph.id, "", joined)
    return replace(
        example,
        documents=(*text[:index], host, *text[index + 1 :]),
        evidence=(Span(host.id, start, start + len(needle)),),
    )


@dataclass(frozen=True)
class Grid:
    """Examples over needles x depths x lengths, needles first; beyond the grid it starts again.

    Without depths an example's depth is drawn uniformly from (seed, example).
    """

    needles: Sequence[Example] = field(repr=False)
    text: Sequence[Document] = field(repr=False)
    lengths: Sequence[int | None]
    depths: Sequence[float] | None
    encoder: Encoder = field(repr=False)
    seed: int
    split: str

    def __len__(self) -> int:
        return len(self.needles) * len(self.depths or (0,)) * len(self.lengths)

    def example(self, index: int) -> Example:
        """Example `index`; its meta holds the depth and the length asked for."""
        rest, which = divmod(index, len(self.needles))
        rest, at = divmod(rest, len(self.depths or (0,)))
        length = self.lengths[rest % len(self.lengths)]
        if self.depths is None:
            depth = float(np.random.default_rng([self.seed, index, *self.split.encode()]).random())
        else:
            depth = self.depths[at]
        example = self.needles[which]
        meta = {"depth": round(depth, 4), "length": length}
        name = f"{example.id}-{index}"
        return self._surround(replace(example, id=name, meta=meta), depth, length)

    def _surround(self, example: Example, depth: float, length: int | None) -> Example:
        """As much of the text, from its beginning, as the length allows."""
        if length is None:
            return insert(example, self.text, depth)
        tokens = self.encoder.num_prompt_tokens(example)
        if tokens > length:
            raise InputError(f"example {example.id}: the needle alone takes {tokens} prompt tokens")
        taken = 0
        for paragraph in self.text:
            tokens += self.encoder.num_document_tokens(paragraph, 1, "needle")
            if tokens > length:
                break
            taken += 1
        else:
            raise InputError(
                f"example {example.id}: the text has only {tokens} tokens, too few for {length}; "
                "name longer ones in data.haystack"
            )
        while True:  # one paragraph fewer each time, down to none
            composed = insert(example, self.text[:taken], depth)
            if taken and self.encoder.num_prompt_tokens(composed) <= length:
                return composed
            if taken == 0:
                raise InputError(f"example {example.id}: {length} tokens leave no room for text")
            taken -= 1
