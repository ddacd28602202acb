"""Attention worked out explicitly for some rows: logits, weights and the mix of values.

Always in float32, each key-value head read once for the query heads that share it. What SDPA cannot
do (soft-capped logits, sinks) is done here too, a chunk of rows at a time.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

How = tuple[float, float | None, Tensor | None]
"""Scale of the logits, cap on them, sinks [heads]."""


def row_logits(
    query: Float[Tensor, "batch heads rows dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    scale: float,
    cap: float | None = None,
) -> Float[Tensor, "batch heads rows keys"]:
    """Q k^T in float32; `cap` c makes a logit x into c tanh(x / c) (Gemma 2)."""
    batch, heads, rows, dim = query.shape
    kv_heads, keys = key.shape[1], key.shape[2]
    grouped = query.reshape(batch, kv_heads, heads // kv_heads * rows, dim).float() * scale
    with torch.autocast(query.device.type, enabled=False):  # which would make it bfloat16 again
        logits = (grouped @ key.float().mT).view(batch, heads, rows, keys)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def row_weights(
    logits: Float[Tensor, "batch heads rows keys"], sinks: Float[Tensor, " heads"] | None
) -> Float[Tensor, "batch heads rows keys"]:
    """Softmax over the keys; a head's sink takes its share and is no position (gpt-oss)."""
    if sinks is None:
        return torch.softmax(logits, dim=-1)
    sink = sinks.float().view(1, -1, 1, 1).expand(*logits.shape[:-1], 1)
    return torch.softmax(torch.cat([logits, sink], dim=-1), dim=-1)[..., :-1]


def mix(
    weights: Float[Tensor, "batch heads rows keys"],
    value: Float[Tensor, "batch kv_heads keys dim"],
) -> Float[Tensor, "batch heads rows dim"]:
    """The weighted sum of values."""
    batch, heads, rows, keys = weights.shape
    kv_heads = value.shape[1]
    grouped = weights.reshape(batch, kv_heads, heads // kv_heads * rows, keys)
    return (grouped @ value).view(batch, heads, rows, value.shape[-1])


def attend(
    query: Float[Tensor, "batch heads rows dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    value: Float[Tensor, "batch kv_heads keys value_dim"],
    visible: Bool[Tensor, "#batch 1 rows keys"],
    how: How,
) -> Float[Tensor, "batch rows heads value_dim"]:
    """Attention of some rows, with everything a model may ask of it."""
    scale, cap, sinks = how
    logits = row_logits(query, key, scale, cap).masked_fill(~visible, torch.finfo().min)
    return mix(row_weights(logits, sinks).to(value.dtype), value).transpose(1, 2)
