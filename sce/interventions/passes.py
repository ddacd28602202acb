"""Which rows of a forward pass an intervention reaches, and that it did reach them.

Rows are told by their column in the padded batch. Columns are counted from the start of the cache
that is handed in, and not from the end of the pass: a pass may be a whole batch with the gold
answers on it, the rest of one after a prefix that was computed before, or a single token, and by
columns one rule holds for all three. With left padding the last prompt token of every example
stands in one and the same column.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sce.errors import InputError
from sce.interventions.select import Heads
from sce.model.build import base_of, head_shape
from sce.model.projections import HeadOutputs, head_outputs


def backbone(model: nn.Module) -> nn.Module:
    """The decoder without the unembedding, through which every pass of the model goes."""
    return base_of(model).base_model


def num_cached(kwargs: Mapping[str, Any]) -> int:
    """Columns that the cache handed to a pass already holds."""
    cache = kwargs.get("past_key_values")
    return 0 if cache is None else int(cache.get_seq_length())


def outputs_of(model: nn.Module, heads: Heads) -> dict[int, HeadOutputs]:
    """Where the heads write, by layer; only the layers of `heads`.

    Raises:
        InputError: a head that the model does not have.
    """
    shape = head_shape(model)
    found = head_outputs(model, shape[1])
    for layer, head in sorted(heads):
        if not (0 <= layer < shape[0] and 0 <= head < shape[1]):
            raise InputError(
                f"head {layer}-{head}: the model has layers 0 to {shape[0] - 1} and heads 0 to "
                f"{shape[1] - 1}"
            )
        if layer not in found:
            raise InputError(f"head {layer}-{head}: layer {layer} of this model has no heads")
    return {layer: found[layer] for layer in sorted({layer for layer, _ in heads})}


def columns_of(outputs: HeadOutputs, heads: Heads, device: torch.device) -> Int[Tensor, " numbers"]:
    """Indices of the heads' numbers in the input of their layer's projection."""
    own = sorted(head for layer, head in heads if layer == outputs.layer)
    indices = torch.arange(outputs.num_heads * outputs.dim, device=device)
    return torch.cat([indices[outputs.slice_of(head)] for head in own])


class Passes:
    """Follows a model's passes and says which rows of the present one are reached."""

    def __init__(self, from_column: int | None, layers: frozenset[int]) -> None:
        """Take the first column that is reached (None: all are) and the layers that must be."""
        self._from_column, self._layers = from_column, layers
        self._num_cached = 0
        self._reached: set[int] = set()

    def rows(self, layer: int, num_rows: int) -> slice:
        """The rows reached of a pass of `num_rows`; none of them before the first column."""
        self._reached.add(layer)
        first = 0 if self._from_column is None else self._from_column - self._num_cached
        return slice(min(max(0, first), num_rows), num_rows)

    def begin(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Before a pass of the backbone."""
        del module, args
        self._num_cached = num_cached(kwargs)
        self._reached.clear()

    def end(self, module: nn.Module, args: tuple, output: Any) -> None:
        """After a pass: every layer must have asked for its rows."""
        del args, output
        missed = self._layers - self._reached
        if missed:
            raise InputError(
                f"layers {sorted(missed)} of {type(module).__name__} were not reached, so nothing "
                "was changed in them; use a model whose attention goes through transformers' "
                "AttentionInterface"
            )


@contextmanager
def following(
    model: nn.Module, from_column: int | None, layers: frozenset[int]
) -> Iterator[Passes]:
    """Follow the model's passes within the block."""
    passes = Passes(from_column, layers)
    body = backbone(model)
    with ExitStack() as stack:
        stack.callback(body.register_forward_pre_hook(passes.begin, with_kwargs=True).remove)
        stack.callback(body.register_forward_hook(passes.end).remove)
        yield passes


def overwritten(
    x: Float[Tensor, "batch rows width"],
    rows: slice,
    columns: Int[Tensor, " numbers"],
    values: Float[Tensor, "..."] | float,
) -> Float[Tensor, "batch rows width"]:
    """A copy of a projection's input with some columns of some rows replaced."""
    changed = x.clone()
    changed[:, rows, columns] = values.to(x.dtype) if isinstance(values, Tensor) else values
    return changed
