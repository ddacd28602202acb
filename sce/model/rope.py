"""The base (theta) of rotary position embeddings: changed before the weights load, checked after.

On transformers 5 a change after loading does nothing, because the model has computed `inv_freq` by
then; and tables in bfloat16 are wrong at long positions. Both are asserted here.
"""

import torch
from torch import nn
from transformers import PreTrainedConfig

from sce.errors import InputError


def _parameter_sets(config: PreTrainedConfig) -> list[dict]:
    """The config's RoPE parameters: one dict, or one for each type of layer."""
    parameters = getattr(config, "rope_parameters", None)
    if not parameters:
        return []
    if "rope_theta" in parameters:
        return [parameters]
    return [p for p in parameters.values() if isinstance(p, dict) and "rope_theta" in p]


def rope_theta(config: PreTrainedConfig) -> float | None:
    """Theta of the (global) rotary embedding; None for a model without one."""
    sets = _parameter_sets(config)
    return float(max(p["rope_theta"] for p in sets)) if sets else None


def set_rope_theta(config: PreTrainedConfig, theta: float) -> float:
    """Set theta in a config that no model has been built from yet; returns the old one.

    In models with several thetas (local and global layers) the largest, which serves the global
    layers, is changed.

    Raises:
        InputError: the model has no rotary embedding.
    """
    sets = _parameter_sets(config)
    if not sets:
        raise InputError(
            f"model.rope_theta={theta:g}: {config.model_type} has no rotary embedding; leave it out"
        )
    old = max(float(p["rope_theta"]) for p in sets)
    for parameters in sets:
        if float(parameters["rope_theta"]) == old:
            parameters["rope_theta"] = float(theta)
    return old


def check_inv_freq(model: nn.Module, theta: float) -> None:
    """Assert that the model's frequency tables are float32 and were computed with `theta`.

    Raises:
        RuntimeError: they were not; the library ignored the config.
    """
    tables = [(name, b) for name, b in model.named_buffers() if name.endswith("inv_freq")]
    if not tables:
        raise RuntimeError("the model has no inv_freq table, though its config has a rope_theta")
    for name, table in tables:
        if table.dtype != torch.float32:
            raise RuntimeError(f"{name} is {table.dtype}; rotary tables must stay float32")
    # Entry i is theta^(-2i/d); scaled variants (llama3, yarn) leave the highest frequencies as they
    # are, so the second entry tells for all of them.
    expected = [theta ** (-1.0 / table.numel()) for _, table in tables]
    found = [float(table.flatten()[1]) for _, table in tables if table.numel() > 1]
    if not any(abs(f - e) <= 1e-4 * e for f, e in zip(found, expected, strict=False)):
        raise RuntimeError(
            f"rope_theta={theta:g} did not reach inv_freq (found {found}, not {expected})"
        )
