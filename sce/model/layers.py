"""How the layers run while they are trained: recomputed in the backward pass, compiled.

Both act on the decoder layers' `forward`, and on nothing else: names of parameters stay, hooks (of
FSDP, of probes) stay outside, and without gradients (scoring, decoding) a layer runs as it is. So a
probe never sees a row twice.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import (
    CheckpointPolicy,
    SelectiveCheckpointContext,
    checkpoint,
    create_selective_checkpoint_contexts,
)
from transformers import AttentionInterface
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from sce.errors import InputError
from sce.model.attention import IMPLEMENTATIONS
from sce.options import ModelOptions


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The layers that can be recomputed or compiled one by one, in order."""
    return [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]


def wrap_layers(model: nn.Module, options: ModelOptions) -> None:
    """Have the layers recomputed and compiled as asked, once they are trained.

    Raises:
        InputError: the model has no layers that can be told apart.
    """
    if options.recomputed is None and not options.compile:
        return
    layers = decoder_layers(model)
    if not layers:
        option = "compile" if options.recomputed is None else "activation_checkpointing"
        raise InputError(
            f"model.{option}: {type(model).__name__} has no layers that transformers knows how to "
            "recompute; leave it out"
        )
    if options.compile:
        _break_graphs_at_attention()
    for layer in layers:
        layer.forward = TrainedLayer(layer, options)  # type: ignore[assignment]


def recomputed(model: nn.Module) -> str | None:
    """What the backward pass computes again: full or selective; None: nothing."""
    for layer in decoder_layers(model):
        if isinstance(layer.forward, TrainedLayer):
            return layer.forward.recomputed
    return None


class TrainedLayer:
    """A layer's forward pass: as it is, but with gradients compiled and checkpointed as asked."""

    def __init__(self, layer: nn.Module, options: ModelOptions) -> None:
        self.layer, self.recomputed = layer, options.recomputed
        self.offload = options.offload_activations
        # The class's own: FSDP may give the layer another class later.
        self.plain: Callable[..., Any] = MethodType(type(layer).forward, layer)
        # dynamic: batches differ in length, and one graph does for all of them.
        self.run = torch.compile(self.plain, dynamic=True) if options.compile else self.plain

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the layer returns."""
        if not (self.layer.training and torch.is_grad_enabled()):
            return self.plain(*args, **kwargs)
        if self.recomputed is None:
            return self.run(*args, **kwargs)
        more: dict[str, Any] = {}
        if self.recomputed == "selective":
            more["context_fn"] = partial(create_selective_checkpoint_contexts, _keep_attention)
        # The checkpoint saves its positional tensors, the hidden states, outside of its own hooks:
        # they are all that goes to the host.
        on_gpu = torch.cuda.is_available()
        with save_on_cpu(pin_memory=on_gpu) if self.offload else nullcontext():
            return checkpoint(partial(self.run, **kwargs), *args, use_reentrant=False, **more)


def _keep_attention(
    context: SelectiveCheckpointContext, op: Any, *args: Any, **kwargs: Any
) -> CheckpointPolicy:
    """Keep what fused attention puts out, compute the rest again.

    Attention is the one part whose work grows with the square of the length, and its output is no
    wider than the hidden states: at 32K tokens of an 8B model a byte kept of it saves eight times
    the work that a byte kept of a linear layer would (docs/training.md).
    """
    del context, args, kwargs
    name = str(op)
    if "attention" in name or "flash_attn" in name:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def _break_graphs_at_attention() -> None:
    """Keep our attention out of compiled graphs: its masks are told, not tensors, and probes look.

    The kernels are fused already; norms, rotary embedding and the MLP are what there is to gain.
    """
    for name in IMPLEMENTATIONS.values():
        attend = ALL_ATTENTION_FUNCTIONS[name]
        if not hasattr(attend, "_torchdynamo_disable"):
            AttentionInterface.register(name, torch.compiler.disable(attend))
