"""What each query may see, told row by row: masks that are never written out.

transformers asks for a mask once per forward pass; `tell_rows` answers with a `CausalRows`, and
sce.model.attention asks that for the rows it needs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.masking_utils import padding_mask_function, prepare_padding_mask


@dataclass(frozen=True, eq=False)
class CausalRows:
    """What each query may see, row by row.

    Indices handed in count queries of this forward pass and key slots of the cache; `query_offset`
    and `key_offset` lead to absolute positions, as in transformers' masking_utils.
    """

    batch_size: int
    num_queries: int
    num_keys: int
    query_offset: int
    key_offset: int
    function: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    padding: Bool[Tensor, "batch total"] | None
    """True where a token is real; None when all are."""
    window: int | None
    """Keys before a query that can be visible at most, itself included."""
    is_causal: bool
    """Nothing but causality, the window and padding (no packing, no overlays)."""
    device: torch.device

    def rows(
        self, queries: Int[Tensor, "#batch rows"], keys: tuple[int, int] | None = None
    ) -> Bool[Tensor, "batch 1 rows keys"]:
        """Visibility of key slots keys[0]..keys[1] (default: all) from the given query indices."""
        first, last = keys or (0, self.num_keys)
        batch = torch.arange(self.batch_size, device=self.device)[:, None, None, None]
        q = queries[:, None, :, None] + self.query_offset
        k = torch.arange(first, last, device=self.device)[None, None, None, :] + self.key_offset
        visible = self.function(batch, torch.zeros_like(batch), q, k)
        return visible.expand(self.batch_size, 1, queries.shape[1], last - first)

    def keys_in_reach(self, first: int, last: int) -> tuple[int, int]:
        """Key slots that queries first..last (exclusive) can see at all."""
        shift = self.query_offset - self.key_offset
        low = 0 if self.window is None else max(0, first + shift - self.window + 1)
        return low, min(self.num_keys, last + shift)

    @cached_property
    def derived(self) -> dict[int, Any]:
        """What was made of this mask, for the layers that share it, by the id of what for."""
        return {}

    @cached_property
    def last_row_bias(self) -> Float[Tensor, "batch 1 1 keys"] | None:
        """For a single query: 0 where visible, -inf elsewhere; None if all is visible."""
        index = torch.full((1, 1), self.num_queries - 1, device=self.device)
        visible = self.rows(index)
        if bool(visible.all()):
            return None
        return torch.zeros(visible.shape, device=self.device).masked_fill(~visible, float("-inf"))

    @cached_property
    def is_plain(self) -> bool:
        """Whether causality, a window and padding are all of it: what flash-attn can be told.

        Packed rows are more than that, and so are masks cut into chunks, where some tokens do not
        see the one before them.
        """
        if not self.is_causal or self.window is None:
            return self.is_causal
        k = torch.arange(self.num_keys - 1, device=self.device)[None] + self.key_offset
        batch = torch.arange(self.batch_size, device=self.device)[:, None]
        seen = self.function(batch, torch.zeros_like(batch), k + 1, k)
        return bool((seen if self.padding is None else seen | ~self.padding[batch, k]).all())

    @cached_property
    def plain_ranges(self) -> list[tuple[int, int]] | None:
        """Per example the slice of real tokens within which attention is plainly causal.

        None if that is not all there is to the mask: earlier keys in a cache, a window that binds,
        packing, or padding in the middle.
        """
        bound = self.window is not None and self.num_keys > self.window
        if not self.is_causal or bound or self.num_queries != self.num_keys or self.key_offset:
            return None
        if self.padding is None:
            return [(0, self.num_keys)] * self.batch_size
        real = self.padding[:, : self.num_keys].int()
        starts, lengths = real.argmax(dim=1), real.sum(dim=1)
        index = torch.arange(self.num_keys, device=self.device)
        inside = (index >= starts[:, None]) & (index < (starts + lengths)[:, None])
        if not torch.equal(inside, real.bool()):
            return None
        ends = (starts + lengths).tolist()
        return list(zip(starts.tolist(), ends, strict=True))


def tell_rows(  # noqa: PLR0913 - the signature is transformers'
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Callable | None = None,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    device: torch.device | str = "cpu",
    **_: object,
) -> CausalRows:
    """Transformers' mask interface: describes the mask instead of building it."""
    if mask_function is None:
        raise ValueError("transformers passed no mask function")
    padding = prepare_padding_mask(attention_mask, kv_length, kv_offset)
    function = mask_function
    if padding is not None:
        padding = padding.bool()
        of_padding = padding_mask_function(padding)

        def function(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return mask_function(b, h, q, k) & of_padding(b, h, q, k)

    return CausalRows(
        batch_size=batch_size,
        num_queries=q_length,
        num_keys=kv_length,
        query_offset=int(q_offset),
        key_offset=int(kv_offset),
        function=function,
        padding=padding,
        window=local_size,
        is_causal=allow_is_causal_skip,
        device=torch.device(device),
    )
