"""What is run: examples of any length whose answer can be copied, and the default model."""

from typing import Any

import numpy as np
import torch
from torch import nn

from sce.data.batch import Batch, collate
from sce.data.encode import Asked, Encoded
from sce.model import build
from sce.model.attention import choose
from sce.model.source import find
from sce.options import LoraOptions, ModelOptions

IDS = (100, 40_000)
"""Range that token ids are drawn from: plain tokens of SmolLM2's vocabulary."""
END = 2


def encoded(number: int, tokens: int, target: int = 8, ids: tuple[int, int] = IDS) -> Encoded:
    """Random tokens, seeded by `number`, in the middle of which a needle stands.

    The prompt ends with the needle's first half (the question) and the answer is what follows it
    there, so that heads that copy have something to copy.
    """
    rng = np.random.default_rng(number)
    prompt = rng.integers(*ids, tokens).astype(np.int32)
    asked = min(20, tokens // 4)
    needle = rng.integers(*ids, asked + target).astype(np.int32)
    start = (tokens - asked - len(needle)) // 2
    prompt[start : start + len(needle)] = needle
    prompt[tokens - asked :] = needle[:asked]
    span = np.asarray([[start, start + len(needle)]], dtype=np.int32)
    return Encoded(
        id=f"{number:04d}",
        task="mdqa",
        prompt_ids=prompt,
        target_ids=needle[asked:],
        end_id=END,
        evidence=np.arange(*span[0], dtype=np.int32),
        answers=("",),
        needles=np.zeros(len(needle), dtype=np.int32),
        cited=np.full(target, -1, dtype=np.int32),
        asked=Asked(
            question=np.asarray([tokens - asked, tokens], dtype=np.int32),
            gold=span,
            null_start=tokens - asked,
            null_ids=rng.integers(*ids, 3).astype(np.int32),
            num_null=3,
        ),
    )


def batch(size: int, tokens: int, target: int = 8, first: int = 0) -> Batch:
    """`size` examples of one length, numbered from `first`."""
    return collate([encoded(first + n, tokens, target) for n in range(size)])


def base_model(name: str, *, recompute: bool = False) -> Any:
    """A frozen model in bfloat16 under our SDPA, in eval mode."""
    options = ModelOptions(name_or_path=name, activation_checkpointing=recompute)
    source = find(options)
    attention = choose("sdpa", on_gpu=False, dtype=options.dtype)
    return build.load_model(source, options, attention).eval()


def adapted_model(name: str, *, recompute: bool = False) -> nn.Module:
    """The same with the default adapter: LoRA of rank 8 on attention, float32, seeded."""
    torch.manual_seed(0)
    return build.add_lora(base_model(name, recompute=recompute), LoraOptions())
