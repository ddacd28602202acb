"""The attention weights tuned themselves, without an adapter.

They are stored in float32, so that a small step is not lost to rounding, and cast to the type of
the hidden states for the product: what AdamW moves is the master copy, what the model computes with
has the base's precision. Names of parameters stay as they are.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from sce.errors import InputError
from sce.model.bfloat16 import EmulatedLinear, linear
from sce.model.targets import is_target, targets
from sce.options import LoraOptions

# In adapter/, where a PEFT adapter has adapter_model.safetensors.
TUNED_FILE = "tuned_weights.safetensors"


class Float32Linear(nn.Linear):
    """A linear layer stored in float32 and computed in the type of its input."""

    def forward(self, input: Float[Tensor, "... inputs"]) -> Float[Tensor, "... outputs"]:
        """The product, in the input's type."""
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return linear(input, self.weight.to(input.dtype), bias)


class Float32Conv1D(Conv1D):
    """GPT-2's linear layer, stored the other way round, likewise."""

    def forward(self, x: Float[Tensor, "... inputs"]) -> Float[Tensor, "... outputs"]:
        """The product, in the input's type."""
        product = torch.addmm(self.bias.to(x.dtype), x.flatten(0, -2), self.weight.to(x.dtype))
        return product.view(*x.shape[:-1], self.nf)


_CLASSES: dict[type, type] = {
    nn.Linear: Float32Linear,
    EmulatedLinear: Float32Linear,
    Conv1D: Float32Conv1D,
}


def tune_attention(model: PreTrainedModel, options: LoraOptions) -> PreTrainedModel:
    """Have the attention projections trained, weights and biases, and nothing else.

    Raises:
        InputError: no projection by a known name, or one that is quantised.
    """
    wanted = targets(model, options)
    for name, module in model.named_modules():
        if any(is_target(name, target) for target in wanted):
            _in_float32(name, module).requires_grad_(True)
    return model.train()


def _in_float32(name: str, module: nn.Module) -> nn.Module:
    if type(module) in _CLASSES.values():
        return module
    if type(module) not in _CLASSES:
        raise InputError(f"lora=none: {name} is a {type(module).__name__} and cannot be tuned")
    module.__class__ = _CLASSES[type(module)]
    return module.float()


def tuned_weights(model: nn.Module) -> dict[str, Tensor]:
    """The trained weights by name."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def save_tuned(weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write tuned weights as one safetensors file in a folder that is created."""
    folder.mkdir(parents=True, exist_ok=True)
    # Cloned: a file holds no two tensors that share their storage.
    copied = {name: w.detach().cpu().contiguous().clone() for name, w in weights.items()}
    save_file(copied, folder / TUNED_FILE, metadata={"format": "pt"})


def load_tuned(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Put saved weights in the places of the model's own, bit for bit.

    Raises:
        InputError: they are of another architecture, or the model's are quantised.
    """
    own = dict(model.named_parameters())
    for name, weight in load_file(folder / TUNED_FILE).items():
        if name not in own or own[name].shape != weight.shape:
            shape = tuple(own[name].shape) if name in own else "no such weight"
            raise InputError(
                f"adapter={folder}: does not fit this model ({name} is {tuple(weight.shape)} in "
                f"it, and here {shape})"
            )
        path = name.rpartition(".")[0]
        module = _in_float32(path, model.get_submodule(path))
        with torch.no_grad():
            module.get_parameter(name.rpartition(".")[2]).copy_(weight)
    return model
