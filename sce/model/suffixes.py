"""Attention of questions that share one context: each sees the context and itself alone.

The context goes through the model's own kernel, causally. Here are the rows of the questions: over
the keys of the context and their own, some rows at a time. No mask of tokens x tokens is made.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from sce.data.batch import Suffixes
from sce.errors import InputError
from sce.model.backends import fused_kernels
from sce.model.masks import CausalRows
from sce.model.rope import turns_with_length

# Rows that are worked out at a time.
CHUNK_ROWS = 256
_INSTEAD = "use data.questions_per_context=1"


@dataclass(frozen=True, eq=False)
class SuffixRows:
    """A mask for questions that share a context: over the context alone, and of their own rows."""

    context: CausalRows
    suffixes: CausalRows

    @classmethod
    def of(cls, mask: CausalRows, suffixes: Suffixes) -> "SuffixRows":
        """Taken from a mask of all columns, once for the layers that have the same.

        Raises:
            InputError: there is more to the mask than causality, a window and padding.
        """
        if id(suffixes) not in mask.derived:
            mask.derived[id(suffixes)] = cls._told(mask, suffixes)
        return mask.derived[id(suffixes)]

    @classmethod
    def _told(cls, mask: CausalRows, suffixes: Suffixes) -> "SuffixRows":
        padding = mask.padding
        if padding is None or not mask.is_plain:
            raise InputError(
                "data.questions_per_context: this model's attention is more than causal within a "
                f"window; {_INSTEAD}"
            )
        first, width, at = suffixes.num_context, suffixes.width, suffixes.position_ids

        def visible(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            del h
            same = (k < first) | ((k - first) // width == (q - first) // width)
            seen = same & (k <= q) & padding[b, k]
            return seen if mask.window is None else seen & (at[b, q] - at[b, k] < mask.window)

        context = replace(mask, num_queries=first, num_keys=first, padding=padding[:, :first])
        rows = mask.num_queries - first
        own = replace(mask, num_queries=rows, query_offset=first, function=visible, window=None)
        return cls(context, own)

    @cached_property
    def chunks(self) -> list[tuple[slice, Bool[Tensor, "batch 1 rows keys"]]]:
        """Some rows of suffixes after the other, and which of the first keys they see."""
        chunks, count = [], self.suffixes.num_queries
        for first in range(0, count, CHUNK_ROWS):
            last = min(first + CHUNK_ROWS, count)
            queries = torch.arange(first, last, device=self.suffixes.device)[None]
            visible = self.suffixes.rows(queries, self.suffixes.keys_in_reach(first, last))
            # What is padded sees nothing; softmax over nothing is NaN, which would spread.
            chunks.append((slice(first, last), visible | ~visible.any(dim=-1, keepdim=True)))
        return chunks

    @cached_property
    def _biases(self) -> dict[tuple[int, torch.dtype], list[Tensor]]:
        return {}

    def biases(
        self, group: int, dtype: torch.dtype
    ) -> list[Float[Tensor, "batch 1 group_rows keys"]]:
        """For each chunk 0 where visible and -inf elsewhere, `group` times one below the other."""
        if (group, dtype) not in self._biases:
            self._biases[group, dtype] = [
                torch.zeros(visible.shape, dtype=dtype, device=visible.device)
                .masked_fill(~visible, float("-inf"))
                .repeat(1, 1, group, 1)
                for _, visible in self.chunks
            ]
        return self._biases[group, dtype]


def check_suffixes(module: nn.Module, mask: object, suffixes: Suffixes) -> None:
    """Note a layer that keeps questions apart.

    Raises:
        InputError: the model, or what is done with it, would let them see each other.
    """
    if not suffixes.layers:  # once for a pass
        if turns_with_length(module.config):  # type: ignore[arg-type]
            raise InputError(
                "data.questions_per_context: this model's rotary tables follow the longest "
                f"position of a pass, so a question would depend on its neighbours; {_INSTEAD}"
            )
        layers = DynamicCache(config=module.config).layers  # type: ignore[arg-type]
        # By exact type: a layer with a state beside its keys is a kind of DynamicLayer too.
        if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
            raise InputError(
                "data.questions_per_context: some layers of this model keep a state, in which "
                f"questions would see each other; {_INSTEAD}"
            )
    if not isinstance(mask, CausalRows) or hasattr(module, "sce_probe"):
        raise InputError(
            "data.questions_per_context: questions that share a context are for training, under "
            f"transformers' own masks; {_INSTEAD}"
        )
    suffixes.layers.add(int(module.layer_idx))  # type: ignore[arg-type]


def attend_suffixes(
    qkv: tuple[Tensor, Tensor, Tensor],
    told: SuffixRows,
    explicit: Callable[[slice, slice, Tensor], Tensor] | None,
    scale: float,
    dropout: float,
) -> Float[Tensor, "batch rows heads value_dim"]:
    """The rows of all suffixes.

    Query heads that share keys stand one below the other, so that no key is copied for them.

    Args:
        qkv: queries [batch, heads, rows, dim] of the suffixes, keys and values of all columns.
        told: what they see.
        explicit: works out some rows over some keys under a mask, where SDPA cannot (caps, sinks).
        scale: of the logits.
        dropout: of the weights.
    """
    q, k, v = qkv
    outputs = []
    batch, heads, _, dim = q.shape
    biases = [] if explicit else told.biases(heads // k.shape[1], q.dtype)
    for number, (rows, visible) in enumerate(told.chunks):
        keys = slice(0, visible.shape[-1])
        if explicit:
            outputs.append(explicit(rows, keys, visible))
            continue
        with fused_kernels(q, masked=True):
            output = nn.functional.scaled_dot_product_attention(
                q[:, :, rows].reshape(batch, k.shape[1], -1, dim),
                k[:, :, keys],
                v[:, :, keys],
                attn_mask=biases[number],
                dropout_p=dropout,
                scale=scale,
            )
        # Not by a view: kernels on a GPU put rows before heads.
        outputs.append(output.reshape(batch, heads, -1, v.shape[-1]).transpose(1, 2))
    return torch.cat(outputs, dim=1)
