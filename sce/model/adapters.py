"""Several adapters on one base model in memory, of which one at a time is switched on.

Beside sce.model.build the only other file that knows PEFT.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from sce.errors import InputError
from sce.model.build import fitted, read_adapter_note
from sce.options import ModelOptions, rope_in_use

# In place of an adapter's name: the base model with every adapter switched off.
UNTUNED = "untuned"


def load_adapters(model: PreTrainedModel, folders: Mapping[str, Path]) -> nn.Module:
    """The base model with a saved adapter for each name on it, in float32, the first switched on.

    Args:
        model: the base; its RoPE theta is that of the adapters by now.
        folders: name -> folder; of none the base itself is given back.

    Raises:
        InputError: a folder holds no adapter, or one that does not fit; two were tuned on different
            weights or with different RoPE.
    """
    require_same_base(folders)
    adapted: PeftModel | None = None
    for name, folder in folders.items():
        if not (folder / "adapter_model.safetensors").is_file():
            raise InputError(f"{name}={folder}: no adapter_model.safetensors in it")
        with fitted(f"{name}={folder}"):
            if adapted is None:
                adapted = PeftModel.from_pretrained(
                    model, str(folder), name, autocast_adapter_dtype=True
                )
            else:
                adapted.load_adapter(str(folder), name, autocast_adapter_dtype=True)
    return model if adapted is None else adapted.eval()


def require_same_base(folders: Mapping[str, Path]) -> None:
    """Refuse adapters tuned on different weights, or under different RoPE, by their own notes.

    Raises:
        InputError: they differ; the outputs of one's heads mean nothing to the other.
    """
    notes = {name: read_adapter_note(folder) for name, folder in folders.items()}
    known = {
        "weights": {n: note.get("weights_sha256") for n, note in notes.items()},
        "rope_theta": {
            n: rope_in_use(note.get("rope") or {})["rope_theta"] for n, note in notes.items()
        },
        "rope_scaling": {n: _scaling(note) for n, note in notes.items() if note},
    }
    for what, values in known.items():
        named = {name: value for name, value in values.items() if value is not None}
        if len(set(named.values())) > 1:
            shown = " and ".join(f"{name} on {str(value)[:12]}" for name, value in named.items())
            raise InputError(
                f"the adapters were tuned on different {what} ({shown}); heads can be patched "
                "between adapters of one base model alone"
            )


def _scaling(note: Mapping[str, Any]) -> str:
    """The RoPE scaling that an adapter was tuned under, in words that can be compared."""
    return str(rope_in_use(note.get("rope") or {})["rope_scaling"] or "none")


def require_rope_of_base(
    folders: Mapping[str, Path], own: float | None, asked: ModelOptions
) -> None:
    """Refuse adapters beside the untuned model where they were tuned under another RoPE than its.

    Args:
        folders: name -> folder.
        own: the untuned model's theta; None: it has none.
        asked: what the user gave; a theta or scaling that is given is meant for both models.

    Raises:
        InputError: an adapter's note says another theta, or a scaling. On one base in memory both
            models would run under the adapter's, and the untuned one would not be what it is.
    """
    for name, folder in folders.items():
        note = read_adapter_note(folder)
        theta, scaling = (note.get("rope") or {}).get("theta"), _scaling(note)
        if asked.rope_theta is None and theta is not None and own is not None and theta != own:
            raise InputError(
                f"{name}={folder} was tuned with rope_theta={theta:g}, and the untuned model "
                f"beside it has {own:g}; name an adapter for both, or give "
                f"model.rope_theta={theta:g} to have the untuned model run under it too"
            )
        if asked.rope_scaling is None and scaling != "none":
            raise InputError(
                f"{name}={folder} was tuned with rope_scaling {scaling}, and the untuned model "
                "beside it has none; name an adapter for both, or give model.rope_scaling to have "
                "the untuned model run under it too"
            )


def adapter_switch(model: nn.Module) -> Callable[[str], None]:
    """A function that switches one adapter of `model` on, by name, or all off (`UNTUNED`).

    PEFT's own `set_adapter` goes through all weights to mark what is to be trained, which costs as
    much as a small model's decoding step; this sets two flags a layer and leaves the rest alone.
    """
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    peft_model = model if isinstance(model, PeftModel) else None
    names = set() if peft_model is None else set(peft_model.peft_config)

    def switch(name: str) -> None:
        if name != UNTUNED and name not in names:
            raise InputError(f"adapter {name}: not on this model; there is {sorted(names)}")
        for layer in layers:
            layer._disable_adapters = name == UNTUNED
            if name != UNTUNED:
                layer._active_adapter = [name]
        if peft_model is not None and name != UNTUNED:
            peft_model.active_adapter = name

    return switch


def use_adapter(model: nn.Module, name: str) -> None:
    """Switch one adapter on, by name, or all off (`UNTUNED`)."""
    adapter_switch(model)(name)
