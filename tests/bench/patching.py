"""Patching beside plain decoding: one pass of a second adapter more for every pass."""

from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from workload import base_model, batch

from sce.decode import DecodeSettings, decode, prefix_cache
from sce.interventions.patching import Side, patched
from sce.interventions.select import all_heads
from sce.model.adapters import use_adapter
from sce.model.build import head_shape


def two_adapters(name: str) -> Any:
    """The default model with two adapters that change something."""
    config = LoraConfig(r=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
    model = get_peft_model(base_model(name), config, "source")
    model.add_adapter("target", config)
    torch.manual_seed(0)
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name:
            parameter.data.normal_(std=0.02)
    return model.eval()


def pair(
    model: Any, size: int, tokens: int, steps: int, *, shared: bool
) -> tuple[Callable[[], object], Callable[[], object]]:
    """All heads patched, and plain decoding, of one batch.

    Where `shared`, the context is at hand for both models; else each computes its own.
    """
    data = batch(size, tokens)
    settings = DecodeSettings(max_new_tokens=steps, fixed_steps=True, scorers=())
    sides = {name: Side(model, name) for name in ("source", "target")}
    contexts = {}
    for name in sides:
        use_adapter(model, name)
        contexts[name] = prefix_cache(model, data) if shared else None
    heads = all_heads(head_shape(model))
    both = (contexts["target"], contexts["source"]) if shared else None

    def plain() -> object:
        use_adapter(model, "target")
        return decode(model, data, settings, contexts["target"])

    def patching() -> object:
        first = data.num_prompt - 1
        with patched(sides["target"], sides["source"], heads, from_column=first, prefixes=both):
            return decode(model, data, settings, contexts["target"])

    return patching, plain
