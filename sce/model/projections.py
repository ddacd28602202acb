"""Where heads write: the output projection of every attention layer, and the unembedding.

The projection's input is the outputs of all query heads side by side, so head h of a layer owns the
slice h * dim .. (h + 1) * dim, whatever the number of key-value heads and the hidden size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sce.errors import InputError

# What the projection is called: Llama and its relatives, LFM2, Phi and GPT-NeoX, GPT-2.
_NAMES = ("o_proj", "out_proj", "dense", "c_proj")


@dataclass(frozen=True)
class HeadOutputs:
    """The heads of one layer and where they write."""

    layer: int
    attention: nn.Module
    projection: nn.Module
    """Linear (or GPT-2's Conv1D, or LoRA around one): [..., heads * dim] -> [..., hidden]."""
    num_heads: int
    dim: int
    """Numbers that a head puts out."""

    def slice_of(self, head: int) -> slice:
        """The head's part of the projection's input."""
        return slice(head * self.dim, (head + 1) * self.dim)

    def pulled_back(
        self, direction: Float[Tensor, "batch rows hidden"]
    ) -> Float[Tensor, "batch heads rows dim"]:
        """W_O^h transposed times a direction of the residual stream, for every head h.

        By the projection's own derivative, so it holds for LoRA and for quantised weights.
        """
        batch, rows, _ = direction.shape
        floating = [p.dtype for p in self.projection.parameters() if p.is_floating_point()]
        dtype = floating[0] if floating else torch.float32
        width = self.num_heads * self.dim
        # Not by torch.func, which bitsandbytes' layers have no rules for.
        with torch.inference_mode(False), torch.enable_grad():
            zeros = torch.zeros(batch, rows, width, dtype=dtype, device=direction.device)
            written = self.projection(zeros.requires_grad_())
            towards = direction.detach().clone().to(written.dtype)
            (pulled,) = torch.autograd.grad(written, zeros, towards)
        return pulled.detach().view(batch, rows, self.num_heads, self.dim).transpose(1, 2).float()


def attention_modules(model: nn.Module) -> list[nn.Module]:
    """The modules that attend: those that know their layer and how attention is to be called."""
    return [m for m in model.modules() if hasattr(m, "layer_idx") and hasattr(m, "is_causal")]


def head_outputs(model: nn.Module, num_heads: int) -> dict[int, HeadOutputs]:
    """The output projection of every layer that has heads, by layer.

    Args:
        model: a causal LM, with or without an adapter.
        num_heads: query heads a layer.

    Raises:
        InputError: a layer attends and none of its parts is a projection by a known name.
    """
    found = {}
    for module in attention_modules(model):
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        projection = next((c for name, c in module.named_children() if name in _NAMES), None)
        if projection is None:
            raise InputError(
                f"layer {layer} ({type(module).__name__}) has no output projection by a known name "
                f"({', '.join(_NAMES)}), so its heads' outputs cannot be told apart"
            )
        width = _in_features(projection)
        found[layer] = HeadOutputs(layer, module, projection, num_heads, width // num_heads)
    return found


def require_ungated(outputs: Mapping[int, HeadOutputs]) -> None:
    """Refuse layers that gate their heads' outputs before the projection.

    There W_O v_j is not what a head writes: the gate, which the query decides on, comes between.

    Raises:
        InputError: a layer has a gate, by the name of a part, or queries of twice the width
            (Qwen3-Next makes both of one projection).
    """
    for layer, output in outputs.items():
        parts = dict(output.attention.named_children())
        named = any("gate" in name or name == "g_proj" for name in parts)
        queries = _out_features(parts.get("q_proj"))
        if named or queries == 2 * output.num_heads * output.dim:
            raise InputError(
                f"layer {layer} ({type(output.attention).__name__}) gates its heads' outputs "
                "before the output projection, where ov_write is not defined; use another scorer"
            )


def _out_features(projection: nn.Module | None) -> int | None:
    base = getattr(projection, "base_layer", projection)  # inside LoRA
    return getattr(base, "out_features", None)


def _in_features(projection: nn.Module) -> int:
    base: Any = getattr(projection, "base_layer", projection)  # inside LoRA
    # GPT-2's Conv1D is stored the other way round, and has no such attribute.
    return int(base.in_features if hasattr(base, "in_features") else base.weight.shape[0])


def unembedding(model: nn.Module) -> nn.Module:
    """The layer whose weight row y is the direction that raises the logit of token y."""
    return model.get_output_embeddings()  # type: ignore[operator]
