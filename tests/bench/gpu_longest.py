"""The longest context that an 8B model trains at on one GPU, its base in bfloat16 or in 4 bits.

Parts of gpu.py; full recomputation, one example a step, one step a length.
"""

from importlib.util import find_spec
from typing import Any

import bare
import torch
from torch import nn

with bare.stand_ins():
    import gpu_checks as checks
    from gpu_figures import Bench, ran_out, train

    from sce.model.build import add_lora
    from sce.options import LoraOptions


def bfloat16(bench: Bench) -> dict[str, Any]:
    """Doubled from the last length that `training, full` has taken."""
    steps = bench.found.get("training, full")
    done = [row for row in steps if "s_a_step" in row] if isinstance(steps, list) else []
    return _doubled(bench, done[-1] if done else None)


def nf4(bench: Bench) -> dict[str, Any] | str:
    """The same with the frozen base in 4 bits, as `model.quantization=nf4` has it."""
    if find_spec("bitsandbytes") is None:
        return "skipped (bitsandbytes is not installed)"
    bench.model = None
    bench.forget()
    base = packed(checks.random_model(bench.config, bench.device, torch.bfloat16))
    bench.model = add_lora(base, LoraOptions()).to(bench.device)
    return _doubled(bench, None)


def packed(model: Any) -> Any:
    """Every linear layer but lm_head in nf4 with double quantisation, in place."""
    import bitsandbytes

    asked = {"quant_type": "nf4", "compress_statistics": True}
    for name, layer in list(model.named_modules()):
        if not isinstance(layer, nn.Linear) or layer is model.get_output_embeddings():
            continue
        shape = (layer.in_features, layer.out_features)
        own = bitsandbytes.nn.Linear4bit(
            *shape, bias=False, compute_dtype=torch.bfloat16, device="meta", **asked
        )
        assert layer.bias is None
        own.weight = bitsandbytes.nn.Params4bit(layer.weight.data, requires_grad=False, **asked)
        model.set_submodule(name, own.to(layer.weight.device))
    model.is_loaded_in_4bit = True  # by which PEFT knows
    return model


def _doubled(bench: Bench, last: dict[str, Any] | None) -> dict[str, Any]:
    """From twice the last length, or from the longest of `speed`, until one does not fit.

    A step takes at most four times as long as one of half the length: it is not begun where that
    is more than is left.
    """
    why = "the largest that was to be tried"
    tokens = 2 * last["tokens"] if last else bench.sizes.speed[-1]
    while tokens <= bench.sizes.longest:
        if last is not None and 4.2 * last["s_a_step"] > bench.left():
            why = "time"
            break
        try:
            last = train(bench, tokens, "full", 1)
        except RuntimeError as error:
            if not ran_out(error):
                raise
            why = "memory"
            break
        tokens *= 2
    return {"longest": None if last is None else last["tokens"], "stopped_by": why, "last": last}
