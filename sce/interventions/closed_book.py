"""Questions that need no context: is retrieval gone, or the model as a whole?

The questions that are shipped are of this project's own wording, easy enough for a small model to
know some of, and are asked without any document. Only those that the untouched model answers right
say something of an ablation. They are picked for being right, so any disturbance can only lower
them: read them beside the controls', which are picked alike.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from sce.data.chat import Turn
from sce.data.encode import OPENING, Encoded
from sce.data.fields import as_answers, as_id, as_text
from sce.data.prompt import QUESTION
from sce.data.rows import rows_of
from sce.errors import InputError

SHIPPED = Path(__file__).with_name("closed_book.jsonl")
INSTRUCTION = "Answer the question. Reply with the short answer alone."
TASK = "closed_book"


def closed_book(tokenizer: PreTrainedTokenizerBase, file: Path = SHIPPED) -> list[Encoded]:
    """The questions of a JSON Lines file as prompts without documents.

    A row is {"id", "question", "answers": [...]}; the target is the first answer, and there is no
    evidence.

    Raises:
        InputError: names the row that is none, or whose answer the tokenizer merges with the
            prompt; two rows share an id, or there is none.
    """
    turn = Turn.of(tokenizer)
    encoded: dict[str, Encoded] = {}
    for place, row in rows_of(str(file)):
        try:
            if isinstance(row, InputError):
                raise row
            one = _encoded(tokenizer, turn, row)
        except InputError as error:
            raise InputError(f"closed_book: {place}: {error}") from None
        if one.id in encoded:
            raise InputError(f"closed_book: {place}: the id {one.id} stands there twice")
        encoded[one.id] = one
    if not encoded:
        raise InputError(f"closed_book={file}: no question in it")
    return list(encoded.values())


def _encoded(tokenizer: PreTrainedTokenizerBase, turn: Turn, row: Mapping[str, Any]) -> Encoded:
    name = as_id(row.get("id"), "id")
    answers = as_answers(row.get("answers"))
    text = f"{INSTRUCTION}\n\n{QUESTION}{as_text(row.get('question'), 'question')}"
    prompt = f"{turn.before}{text}{turn.after}{OPENING}"
    alone = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    both = tokenizer(f"{prompt} {answers[0]}", add_special_tokens=False)["input_ids"]
    if both[: len(alone)] != alone or len(both) == len(alone):
        raise InputError(f"this tokenizer merges {OPENING!r} with the answer {answers[0]!r}")
    target = np.asarray(both[len(alone) :], dtype=np.int32)
    return Encoded(
        id=name,
        task=TASK,
        prompt_ids=np.asarray(alone, dtype=np.int32),
        target_ids=target,
        end_id=turn.end_id,
        evidence=np.zeros(0, dtype=np.int32),
        answers=answers,
        needles=np.zeros(0, dtype=np.int32),
        cited=np.full(len(target), -1, dtype=np.int32),
    )
