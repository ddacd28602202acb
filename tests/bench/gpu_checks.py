"""What must hold on a GPU before any figure of it counts; each check says what it found or raises.

Backends: every attention backend that is usable gives the scores of eager attention. Strategies:
DDP and FSDP on one device give the losses of plain training. Learning: 30 steps teach a tiny model
to find one token of its prompt, or lower the loss of real weights. Liger: its norms and rotary
embedding compute what the model's own do.
"""

import math
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

import bare
import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig

with bare.stand_ins():
    import training
    from workload import adapted_model, batch, encoded

    from sce.data.batch import IGNORE, Batch, collate
    from sce.data.encode import Encoded
    from sce.decode import DecodeSettings, decode
    from sce.errors import InputError
    from sce.model import extras
    from sce.model.attention import IMPLEMENTATIONS, choose
    from sce.model.build import add_lora
    from sce.options import LoraOptions

VOCABULARY = 40_960
"""Holds the ids that `workload` draws."""
HOST = torch.device("cpu")
"""Where tiny models are made: a GPU draws other weights, of which nothing is known."""
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""Largest difference of a continuous score over its largest value."""
SAME = {torch.float32: 0.98, torch.bfloat16: 0.9}
"""Least share of heads whose argmax score is the same: rounding moves an argmax now and then."""


def llama(**changes: Any) -> LlamaConfig:
    """A tiny Llama with grouped queries, heads as wide as flash-attn likes them."""
    values = {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    return LlamaConfig(**{**values, **changes})


def random_model(config: LlamaConfig, device: torch.device, dtype: torch.dtype) -> Any:
    """Random weights, seeded, made on the device itself, under our SDPA; frozen."""
    torch.manual_seed(0)
    with device:
        model = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=IMPLEMENTATIONS["sdpa"]
        )
    model.generation_config.pad_token_id = 0
    return model.requires_grad_(False).eval()


# -- backends -------------------------------------------------------------------------------------


def backends(device: torch.device, dtype: torch.dtype) -> list[str]:
    """One line a backend: how near its scores are to those of eager attention.

    Raises:
        RuntimeError: they are not.
    """
    model = random_model(llama(initializer_range=0.1), HOST, dtype).to(device)
    eager = _scores(model, "eager", device)
    if not eager["copy", "teacher_forced"].any():
        raise RuntimeError("no head copies anything, so that nothing would be compared")
    lines = []
    for backend in (name for name in IMPLEMENTATIONS if name != "eager"):
        try:
            choose(backend, on_gpu=device.type == "cuda", dtype=str(dtype).removeprefix("torch."))
        except InputError as error:
            lines.append(f"{backend}: skipped ({error})")
            continue
        found = _scores(model, backend, device)
        lines.append(f"{backend}: {_compare(backend, found, eager, dtype)}")
    return lines


def _scores(model: Any, backend: str, device: torch.device) -> dict[tuple[str, str], Tensor]:
    """Every scorer and mode over a padded and an unpadded batch, [examples, layers, heads]."""
    model.set_attn_implementation(IMPLEMENTATIONS[backend])
    settings = DecodeSettings(
        max_new_tokens=6,
        fixed_steps=True,
        scorers=("copy", "copy_needle", "query_focused", "ov_write"),
        modes=("teacher_forced", "greedy", "prefill"),
    )
    # Random heads copy some of them: enough to tell a share of 0.9 by.
    few = [encoded(n, 96 - 16 * (n % 4), ids=(100, 108)) for n in range(16)]
    parts = [few[at : at + 2] for at in range(0, 16, 4)] + [[few[at]] for at in (2, 3, 6, 7)]
    batches = [collate(part) for part in parts]
    outcomes = [o for data in batches for o in decode(model, data.to(device), settings)]
    return {key: torch.stack([o.scores[key] for o in outcomes]) for key in outcomes[0].scores}


def _compare(backend: str, found: dict, eager: dict, dtype: torch.dtype) -> str:
    """The worst of all scorers.

    Greedy tokens may differ by rounding, and scores with them: teacher-forced ones are compared.
    Of argmax scores those count that are not 0 both times, which heads that find nothing share.
    """
    worst, least, finite = 0.0, 1.0, True
    for (scorer, mode), expected in eager.items():
        own = found[scorer, mode].double()
        if mode == "greedy" and dtype != torch.float32:
            continue
        finite &= bool(own.isfinite().all() and expected.isfinite().all())
        if scorer in ("query_focused", "ov_write"):
            scale = float(expected.abs().max())
            worst = max(worst, float((own - expected).abs().max()) / scale)
        elif (scores := (own != 0) | (expected != 0)).any():
            same = (own - expected).abs().lt(1e-6)[scores]
            least = min(least, float(same.double().mean()))
    said = f"difference of at most {worst:.1e} of the largest score, {least:.1%} of argmaxes equal"
    if not finite:
        raise RuntimeError(f"{backend} or eager attention gives scores that are not finite")
    if worst > TOLERANCE[dtype] or least < SAME[dtype]:
        raise RuntimeError(f"{backend} does not score as eager attention does: {said}")
    return said


# -- learning -------------------------------------------------------------------------------------

ANSWERS, FILLER, ASK, LOOKUP_TOKENS = 16, 64, 16, 24


def lookup(number: int) -> Encoded:
    """A prompt with one token below ANSWERS somewhere in it, which is the answer."""
    rng = np.random.default_rng(number)
    prompt = rng.integers(ASK + 1, FILLER, LOOKUP_TOKENS).astype(np.int32)
    place, answer = int(rng.integers(0, LOOKUP_TOKENS - 1)), int(rng.integers(0, ANSWERS))
    prompt[place], prompt[-1] = answer, ASK
    example = encoded(number, LOOKUP_TOKENS, 1)
    return replace(
        example,
        prompt_ids=prompt,
        target_ids=np.asarray([answer], dtype=np.int32),
        end_id=ASK,
        evidence=np.asarray([place], dtype=np.int32),
        needles=np.zeros(1, dtype=np.int32),
    )


def training_step(model: nn.Module, optimizer: torch.optim.Optimizer, data: Batch) -> float:
    """The step of sce.module without Lightning: mean token loss, clipped to norm 1."""
    logits = model(
        input_ids=data.input_ids,
        attention_mask=data.attention_mask,
        position_ids=data.position_ids,
        use_cache=False,
        logits_to_keep=data.labels.shape[1],
    ).logits
    summed = nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), data.labels.flatten(), ignore_index=-100, reduction="sum"
    )
    loss = summed / data.num_labels
    loss.backward()
    nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def trained(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW on what is to be trained."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0)


def learning(device: torch.device, steps: int = 30) -> str:
    """A tiny Llama learns to find the one token of its prompt that is an answer.

    Raises:
        RuntimeError: on new prompts it is no better than one that does not read them.
    """
    config = llama(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        head_dim=16,
        vocab_size=FILLER,
        initializer_range=0.1,
    )
    model = random_model(config, HOST, torch.float32).to(device).requires_grad_(True).train()
    optimizer = trained(model)
    for step in range(steps):
        examples = [lookup(step * 64 + n) for n in range(64)]
        training_step(model, optimizer, collate(examples).to(device))
    held_out = collate([lookup(1_000_000 + n) for n in range(128)]).to(device)
    settings = DecodeSettings(max_new_tokens=0, modes=("teacher_forced",))
    outcomes = decode(model.eval(), held_out, settings)
    nll = sum(o.nll for o in outcomes) / len(outcomes)
    best = float(torch.stack([o.scores["copy", "teacher_forced"] for o in outcomes]).mean(0).max())
    unread = math.log(ANSWERS)
    said = f"NLL {nll:.3f}, {unread:.3f} without reading the prompt; best head copies {best:.2f}"
    if not nll < 0.5 * unread:
        raise RuntimeError(f"{steps} steps did not teach a look-up: {said}")
    return said


def fused(device: torch.device, tolerance: float = 1e-4) -> str:
    """Liger's norms and rotary embedding give the losses and gradients of the model's own.

    It replaces functions of transformers' modules, so it comes after everything else.

    Raises:
        RuntimeError: they differ by more than `tolerance` of the largest.
    """
    if find_spec("liger_kernel") is None:
        return "skipped (liger-kernel is not installed)"
    data = collate([lookup(n) for n in range(8)]).to(device)
    found = []
    for fuse in (lambda model: None, extras.fuse):
        model = random_model(llama(vocab_size=FILLER), HOST, torch.float32).to(device)
        fuse(model)
        model.requires_grad_(True).train()
        logits = model(**data.inputs, use_cache=False).logits
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1), data.labels.flatten(), ignore_index=IGNORE
        )
        loss.backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found.append((loss.item(), torch.cat(gradients)))
    (loss, gradients), (fused_loss, fused_gradients) = found
    apart = float((gradients - fused_gradients).abs().max() / gradients.abs().max())
    said = f"losses {abs(loss - fused_loss):.1e} apart, gradients {apart:.1e} of the largest"
    if not (abs(loss - fused_loss) <= tolerance * abs(loss) and apart <= tolerance):
        raise RuntimeError(f"liger does not compute what the model does: {said}")
    return said


def learning_of(weights: str, device: torch.device, steps: int = 30) -> str:
    """The same of real weights with LoRA: the loss over needles that can be copied falls.

    Raises:
        RuntimeError: it does not, by a quarter.
    """
    model = adapted_model(weights).to(device).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
    losses = [
        training_step(model, optimizer, batch(4, 128, first=4 * step).to(device))
        for step in range(steps)
    ]
    before, after = (float(np.mean(part)) for part in (losses[:5], losses[-5:]))
    said = f"loss {before:.3f} in the first 5 steps, {after:.3f} in the last 5 of {steps}"
    if not after < 0.75 * before:
        raise RuntimeError(f"{weights} does not learn: {said}")
    return said


# -- strategies -----------------------------------------------------------------------------------


@dataclass
class _Losses:
    """Of some training steps under each strategy."""

    single: list[float] = field(default_factory=list)
    ddp: list[float] = field(default_factory=list)
    fsdp: list[float] = field(default_factory=list)


def strategies(device: torch.device, tolerance: float = 1e-4) -> str:
    """DDP and FSDP on one device against plain training: 4 steps in float32 by Lightning.

    Raises:
        RuntimeError: their losses differ.
    """
    if bare.missing("lightning"):
        return "skipped (lightning is not installed)"
    with bare.stand_ins():
        from sce.parallel import ShardedStrategy
    found = _Losses(
        single=_fit(device, "auto"),
        ddp=_fit(device, "ddp"),
        fsdp=_fit(device, ShardedStrategy()),
    )
    apart = {
        name: max(abs(a - b) for a, b in zip(getattr(found, name), found.single, strict=True))
        for name in ("ddp", "fsdp")
    }
    said = ", ".join(f"{name} within {most:.1e} of one device" for name, most in apart.items())
    if max(apart.values()) > tolerance:
        raise RuntimeError(f"losses differ: {said}")
    return f"{said}, losses {found.single[0]:.4f} to {found.single[-1]:.4f}"


def _fit(device: torch.device, strategy: Any) -> list[float]:
    """Losses of 4 steps of LoRA on a tiny model by Lightning, under a strategy."""
    spec = {"tokens": 72, "batch": 2, "steps": 4}
    model = random_model(llama(), HOST, torch.float32)
    torch.manual_seed(0)
    adapted = add_lora(model, LoraOptions())
    with bare.stand_ins():
        _, losses = training.train_ours(
            adapted, spec, accelerator="gpu" if device.type == "cuda" else "cpu", strategy=strategy
        )
    return losses
