"""The chat template: what stands before and after the user's text, and what ends a reply."""

from dataclasses import dataclass
from typing import Self

from transformers import PreTrainedTokenizerBase

from sce.errors import InputError

_BODY, _REPLY = "<<sce-body>>", "<<sce-reply>>"


@dataclass(frozen=True)
class Turn:
    """One user's turn, for one tokenizer."""

    before: str
    """What the template puts before the user's text."""
    after: str
    """What it puts after it, up to where the assistant's reply begins."""
    end_id: int
    """The first token after a reply, else the end of the sequence."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Self:
        """Read off the tokenizer.

        Raises:
            InputError: its template alters the user's text, or nothing ends a reply.
        """
        if tokenizer.chat_template is None:
            starts = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
            before, after = (str(tokenizer.bos_token) if starts else ""), "\n\n"
        else:
            messages = [{"role": "user", "content": _BODY}]
            parts = _rendered(tokenizer, messages, generate=True).split(_BODY)
            if len(parts) != 2:
                raise InputError(
                    f"{tokenizer.name_or_path}: "
                    "its chat template does not show the user's text once"
                )
            before, after = parts
        return cls(before, after, _end_of_turn(tokenizer))


def _rendered(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, generate: bool
) -> str:
    # enable_thinking: Qwen3's switch; date_string: Llama 3's day, or every day would have a prompt
    # of its own. Templates without them ignore the names.
    return tokenizer.apply_chat_template(  # type: ignore[return-value]
        messages,
        tokenize=False,
        add_generation_prompt=generate,
        enable_thinking=False,
        date_string="01 Jan 2026",
    )


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    if tokenizer.chat_template is not None:
        turns = [{"role": "user", "content": _BODY}, {"role": "assistant", "content": _REPLY}]
        tail = _rendered(tokenizer, turns, generate=False).partition(_REPLY)[2]
        ids = tokenizer(tail, add_special_tokens=False)["input_ids"]
        if ids and ids[0] in tokenizer.all_special_ids:
            return int(ids[0])
    if tokenizer.eos_token_id is None:
        raise InputError(f"{tokenizer.name_or_path}: no token ends an answer (no eos_token)")
    return int(tokenizer.eos_token_id)  # pyright: ignore[reportArgumentType]
