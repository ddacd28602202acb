"""`Trace`: what every head did while one answer was emitted; `Spec`: what a scorer needs of it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

TEACHER_FORCED, GREEDY, PREFILL = "teacher_forced", "greedy", "prefill"


@dataclass(frozen=True)
class Spec:
    """In which modes and tasks a scorer is defined, and what it reads."""

    tau: float
    """A head is in a set if its score is above it, where nothing else is asked for."""
    modes: tuple[str, ...]
    """teacher_forced: the gold answer is fed; greedy: what the model emits; prefill: no answer."""
    tasks: tuple[str, ...] | None = None
    """None: every task."""
    writes: bool = False
    """Whether it reads `Trace.written`."""
    question: bool = False
    """Whether it reads `Trace.mass` and `Trace.null_mass`."""

    def refusal(self, name: str, mode: str, task: str) -> str | None:
        """Why this scorer cannot be used so; None if it can."""
        if mode not in self.modes:
            modes = " or ".join(f"mode={mode}" for mode in self.modes)
            return f"scorer={name} is not defined for mode={mode}; add {modes}"
        if self.tasks is not None and task not in self.tasks:
            tasks = " or ".join(f"data={task}" for task in self.tasks)
            return f"scorer={name} is not defined for data={task}; add {tasks}, or take scorer=copy"
        return None


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
    needles: Int[Tensor, " evidence"] | None = None
    """Which evidence span each position of E belongs to."""
    cited: Int[Tensor, " steps"] | None = None
    """The evidence span of the document whose label y_t is part of; NO_CITATION where it is part of
    none, WRONG_CITATION where that document is not one to cite."""
    pieces: tuple[str, ...] = ()
    """The text of each emitted token by itself."""
    text: Callable[[int], str] | None = None
    """The text of the first so many emitted tokens."""
    answers: tuple[str, ...] = ()
    """The right answers."""
    written: Float[Tensor, "layers heads steps"] | None = None
    """What each head writes along the unembedding of y_t (sce.model.reads.Write)."""
    mass: Float[Tensor, "layers heads"] | None = None
    """Attention from a token of the question to the gold documents, mean over the question."""
    null_mass: Float[Tensor, "layers heads"] | None = None
    """The same under the null question."""

    @cached_property
    def in_evidence(self) -> Bool[Tensor, "layers heads steps"]:
        """Whether j*_t(h) lies in E."""
        return self.span_looked_at >= 0

    @cached_property
    def span_looked_at(self) -> Int[Tensor, "layers heads steps"]:
        """The evidence span that j*_t(h) lies in, else -1; 0 where spans are not told apart."""
        span = torch.full((len(self.prompt),), -1, dtype=torch.long)
        span[self.evidence] = 0 if self.needles is None else self.needles
        in_prompt = (self.looked_at >= 0) & (self.looked_at < len(self.prompt))
        return torch.where(in_prompt, span[self.looked_at.clamp(0, len(self.prompt) - 1)], -1)

    @cached_property
    def copied(self) -> Bool[Tensor, "layers heads steps"]:
        """Whether j*_t(h) lies in E and holds the token y_t."""
        position = self.looked_at.clamp(0, len(self.prompt) - 1)
        same = (self.prompt[position] == self.emitted) & (self.emitted >= 0)
        return self.in_evidence & same


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
