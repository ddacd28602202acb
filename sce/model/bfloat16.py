"""Products in bfloat16 on a CPU that has no instructions for them.

oneDNN emulates them there at a third of float32's speed or less. float32 holds every bfloat16
value, so the same product is had by multiplying and summing in float32 and rounding once, which is
what the instructions do too. Of attention it is the backward pass that is so slow.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sce.model.backends import emulates_bfloat16

FEWEST_ROWS = 64
"""Below, as in decoding, reading the weight costs more than the product, and half of it is read."""


class Float32Product(torch.autograd.Function):
    """A linear layer's product and its gradients, each summed in float32 and rounded once."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The product in bfloat16."""
        ctx.save_for_backward(input if weight.requires_grad else None, weight)
        wide = None if bias is None else bias.float()
        return nn.functional.linear(input.float(), weight.float(), wide).to(input.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # type: ignore[override]
        """The gradients of input, weight and bias."""
        input, weight = ctx.saved_tensors
        wide, needs = grad.float(), ctx.needs_input_grad
        rows = wide.flatten(0, -2)
        return (
            (wide @ weight.float()).to(grad.dtype) if needs[0] else None,
            (rows.T @ input.float().flatten(0, -2)).to(grad.dtype) if needs[1] else None,
            rows.sum(0).to(grad.dtype) if needs[2] else None,
        )


def linear(
    input: Float[Tensor, "... inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, " outputs"] | None,
) -> Float[Tensor, "... outputs"]:
    """The product of a linear layer, in float32 where torch's own would be emulated."""
    rows = input.numel() // max(input.shape[-1], 1)
    if rows < FEWEST_ROWS or not is_emulated(input):
        return nn.functional.linear(input, weight, bias)
    return Float32Product.apply(input, weight, bias)  # type: ignore[return-value]


class EmulatedLinear(nn.Linear):
    """A linear layer whose bfloat16 products are computed in float32."""

    def forward(self, input: Float[Tensor, "... inputs"]) -> Float[Tensor, "... outputs"]:
        """The product, in the input's type."""
        return linear(input, self.weight, self.bias)


def emulate(model: nn.Module) -> None:
    """Have the linear layers in bfloat16 computed in float32; their weights stay as they are."""
    for module in model.modules():
        if type(module) is nn.Linear and module.weight.dtype == torch.bfloat16:
            module.__class__ = EmulatedLinear


def is_emulated(rows: Tensor) -> bool:
    """Whether products of these would be emulated."""
    return rows.dtype == torch.bfloat16 and rows.device.type == "cpu" and emulates_bfloat16()
