"""What scoring costs: beside no scores, beside `generate`, and beside detection the published way.

    python tests/bench/scoring.py [--small] [--json OUT] [--parts loop,detection]

generate        greedy decoding with scores / transformers' own `generate` without, same examples
                and batch: the steps alone after a filled cache, and whole, prompt included
loop            the same loop with scores of all looking scorers / without, steps alone
teacher_forced  the forward of prompt and gold answer with the looking scorers / without
ov_write        the same for `ov_write`
query_focused   the same for `query_focused`, the pass of the null question included
patching        all heads patched / plain decoding, with the context and after it
detection       seconds an example and peak memory beside eager decoding with
                `output_attentions=True`, each configuration in a process of its own

Ratios are of runs one right after the other in one process, in turns first and second; medians and
quartiles over rounds.
"""

import argparse
import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import detection
import machine
import patching
import torch
from timing import paired
from transformers import DynamicCache
from workload import base_model, batch

from sce.data.batch import Batch
from sce.decode import DecodeSettings, _Run, decode
from sce.model.build import head_shape
from sce.model.capture import probing
from sce.model.projections import attention_modules
from sce.tracing import Tracer

ARGMAX = ("copy", "copy_needle", "insight", "wu2024_code")
COLUMNS = "what ratio low high rounds on_s off_s".split()


@dataclass(frozen=True)
class Sizes:
    """How large, how often."""

    batch: int = 8
    tokens: int = 2048
    steps: int = 16
    """Tokens that are emitted."""
    forwards: tuple[int, ...] = (4096, 8192)
    rounds: int = 12


SMALL = Sizes(2, 64, 3, (64, 96), 2)


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Every part in a process of its own."""
    rows: list[dict] = []
    found: dict[str, Any] = {}
    for part in options.parts.split(","):
        if part == "detection":
            sizes = detection.SMALL if options.small else detection.Sizes()
            found |= detection.compare(__file__, options.model, sizes)
            continue
        spec = {"part": part, "small": options.small, "model": options.model}
        spec["rounds"] = options.rounds
        result = machine.isolated(__file__, spec)
        rows += result.get("rows", [{"what": part, **result}])
        machine.print_table(part, result.get("rows", [result]), COLUMNS)
    machine.print_table("ratios: on / off", rows, COLUMNS)
    return {**found, "rows": rows, "aims": [] if options.small else _aims(rows, found)}


def _aims(rows: list[dict], found: dict[str, Any]) -> list[dict]:
    by = {row["what"]: row.get("ratio") for row in rows}

    def of(what: str, most: float) -> dict:
        return machine.aim(f"{what}, on / off", by.get(what), most=most)

    last = [r for r in found.get("detection", []) if r["tokens"] == 4096 and r["kind"] == "steps"]
    memory = found.get("exponents", {}).get("ours: memory")
    return [
        of("decoding with scores / generate, steps", 1 / 1.8),
        of("decoding, scores / none", 1.03),
        of("forward of 4096, argmax", 1.01),
        of("forward of 8192, argmax", 1.01),
        of("forward of 8192, ov_write", 1.1),
        of("patching, after the context", 2.2),
        machine.aim(
            "eager detection at 4K, times ours",
            last[0].get("times_ours") if last else None,
            least=10,
        ),
        machine.aim("exponent of ours' memory", memory["exponent"] if memory else None, most=1.1),
    ]


# -- ratios, in a process of their own ------------------------------------------------------------


def worker(spec: dict[str, Any]) -> dict[str, Any]:
    """One part: rows of ratios; or one configuration of the detection."""
    torch.manual_seed(0)
    if "part" not in spec:
        return detection.worker(spec)
    sizes = SMALL if spec["small"] else Sizes()
    sizes = replace(sizes, rounds=spec["rounds"] or sizes.rounds)
    if spec["part"] == "patching":
        model = patching.two_adapters(spec["model"])
        return {"rows": [_patching(model, sizes, shared) for shared in (False, True)]}
    model = base_model(spec["model"])
    parts: dict[str, Callable[[Any, Sizes], list[dict]]] = {
        "generate": _generate,
        "loop": _loop,
        "teacher_forced": partial(_forwards, which="argmax"),
        "ov_write": partial(_forwards, which="ov_write"),
        "query_focused": partial(_forwards, which="query_focused"),
    }
    return {"rows": parts[spec["part"]](model, sizes)}


def _row(what: str, rounds: int, on: Callable[[], object], off: Callable[[], object]) -> dict:
    return {"what": what, **asdict(paired(rounds, on, off))}


def _settings(sizes: Sizes, scorers: tuple[str, ...] = ARGMAX) -> DecodeSettings:
    return DecodeSettings(
        max_new_tokens=sizes.steps + 1,
        fixed_steps=True,
        scorers=scorers,
        modes=("greedy",),
        detokenize=lambda ids: " ".join(str(token) for token in ids),
    )


def _prefilled(model: Any, data: Batch) -> DynamicCache:
    cache, prompt = DynamicCache(), data.input_ids[:, : data.num_prompt]
    with torch.no_grad():
        model(input_ids=prompt, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


def _decoding(
    model: Any, data: Batch, cache: DynamicCache, settings: DecodeSettings
) -> Callable[[], object]:
    """The decoding loop alone, from a copy of a filled cache; tracing and scoring included."""
    token = torch.full((len(data.examples),), 1000)
    first = torch.zeros(len(data.examples), *head_shape(model), 1, dtype=torch.long)

    def run() -> object:
        filled = copy.deepcopy(cache)
        tracer = Tracer(model, data, settings) if settings.scorers else None
        modules = attention_modules(model) if tracer else []
        if tracer is not None:  # what the prefill's last row would have found
            tracer.keep("greedy", {"looked_at": first})
        with torch.no_grad(), probing(modules) as probe:
            answers = _Run(model, data, settings, tracer, probe).generate(filled, token)
        if tracer is not None:
            for row, answer in enumerate(answers):
                tracer.scores(row, answer)
        return answers

    return run


def _generating(
    model: Any, data: Batch, steps: int, cache: DynamicCache | None
) -> Callable[[], object]:
    """transformers' `generate` under its own SDPA, after a copy of a cache or with the prompt."""
    tokens = data.input_ids[:, : data.num_prompt]
    if cache is not None:
        tokens = torch.cat([tokens, torch.full((len(tokens), 1), 1000)], dim=1)

    def run() -> object:
        ours = model.config._attn_implementation
        model.set_attn_implementation("sdpa")
        with torch.no_grad():
            out = model.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                past_key_values=copy.deepcopy(cache),
                max_new_tokens=steps,
                min_new_tokens=steps,
                do_sample=False,
                pad_token_id=2,
            )
        model.set_attn_implementation(ours)
        return out

    return run


