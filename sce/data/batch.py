"""Batches: prompts padded on the left, so that all answers begin in the same column.

    [ padding | prompt 1 ][ target 1      ]
    [       prompt 2     ][ target 2 | pad]
                         ^ column num_prompt: every example's first answer token

Left padding keeps the cache contiguous, lets `logits_to_keep` take the answer's columns alone, and
is what decoding goes on from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from sce.data.encode import Encoded

IGNORE = -100


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
        """Real tokens fed to the model."""
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


def deal_batches(lengths: Sequence[int], batch_size: int, world_size: int) -> list[list[int]]:
    """Batches of fixed composition, examples of like length together, one list of indices a batch.

    The number of batches is a multiple of `world_size`; batches that only fill up are empty.
    """
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return batches + [[] for _ in range(-len(batches) % world_size)]
