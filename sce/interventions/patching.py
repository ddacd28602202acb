"""Activation patching between two models: some heads of one put out what the other's do.

At every pass of the target the source runs on the same tokens, with a cache of its own, and what
its heads put out (their slices of the output projection's input) at the answer-emitting positions
takes the place of what the target's put out. Both consume the tokens that the target emits. After
Prakash et al. (arXiv 2402.14811), whom Zhao, Yin and Durrett (arXiv 2410.22316) reportedly follow;
positions and numbers are ours.

What it is not: with all heads of all layers patched at these positions the target is not the
source. The keys and values of the context stay the target's own, and so do its MLPs and the rest of
the residual stream.

The two are adapters on one base in memory, run one after the other and never as one mixed batch, so
that patching a model into itself changes nothing, bit for bit.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import Cache

from sce.errors import InputError
from sce.interventions.passes import (
    Passes,
    backbone,
    columns_of,
    following,
    num_cached,
    outputs_of,
    overwritten,
)
from sce.interventions.select import Heads
from sce.model.adapters import adapter_switch
from sce.model.build import head_shape
from sce.model.projections import HeadOutputs


@dataclass(frozen=True)
class Side:
    """One of the two models."""

    model: nn.Module
    adapter: str | None = None
    """Name of the adapter that is switched on while it runs, or sce.model.adapters.UNTUNED for the
    base; None leaves the model as it is."""


# What moves a cache's rows: beam search and its like. The source's cache has no part in it.
_SHUFFLES = ("reorder_cache", "batch_repeat_interleave", "batch_select_indices")
Prefixes = tuple[Cache, Cache]
"""Caches of the same columns of one batch, (target's, source's), each made by its own model."""


@contextmanager
def patched(
    target: Side,
    source: Side,
    heads: Heads,
    *,
    from_column: int | None = None,
    prefixes: Prefixes | None = None,
) -> Iterator[None]:
    """Patch the source's heads into the target in every pass of the target within the block.

    A pass with a cache must be handed that cache from its first column on, or start from
    `prefixes`; the source's cache is then kept as long as the target's, also where that is cropped.
    Afterwards the target's adapter is on, the hooks are gone, and the source's prefix is as it was.

    Args:
        target: whose passes are patched.
        source: whose heads' outputs are taken; may be the same model with another adapter.
        heads: (layer, query head), zero-based.
        from_column: the first column of the padded batch that is patched; None: all are. The
            answer is emitted from `batch.num_prompt - 1` on.
        prefixes: caches to go on from, (target's, source's).

    Raises:
        InputError: no head, a head that the models do not have, models of different shapes; or
            within the block a cache that is not known or of other rows than the pass, or one
            whose rows are shuffled (beam search).
    """
    patch = _Patch(target, source, heads, prefixes)
    with ExitStack() as stack:
        stack.callback(patch.restore)
        layers = frozenset(patch.outputs_of_target)
        passes = stack.enter_context(following(target.model, from_column, layers))
        for hook in patch.hooks(target, passes):
            stack.callback(hook.remove)
        yield


class _Patch:
    """What the hooks of one block share."""

    def __init__(self, target: Side, source: Side, heads: Heads, prefixes: Prefixes | None) -> None:
        if not heads:
            raise InputError("no head to patch: the set is empty")
        shapes = head_shape(target.model), head_shape(source.model)
        if shapes[0] != shapes[1]:
            raise InputError(
                f"the target has {shapes[0][0]} layers x {shapes[0][1]} heads and the source "
                f"{shapes[1][0]} x {shapes[1][1]}; heads can be patched between models of one base"
            )
        self._heads, self._source = heads, source
        self.outputs_of_target = outputs_of(target.model, heads)
        self.outputs_of_source = outputs_of(source.model, heads)
        for layer, output in self.outputs_of_target.items():
            if output.dim != self.outputs_of_source[layer].dim:
                raise InputError(f"layer {layer}: the two models' heads differ in size")
        self._caches: Prefixes | tuple[None, None] = (None, None)
        self._prefix_length = 0 if prefixes is None else int(prefixes[1].get_seq_length())
        self._prefix = None if prefixes is None else prefixes[1]
        self._taken: dict[int, Float[Tensor, "batch rows numbers"]] = {}
        self._in_source = False
        self.switch_to_target, self._switch_to_source = _switches(target, source)
        if prefixes is not None:
            self._pair(*prefixes)

    def hooks(self, target: Side, passes: Passes) -> Iterator[RemovableHandle]:
        """Everything that is hung on the two models."""
        body = backbone(target.model)
        yield body.register_forward_pre_hook(self.run_source, with_kwargs=True)
        yield body.register_forward_hook(self.check_used)
        for output in self.outputs_of_source.values():
            yield output.projection.register_forward_pre_hook(self.recording(output, passes))
        for output in self.outputs_of_target.values():
            yield output.projection.register_forward_pre_hook(self.replacing(output, passes))

    def run_source(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Before a pass of the target: the source's on the same tokens."""
        del module
        if self._in_source:  # one model, two adapters: this pass is the source's own
            return
        cache = self._source_cache(kwargs)
        own = {**kwargs, "past_key_values": cache, "use_cache": cache is not None}
        self._in_source = True
        try:
            self._switch_to_source()
            backbone(self._source.model)(*args, **own)
        finally:
            self._in_source = False
            self.switch_to_target()

    def check_used(self, module: nn.Module, args: tuple, output: Any) -> None:
        """After a pass of the target: what was taken from the source must be in it."""
        del args, output
        if self._taken and not self._in_source:
            left = sorted(self._taken)
            self._taken.clear()
            raise InputError(
                f"patching: layers {left} of {type(module).__name__} do not put their heads' "
                "outputs through their output projection, so nothing was patched in them"
            )

    def _source_cache(self, kwargs: dict[str, Any]) -> Cache | None:
        """The source's cache beside the one handed to the target, of the same columns."""
        cache, length = kwargs.get("past_key_values"), num_cached(kwargs)
        if cache is None:
            return None
        known, own = self._caches
        if cache is not known or own is None:
            if length:
                raise InputError(
                    "patching: the target goes on from a cache that the source has none beside; "
                    "hand both in as prefixes, or the same cache from the first token on"
                )
            own = copy.deepcopy(cache)
            self._pair(cache, own)
        _require_rows(cache, kwargs)
        _require_rows(own, kwargs)
        _crop(own, length)
        return own

    def _pair(self, cache: Cache, own: Cache) -> None:
        """Keep the source's cache beside the target's, whose rows must now stay where they are."""
        self._unpair()
        self._caches = (cache, own)
        for name in _SHUFFLES:
            setattr(cache, name, _refuse_shuffle)

    def _unpair(self) -> None:
        """Give the target's cache its own methods back."""
        cache, _ = self._caches
        self._caches = (None, None)
        for name in _SHUFFLES if cache is not None else ():
            delattr(cache, name)

    def recording(self, output: HeadOutputs, passes: Passes) -> Callable[[nn.Module, tuple], None]:
        """A hook on the source that keeps what its heads put out."""
        columns = columns_of(output, self._heads, next(output.projection.parameters()).device)

        def hook(module: nn.Module, args: tuple) -> None:
            del module
            if self._in_source:
                rows = passes.rows(output.layer, args[0].shape[-2])
                self._taken[output.layer] = args[0][:, rows, columns]

        return hook

    def replacing(
        self, output: HeadOutputs, passes: Passes
    ) -> Callable[[nn.Module, tuple], tuple | None]:
        """A hook on the target that puts it in place."""
        device = next(output.projection.parameters()).device
        columns = columns_of(output, self._heads, device)

        def hook(module: nn.Module, args: tuple) -> tuple | None:
            del module
            if self._in_source:
                return None
            rows = passes.rows(output.layer, args[0].shape[-2])
            taken = self._taken.pop(output.layer).to(device)
            return (overwritten(args[0], rows, columns, taken), *args[1:])

        return hook

    def restore(self) -> None:
        """Leave the target's cache and the source's prefix as they were handed in."""
        self._taken.clear()
        self._unpair()
        if self._prefix is not None:
            _crop(self._prefix, self._prefix_length)


