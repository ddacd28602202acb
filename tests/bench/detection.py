"""Retrieval heads found the published way, eager with `output_attentions=True`, beside ours.

`steps` after nightdessert/Retrieval_Head (Wu et al. 2024), retrieval_head_detection.py: the prompt
is read without attentions, then one token at a time with those of all layers, one example at a
time. `whole` after detectors that ask `generate` for all attentions, the prompt's among them
(queries x keys in every layer). Where theirs walk over the heads in Python, all heads of a layer
are taken at once here, which only helps them. A part of scoring.py.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import machine
import torch
from timing import growth
from torch import Tensor
from workload import base_model, encoded

from sce.data.batch import collate
from sce.data.encode import Encoded
from sce.decode import DecodeSettings, decode

COLUMNS = "tokens kind batch s_an_example times_ours peak_gib loaded_gib cosine_with_ours".split()


@dataclass(frozen=True)
class Sizes:
    """How large, how often."""

    lengths: Sequence[int] = (512, 1024, 2048, 4096)
    examples: int = 4
    """Ours takes them one by one, and all at once."""
    steps: int = 16
    """Tokens that are emitted."""


SMALL = Sizes((48, 96), 2, 3)


@torch.no_grad()
def detect(model: Any, example: Encoded, steps: int, how: str) -> Tensor:
    """`copy` of every head on one example, greedy, [layers, heads]; `how` is steps or whole."""
    prompt = torch.from_numpy(example.prompt_ids).long()[None]
    found = _steps(model, prompt, steps) if how == "steps" else _whole(model, prompt, steps)
    tokens, looked_at = found
    evidence = torch.from_numpy(example.evidence).long()
    same = prompt[0][looked_at.clamp(max=prompt.shape[1] - 1)] == tokens
    return (torch.isin(looked_at, evidence) & same).double().mean(dim=-1)


def _steps(model: Any, prompt: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Emitted tokens [steps], and where every head looked most at each [layers, heads, steps]."""
    cache = model(input_ids=prompt[:, :-1], use_cache=True, logits_to_keep=1).past_key_values
    token, emitted, looked_at = prompt[:, -1:], [], []
    for _ in range(steps):
        out = model(input_ids=token, past_key_values=cache, use_cache=True, output_attentions=True)
        token = out.logits[:, -1:].argmax(dim=-1)
        emitted.append(token[0, 0])
        looked_at.append(_most(out.attentions))
    return torch.stack(emitted), torch.stack(looked_at, dim=-1)


def _whole(model: Any, prompt: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    out = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=steps,
        min_new_tokens=steps,
        do_sample=False,
        pad_token_id=2,
        output_attentions=True,
        return_dict_in_generate=True,
    )
    looked_at = [_most(layers) for layers in out.attentions]
    return out.sequences[0, prompt.shape[1] :], torch.stack(looked_at, dim=-1)


def _most(layers: tuple[Tensor, ...]) -> Tensor:
    """Position of the largest weight in the last row of each head, [layers, heads]."""
    return torch.stack([weights[0, :, -1].argmax(dim=-1) for weights in layers])


def compare(script: str, model: str, sizes: Sizes) -> dict[str, Any]:
    """Ours, one by one and batched, beside two ways of eager detection.

    Args:
        script: whose worker calls `worker`.
        model: as model.name_or_path.
        sizes: of all.
    """
    rows: list[dict[str, Any]] = []
    kinds = [("ours", 1), ("ours", sizes.examples), ("steps", 1), ("whole", 1)]
    for tokens in sizes.lengths:
        found = []
        for kind, size in kinds:
            spec = {"kind": kind, "tokens": tokens, "batch": size, "model": model}
            spec |= {"examples": sizes.examples, "steps": sizes.steps}
            found.append({**spec, **machine.isolated(script, spec)})
        rows += [_beside(row, found[0]) for row in found]
        machine.print_table(f"detection at {tokens}", rows[-len(kinds) :], COLUMNS)
    machine.print_table("detection", rows, COLUMNS)
    return {"detection": rows, "exponents": _exponents(rows)}


def _beside(row: dict, ours: dict) -> dict:
    """Times ours (one by one), and whether the same heads were found."""
    maps = [torch.tensor(r["scores"]) for r in (row, ours) if "scores" in r]
    if len(maps) < 2:
        return row
    cosine = float(torch.nn.functional.cosine_similarity(*maps, dim=0)) if maps[1].any() else None
    times = row["s_an_example"] / ours["s_an_example"]
    return {**row, "times_ours": times, "cosine_with_ours": cosine}


def _exponents(rows: list[dict]) -> dict[str, Any]:
    """Of time and of what memory grew by, over the prompt's length, one example at a time."""
    found = {}
    for kind in ("ours", "steps", "whole"):
        own = [r for r in rows if r["kind"] == kind and r["batch"] == 1 and "error" not in r]
        grown = [r for r in own if r["grown_gib"]]
        by_time = growth([r["tokens"] for r in own], [r["s_an_example"] for r in own])
        by_memory = growth([r["tokens"] for r in grown], [r["grown_gib"] for r in grown])
        found[f"{kind}: time"] = asdict(by_time) if by_time else None
        found[f"{kind}: memory"] = asdict(by_memory) if by_memory else None
    shown = [{"what": name, **(fit or {})} for name, fit in found.items()]
    machine.print_table("exponent over the length", shown, ["what", "exponent", "low", "high"])
    return found


def worker(spec: dict[str, Any]) -> dict[str, Any]:
    """Greedy `copy` of some examples: seconds an example, memory, and the mean map."""
    model, size = base_model(spec["model"]), spec["batch"]
    if spec["kind"] != "ours":
        model.set_attn_implementation("eager")
    settings = DecodeSettings(
        max_new_tokens=spec["steps"], fixed_steps=True, scorers=("copy",), modes=("greedy",)
    )

    def run(examples: list) -> list[torch.Tensor]:
        if spec["kind"] != "ours":
            return [detect(model, e, spec["steps"], spec["kind"]) for e in examples]
        parts = [examples[n : n + size] for n in range(0, len(examples), size)]
        outcomes = [o for part in parts for o in decode(model, collate(part), settings)]
        return [o.scores["copy", "greedy"].double() for o in outcomes]

    run([encoded(99, 32)])  # warms up
    loaded = machine.forget_peak()
    examples = [encoded(n, spec["tokens"]) for n in range(spec["examples"])]
    started = time.perf_counter()
    maps = run(examples)
    spent = time.perf_counter() - started
    return {
        "s_an_example": spent / len(examples),
        "loaded_gib": loaded,
        "peak_gib": machine.peak_gib(),
        "grown_gib": machine.peak_gib() - loaded,
        "scores": torch.stack(maps).mean(dim=0).flatten().tolist(),
    }
