"""How the model attends: the one door to the kernels, and masks that are never written out.

Every backend is registered with transformers under `sce_<backend>`, so the stock model calls the
function here for every layer. It hands on to the fused kernel, and it does two things besides:

- Masks are told, not made. transformers would build a [queries, keys] tensor as soon as a batch is
  padded or a window is shorter than the context. Here the mask is a `CausalRows`
  (sce.model.masks), which yields the rows that are asked for: padded examples are sliced instead
  of masked, windows go chunk by chunk.
- A single query row (a decoding step) is computed explicitly, grouped by key-value head: its logits
  are then at hand for the probe (sce.model.capture) at no extra reading of the cache.

A module attribute `sce_probe`, where set, is shown the rows it wants.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface

from sce.errors import InputError
from sce.model.masks import CausalRows, tell_rows

PREFIX = "sce_"
BACKENDS = ("sdpa", "eager", "flash_attention_2", "flash_attention_3")
# Rows of a mask that stand in memory at a time.
CHUNK_ROWS = 256

Kernel = Callable[..., tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Choice:
    """The attention backend of a run and why it was taken."""

    backend: str
    reason: str

    @property
    def implementation(self) -> str:
        """The name transformers knows it by."""
        return PREFIX + self.backend


def choose(wanted: str, has_gpu: bool) -> Choice:
    """Pick the backend: `auto` takes flash-attn where it is installed with a GPU, else SDPA.

    Raises:
        InputError: a backend that is unknown, or that this machine cannot run.
    """
    installed = find_spec("flash_attn") is not None
    if wanted == "auto":
        if not has_gpu:
            return Choice("sdpa", "auto: flash-attn needs a GPU and there is none")
        if not installed:
            return Choice("sdpa", "auto: flash-attn is not installed (pip install 'sce[flash]')")
        return Choice("flash_attention_2", "auto: flash-attn is installed and there is a GPU")
    if wanted not in BACKENDS:
        raise InputError(f"attention={wanted}: choose from auto, {', '.join(BACKENDS)}")
    if wanted.startswith("flash") and not (has_gpu and installed):
        lacking = "a GPU" if installed else "the package flash-attn"
        raise InputError(
            f"attention={wanted} needs {lacking}, which this machine lacks; use attention=auto"
        )
    return Choice(wanted, "as asked for")


def attention(  # noqa: PLR0913 - the signature is transformers'
    backend: str,
    module: nn.Module,
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    value: Float[Tensor, "batch kv_heads keys value_dim"],
    attention_mask: CausalRows | Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Float[Tensor, "batch queries heads value_dim"], Tensor | None]:
    """Transformers' attention interface, for every backend; see the module's docstring."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    kernel = partial(_kernel(backend, module), module, scaling=scale, dropout=dropout, **kwargs)
    probe = getattr(module, "sce_probe", None)
    if not isinstance(attention_mask, CausalRows):
        if probe is not None:
            raise InputError(
                "heads can be scored under causal attention with transformers' own masks only"
            )
        return kernel(query, key, value, attention_mask)
    cap, sinks = kwargs.get("softcap"), kwargs.get("s_aux")
    if backend == "sdpa" and (cap is not None or sinks is not None):
        raise InputError(
            "this model caps its attention logits or has sinks, which SDPA cannot do; use "
            "attention=eager, or flash_attention_2 on a GPU"
        )
    single = query.shape[2] == 1 and not torch.is_grad_enabled() and sinks is None
    if single and backend != "eager":
        logits = row_logits(query, key, scale, cap)
        if attention_mask.last_row_bias is not None:
            logits = logits + attention_mask.last_row_bias
        if probe is not None:
            probe.see(module, logits, attention_mask)
        return _mix(logits, value), None
    if probe is not None:
        probe.recompute(module, query, key, attention_mask, scale, cap)
    if backend == "eager":
        return kernel(query, key, value, _additive(attention_mask, query.dtype))
    if backend == "sdpa":
        return _without_dense_mask(kernel, query, key, value, attention_mask), None
    return kernel(query, key, value, attention_mask.padding)


def row_logits(
    query: Float[Tensor, "batch heads rows dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    scale: float,
    cap: float | None = None,
) -> Float[Tensor, "batch heads rows keys"]:
    """Q k^T in float32, each key-value head read once for the query heads that share it."""
    batch, heads, rows, dim = query.shape
    kv_heads, keys = key.shape[1], key.shape[2]
    grouped = query.reshape(batch, kv_heads, heads // kv_heads * rows, dim).float() * scale
    logits = (grouped @ key.float().mT).view(batch, heads, rows, keys)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def _mix(
    logits: Float[Tensor, "batch heads 1 keys"], value: Float[Tensor, "batch kv_heads keys dim"]
) -> Float[Tensor, "batch 1 heads dim"]:
    """Softmax and the weighted sum of values for one query row."""
    batch, heads, _, keys = logits.shape
    kv_heads = value.shape[1]
    weights = torch.softmax(logits, dim=-1).to(value.dtype)
    mixed = weights.view(batch, kv_heads, heads // kv_heads, keys) @ value
    return mixed.view(batch, 1, heads, value.shape[-1])


def _without_dense_mask(
    kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, mask: CausalRows
) -> Tensor:
    """SDPA by slices of real tokens where the mask is plainly causal, else by chunks of rows."""
    ranges = mask.plain_ranges
    if ranges is None:
        return _by_chunks(kernel, q, k, v, mask)
    if set(ranges) == {(0, mask.num_keys)}:
        return kernel(q, k, v, None, is_causal=True)[0]
    outputs = []
    for index, (start, end) in enumerate(ranges):
        here = slice(index, index + 1)
        part = [tensor[here, :, start:end] for tensor in (q, k, v)]
        output = kernel(*part, None, is_causal=True)[0]
        outputs.append(nn.functional.pad(output, (0, 0, 0, 0, start, mask.num_queries - end)))
    return torch.cat(outputs)


def _by_chunks(kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, mask: CausalRows) -> Tensor:
    outputs = []
    for first in range(0, mask.num_queries, CHUNK_ROWS):
        last = min(first + CHUNK_ROWS, mask.num_queries)
        low, high = mask.keys_in_reach(first, last)
        queries = torch.arange(first, last, device=q.device)[None]
        visible = mask.rows(queries, (low, high))
        # A padded query sees nothing; softmax over nothing is NaN, which would spread.
        visible = visible | ~visible.any(dim=-1, keepdim=True)
        chunk = kernel(q[:, :, first:last], k[:, :, low:high], v[:, :, low:high], visible)[0]
        outputs.append(chunk)
    return torch.cat(outputs, dim=1)


def _additive(mask: CausalRows, dtype: torch.dtype) -> Float[Tensor, "batch 1 queries keys"]:
    """The whole mask, for the eager checks only."""
    visible = mask.rows(torch.arange(mask.num_queries, device=mask.device)[None])
    return torch.zeros(visible.shape, dtype=dtype, device=mask.device).masked_fill(
        ~visible, torch.finfo(dtype).min
    )


def _kernel(backend: str, module: nn.Module) -> Kernel:
    if backend == "sdpa":
        return sdpa_attention_forward
    if backend == "eager":
        return vars(sys.modules[type(module).__module__])["eager_attention_forward"]
    from transformers.integrations.flash_attention import flash_attention_forward

    return flash_attention_forward


def register() -> None:
    """Make every backend known to transformers as `sce_<backend>`, with its mask interface."""
    for backend in BACKENDS:
        AttentionInterface.register(PREFIX + backend, partial(attention, backend))
        AttentionMaskInterface.register(PREFIX + backend, tell_rows)


register()
