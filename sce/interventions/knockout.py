"""Attention knockout: some heads put out nothing, their mean, or the mean of what they see.

zero     the head's slice of the output projection's input is 0.
mean     it is the head's mean over a calibration set, so that what comes after is not led outside
         of what it was trained on (mean ablation; Wang et al. 2023, arXiv 2211.00593).
uniform  the head's query is 0, so it attends to all positions it can see alike and puts out their
         mean value: what Wu et al.'s released code does (arXiv 2404.15574) where it says masking.
         A sink keeps its share of that attention.

zero and mean act through hooks on the stock model, whatever its attention; uniform through
sce.model.attention. All of it is gone after the block, also where an error ends it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sce.data.batch import Batch
from sce.errors import InputError
from sce.intervene_options import ABLATIONS, POSITIONS
from sce.interventions.passes import (
    Passes,
    backbone,
    columns_of,
    following,
    outputs_of,
    overwritten,
)
from sce.interventions.select import Heads
from sce.model.borrowed import own_attention
from sce.model.build import base_of, head_shape
from sce.model.projections import HeadOutputs, head_outputs

Means = Mapping[int, Float[Tensor, "heads dim"]]
"""By layer: the mean output of every head, in float64."""


@contextmanager
def knockout(
    model: nn.Module,
    heads: Heads,
    *,
    mode: str = "zero",
    from_column: int | None = None,
    means: Means | None = None,
) -> Iterator[None]:
    """Ablate `heads` in every forward pass within the block.

    Args:
        model: a causal LM, with or without an adapter.
        heads: (layer, query head), zero-based.
        mode: zero, mean or uniform.
        from_column: the first column of the padded batch that is ablated; None: all are. For Wu et
            al.'s protocol it is the column of the last prompt token, `batch.num_prompt - 1`.
        means: for `mean`, from `head_means`.

    Raises:
        InputError: a head that the model does not have, a mode that is unknown or lacks its means,
            or, at the first pass, a model in which a layer could not be reached.
    """
    if mode not in ABLATIONS:
        raise InputError(f"ablation={mode}: choose from {', '.join(ABLATIONS)}")
    if mode == "mean" and means is None:
        raise InputError("ablation=mean needs the heads' means over a calibration set")
    outputs = outputs_of(model, heads)
    with following(model, from_column, frozenset(outputs)) as passes, ExitStack() as stack:
        if mode == "uniform":
            stack.enter_context(own_attention(base_of(model)))
            for output in outputs.values():
                stack.enter_context(_without_queries(output, heads, passes))
        else:
            values = means if mode == "mean" else None
            for output in outputs.values():
                hook = _replacing(output, heads, passes, values)
                stack.callback(output.projection.register_forward_pre_hook(hook).remove)
        yield


def _replacing(
    output: HeadOutputs, heads: Heads, passes: Passes, means: Means | None
) -> Callable[[nn.Module, tuple], tuple]:
    """A hook that puts zeros, or the heads' means, in the place of what the heads put out."""
    device = next(output.projection.parameters()).device
    columns = columns_of(output, heads, device)
    values: Tensor | float = 0.0
    if means is not None:
        values = means[output.layer].flatten().to(device)[columns]

    def hook(module: nn.Module, args: tuple) -> tuple:
        del module
        rows = passes.rows(output.layer, args[0].shape[-2])
        return (overwritten(args[0], rows, columns, values), *args[1:])

    return hook


@contextmanager
def _without_queries(output: HeadOutputs, heads: Heads, passes: Passes) -> Iterator[None]:
    """Have the layer's heads attend uniformly, by a query of zeros, in the rows reached."""
    module = output.attention
    chosen = sorted(head for layer, head in heads if layer == output.layer)
    before = getattr(module, "sce_query_edit", None)

    def edit(query: Float[Tensor, "batch heads queries dim"]) -> Tensor:
        query = query.clone() if before is None else before(query).clone()
        rows = passes.rows(output.layer, query.shape[2])
        query[:, chosen, rows] = 0
        return query

    module.sce_query_edit = edit  # type: ignore[assignment]
    try:
        yield
    finally:
        del module.sce_query_edit
        if before is not None:
            module.sce_query_edit = before


@torch.no_grad()
def head_means(model: nn.Module, batches: Iterable[Batch], *, positions: str = "all") -> Means:
    """The mean output of every head over prompts with their gold answers; padding counts nowhere.

    Args:
        model: in eval mode, on the batches' device.
        batches: the calibration set, left-padded.
        positions: `all` tokens, or those that emit the `answer`: the last of the prompt and the
            gold answer's; the same that are ablated.

    Raises:
        InputError: `positions` is unknown, or there is no batch.
    """
    if positions not in POSITIONS:
        raise InputError(f"positions={positions}: choose from {', '.join(POSITIONS)}")
    outputs = head_outputs(model, head_shape(model)[1])
    sums = dict.fromkeys(outputs, torch.zeros(()))
    wanted: list[Tensor] = []
    count = 0

    def summing(layer: int) -> Callable[[nn.Module, tuple], None]:
        def hook(module: nn.Module, args: tuple) -> None:
            del module
            own = args[0][wanted[0]].double().sum(dim=0)
            sums[layer] = sums[layer].to(own) + own

        return hook

    with ExitStack() as stack:
        for layer, output in outputs.items():
            handle = output.projection.register_forward_pre_hook(summing(layer))
            stack.callback(handle.remove)
        for batch in batches:
            wanted[:] = [_positions(batch, positions)]
            count += int(wanted[0].sum())
            _run(model, batch)
    if count == 0:
        raise InputError("ablation=mean: there is no example to take the heads' means over")
    shapes = {layer: (output.num_heads, output.dim) for layer, output in outputs.items()}
    return {layer: (total / count).view(shapes[layer]) for layer, total in sums.items()}


def _run(model: nn.Module, batch: Batch) -> Any:
    return backbone(model)(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    )


def _positions(batch: Batch, positions: str) -> Bool[Tensor, "batch tokens"]:
    """Real tokens, all or those that emit the answer."""
    device = batch.input_ids.device
    column = torch.arange(batch.input_ids.shape[1], device=device)[None]
    sizes = [len(example.target_ids) for example in batch.examples]
    ends = batch.num_prompt + torch.tensor(sizes, device=device)[:, None]
    starts = torch.tensor(batch.padding, device=device)[:, None]
    if positions == "answer":
        starts = torch.full_like(starts, batch.num_prompt - 1)
    return (column >= starts) & (column < ends)
