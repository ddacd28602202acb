"""What an 8B model does on one GPU: training, scoring, decoding.

The parts of gpu.py that measure. Each takes the Bench and returns a row or several.
"""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import bare
import machine
import torch
from transformers import LlamaConfig

with bare.stand_ins():
    import gpu_checks as checks
    from workload import batch

    from sce.decode import DecodeSettings, decode
    from sce.model.build import add_lora, base_of
    from sce.model.flops import FlopCounter, peak_flops
    from sce.model.layers import wrap_layers
    from sce.options import LoraOptions, ModelOptions

VALIDATE_EVERY, REFERENCE_EXAMPLES = 200, 32
"""Steps between validations, and examples scored in each, for the share of a training hour."""


@dataclass(frozen=True)
class Sizes:
    """Lengths in tokens, and how often."""

    speed: tuple[int, ...] = (8192, 32_768)
    repeats: int = 3
    longest: int = 2**20
    """Contexts are doubled from the last of `speed` up to here."""
    decoding: tuple[int, int, int] = (8, 2048, 32)
    """Batch, prompt and steps."""
    scored: int = 3
    """Examples scored at each length."""


TINY = Sizes(speed=(64, 128), repeats=2, longest=256, decoding=(2, 48, 4), scored=2)


@dataclass
class Bench:
    """What all parts share, and what they found."""

    device: torch.device
    sizes: Sizes
    end: float
    """When all must be done, in seconds of time.perf_counter."""
    config: LlamaConfig
    model: Any = None
    found: dict[str, Any] = field(default_factory=dict)

    def left(self) -> float:
        """Seconds."""
        return self.end - time.perf_counter()

    def timed(self, run: Callable[[], object]) -> float:
        """Seconds that a run takes on the device."""
        self.wait()
        started = time.perf_counter()
        run()
        self.wait()
        return time.perf_counter() - started

    def wait(self) -> None:
        """Until the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def forget(self) -> None:
        """Free what a part left, and count the peak of memory from here."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_gib(self) -> float:
        """Most that was allocated on the GPU since `forget`; without one, resident at all."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated() / 2**30
        return machine.peak_gib()


def llama3_8b() -> LlamaConfig:
    """The shape of Meta-Llama-3-8B, with room for long contexts."""
    return LlamaConfig(
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128_256,
        max_position_embeddings=2**20,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )


def matrix_products(bench: Bench) -> dict[str, Any]:
    """What this device really does in bfloat16: the rate of products of large squares."""
    size = 8192 if bench.device.type == "cuda" else 256
    a, b = (torch.randn(size, size, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        torch.matmul(a, b)
    times = [bench.timed(lambda: a @ b) for _ in range(10)]
    return {"size": size, "tflops": 2 * size**3 / statistics.median(times) / 1e12}


def load(bench: Bench) -> dict[str, Any]:
    """The model with its adapter on the device, weights drawn there."""
    spent = bench.timed(lambda: setattr(bench, "model", _adapted(bench)))
    parameters = sum(p.numel() for p in bench.model.parameters())
    trained = sum(p.numel() for p in bench.model.parameters() if p.requires_grad)
    return {"parameters": parameters, "trained": trained, "s": spent, "peak_gib": bench.peak_gib()}


def _adapted(bench: Bench) -> Any:
    base = checks.random_model(bench.config, bench.device, torch.bfloat16)
    return add_lora(base, LoraOptions()).to(bench.device)


def _peak(bench: Bench) -> float | None:
    if bench.device.type != "cuda":
        return None
    return peak_flops(torch.cuda.get_device_name())


def train(bench: Bench, tokens: int, recompute: str, repeats: int) -> dict[str, Any]:
    """Steps of one example at a length; a first one warms up where there are more than one."""
    assert bench.model is not None, "the model was not made"
    wrap_layers(base_of(bench.model), ModelOptions(activation_checkpointing=recompute))
    bench.model.train()
    bench.forget()
    optimizer = checks.trained(bench.model)
    data = batch(1, tokens - 8).to(bench.device)
    times: list[float] = []
    while len(times) < repeats and (not times or times[-1] < bench.left()):
        times.append(bench.timed(lambda: checks.training_step(bench.model, optimizer, data)))
    spent = statistics.median(times[1:] or times)
    flops, peak = FlopCounter(bench.model).of([(tokens, 0)]), _peak(bench)
    done = flops.needed + flops.recomputed
    row = {
        "tokens": tokens,
        "recompute": recompute,
        "s_a_step": spent,
        "tokens_per_s": tokens / spent,
        "gflops_per_token": flops.needed / tokens / 1e9,
        "tflops": flops.needed / spent / 1e12,
        "mfu": None if peak is None else flops.needed / spent / peak,
        "hfu": None if peak is None else done / spent / peak,
        "peak_gib": bench.peak_gib(),
    }
    return _said(row)


def _said(row: dict[str, Any]) -> dict[str, Any]:
    """The row, printed."""
    print(f"  {row}", flush=True)
    return row


def _each(bench: Bench, measure: Callable[[int], dict[str, Any]]) -> list[dict]:
    """A row a length; one that does not fit has an error in its place."""
    rows = []
    for tokens in bench.sizes.speed:
        try:
            rows.append(measure(tokens))
        except RuntimeError as error:
            if not ran_out(error):
                raise
            rows.append(_said({"tokens": tokens, "error": str(error)[:200]}))
            if bench.model is not None:
                bench.model.zero_grad(set_to_none=True)
    return rows


def ran_out(error: RuntimeError) -> bool:
    """Whether memory did: torch's own error, or what cuBLAS and cuDNN say when they get none."""
    said = ("out of memory", "ALLOC_FAILED", "mha_graph")
    return isinstance(error, torch.OutOfMemoryError) or any(part in str(error) for part in said)