def _generate(model: Any, sizes: Sizes) -> list[dict]:
    data = batch(sizes.batch, sizes.tokens)
    cache, rounds = _prefilled(model, data), max(2, sizes.rounds // 3)
    steps = _decoding(model, data, cache, _settings(sizes))
    whole = replace(_settings(sizes), max_new_tokens=sizes.steps)
    name = "decoding with scores / generate"
    return [
        _row(f"{name}, steps", rounds, steps, _generating(model, data, sizes.steps, cache)),
        _row(
            f"{name}, prompt included",
            2,
            lambda: decode(model, data, whole),
            _generating(model, data, sizes.steps, None),
        ),
    ]


def _loop(model: Any, sizes: Sizes) -> list[dict]:
    data = batch(sizes.batch, sizes.tokens)
    cache = _prefilled(model, data)
    on, off = (_decoding(model, data, cache, _settings(sizes, scorers)) for scorers in (ARGMAX, ()))
    return [_row("decoding, scores / none", 2 * sizes.rounds, on, off)]


def _forwards(model: Any, sizes: Sizes, which: str) -> list[dict]:
    """Prompt and gold answer, 8 scored rows, one example; `query_focused` also its null pass."""
    settings = {
        "argmax": DecodeSettings(max_new_tokens=0, scorers=ARGMAX, modes=("teacher_forced",)),
        "ov_write": DecodeSettings(
            max_new_tokens=0, scorers=("ov_write",), modes=("teacher_forced",)
        ),
        "query_focused": DecodeSettings(
            max_new_tokens=0, scorers=("query_focused",), modes=("prefill",)
        ),
    }[which]
    off = replace(settings, scorers=())
    rows = []
    for tokens in sizes.forwards:
        data = batch(1, tokens)
        rows.append(
            _row(
                f"forward of {tokens}, {which}",
                sizes.rounds if which == "argmax" else max(2, sizes.rounds // 2),
                lambda data=data: decode(model, data, settings),
                lambda data=data: decode(model, data, off),
            )
        )
    return rows


def _patching(model: Any, sizes: Sizes, shared: bool) -> dict:
    on, off = patching.pair(
        model, sizes.batch, max(32, sizes.tokens // 2), sizes.steps, shared=shared
    )
    what = "patching, after the context" if shared else "patching, with the context"
    return _row(what, max(2, sizes.rounds // (2 if shared else 3)), on, off)


def add(parser: argparse.ArgumentParser) -> None:
    """Options of this bench alone."""
    every = "generate,loop,teacher_forced,ov_write,query_focused,patching,detection"
    parser.add_argument("--parts", default=every, help="which, by commas")
    parser.add_argument("--rounds", type=int, default=0, help="of each ratio; 0: twelve")


if __name__ == "__main__":
    machine.run(__doc__ or "", bench, worker, add)