def _refuse_shuffle(*args: Any, **kwargs: Any) -> None:
    """In the place of what shuffles a cache's rows."""
    del args, kwargs
    raise InputError(
        "patching: the rows of the target's cache were to be shuffled (beam search), which the "
        "source's cannot follow; decode greedily or by sampling, with num_beams=1"
    )


def _require_rows(cache: Cache, kwargs: Mapping[str, Any]) -> None:
    """Refuse a pass of another number of rows than the cache that it goes on from holds."""
    tokens = kwargs.get("input_ids")
    tokens = kwargs.get("inputs_embeds") if tokens is None else tokens
    held = {k.shape[0] for layer in cache.layers if (k := getattr(layer, "keys", None)) is not None}
    if isinstance(tokens, Tensor) and held - {tokens.shape[0]}:
        raise InputError(
            f"patching: a pass of {tokens.shape[0]} rows goes on from a cache of {max(held)}; hand "
            "in caches of the very batch, and decode with num_beams=1 and num_return_sequences=1"
        )


def _crop(cache: Cache, length: int) -> None:
    """Take away what a cache holds past `length` columns."""
    extra = int(cache.get_seq_length()) - length
    if extra < 0:
        raise InputError(f"patching: the source's cache lacks {-extra} columns of the target's")
    if extra:
        cache.crop(-extra)


def _switches(target: Side, source: Side) -> tuple[Callable[[], None], Callable[[], None]]:
    """What switches the target on, and the source; nothing where both are the same.

    The target is on afterwards. Raises for an adapter that is not there.
    """
    if source.model is target.model and source.adapter == target.adapter:
        _switch(target)
        return _nothing, _nothing
    to_source, to_target = _switch(source), _switch(target)
    return to_target, to_source


def _switch(side: Side) -> Callable[[], None]:
    if side.adapter is None:
        return _nothing
    name, switch = side.adapter, adapter_switch(side.model)
    switch(name)
    return lambda: switch(name)


def _nothing() -> None:
    return None
