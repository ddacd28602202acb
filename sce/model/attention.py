"""How the model attends: the one door to the kernels, and masks that are never written out.

Every backend is registered with transformers under `sce_<backend>`, so the stock model calls the
function here for every layer. It hands on to the fused kernel, and it does three things besides:

- Masks are told, not made. transformers would build a [queries, keys] tensor as soon as a batch is
  padded or a window is shorter than the context. Here the mask is a `CausalRows`
  (sce.model.masks), which yields the rows that are asked for: padded examples are sliced instead
  of masked, windows go chunk by chunk.
- Questions that share a context (`suffixes`, sce.data.batch) are kept apart: the context goes
  through the kernel, and the rows of all questions over the context and their own keys.
- A single query row (a decoding step) is computed explicitly, grouped by key-value head: its logits
  are then at hand for the probe (sce.model.capture) at no extra reading of the cache.

A module attribute `sce_probe`, where set, is shown the rows it wants; `sce_query_edit`, where set,
is a function that the queries go through first (knockout by uniform attention).
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface
from transformers.integrations.flash_attention import get_target_dtype
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_flash_attention_utils import _flash_attention_forward

from sce.data.batch import Suffixes
from sce.errors import InputError
from sce.model.backends import IMPLEMENTATIONS, Choice, choose, fused_kernels
from sce.model.bfloat16 import is_emulated
from sce.model.masks import CausalRows, tell_rows
from sce.model.rows import How, attend, mix, row_logits, row_weights
from sce.model.suffixes import SuffixRows, attend_suffixes, check_suffixes

# Rows of a mask that stand in memory at a time.
CHUNK_ROWS = 256
__all__ = ["IMPLEMENTATIONS", "Choice", "attention", "choose", "register"]
Kernel = Callable[..., tuple[Tensor, Tensor | None]]


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
    suffixes: Suffixes | None = kwargs.pop("suffixes", None)
    if suffixes is not None:
        check_suffixes(module, attention_mask, suffixes)
        kwargs["position_ids"] = None  # flash-attn would take positions that begin anew for packing
    kernel = partial(_kernel(backend, module), module, scaling=scale, dropout=dropout, **kwargs)
    probe = getattr(module, "sce_probe", None)
    if not isinstance(attention_mask, CausalRows):
        if probe is not None:
            raise InputError(
                "heads can be scored under causal attention with transformers' own masks only"
            )
        return kernel(query, key, value, attention_mask)
    edit = getattr(module, "sce_query_edit", None)
    if edit is not None:
        query = edit(query)
    how = (scale, kwargs.get("softcap"), kwargs.get("s_aux"))
    if query.shape[2] == 1 and not torch.is_grad_enabled() and backend != "eager":
        return _single(module, query, key, value, attention_mask, how), None
    if probe is not None:
        probe.recompute(module, query, key, value, attention_mask, how)
    dtype, width = query.dtype, value.shape[-1]
    if backend != "eager":  # which is the stock model's, to check against
        query, key, value = _as_kernels_take_them(query, key, value)
    if suffixes is None:
        output, weights = _by_backend(backend, kernel, (query, key, value), attention_mask, how)
        return _cut(output, width).to(dtype), weights
    told, first = SuffixRows.of(attention_mask, suffixes), suffixes.num_context
    context = (query[:, :, :first], key[:, :, :first], value[:, :, :first])
    output, _ = _by_backend(backend, kernel, context, told.context, how)
    rest = _suffix_rows((query[:, :, first:], key, value), told, how, dropout)
    return _cut(torch.cat([output, rest], dim=1), width).to(dtype), None


def _as_kernels_take_them(*qkv: Tensor) -> list[Tensor]:
    """Of one width, and not emulated.

    Values of latent attention are narrower than keys, which flash-attn 2 and SDPA's flash kernels
    do not take: they get zeros at their end, which are cut off the output again.
    """
    width = max(tensor.shape[-1] for tensor in qkv)
    if any(tensor.shape[-1] != width for tensor in qkv):
        qkv = tuple(nn.functional.pad(tensor, (0, width - tensor.shape[-1])) for tensor in qkv)
    return [tensor.float() if is_emulated(tensor) else tensor for tensor in qkv]


def _cut(output: Tensor, width: int) -> Float[Tensor, "batch rows heads {width}"]:
    """Without what was put at the end.

    As it is where that is nothing: compiled layers look at what a tensor is a view of, and a view
    of each kind of output would have them compiled again.
    """
    return output if output.shape[-1] == width else output[..., :width]


def _suffix_rows(
    qkv: tuple[Tensor, Tensor, Tensor], told: SuffixRows, how: How, dropout: float
) -> Float[Tensor, "batch rows heads value_dim"]:
    explicit = None if how[1:] == (None, None) else partial(_explicit, *qkv, how)
    return attend_suffixes(qkv, told, explicit, how[0], dropout)


def _by_backend(
    backend: str,
    kernel: Kernel,
    qkv: tuple[Tensor, Tensor, Tensor],
    mask: CausalRows,
    how: How,
) -> tuple[Float[Tensor, "batch queries heads value_dim"], Tensor | None]:
    query, key, value = qkv
    if backend == "eager":
        return kernel(query, key, value, _additive(mask, query.dtype))
    # SDPA has neither caps nor sinks; flash-attn would leave out sinks, packing and masks cut into
    # chunks without a word.
    own = how[2] is not None or (how[1] is not None and backend == "sdpa")
    if own or (backend != "sdpa" and not mask.is_plain):
        rows = partial(_explicit, query, key, value, how)
        return _by_chunks(rows, mask), None
    if backend != "sdpa":
        return kernel(query, key, value, mask.padding)
    return _without_dense_mask(kernel, query, key, value, mask), None


def _single(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: CausalRows, how: How
) -> Float[Tensor, "batch 1 heads value_dim"]:
    """One query row, its logits computed once for the output and the probe."""
    scale, cap, sinks = how
    logits = row_logits(query, key, scale, cap)
    if mask.last_row_bias is not None:
        logits = logits + mask.last_row_bias
    probe = getattr(module, "sce_probe", None)
    if probe is not None:
        probe.see(module, logits, value, mask, sinks)
    return mix(row_weights(logits, sinks).to(value.dtype), value).transpose(1, 2)


def _without_dense_mask(
    kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, mask: CausalRows
) -> Tensor:
    """SDPA by slices of real tokens where the mask is plainly causal, else by chunks of rows."""
    ranges = mask.plain_ranges
    if ranges is None:
        return _by_chunks(
            lambda rows, keys, visible: kernel(
                q[:, :, rows], k[:, :, keys], v[:, :, keys], visible
            )[0],
            mask,
        )
    if set(ranges) == {(0, mask.num_keys)}:
        return kernel(q, k, v, None, is_causal=True)[0]
    outputs = []
    for index, (start, end) in enumerate(ranges):
        here = slice(index, index + 1)
        if start == end:  # nothing but padding, in a chunk of a longer prompt
            outputs.append(v.new_zeros(1, mask.num_queries, q.shape[1], v.shape[-1]))
            continue
        part = [tensor[here, :, start:end] for tensor in (q, k, v)]
        output = kernel(*part, None, is_causal=True)[0]
        outputs.append(nn.functional.pad(output, (0, 0, 0, 0, start, mask.num_queries - end)))
    return torch.cat(outputs)


def _by_chunks(
    attend: Callable[[slice, slice, Bool[Tensor, "batch 1 rows keys"]], Tensor], mask: CausalRows
) -> Tensor:
    """All rows, CHUNK_ROWS at a time, each chunk with the keys in its reach."""
    outputs = []
    for first in range(0, mask.num_queries, CHUNK_ROWS):
        last = min(first + CHUNK_ROWS, mask.num_queries)
        low, high = mask.keys_in_reach(first, last)
        queries = torch.arange(first, last, device=mask.device)[None]
        visible = mask.rows(queries, (low, high))
        # A padded query sees nothing; softmax over nothing is NaN, which would spread.
        visible = visible | ~visible.any(dim=-1, keepdim=True)
        outputs.append(attend(slice(first, last), slice(low, high), visible))
    return torch.cat(outputs, dim=1)


def _explicit(  # noqa: PLR0913 - what attention is made of
    q: Tensor, k: Tensor, v: Tensor, how: How, rows: slice, keys: slice, visible: Tensor
) -> Tensor:
    part = (q[:, :, rows], k[:, :, keys], v[:, :, keys], visible, how)
    if not torch.is_grad_enabled():
        return attend(*part)
    # Worked out again for the gradient: kept, the chunks would add up to keys x keys.
    return checkpoint(attend, *part, use_reentrant=False)  # type: ignore[return-value]


def _additive(mask: CausalRows, dtype: torch.dtype) -> Float[Tensor, "batch 1 queries keys"]:
    """The whole mask, for the eager checks only."""
    visible = mask.rows(torch.arange(mask.num_queries, device=mask.device)[None])
    return torch.zeros(visible.shape, dtype=dtype, device=mask.device).masked_fill(
        ~visible, torch.finfo(dtype).min
    )


def _kernel(backend: str, module: nn.Module) -> Kernel:
    if backend == "sdpa":
        return _sdpa
    if backend == "eager":
        return vars(sys.modules[type(module).__module__])["eager_attention_forward"]
    return partial(_flash, backend)


def _sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Transformers' way into SDPA, whose kernels are tried in our order on a GPU."""
    with fused_kernels(query, masked=mask is not None):
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)


def _flash(  # noqa: PLR0913 - the signature is transformers'
    backend: str,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    padding: Bool[Tensor, "batch keys"] | None,
    *,
    scaling: float,
    dropout: float,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Transformers' own way into flash-attn, told which one; it unpads where there is padding."""
    output = _flash_attention_forward(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        padding,
        query_length=query.shape[2],
        is_causal=True,
        dropout=dropout,
        softmax_scale=scaling,
        attn_implementation=backend,
        layer_idx=module.layer_idx,
        target_dtype=get_target_dtype(query, module),  # of float32 queries, which it cannot take
        **kwargs,
    )
    return output, None


def register() -> None:
    """Make every backend known to transformers, with its mask interface."""
    for backend, name in IMPLEMENTATIONS.items():
        AttentionInterface.register(name, partial(attention, backend))
        AttentionMaskInterface.register(name, tell_rows)


register()