def training(bench: Bench, recompute: str) -> list[dict[str, Any]]:
    """Speed and memory of a training step at every length."""
    repeats = bench.sizes.repeats
    return _each(bench, lambda tokens: train(bench, tokens, recompute, repeats))


def scoring(bench: Bench) -> list[dict[str, Any]]:
    """Seconds an example at every length, all scorers and modes of a task in one pass.

    100 examples are extrapolated from those that are measured; the share of a training hour is
    worked out from the times of a step and of an example.
    """
    assert bench.model is not None, "the model was not made"
    settings = DecodeSettings(
        max_new_tokens=16,
        fixed_steps=True,
        scorers=("copy", "copy_needle", "query_focused", "ov_write"),
        modes=("teacher_forced", "greedy", "prefill"),
    )
    bench.model.eval()

    def measure(tokens: int) -> dict[str, Any]:
        bench.forget()
        examples = [
            batch(1, tokens - 8, first=n).to(bench.device) for n in range(bench.sizes.scored)
        ]
        decode(bench.model, examples[0], settings)  # warms up
        spent = statistics.mean(
            bench.timed(lambda data=data: decode(bench.model, data, settings)) for data in examples
        )
        row = {"tokens": tokens, "s_an_example": spent, "measured": len(examples)}
        row |= {"extrapolated_s_of_100": 100 * spent, "peak_gib": bench.peak_gib()}
        return _said(row | _share(bench, tokens, spent))

    return _each(bench, measure)


def _share(bench: Bench, tokens: int, s_an_example: float) -> dict[str, float]:
    """Scoring's share of time, worked out from what was measured; empty where no step was."""
    measured = [bench.found.get(f"training, {how}") for how in ("selective", "full")]
    rows = [row for part in measured if isinstance(part, list) for row in part]
    steps = [row["s_a_step"] for row in rows if row["tokens"] == tokens and "s_a_step" in row]
    if not steps:
        return {}
    scored = REFERENCE_EXAMPLES * s_an_example
    return {"share_of_a_training_hour": scored / (scored + VALIDATE_EVERY * min(steps))}


def decoding(bench: Bench) -> dict[str, Any]:
    """Greedy decoding of a batch: with scores, without, and by transformers' `generate`."""
    assert bench.model is not None, "the model was not made"
    model, (size, tokens, steps) = bench.model.eval(), bench.sizes.decoding
    data = batch(size, tokens).to(bench.device)
    off = DecodeSettings(max_new_tokens=steps, fixed_steps=True, scorers=(), modes=("greedy",))
    on = DecodeSettings(max_new_tokens=steps, fixed_steps=True, modes=("greedy",))
    prompt = data.input_ids[:, : data.num_prompt]

    def generate() -> None:
        ours = base_of(model).config._attn_implementation
        model.set_attn_implementation("sdpa")
        kwargs = {"max_new_tokens": steps, "min_new_tokens": steps, "do_sample": False}
        model.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), pad_token_id=0, **kwargs
        )
        model.set_attn_implementation(ours)

    runs = {
        "scores": lambda: decode(model, data, on),
        "none": lambda: decode(model, data, off),
        "generate": generate,
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(bench.sizes.repeats + 1):
        for name in list(runs) if turn % 2 else list(reversed(runs)):
            times[name].append(bench.timed(runs[name]))
    medians = {name: statistics.median(found[1:]) for name, found in times.items()}
    return {
        "batch": size,
        "tokens": tokens,
        "steps": steps,
        "s": medians,
        "scores_/_none": medians["scores"] / medians["none"],
        "generate_/_scores": medians["generate"] / medians["scores"],
    }
