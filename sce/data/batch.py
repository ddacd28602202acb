"""Batches: prompts padded on the left, so that all answers begin in the same column.

    [ padding | prompt 1 ][ target 1      ]
    [       prompt 2     ][ target 2 | pad]
                         ^ column num_prompt: every example's first answer token

Left padding keeps the cache contiguous, lets `logits_to_keep` take the answer's columns alone, and
is what decoding goes on from. Examples that share a context stand behind it one after the other,
each in columns of its own that are padded in the same manner:

    [ padding | context ][ padding | question 1 ][ target 1 | padding ][ padding | question 2 ] ...
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from sce.data.encode import Encoded
from sce.errors import InputError

IGNORE = -100


@dataclass(frozen=True, eq=False)
class Suffixes:
    """Where the questions and targets behind a shared context stand, in columns.

    Travels through the model's forward pass to sce.model.attention, which keeps them apart.
    """

    num_context: int
    """Columns of the context; the first suffix begins there."""
    width: int
    """Columns of one suffix: its question, and its target but for the end of the turn."""
    position_ids: Int[Tensor, "batch tokens"]
    """After the context every suffix counts on from there."""
    answers: Int[Tensor, " answers"]
    """Columns from which the labels are told, of one suffix after the other."""
    num_tokens: int
    """Real tokens."""
    layers: set[int] = field(default_factory=set)
    """Layers whose attention has kept the suffixes apart in this pass."""

    def to(self, device: torch.device) -> "Suffixes":
        """The same with its tensors on `device`."""
        return replace(
            self, position_ids=self.position_ids.to(device), answers=self.answers.to(device)
        )

    def check(self, model: Any) -> None:
        """Forget the pass that was made, if every layer kept the suffixes apart.

        Raises:
            InputError: some layer did not, so that questions saw each other.
        """
        num_layers = model.config.get_text_config().num_hidden_layers
        seen = len(self.layers)
        self.layers.clear()
        if seen != num_layers:
            raise InputError(
                f"data.questions_per_context: {seen} of this model's {num_layers} layers can keep "
                "questions apart; use data.questions_per_context=1"
            )


@dataclass
class Batch:
    """Examples side by side; `labels` are the answer's columns: target, end of turn, IGNORE."""

    input_ids: Int[Tensor, "batch tokens"]
    attention_mask: Int[Tensor, "batch tokens"] | None
    """1 for real tokens; None when there is no padding on the left."""
    position_ids: Int[Tensor, "batch tokens"]
    labels: Int[Tensor, "batch answer"]
    examples: list[Encoded]
    weights: list[int]
    """0 for examples that only fill the batch up, so that every rank makes the same passes."""
    suffixes: Suffixes | None = None
    """Set where a row is a context and all its questions; `examples` are then several a row."""

    @property
    def inputs(self) -> dict[str, Any]:
        """What a training pass is given; its logits are those of `labels`."""
        inputs = {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
        }
        if self.suffixes is None:
            return {**inputs, "logits_to_keep": self.labels.shape[1]}
        return {**inputs, "logits_to_keep": self.suffixes.answers, "suffixes": self.suffixes}

    def check_pass(self, model: Any) -> None:
        """Raise `InputError` if questions that share a context saw each other in the last pass."""
        if self.suffixes is not None:
            self.suffixes.check(model)

    @property
    def num_prompt(self) -> int:
        """Columns of the padded prompts."""
        return self.input_ids.shape[1] - self.labels.shape[1] + 1

    @property
    def num_labels(self) -> int:
        """Tokens that the loss is taken over."""
        return sum(len(example.target_ids) + 1 for example in self.examples)

    @property
    def num_tokens(self) -> int:
        """Real tokens fed to the model; a shared context counts once."""
        if self.suffixes is not None:
            return self.suffixes.num_tokens
        return sum(example.num_tokens for example in self.examples)

    @property
    def padding(self) -> list[int]:
        """Columns of padding before each prompt."""
        return [self.num_prompt - len(example.prompt_ids) for example in self.examples]

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on `device`."""
        mask = None if self.attention_mask is None else self.attention_mask.to(device)
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            attention_mask=mask,
            position_ids=self.position_ids.to(device),
            labels=self.labels.to(device),
            suffixes=None if self.suffixes is None else self.suffixes.to(device),
        )


def collate(examples: Sequence[Encoded], weights: Sequence[int] | None = None) -> Batch:
    """Pad examples into a batch; the last label needs no input, so the end of turn is not fed."""
    num_prompt = max(len(example.prompt_ids) for example in examples)
    num_answer = max(len(example.target_ids) + 1 for example in examples)
    shape = (len(examples), num_prompt + num_answer - 1)
    input_ids = torch.zeros(shape, dtype=torch.long)
    mask = torch.ones(shape, dtype=torch.long)
    labels = torch.full((len(examples), num_answer), IGNORE)
    for row, example in enumerate(examples):
        start = num_prompt - len(example.prompt_ids)
        target = torch.from_numpy(example.target_ids).long()
        mask[row, :start] = 0
        input_ids[row, start:num_prompt] = torch.from_numpy(example.prompt_ids).long()
        input_ids[row, num_prompt : num_prompt + len(target)] = target
        labels[row, : len(target)] = target
        labels[row, len(target)] = example.end_id
    return Batch(
        input_ids=input_ids,
        attention_mask=mask if bool((mask == 0).any()) else None,
        position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
        labels=labels,
        examples=list(examples),
        weights=list(weights) if weights is not None else [1] * len(examples),
    )


def collate_shared(contexts: Sequence[Sequence[Encoded]]) -> Batch:
    """A row for each context: what its examples' prompts have in common, then each one's rest.

    Every example sees the very tokens, at the very positions, that it has by itself.

    Args:
        contexts: as many examples for each.
    """
    starts = [_num_common([example.prompt_ids for example in group]) for group in contexts]
    examples = [example for group in contexts for example in group]
    rests = [len(e.prompt_ids) - n for n, g in zip(starts, contexts, strict=True) for e in g]
    num_context, num_rest, count = max(starts), max(rests), len(contexts[0])
    num_answer = max(len(example.target_ids) + 1 for example in examples)
    width = num_rest + num_answer - 1
    columns = num_context + count * width
    rows = torch.zeros(3, len(contexts), columns, dtype=torch.long)
    labels = torch.full((len(contexts), count, num_answer), IGNORE)
    for row, (group, start) in enumerate(zip(contexts, starts, strict=True)):
        _put(rows[:, row, num_context - start :], group[0].prompt_ids[:start], 0)
        for number, example in enumerate(group):
            fed = np.concatenate([example.prompt_ids[start:], example.target_ids])
            answer = num_context + number * width + num_rest
            _put(rows[:, row, answer - len(example.prompt_ids) + start :], fed, start)
            told = [*example.target_ids.tolist(), example.end_id]
            labels[row, number, : len(told)] = torch.tensor(told)
    input_ids, position_ids, mask = rows.unbind()
    firsts = num_context + num_rest - 1 + width * torch.arange(count)
    answers = (firsts[:, None] + torch.arange(num_answer)).flatten()
    suffixes = Suffixes(num_context, width, position_ids, answers, int(mask.sum()))
    # The mask is given even where all tokens are real: without one, transformers takes positions
    # that begin anew for sequences that have nothing to do with each other.
    return Batch(
        input_ids=input_ids,
        attention_mask=mask,
        position_ids=position_ids,
        labels=labels.flatten(1),
        examples=examples,
        weights=[1] * len(examples),
        suffixes=suffixes,
    )


def _put(row: Int[Tensor, "3 columns"], ids: np.ndarray, position: int) -> None:
    """Write tokens from the row's first column on: ids, positions, and that they are real."""
    row[0, : len(ids)] = torch.from_numpy(ids).long()
    row[1, : len(ids)] = torch.arange(position, position + len(ids))
    row[2, : len(ids)] = 1


def _num_common(prompts: Sequence[np.ndarray]) -> int:
    """Tokens that all prompts begin with; a token of each is left, to tell its answer from."""
    most = min(len(ids) for ids in prompts) - 1
    same = np.logical_and.reduce([ids[:most] == prompts[0][:most] for ids in prompts])
    return most if same.all() else int(same.argmin())


def deal_batches(lengths: Sequence[int], batch_size: int, world_size: int) -> list[list[int]]:
    """Batches of fixed composition, examples of like length together, one list of indices a batch.

    The number of batches is a multiple of `world_size`; batches that only fill up are empty.
    """
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return batches + [[] for _ in range(-len(batches) % world_size)]
