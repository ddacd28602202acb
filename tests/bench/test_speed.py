"""The speed claims, each as a ratio within one process: `make bench`, with nothing else running.

Medians of alternating repetitions on the default model. Not part of the test suite: a number from a
busy machine says nothing.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from sce.data.batch import collate
from sce.data.encode import Encoded
from sce.decode import DecodeSettings, decode
from sce.model import build
from sce.model.attention import Choice
from sce.options import ModelOptions

pytestmark = [pytest.mark.real_model, pytest.mark.slow]


@pytest.fixture(scope="module")
def model(real_source):
    torch.set_num_threads(2)
    return build.load_model(real_source, ModelOptions(), Choice("sdpa", "bench")).eval()


def batch(size: int, tokens: int, target: int = 8):
    rng = np.random.default_rng(0)
    return collate(
        [
            Encoded(
                id=str(n),
                task="mdqa",
                prompt_ids=rng.integers(100, 40_000, tokens).astype(np.int32),
                target_ids=rng.integers(100, 40_000, target).astype(np.int32),
                end_id=2,
                evidence=np.arange(20, 60, dtype=np.int32),
                answers=("",),
            )
            for n in range(size)
        ]
    )


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def medians(repetitions: int, **runs: Callable[[], object]) -> dict[str, float]:
    """Alternating, so that a slow spell hits all of them; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repetitions + 1):
        for name, run in runs.items():
            times[name].append(seconds(run))
    return {name: statistics.median(values[1:]) for name, values in times.items()}


ON = DecodeSettings(max_new_tokens=17, end_ids=frozenset(), fixed_steps=True, modes=("greedy",))
OFF = replace(ON, scorers=())


def test_greedy_decoding_with_scores_against_without_and_against_generate(model):
    """Batch of 8, 2,048 tokens: the 16 steps after the prefill (a pass of 1 token is taken off)."""
    data = batch(8, 2048)
    one_on, one_off = replace(ON, max_new_tokens=1), replace(OFF, max_new_tokens=1)

    def generate(tokens: int):
        model.set_attn_implementation("sdpa")
        with torch.no_grad():
            model.generate(
                input_ids=data.input_ids[:, : data.num_prompt],
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                pad_token_id=2,
            )
        model.set_attn_implementation("sce_sdpa")

    found = medians(
        5,
        on=lambda: decode(model, data, ON),
        off=lambda: decode(model, data, OFF),
        generate=lambda: generate(17),
        one_on=lambda: decode(model, data, one_on),
        one_off=lambda: decode(model, data, one_off),
        one_generate=lambda: generate(1),
    )
    steps = {name: found[name] - found[f"one_{name}"] for name in ("on", "off", "generate")}
    per_step = {name: 1000 * value / 16 for name, value in steps.items()}
    print("\nms a decoding step:", {name: round(value, 1) for name, value in per_step.items()})
    print(f"scores on / off, steps: {steps['on'] / steps['off']:.3f}")
    print(f"scores on / off, prefill and steps: {found['on'] / found['off']:.3f}")
    print(f"scores on / generate, prefill and steps: {found['on'] / found['generate']:.3f}")
    assert steps["on"] <= 1.03 * steps["off"]
    assert found["on"] <= found["generate"]


def test_a_teacher_forced_forward_with_scores_against_without(model):
    """4,096 tokens, 8 scored rows."""
    data = batch(1, 4096)
    settings = DecodeSettings(max_new_tokens=0, modes=("teacher_forced",))
    found = medians(
        9,
        on=lambda: decode(model, data, settings),
        off=lambda: decode(model, data, replace(settings, scorers=())),
    )
    print(f"\nteacher-forced, scores on / off: {found['on'] / found['off']:.3f}")
    assert found["on"] <= 1.01 * found["off"]
