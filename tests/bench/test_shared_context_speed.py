"""Questions a second of shared contexts against separate examples: `make bench`, nothing else on.

A training pass, forward and backward, LoRA on attention, bf16 base: 2,048 tokens of context and 8
questions behind it, against the same 8 questions each with the context to itself. Median of
alternating repetitions. SCE_BENCH_TOKENS=512 makes it smaller; nothing is asserted then.
"""

import json
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from sce.data.batch import IGNORE, Batch, collate, collate_shared
from sce.data.encode import Encoded
from sce.model import build
from sce.model.attention import Choice
from sce.options import LoraOptions, ModelOptions

pytestmark = [pytest.mark.real_model, pytest.mark.slow]

TOKENS = int(os.environ.get("SCE_BENCH_TOKENS", "2048"))
COUNT, QUESTION, TARGET = 8, 28, 6
AIM = 4.0


def examples() -> list[Encoded]:
    rng = np.random.default_rng(0)
    context = rng.integers(100, 40_000, TOKENS - QUESTION)
    return [
        Encoded(
            id=str(n),
            task="mdqa",
            prompt_ids=np.concatenate(
                [context, [50 + n], rng.integers(100, 40_000, QUESTION - 1)]
            ).astype(np.int32),
            target_ids=rng.integers(100, 40_000, TARGET).astype(np.int32),
            end_id=2,
            evidence=np.arange(20, 60, dtype=np.int32),
            answers=("",),
            needles=np.zeros(40, dtype=np.int32),
            cited=np.full(TARGET, -1, dtype=np.int32),
        )
        for n in range(COUNT)
    ]


def passing(model, batches: list[Batch]) -> Callable[[], float]:
    """Seconds of forward and backward passes over all batches."""

    def run() -> float:
        started = time.perf_counter()
        for batch in batches:
            logits = model(**batch.inputs, use_cache=False).logits
            batch.check_pass(model)
            torch.nn.functional.cross_entropy(
                logits.flatten(0, 1).float(),
                batch.labels.flatten(),
                ignore_index=IGNORE,
                reduction="sum",
            ).backward()
        model.zero_grad()
        return time.perf_counter() - started

    return run


def test_shared_contexts_against_separate_examples(real_source):
    base = build.load_model(real_source, ModelOptions(), Choice("sdpa", "bench"))
    model = build.add_lora(base, LoraOptions()).train()
    made = examples()
    shared = passing(model, [collate_shared([made])])
    separate = passing(model, [collate([example]) for example in made])
    shared()
    ratios, rates = [], []
    for turn in range(3 if TOKENS >= 2048 else 1):
        runs = [("shared", shared), ("separate", separate)]
        found = {name: run() for name, run in (runs if turn % 2 else reversed(runs))}
        ratios.append(found["separate"] / found["shared"])
        rates.append(COUNT / found["shared"])
    row = {
        "tokens": TOKENS,
        "questions": COUNT,
        "threads": torch.get_num_threads(),
        "questions_per_s": statistics.median(rates),
        "times_separate": statistics.median(ratios),
    }
    print(f"\n{'tokens':>7} {'k':>3} {'questions/s':>12} {'times separate':>15}")
    print("{tokens:7} {questions:3} {questions_per_s:12.2f} {times_separate:15.2f}".format(**row))
    print(json.dumps(row))
    if TOKENS >= 2048:
        assert row["times_separate"] >= AIM
