"""The probe: where every head looks at the rows that emit answer tokens.

Only those rows are ever computed, in float32, from the queries and keys that the model itself uses:
rows x keys numbers for a head, no matrix of attention weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sce.errors import InputError
from sce.model.attention import row_logits
from sce.model.masks import CausalRows

# Logits of the recomputed rows that stand in memory at a time (float32, so 256 MiB).
MAX_LOGITS = 1 << 26


class Probe:
    """Collects, per layer, the key position that each head attends to most.

    Set `rows` before a forward pass of several tokens; a single-token pass is read as it is.
    Positions are absolute key positions of the padded batch; ties go to the lowest.
    """

    def __init__(self) -> None:
        self.rows: Int[Tensor, "batch rows"] | None = None
        """Query indices to read in the next pass; None: read nothing but single-token passes."""
        self._seen: dict[int, Int[Tensor, "batch heads rows"]] = {}
        self._hidden: dict[int, Tensor] = {}

    def see(
        self, module: nn.Module, logits: Float[Tensor, "batch heads rows keys"], mask: CausalRows
    ) -> None:
        """Take the finished logits of a single-token pass."""
        self._keep(module, argmax(logits), mask)

    def recompute(
        self,
        module: nn.Module,
        query: Float[Tensor, "batch heads queries dim"],
        key: Float[Tensor, "batch kv_heads keys dim"],
        mask: CausalRows,
        scale: float,
        cap: float | None,
    ) -> None:
        """Compute the wanted rows of a pass over several tokens."""
        rows = self.rows
        if rows is None and query.shape[2] == 1:
            rows = torch.zeros((query.shape[0], 1), dtype=torch.long, device=query.device)
        if rows is None:
            return
        index = rows[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[3])
        wanted = query.detach().gather(2, index)
        if id(mask) not in self._hidden:  # layers of one kind share their mask
            self._hidden[id(mask)] = ~mask.rows(rows)
        hidden = self._hidden[id(mask)]
        heads, kv_heads = query.shape[1], key.shape[1]
        per_kv = rows.numel() * key.shape[2] * heads // kv_heads
        step = max(1, MAX_LOGITS // per_kv)
        group = heads // kv_heads
        found = []
        for first in range(0, kv_heads, step):
            kv = slice(first, first + step)
            q = wanted[:, first * group : (first + step) * group]
            logits = row_logits(q, key.detach()[:, kv], scale, cap)
            found.append(argmax(logits.masked_fill_(hidden, float("-inf"))))
        self._keep(module, found[0] if len(found) == 1 else torch.cat(found, dim=1), mask)

    def _keep(
        self, module: nn.Module, positions: Int[Tensor, "batch heads rows"], mask: CausalRows
    ) -> None:
        positions = positions + mask.key_offset if mask.key_offset else positions
        self._seen[int(module.layer_idx)] = positions  # type: ignore[arg-type]

    def take(self, num_layers: int) -> Int[Tensor, "batch layers heads rows"]:
        """What the last pass saw; layers without heads (hybrid models) are -1. Empties the probe.

        Raises:
            InputError: no layer showed its attention.
        """
        if not self._seen:
            raise InputError(
                "this model's attention does not go through transformers' AttentionInterface, so "
                "its heads cannot be read; use an architecture that supports attn_implementation"
            )
        like = next(iter(self._seen.values()))
        missing = torch.full_like(like, -1)
        layers = [self._seen.get(layer, missing) for layer in range(num_layers)]
        self._seen, self._hidden = {}, {}
        return torch.stack(layers, dim=1)


def argmax(x: Float[Tensor, "*batch keys"]) -> Int[Tensor, "*batch"]:
    """Index of the largest value, the lowest on ties; on a CPU by NumPy, eight times as fast."""
    if x.device.type == "cpu":
        return torch.from_numpy(np.argmax(x.numpy(), axis=-1))
    return x.argmax(dim=-1)


@contextmanager
def probing(modules: list[nn.Module]) -> Iterator[Probe]:
    """Show the attention of `modules` (see `attention_modules`) to a new probe within the block."""
    probe = Probe()
    for module in modules:
        module.sce_probe = probe  # type: ignore[assignment]
    try:
        yield probe
    finally:
        for module in modules:
            del module.sce_probe


def attention_modules(model: nn.Module) -> list[nn.Module]:
    """The modules that may attend: those that know their layer."""
    return [module for module in model.modules() if hasattr(module, "layer_idx")]
