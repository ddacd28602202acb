"""`Trace`: where every head looked while one answer was emitted. What all argmax scorers read."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class Trace:
    """One example's answer steps. Positions count from the prompt's first token."""

    looked_at: Int[Tensor, "layers heads steps"]
    """j*_t(h): the visible position with the largest attention at the step that emits token t.

    Outside the prompt (the answer so far, or nothing) it is any number that is no prompt position.
    """
    emitted: Int[Tensor, " steps"]
    """y_t: the answer's tokens (teacher_forced: the gold answer's; greedy: what was emitted)."""
    prompt: Int[Tensor, " prompt"]
    """The prompt's tokens, in the same numbering as `emitted` (see `canonical_ids`)."""
    evidence: Int[Tensor, " evidence"]
    """Prompt positions of the evidence E, ascending."""

    @cached_property
    def copied(self) -> Bool[Tensor, "layers heads steps"]:
        """Whether j*_t(h) lies in E and holds the token y_t."""
        in_prompt = (self.looked_at >= 0) & (self.looked_at < len(self.prompt))
        position = self.looked_at.clamp(0, len(self.prompt) - 1)
        is_evidence = torch.zeros(len(self.prompt), dtype=torch.bool, device=self.prompt.device)
        is_evidence[self.evidence] = True
        same = (self.prompt[position] == self.emitted) & (self.emitted >= 0)
        return in_prompt & is_evidence[position] & same


def canonical_ids(surfaces: list[str]) -> Int[Tensor, " vocabulary"]:
    """For match=surface: a number for every token id, equal where the stripped text is equal.

    Args:
        surfaces: the text of every token of the vocabulary.

    Returns:
        The table; -1 for tokens of white space alone, which match nothing (`Trace.copied`).
    """
    numbers: dict[str, int] = {}
    table = []
    for index, surface in enumerate(surfaces):
        text = surface.strip()
        if "\ufffd" in text:  # part of a character: such tokens have no text to compare
            text = f"\ufffd{index}"
        table.append(numbers.setdefault(text, len(numbers)) if text else -1)
    return torch.tensor(table, dtype=torch.long)
