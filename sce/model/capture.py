"""The probe: what every head does at the rows that were asked for.

Only those rows are ever computed, in float32, from the queries, keys and values that the model
itself uses: rows x keys numbers for a head, no matrix of attention weights.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor, nn

from sce.errors import InputError
from sce.model.masks import CausalRows
from sce.model.reads import Read, Rows
from sce.model.rows import How, row_logits

# Logits of the recomputed rows that stand in memory at a time (float32, so 256 MiB).
MAX_LOGITS = 1 << 26


class Probe:
    """Makes the reads it is given, layer by layer, while the model runs.

    Set `reads` before a forward pass, take what they found after it.
    """

    def __init__(self) -> None:
        self.reads: Mapping[str, Read] = {}
        """By name. Those without rows are made of single-token passes, the others of the rest."""
        self._found: dict[str, dict[int, Num[Tensor, "batch heads rows"]]] = {}
        self._hidden: dict[
            tuple[int, int], tuple[CausalRows, Bool[Tensor, "batch 1 rows keys"]]
        ] = {}

    def see(
        self,
        module: nn.Module,
        logits: Float[Tensor, "batch heads 1 keys"],
        value: Float[Tensor, "batch kv_heads keys dim"],
        mask: CausalRows,
        sinks: Float[Tensor, " heads"] | None,
    ) -> None:
        """Take the finished logits of a single-token pass."""
        heads = slice(0, logits.shape[1])
        rows = Rows(_layer(module), heads, logits, value, sinks, mask.key_offset)
        for name, read in self.reads.items():
            self._keep(name, rows.layer, read.of(rows))

    def recompute(
        self,
        module: nn.Module,
        query: Float[Tensor, "batch heads queries dim"],
        key: Float[Tensor, "batch kv_heads keys dim"],
        value: Float[Tensor, "batch kv_heads keys value_dim"],
        mask: CausalRows,
        how: How,
    ) -> None:
        """Compute the wanted rows of a pass, once for all reads that want the same."""
        for rows, names in self._wanted(query):
            for part in self._parts(module, query, key, value, mask, how, rows):
                for name in names:
                    self._keep(name, part.layer, self.reads[name].of(part))

    def _wanted(self, query: Tensor) -> list[tuple[Int[Tensor, "batch rows"], list[str]]]:
        by_rows: dict[int, tuple[Tensor, list[str]]] = {}
        alone = torch.zeros((query.shape[0], 1), dtype=torch.long, device=query.device)
        for name, read in self.reads.items():
            rows = alone if read.rows is None and query.shape[2] == 1 else read.rows
            if rows is not None:
                by_rows.setdefault(id(rows), (rows, []))[1].append(name)
        return list(by_rows.values())

    def _parts(  # noqa: PLR0913 - what attention is made of
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: CausalRows,
        how: How,
        rows: Int[Tensor, "batch rows"],
    ) -> Iterator[Rows]:
        """The rows of a few key-value heads at a time, as many as MAX_LOGITS allows."""
        scale, cap, sinks = how
        index = rows[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[3])
        wanted = query.detach().gather(2, index)
        about = (id(mask), id(rows))
        if about not in self._hidden:  # layers of one kind share their mask
            self._hidden[about] = (mask, ~mask.rows(rows))  # held, or its id might be another's
        hidden = self._hidden[about][1]
        kv_heads = key.shape[1]
        group = query.shape[1] // kv_heads
        step = max(1, MAX_LOGITS // (rows.numel() * key.shape[2] * group))
        for first in range(0, kv_heads, step):
            kv, heads = slice(first, first + step), slice(first * group, (first + step) * group)
            logits = row_logits(wanted[:, heads], key.detach()[:, kv], scale, cap)
            logits = logits.masked_fill_(hidden, float("-inf"))
            own_sinks = None if sinks is None else sinks.detach()[heads]
            yield Rows(
                _layer(module), heads, logits, value.detach()[:, kv], own_sinks, mask.key_offset
            )

    def _keep(self, name: str, layer: int, found: Num[Tensor, "batch heads rows"]) -> None:
        layers = self._found.setdefault(name, {})
        layers[layer] = torch.cat([layers[layer], found], dim=1) if layer in layers else found

    def take(self, num_layers: int) -> dict[str, Num[Tensor, "batch layers heads rows"]]:
        """What each read found in the last pass. Empties the probe.

        Layers without heads (hybrid models) hold the read's `missing`: -1 for a column, else 0.

        Raises:
            InputError: no layer showed its attention.
        """
        if self.reads and not self._found:
            raise InputError(
                "this model's attention does not go through transformers' AttentionInterface, so "
                "its heads cannot be read; use an architecture that supports attn_implementation"
            )
        taken = {}
        for name, layers in self._found.items():
            like = next(iter(layers.values()))
            missing = torch.full_like(like, self.reads[name].missing)
            taken[name] = torch.stack([layers.get(n, missing) for n in range(num_layers)], dim=1)
        self._found, self._hidden = {}, {}
        return taken


def _layer(module: nn.Module) -> int:
    return int(module.layer_idx)  # type: ignore[arg-type]


@contextmanager
def probing(modules: list[nn.Module]) -> Iterator[Probe]:
    """Show the attention of `modules` (sce.model.projections) to a new probe within the block."""
    probe = Probe()
    for module in modules:
        module.sce_probe = probe  # type: ignore[assignment]
    try:
        yield probe
    finally:
        for module in modules:
            del module.sce_probe
