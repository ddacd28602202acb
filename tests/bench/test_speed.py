"""The speed claims, each as a ratio within one process: `make bench`, with nothing else running.

Medians of alternating repetitions on the default model. Not part of the test suite: a number from a
busy machine says nothing.
"""

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from sce.data.batch import collate
from sce.data.encode import Encoded
from sce.decode import DecodeSettings, _Run, decode
from sce.model import build
from sce.model.attention import Choice
from sce.model.capture import probing
from sce.model.projections import attention_modules
from sce.options import ModelOptions
from sce.tracing import Tracer

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
                needles=np.zeros(40, dtype=np.int32),
                cited=np.full(target, -1, dtype=np.int32),
            )
            for n in range(size)
        ]
    )


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def ratio(rounds: int, on: Callable[[], object], off: Callable[[], object]) -> tuple[float, float]:
    """Median of on / off over rounds, and the median seconds of `off`.

    Each round runs one right after the other, in turns first and second, so that neither a slow
    spell nor the order favours one. The first round warms up.
    """
    ratios, base = [], []
    for turn in range(rounds + 1):
        runs = {"on": on, "off": off} if turn % 2 else {"off": off, "on": on}
        found = {name: seconds(run) for name, run in runs.items()}
        ratios.append(found["on"] / found["off"])
        base.append(found["off"])
    return statistics.median(ratios[1:]), statistics.median(base[1:])


STEPS = 16
ARGMAX = ("copy", "copy_needle", "insight", "wu2024_code")
ON = DecodeSettings(
    max_new_tokens=STEPS + 1,
    fixed_steps=True,
    scorers=ARGMAX,
    modes=("greedy",),
    detokenize=lambda ids: " ".join(str(token) for token in ids),
)
OFF = replace(ON, scorers=())


def prefilled(model, data) -> DynamicCache:
    cache = DynamicCache()
    with torch.no_grad():
        model(input_ids=data.input_ids[:, : data.num_prompt], past_key_values=cache, use_cache=True)
    return cache


def decoding(model, data, cache: DynamicCache, settings: DecodeSettings) -> Callable[[], object]:
    """The decoding loop alone, from a copy of a filled cache."""
    token = torch.full((len(data.examples),), 1000)

    def run() -> object:
        filled = copy.deepcopy(cache)
        tracer = Tracer(model, data, settings) if settings.scorers else None
        modules = attention_modules(model) if tracer else []
        if tracer is not None:  # what the prefill's last row would have found
            tracer.keep("greedy", {"looked_at": torch.zeros(8, 30, 9, 1, dtype=torch.long)})
        with torch.no_grad(), probing(modules) as probe:
            answers = _Run(model, data, settings, tracer, probe).generate(filled, token)
        if tracer is not None:
            for row, answer in enumerate(answers):
                tracer.scores(row, answer)
        return answers

    return run


def test_greedy_decoding_with_scores_against_without_and_against_generate(model):
    """Batch of 8, 2,048 tokens in the cache, 16 steps."""
    data = batch(8, 2048)
    cache = prefilled(model, data)

    def generate() -> object:
        model.set_attn_implementation("sdpa")
        with torch.no_grad():
            tokens = torch.cat([data.input_ids[:, : data.num_prompt], torch.full((8, 1), 1000)], 1)
            out = model.generate(
                input_ids=tokens,
                past_key_values=copy.deepcopy(cache),
                max_new_tokens=STEPS,
                min_new_tokens=STEPS,
                do_sample=False,
                pad_token_id=2,
            )
        model.set_attn_implementation("sce_fused")
        return out

    on = decoding(model, data, cache, ON)
    cost, off_s = ratio(24, on, decoding(model, data, cache, OFF))
    against_generate, generate_s = ratio(4, on, generate)
    print(f"\nms a step: {1000 * off_s / STEPS:.0f}, generate {1000 * generate_s / STEPS:.0f}")
    print(f"scores on / off: {cost:.3f}")
    print(f"scores on / generate: {against_generate:.3f}")
    assert cost <= 1.03
    assert against_generate <= 1


def test_a_teacher_forced_forward_with_scores_against_without(model):
    """8,192 tokens, 8 scored rows: all scorers that look, and `ov_write`."""
    data = batch(1, 8192)
    argmax = DecodeSettings(max_new_tokens=0, scorers=ARGMAX, modes=("teacher_forced",))
    write, off = replace(argmax, scorers=("ov_write",)), replace(argmax, scorers=())
    for name, settings, most, rounds in (("argmax", argmax, 1.01, 12), ("ov_write", write, 1.1, 6)):
        cost, off_s = ratio(
            rounds,
            lambda settings=settings: decode(model, data, settings),
            lambda: decode(model, data, off),
        )
        print(f"\nteacher-forced forward: {off_s:.2f} s, {name} on / off: {cost:.3f}")
        assert cost <= most
