"""What can be read of the rows that the probe recomputes: one class a quantity.

A read names the query rows it wants and makes one number a head and row of them. Reads that share
their rows share the logits, and the softmax too.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sce.model.projections import HeadOutputs
from sce.model.rows import mix, row_weights


@dataclass(frozen=True)
class Rows:
    """Some rows of some heads of one layer, as the model attends in them."""

    layer: int
    heads: slice
    """Which of the layer's query heads."""
    logits: Float[Tensor, "batch heads rows keys"]
    """-inf where a key is not visible."""
    value: Float[Tensor, "batch kv_heads keys dim"]
    sinks: Float[Tensor, " heads"] | None
    key_offset: int
    """Column of the padded batch that key 0 stands in: a window's cache drops what is before."""

    @cached_property
    def weights(self) -> Float[Tensor, "batch heads rows keys"]:
        """Attention weights; with sinks they sum to less than 1."""
        return row_weights(self.logits, self.sinks)

    def columns(self, of_batch: Bool[Tensor, "batch columns"]) -> Bool[Tensor, "batch 1 1 keys"]:
        """The keys among some columns of the padded batch; columns past its end are none."""
        keys = self.logits.shape[-1]
        here = of_batch[:, self.key_offset : self.key_offset + keys]
        return torch.nn.functional.pad(here, (0, keys - here.shape[1]))[:, None, None]


@dataclass(frozen=True)
class LookedAt:
    """The column that a head attends to most; ties go to the lowest."""

    rows: Int[Tensor, "batch rows"] | None
    """Query indices of the pass; None: the one row of a single-token pass."""
    missing: float = -1
    """What stands for a layer without heads."""

    def of(self, seen: Rows) -> Int[Tensor, "batch heads rows"]:
        """Columns of the padded batch."""
        return argmax(seen.logits) + seen.key_offset


@dataclass(frozen=True)
class Mass:
    """The attention that a head pays to some columns, 0..1."""

    rows: Int[Tensor, "batch rows"] | None
    columns: Bool[Tensor, "batch columns"]
    missing: float = 0

    def of(self, seen: Rows) -> Float[Tensor, "batch heads rows"]:
        """Summed weights."""
        return (seen.weights * seen.columns(self.columns)).sum(dim=-1)


@dataclass(frozen=True)
class Write:
    """What a head writes along a direction, from some columns against all others it sees.

        sum_{j in E} phi(j) - |E| / |not E| sum_{j not in E} phi(j),  phi(j) = a(j) u^T W_O v_j

    The second sum is scaled to as many positions as the first has (LOCOS, arXiv 2607.01002).
    """

    rows: Int[Tensor, "batch rows"] | None
    columns: Bool[Tensor, "batch columns"]
    """E, of which only what a row sees counts."""
    directions: Float[Tensor, "batch rows hidden"]
    """u: unembedding of the token that each row emits."""
    outputs: dict[int, HeadOutputs]
    """The output projections, by layer."""
    missing: float = 0

    def of(self, seen: Rows) -> Float[Tensor, "batch heads rows"]:
        """In logits, without what norms on the way would do to them."""
        visible = seen.logits > float("-inf")
        inside = visible & seen.columns(self.columns)
        num_inside = inside.sum(dim=-1, keepdim=True)
        num_outside = (visible.sum(dim=-1, keepdim=True) - num_inside).clamp(min=1)
        signs = torch.where(inside, 1.0, -num_inside / num_outside)
        with torch.autocast(seen.value.device.type, enabled=False):
            written = mix(seen.weights * signs, seen.value.float())
            pulled = self.outputs[seen.layer].pulled_back(self.directions)
        return (written * pulled[:, seen.heads]).sum(dim=-1)


Read = LookedAt | Mass | Write


def argmax(x: Float[Tensor, "*batch keys"]) -> Int[Tensor, "*batch"]:
    """Index of the largest value, the lowest on ties; on a CPU by NumPy, eight times as fast."""
    if x.device.type == "cpu":
        return torch.from_numpy(np.argmax(x.numpy(), axis=-1))
    return x.argmax(dim=-1)
